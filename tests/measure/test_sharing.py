"""Inspecting in several threads, and inside of each other: settings, random states, models."""

import contextlib
import copy
import random
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import chainrule
from chainrule.errors import InspectionError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.measure import sharing
from traces import describe_process, unchanged
from zoo import ZOO, draw

WAIT = 600.0
"""Seconds after which a test gives up; no test waits for time to pass."""


@pytest.fixture(autouse=True)
def _nothing_is_left() -> Iterator[None]:
    torch.manual_seed(0)
    before = describe_process()
    yield
    assert {**describe_process(), **RANDOM} == {**before, **RANDOM}
    assert sharing._SHARED.settings == {}
    assert sharing._SHARED.draws == []
    assert sharing._SHARED.first_states == {}
    assert sharing._SHARED.claims == {}
    assert sharing._SHARED.guarded == {}


RANDOM = dict.fromkeys(("torch", "random", "numpy"))


def run_in_threads(*works: Callable[[], object]) -> list[object]:
    """Return what each returns or raises, run in a thread each, all at the same time."""
    found: list[object] = [None] * len(works)

    def run(at: int) -> None:
        try:
            found[at] = works[at]()
        except Exception as error:
            found[at] = error

    threads = [threading.Thread(target=run, args=(at,)) for at in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
        assert not thread.is_alive()
    return found


def mlp(seed: int) -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1)).double()
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    x = torch.randn(6, 4, dtype=torch.float64)
    return model, lambda m: m(x).square().sum()


def read(flow: object) -> list[float]:
    assert isinstance(flow, GradientFlow), flow
    return [float(parameter.grad_norm) for parameter in flow.parameters]


def differentiate(model: nn.Module, compute_loss: Callable) -> list[float]:
    gradients = torch.autograd.grad(compute_loss(model), list(model.parameters()))
    return [gradient.norm().item() for gradient in gradients]


# --- Threads -------------------------------------------------------------------------------------


def test_two_threads_measure_models_of_their_own_at_the_same_time() -> None:
    """They meet in every forward pass, so that each call begins or ends within another one."""
    rounds = 200
    meet = threading.Barrier(2, timeout=WAIT)
    cases = [mlp(seed) for seed in (1, 2)]
    expected = [differentiate(*copy.deepcopy(case)) for case in cases]
    states = [copy.deepcopy(model.state_dict()) for model, _ in cases]

    def work(model: nn.Module, compute_loss: Callable) -> list[list[float]]:
        def meeting(m: nn.Module) -> Tensor:
            meet.wait()
            assert not torch.backends.mha.get_fastpath_enabled()
            return compute_loss(m)

        return [read(chainrule.inspect(model, meeting)) for _ in range(rounds)]

    found = run_in_threads(*(lambda case=case: work(*case) for case in cases))
    for numbers, wanted in zip(found, expected, strict=True):
        assert len(numbers) == rounds, numbers
        for each in numbers:
            assert each == pytest.approx(wanted, rel=1e-12)
    for (model, _), state in zip(cases, states, strict=True):
        for name, value in model.state_dict().items():
            assert torch.equal(value, state[name])
        assert not any(module._forward_hooks for module in model.modules())
        assert not any(module._forward_pre_hooks for module in model.modules())
        assert all((parameter.grad == 2.0).all() for parameter in model.parameters())


def test_two_threads_on_one_model_measure_it_or_say_that_it_is_taken() -> None:
    model, compute_loss = mlp(3)
    wanted = differentiate(*copy.deepcopy((model, compute_loss)))

    def work() -> list[object]:
        found = []
        for _ in range(200):
            try:
                found.append(read(chainrule.inspect(model, compute_loss)))
            except InspectionError as error:
                found.append(str(error))
        return found

    with unchanged(model):
        found = [each for numbers in run_in_threads(work, work) for each in numbers]
    assert len(found) == 400
    for each in found:
        if isinstance(each, str):
            assert "another thread" in each
        else:
            assert each == pytest.approx(wanted, rel=1e-12)


SHARED = nn.Linear(4, 4)


@pytest.mark.parametrize(
    ("one", "other", "name"),
    [
        (SHARED, SHARED, None),
        (nn.Sequential(SHARED, nn.Tanh()), nn.Sequential(nn.ReLU(), SHARED), "1"),
        (nn.Sequential(SHARED), SHARED, None),
    ],
)
def test_what_another_thread_inspects_is_taken(
    one: nn.Module, other: nn.Module, name: str | None
) -> None:
    begun, done = threading.Event(), threading.Event()
    x = torch.ones(2, 4)

    def slow(m: nn.Module) -> Tensor:
        begun.set()
        assert done.wait(WAIT)
        return m(x).sum()

    def second() -> str:
        assert begun.wait(WAIT)
        try:
            with pytest.raises(InspectionError, match="another thread") as caught:
                chainrule.inspect(other, lambda m: m(x).sum())
            return str(caught.value)
        finally:
            done.set()

    flow, message = run_in_threads(lambda: chainrule.inspect(one, slow), second)
    assert isinstance(flow, GradientFlow)
    assert "deepcopy" in message
    assert name is None or repr(name) in message
    chainrule.inspect(other, lambda m: m(x).sum())  # free again


def test_shared_parameters_and_buffers_are_taken() -> None:
    one, other, third = nn.Linear(4, 4), nn.Linear(4, 4), nn.BatchNorm1d(4)
    other.weight = one.weight
    one.register_buffer("seen", third.running_mean)
    x = torch.ones(2, 4)
    for taken, name in ((other, "'weight'"), (third, "")):

        def compute_loss(m: nn.Module, taken: nn.Module = taken, name: str = name) -> Tensor:
            with pytest.raises(InspectionError, match="around this call") as caught:
                chainrule.inspect(taken, lambda m: m(x).sum())
            assert name in str(caught.value)
            return m(x).sum()

        chainrule.inspect(one, compute_loss)


@pytest.mark.parametrize("first_leaves_first", [False, True])
def test_the_last_that_leaves_puts_the_settings_back(first_leaves_first: bool) -> None:
    """However two inspections overlap, fused attention and the compiler are as before."""
    begun = [threading.Event(), threading.Event()]
    left = threading.Event()

    def work(at: int, leaves_first: bool) -> bool:
        def compute_loss(m: nn.Module) -> Tensor:
            begun[at].set()
            assert begun[1 - at].wait(WAIT)
            if not leaves_first:
                assert left.wait(WAIT)
                assert not torch.backends.mha.get_fastpath_enabled()
            return m(torch.ones(1, 2)).sum()

        if at == 1:
            assert begun[0].wait(WAIT)
        chainrule.inspect(nn.Linear(2, 1), compute_loss)
        if leaves_first:
            on = torch.backends.mha.get_fastpath_enabled()
            left.set()
            return on
        return torch.backends.mha.get_fastpath_enabled()

    found = run_in_threads(
        lambda: work(0, first_leaves_first), lambda: work(1, not first_leaves_first)
    )
    assert found == ([False, True] if first_leaves_first else [True, False])


@pytest.mark.parametrize("first_leaves_first", [False, True])
def test_the_last_that_leaves_puts_back_the_random_states_the_first_one_found(
    first_leaves_first: bool,
) -> None:
    models = [nn.Linear(2, 1), nn.Linear(2, 1)]
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    before = describe_process()
    begun = [threading.Event(), threading.Event()]
    left = threading.Event()

    def work(at: int, leaves_first: bool) -> None:
        def compute_loss(m: nn.Module) -> Tensor:
            torch.rand(3), random.random(), np.random.rand()
            begun[at].set()
            assert begun[1 - at].wait(WAIT)
            if not leaves_first:
                assert left.wait(WAIT)
            torch.rand(3), random.random(), np.random.rand()
            return m(torch.ones(1, 2)).sum()

        if at == 1:
            assert begun[0].wait(WAIT)
        chainrule.inspect(models[at], compute_loss)
        if leaves_first:
            left.set()

    run_in_threads(lambda: work(0, first_leaves_first), lambda: work(1, not first_leaves_first))
    assert describe_process() == before


def test_a_thread_that_ends_by_an_error_holds_nothing() -> None:
    model, compute_loss = mlp(4)

    def fail(m: nn.Module) -> Tensor:
        compute_loss(m)
        raise SystemExit

    with unchanged(model):
        (error,) = run_in_threads(lambda: chainrule.inspect(model, fail))
        assert isinstance(error, InspectionError)
        read(chainrule.inspect(model, compute_loss))


def test_optimizers_of_other_threads_may_step_meanwhile() -> None:
    begun, done = threading.Event(), threading.Event()
    other = nn.Linear(2, 1)
    optimizer = torch.optim.SGD(other.parameters(), lr=0.1)

    def slow(m: nn.Module) -> Tensor:
        begun.set()
        assert done.wait(WAIT)
        return m(torch.ones(1, 2)).sum()

    def train() -> None:
        assert begun.wait(WAIT)
        try:
            other(torch.ones(1, 2)).sum().backward()
            optimizer.step()
        finally:
            done.set()

    before = other.bias.item()
    flow, error = run_in_threads(lambda: chainrule.inspect(nn.Linear(2, 1), slow), train)
    assert isinstance(flow, GradientFlow)
    assert error is None
    assert other.bias.item() == pytest.approx(before - 0.1)


def test_a_forked_process_keeps_only_its_own_thread() -> None:
    shared = sharing._Shared()
    undone = []
    own, other = threading.get_ident(), -1
    shared.draws = [sharing._Draws(own, {}), sharing._Draws(other, {})]
    shared.claims = {1: sharing._Claim(own, True), 2: sharing._Claim(other, True)}
    shared.guarded = {"mine": (own, set()), "other": (other, set())}
    shared.settings = {"held": sharing._Setting(2, lambda: undone.append("held"))}
    shared.forget_other_threads()
    assert shared.settings["held"].holders == 1
    assert [each.thread for each in shared.draws] == [own]
    assert list(shared.claims) == [1]
    shared.guarded = {"other": (other, set())}
    shared.forget_other_threads()
    assert shared.settings == {}
    assert undone == ["held"]


# --- Inside of each other ------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["batch_norm", "dropout", "attention"])
def test_inspecting_another_model_inside_changes_neither(name: str) -> None:
    inner, inner_loss = ZOO[name]()
    outer, outer_loss = ZOO["transformer_layer"]()
    torch.manual_seed(1)
    alone = chainrule.inspect(inner, inner_loss)
    expected = chainrule.inspect(outer, outer_loss)
    found = []

    def compute_loss(m: nn.Module) -> Tensor:
        before = describe_process()
        with unchanged(inner):
            found.append(chainrule.inspect(inner, inner_loss))
        assert describe_process() == before
        return outer_loss(m)

    with unchanged(outer):
        flow = chainrule.inspect(outer, compute_loss)
    assert flow == expected
    assert found[0].parameters == alone.parameters


def test_inspecting_the_same_model_inside_is_an_error() -> None:
    model, compute_loss = mlp(6)
    with unchanged(model), pytest.raises(InspectionError, match="around this call"):
        chainrule.inspect(
            model, lambda m: compute_loss(m) * chainrule.inspect(m, compute_loss).loss
        )
    caught = []

    def persist(m: nn.Module) -> Tensor:
        with contextlib.suppress(InspectionError):
            chainrule.inspect(m, compute_loss)
        caught.append(m)
        return compute_loss(m)

    with unchanged(model):
        assert read(chainrule.inspect(model, persist)) == pytest.approx(
            differentiate(*copy.deepcopy((model, compute_loss))), rel=1e-12
        )
    assert caught


def test_random_states_of_nested_inspections() -> None:
    outer, inner, x = nn.Linear(2, 1), nn.Linear(2, 1), torch.ones(1, 2)
    draws = []

    def compute_loss(m: nn.Module) -> Tensor:
        draws.append(torch.rand(()).item())
        chainrule.inspect(inner, lambda m: m(x).sum() * torch.rand(()))
        draws.append(torch.rand(()).item())
        return m(x).sum()

    torch.manual_seed(0)
    expected = torch.rand(2).tolist()
    torch.manual_seed(0)
    chainrule.inspect(outer, compute_loss)
    assert draws == expected
    assert torch.rand(()).item() == expected[0]


def test_an_inner_inspection_takes_back_no_draws_of_another_thread() -> None:
    torch.manual_seed(0)
    before = describe_process()
    expected = torch.rand(2).tolist()
    torch.manual_seed(0)
    begun = [threading.Event(), threading.Event()]
    drawn, left, done = threading.Event(), threading.Event(), threading.Event()
    draws = []

    def nest() -> None:
        with sharing.preserve_random_state(()):
            begun[0].set()
            assert begun[1].wait(WAIT)
            with sharing.preserve_random_state(()):
                draws.append(torch.rand(()).item())
                drawn.set()
            left.set()
            assert done.wait(WAIT)

    def draw_again() -> None:
        assert begun[0].wait(WAIT)
        with sharing.preserve_random_state(()):
            begun[1].set()
            assert left.wait(WAIT)
            draws.append(torch.rand(()).item())
        done.set()

    run_in_threads(nest, draw_again)
    assert draws == expected
    assert describe_process() == before


def test_remedies_measure_copies_while_the_model_is_preserved() -> None:
    model, x = (
        nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.Sigmoid()) for _ in range(8))),
        draw(4, 8, dtype=torch.float32),
    )
    with unchanged(model):
        remedies = chainrule.find_remedies(model, lambda m: m(x).square().mean(), measurements=3)
    assert remedies.tried
