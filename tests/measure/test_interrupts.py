"""Ctrl-C at any moment: nothing is lost, and it is not swallowed."""

import contextlib
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import chainrule
from chainrule.errors import InspectionError
from chainrule.measure import preservation, sharing
from chainrule.measure.interrupts import HoldInterrupts
from checkpoints import HandCheckpoint
from traces import describe_process, unchanged


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


class Changing(nn.Module):
    """Changes its buffers, attributes and mode when it runs."""

    def __init__(self) -> None:
        super().__init__()
        self.lin = nn.Linear(3, 3)
        self.register_buffer("seen", torch.zeros(2))
        self.kept: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        self.seen.resize_(5).fill_(1.0)
        self.kept.append(x)
        self.training = not self.training
        return checkpoint(self.lin, x, use_reentrant=True)


def build() -> tuple[nn.Module, Callable[[nn.Module], Tensor]]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), Changing())
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    x = torch.randn(4, 3)
    return model, lambda m: m(x).square().sum()


@contextlib.contextmanager
def interrupted_at(number: int) -> Iterator[list[int]]:
    """Press Ctrl-C before the instruction of that number that `chainrule.measure` executes.

    Yields a list; its only entry is how many were counted.
    """
    count = [0]

    def watch(frame: FrameType, event: str, _: object) -> object:
        if event == "call":
            name = frame.f_code.co_filename
            if "chainrule/measure" not in name and not name.endswith("contextlib.py"):
                return None
            frame.f_trace_opcodes = True
            frame.f_trace_lines = False
        elif event == "opcode":
            count[0] += 1
            if count[0] == number:
                interrupt()
        return watch

    before = sys.gettrace()
    sys.settrace(watch)
    try:
        yield count
    finally:
        sys.settrace(before)


def count_instructions() -> int:
    model, compute_loss = build()
    chainrule.inspect(model, compute_loss)
    with interrupted_at(0) as count:
        chainrule.inspect(model, compute_loss)
    return count[0]


@pytest.mark.parametrize("part", range(8))
def test_an_interrupt_at_any_instruction_loses_nothing(part: int) -> None:
    """A sample of all instructions, spread over the eight parts."""
    total = count_instructions()
    step = max(1, total // 320)
    model, compute_loss = build()
    raised = 0
    for number in range(1 + part * step, total, 8 * step):
        with unchanged(model):
            try:
                with interrupted_at(number):
                    chainrule.inspect(model, compute_loss)
            except (KeyboardInterrupt, InspectionError):
                raised += 1
        assert sharing._SHARED.settings == {}
        assert sharing._SHARED.draws == []
        assert sharing._SHARED.claims == {}
        assert sharing._SHARED.guarded == {}
    assert raised > 30


def test_an_interrupt_in_the_loss_is_raised_at_once() -> None:
    model, compute_loss = build()
    after = []

    def stop(m: nn.Module) -> Tensor:
        loss = compute_loss(m)
        interrupt()
        after.append(loss)
        return loss

    with unchanged(model), pytest.raises(KeyboardInterrupt):
        chainrule.inspect(model, stop)
    assert not after


STEPS = [name for name in vars(preservation._Snapshot) if name.startswith("_put_")]


@pytest.mark.parametrize("name", STEPS)
@pytest.mark.parametrize("how", ["signal", "exception"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_an_interrupt_while_things_are_put_back(
    name: str, how: str, when: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a signal, or by an exception from elsewhere, as libraries raise it in other threads."""
    model, compute_loss = build()
    put_back = getattr(preservation._Snapshot, name)
    pressed = []

    def press() -> None:
        if not pressed:
            pressed.append(name)
            if how == "signal":
                interrupt()
            else:
                raise KeyboardInterrupt

    def run(self: object, failures: dict) -> None:
        if when == "before":
            press()
        put_back(self, failures)
        if when == "after":
            press()

    monkeypatch.setattr(preservation._Snapshot, name, run)
    with unchanged(model), pytest.raises(KeyboardInterrupt):
        chainrule.inspect(model, compute_loss)
    assert pressed


def test_two_interrupts_lose_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second while the first one's consequences are put back."""
    model, compute_loss = build()
    put_back = preservation._Snapshot._put_buffers_back

    def run(self: object, failures: dict) -> None:
        interrupt()
        put_back(self, failures)

    monkeypatch.setattr(preservation._Snapshot, "_put_buffers_back", run)

    def stop(m: nn.Module) -> Tensor:
        interrupt()
        return compute_loss(m)

    with unchanged(model), pytest.raises(KeyboardInterrupt):
        chainrule.inspect(model, stop)


def test_handlers_that_do_not_raise_are_called_once_each() -> None:
    got = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: got.append(number))
    try:
        with HoldInterrupts() as interrupts:
            signal.raise_signal(signal.SIGTERM)
            assert got == []
            with interrupts.let_through():
                assert got == [signal.SIGTERM]
                signal.raise_signal(signal.SIGTERM)
                signal.raise_signal(signal.SIGTERM)
                assert len(got) == 3
            signal.raise_signal(signal.SIGTERM)
            assert len(got) == 3
        assert len(got) == 4
    finally:
        signal.signal(signal.SIGTERM, before)


def test_handlers_set_inside_stay() -> None:
    def mine(number: int, frame: object) -> None: ...

    before = signal.getsignal(signal.SIGINT)
    try:
        with HoldInterrupts():
            signal.signal(signal.SIGINT, mine)
        assert signal.getsignal(signal.SIGINT) is mine
    finally:
        signal.signal(signal.SIGINT, before)


def test_handlers_are_left_alone_in_other_threads() -> None:
    found = []

    def run() -> None:
        with HoldInterrupts() as interrupts, interrupts.let_through():
            found.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert found == [before]


def test_nested_holds_hand_an_interrupt_outward() -> None:
    reached = []

    def run() -> None:
        with HoldInterrupts() as outer, outer.let_through():
            with HoldInterrupts():
                interrupt()
                reached.append("inner")
            reached.append("outer")

    with pytest.raises(KeyboardInterrupt):
        run()
    assert reached == ["inner"]


# --- Steps that fail -----------------------------------------------------------------------------


def test_every_step_runs_though_others_fail() -> None:
    done = []

    def fail() -> None:
        done.append("fail")
        raise ValueError("no")

    failures = sharing.run_all([lambda: done.append(1), fail, lambda: done.append(2)])
    assert done == [1, "fail", 2]
    assert [str(each) for each in failures] == ["no"]
    with pytest.raises(ValueError, match="no"):
        sharing.finish_all([fail, lambda: done.append(3)])
    assert done[-1] == 3


class Stubborn(nn.Module):
    """Leaves its mode when it runs, and refuses to be given it back."""

    ran = False

    @property
    def training(self) -> bool:
        return not self.ran

    @training.setter
    def training(self, value: bool) -> None:
        if self.ran:
            raise TypeError("stays in this mode")

    def forward(self, x: Tensor) -> Tensor:
        type(self).ran = True
        return x * 2


@pytest.mark.parametrize("fails", [False, True])
def test_what_cannot_be_put_back_is_named_and_all_else_is(fails: bool) -> None:
    model, compute_loss = build()
    model.add_module("odd", Stubborn())
    Stubborn.ran = False
    before = {name: value.clone() for name, value in model.state_dict().items()}
    gradients = [parameter.grad for parameter in model.parameters()]
    process = describe_process()

    def run(m: nn.Module) -> object:
        loss = compute_loss(m)
        return loss.item() if fails else loss

    with pytest.raises(InspectionError, match=r"'odd'.*TypeError: stays in this mode") as caught:
        chainrule.inspect(model, run)
    Stubborn.ran = False
    assert isinstance(caught.value.__cause__, TypeError)
    assert describe_process() == process
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    assert all(p.grad is g for p, g in zip(model.parameters(), gradients, strict=True))
    assert all(module.training for module in model.modules())
    assert model[3].kept == []


# --- Buffers that change their shape -------------------------------------------------------------


class Resizing(nn.Module):
    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.change = change
        self.register_buffer("low", torch.tensor([1.0, 2.0, 3.0]))
        self.view = self.low[1:]

    def forward(self, x: Tensor) -> Tensor:
        self.change(self.low)
        return x + self.low.sum()


def give_other_memory(buffer: Tensor) -> None:
    buffer.data = torch.zeros(7)


def give_other_precision(buffer: Tensor) -> None:
    buffer.data = buffer.data.double()


def release_memory(buffer: Tensor) -> None:
    buffer.resize_(0)
    buffer.untyped_storage().resize_(0)


@pytest.mark.parametrize(
    "change",
    [
        lambda buffer: buffer.resize_(100).fill_(4.0),
        lambda buffer: buffer.resize_(0),
        lambda buffer: buffer.resize_(()).fill_(9.0),
        lambda buffer: buffer.resize_(3, 1),
        lambda buffer: buffer.t_() if buffer.dim() > 1 else buffer.unsqueeze_(0),
        give_other_memory,
        give_other_precision,
        release_memory,
    ],
)
def test_buffers_get_back_shape_memory_and_values(change: Callable[[Tensor], object]) -> None:
    model = nn.Sequential(nn.Linear(3, 3), Resizing(change))
    model[0].weight.grad = torch.ones(3, 3)
    address = model[1].low.untyped_storage()._cdata
    with unchanged(model):
        chainrule.inspect(model, lambda m: m(torch.ones(2, 3)).sum())
    assert model[1].low.untyped_storage()._cdata == address
    assert model[1].low.dtype == torch.float32
    model[1].low[1] = 8.0
    assert model[1].view[0] == 8.0  # still the same memory


class Checkpointing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.body = nn.Sequential(nn.Linear(4, 4), nn.Tanh())
        self.last = nn.Linear(4, 1)
        self.unused = nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(HandCheckpoint.apply(self.body, self.first(x)))


def test_gradients_that_a_function_accumulates_itself_are_measured() -> None:
    model, x = Checkpointing().double(), torch.randn(5, 4, dtype=torch.float64)
    with unchanged(model):
        flow = chainrule.inspect(model, lambda m: m(x).square().sum())
    found = {parameter.name: parameter.grad_norm for parameter in flow.parameters}
    model.last(model.body(model.first(x))).square().sum().backward()
    for name, parameter in model.named_parameters():
        if name.startswith("unused"):
            assert found[name] is None
        else:
            assert found[name] == pytest.approx(parameter.grad.norm().item(), rel=1e-12)
