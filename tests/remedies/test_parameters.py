"""Remedies for models whose parameters are shared, frozen, complex, half precise or have no values;
and that a remedy that fails leaves a model as it was."""

import copy
import math
import weakref
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
from chainrule import Verdict
from chainrule.errors import InspectionError, RemedyError
from chainrule.measure.copying import find_shared_memory
from chainrule.remedies.edits import Edit, apply_edits, apply_or_undo
from chainrule.remedies.model_changes import list_biases, list_model_changes, list_weights
from chainrule.remedies.result import compare_flows
from sick_models import VARIANTS, plain
from traces import unchanged


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def sick(depth=12):
    torch.manual_seed(2)
    return plain(depth, nn.ReLU)


@pytest.fixture(scope="module")
def remedy():
    return chainrule.find_remedies(*sick(), enough=1)[0]


# --- Shared --------------------------------------------------------------------------------------


def share_memory():
    """Two parameters of one size that `.data` puts into the same memory."""
    model, compute_loss = sick()
    model[2].weight.data = model[0].weight.data
    return model, compute_loss


def test_two_parameters_in_one_memory_are_named_and_nothing_is_tried():
    model, compute_loss = share_memory()
    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss)
    assert not found.tried
    assert "'0.weight'" in found.note
    assert "'2.weight'" in found.note
    assert "memory" in found.note
    assert found.advice


def test_a_remedy_is_refused_where_two_parameters_share_memory(remedy):
    model, _ = share_memory()
    with unchanged(model), pytest.raises(RemedyError, match=r"'0\.weight' and '2\.weight' share"):
        chainrule.apply_remedy(remedy, model)


def test_what_counts_as_shared_memory():
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight = tied[0].weight
    assert find_shared_memory(tied) is None  # one parameter with two names
    parts = nn.Module()
    flat = torch.zeros(10)
    parts.first, parts.second = nn.Parameter(flat[:4]), nn.Parameter(flat[4:])
    assert find_shared_memory(parts) is None  # side by side, as cuDNN keeps recurrent weights
    parts.second = nn.Parameter(flat[3:])
    assert find_shared_memory(parts) == ("first", "second")
    grid = torch.zeros(4, 4)
    columns = nn.ParameterList([nn.Parameter(grid[:, 0]), nn.Parameter(grid[:, 1])])
    assert find_shared_memory(columns) is None
    assert find_shared_memory(nn.Linear(3, 3, device="meta")) is None


def hold(*tensors):
    return nn.ParameterList([nn.Parameter(tensor, requires_grad=False) for tensor in tensors])


def test_an_overlap_is_found_beside_what_takes_turns():
    grid = torch.zeros(8, 8)
    flat = grid.view(-1)
    turns = (grid[:4, 1], grid[:4, 2])
    assert find_shared_memory(hold(*turns)) is None
    assert find_shared_memory(hold(flat[:10], grid[4:, 3])) is None
    # Entries 0 and 8 are taken by the first; what follows begins between them.
    assert find_shared_memory(hold(grid[:2, 0], grid[:4, 1], flat[8:10])) == ("0", "2")
    assert find_shared_memory(hold(grid[:5, 0], flat[1:3], flat[8:10])) == ("0", "2")
    assert find_shared_memory(hold(flat[:24], *turns)) == ("0", "1")
    assert find_shared_memory(hold(grid[:, :2], grid[:, 2:4], grid[:, 3:])) == ("1", "2")
    assert find_shared_memory(hold(grid[:, 3:], grid[:, :2], grid[:, 2:4])) == ("2", "0")


def test_a_transposed_view_shares_memory():
    """As decoders are often tied to encoders: a copy would have two matrices."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Linear(6, 4))
    model[1].weight = nn.Parameter(model[0].weight.detach().t())
    assert find_shared_memory(model) == ("0.weight", "1.weight")
    trial = chainrule.try_training(model, lambda m: m(torch.ones(2, 4)).sum())
    assert "share memory" in trial.skipped


def test_memory_is_compared_in_bytes():
    numbers = torch.zeros(8)
    halves = numbers.view(torch.float16)
    assert find_shared_memory(hold(numbers[:4], halves[8:])) is None
    assert find_shared_memory(hold(numbers[:4], halves[7:])) == ("0", "1")
    pairs = torch.zeros(4, dtype=torch.complex64)
    real, imaginary = torch.view_as_real(pairs).unbind(-1)
    assert find_shared_memory(hold(real, imaginary)) is None
    assert find_shared_memory(hold(real, imaginary, pairs[3:])) == ("0", "2")
    assert find_shared_memory(hold(numbers, numbers[2:2], numbers[8:])) is None
    buffer = bytearray(16)
    ends = torch.frombuffer(buffer, dtype=torch.float32)[::3]  # bytes 0 to 3 and 12 to 15
    for at, clash in ((4, None), (6, None), (8, None), (10, ("0", "1"))):
        between = torch.frombuffer(buffer, dtype=torch.float32, count=1, offset=at)
        assert find_shared_memory(hold(ends, between)) == clash


def test_tied_embeddings_stay_one_parameter():
    """The head of a language model is its embedding: one edit at most, and still one tensor."""
    model, compute_loss = VARIANTS["gpt2 ×20"]()
    for each in chainrule.find_remedies(model, compute_loss, measurements=6):
        changed = copy.deepcopy(model)
        names = [edit.parameter for edit in each.edits]
        assert len(set(names) & {"transformer.wte.weight", "lm_head.weight"}) <= 1
        chainrule.apply_remedy(each, changed)
        assert changed.lm_head.weight is changed.transformer.wte.weight


# --- Frozen --------------------------------------------------------------------------------------


def test_frozen_weights_and_biases_are_never_edited():
    model, compute_loss = sick()
    model[0].bias.requires_grad_(False)
    model[4].weight.requires_grad_(False)
    frozen = {name for name, p in model.named_parameters() if not p.requires_grad}
    found = chainrule.find_remedies(model, compute_loss, enough=9)
    edited = {edit.parameter for each in found.tried for edit in each.edits}
    assert edited
    assert frozen == {"0.bias", "4.weight"}
    assert not edited & frozen
    flow = found.before
    weights = list_weights(model, flow)
    assert "0.weight" in {weight.name for weight in weights}
    assert "0.bias" not in {edit.parameter for edit in list_biases(model, flow, weights)}


def test_frozen_gates_are_never_edited():
    model, compute_loss = VARIANTS["lstm, 60 steps"]()
    gates = "Gates that remember"

    def list_titles():
        flow = chainrule.inspect(model, compute_loss)
        changes = list_model_changes(model, flow, chainrule.diagnose(flow))
        return {change.title: change for change in changes}

    every = {edit.parameter for edit in list_titles()[gates].edits}
    model.rnn.bias_hh_l0.requires_grad_(False)
    some = {edit.parameter for edit in list_titles()[gates].edits}
    assert every - some == {"rnn.bias_hh_l0"}
    model.rnn.requires_grad_(False)
    assert gates not in list_titles()


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU])
def test_gates_remember_for_as_many_steps_as_there_are(kind, batch_first):
    """The forget gate of an LSTM and the update gate of a GRU are the second of the stacked."""
    examples, steps, size = 3, 7, 5
    rnn = kind(4, size, batch_first=batch_first)
    shape = (examples, steps, 4) if batch_first else (steps, examples, 4)
    inputs = torch.randn(*shape)

    def compute_loss(m):
        return m(inputs)[0].square().mean()

    flow = chainrule.inspect(rnn, compute_loss)
    changes = list_model_changes(rnn, flow, chainrule.diagnose(flow))
    (change,) = (each for each in changes if each.title == "Gates that remember")
    before = rnn.bias_hh_l0.detach().clone()
    apply_edits(rnn, change.edits)
    gate = slice(size, 2 * size)
    assert rnn.bias_hh_l0[gate].tolist() == pytest.approx([math.log(steps)] * size)
    assert rnn.bias_ih_l0[gate].tolist() == [0.0] * size
    if kind is nn.LSTM:  # its input gate closes as far as the other opens
        assert rnn.bias_hh_l0[:size].tolist() == pytest.approx([-math.log(steps)] * size)
        assert rnn.bias_ih_l0[:size].tolist() == [0.0] * size
    else:
        assert rnn.bias_hh_l0[:size].equal(before[:size])
    assert rnn.bias_hh_l0[2 * size :].equal(before[2 * size :])


def test_what_was_frozen_since_is_refused(remedy):
    model, _ = sick()
    model[2].requires_grad_(False)
    with unchanged(model), pytest.raises(RemedyError, match=r"'2\.weight' is frozen"):
        chainrule.apply_remedy(remedy, model)


# --- Complex -------------------------------------------------------------------------------------


class Complex(nn.Module):
    def __init__(self, dtype=torch.complex64):
        super().__init__()
        self.first = nn.Linear(6, 6, dtype=torch.complex64)
        self.last = nn.Linear(6, 2, dtype=dtype)
        with torch.no_grad():
            self.first.weight.mul_(1e-6)
            self.last.weight.mul_(1e-6)

    def forward(self, x):
        hidden = self.first(x)
        return self.last(hidden if self.last.weight.is_complex() else hidden.real)


def complex_case(dtype=torch.complex64):
    model, x = Complex(dtype), torch.randn(8, 6, dtype=torch.complex64)
    return model, lambda m: (m(x) - 1).abs().square().mean()


def test_complex_weights_are_given_as_the_reason():
    model, compute_loss = complex_case()
    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss)
    assert found.diagnosis.verdict is not Verdict.HEALTHY
    assert not found.tried
    assert "complex" in found.note
    assert "'first.weight'" in found.note


def test_real_weights_beside_complex_ones_are_changed():
    model, compute_loss = complex_case(torch.float32)
    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss)
    assert found.tried
    assert {edit.parameter for each in found.tried for edit in each.edits} == {
        "last.weight",
        "last.bias",
    }


def test_a_drawing_is_refused_for_a_complex_weight():
    model = nn.Linear(3, 3, dtype=torch.complex64)
    edit = Edit(parameter="weight", shape=(3, 3), action="normal", value=1.0)
    with unchanged(model), pytest.raises(RemedyError, match="'weight' is complex"):
        apply_edits(model, [edit])


# --- Half precision ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_cured_and_kept(dtype):
    torch.manual_seed(2)
    parts = (part for _ in range(8) for part in (nn.Linear(16, 16), nn.ReLU()))
    model, x = nn.Sequential(*parts).to(dtype), torch.randn(32, 16, dtype=dtype)
    labels = torch.randint(0, 16, (32,))

    def compute_loss(m):
        return F.cross_entropy(m(x), labels)

    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss)
    assert found[0].is_good
    flow = chainrule.apply_remedy(found[0], model, compute_loss)
    assert flow.to_json() == found[0].after.to_json()
    assert {parameter.dtype for parameter in model.parameters()} == {dtype}


# --- Without values ------------------------------------------------------------------------------


def test_models_without_values_are_refused(remedy):
    model = copy.deepcopy(sick()[0]).to("meta")
    with pytest.raises(RemedyError, match=r"'0\.weight' has no values .*meta"):
        chainrule.apply_remedy(remedy, model)
    lazy = nn.Sequential(nn.LazyLinear(32), *sick()[0][1:])
    with pytest.raises(RemedyError, match=r"'0\.weight' has no shape yet"):
        chainrule.apply_remedy(remedy, lazy)
    larger, _ = sick()
    larger.head = nn.LazyLinear(3)
    with pytest.raises(RemedyError, match=r"differ in 'head\.weight'"):
        chainrule.apply_remedy(remedy, larger)
    with pytest.raises(InspectionError, match="still lazy"):
        chainrule.find_remedies(lazy, lambda m: m(torch.randn(2, 32)).sum())


# --- A remedy that fails -------------------------------------------------------------------------


def test_a_parameter_that_cannot_be_written(remedy):
    """Some parameters come before it; they get their values back."""
    model, _ = sick()
    model[6].weight = nn.Parameter(torch.randn(1, 32).expand(32, 32))
    with unchanged(model), pytest.raises(RemedyError, match=r"changing '6\.weight' raised Runtime"):
        chainrule.apply_remedy(remedy, model)


@pytest.mark.parametrize("error", [ValueError("no data"), KeyboardInterrupt()])
def test_a_loss_that_raises_on_the_changed_model(remedy, error):
    model, _ = sick()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def fail(m):
        raise error

    raised = KeyboardInterrupt if isinstance(error, KeyboardInterrupt) else InspectionError
    with unchanged(model), pytest.raises(raised):
        chainrule.apply_remedy(remedy, model, fail)
    held = [p for group in optimizer.param_groups for p in group["params"]]
    assert all(a is b for a, b in zip(held, model.parameters(), strict=True))


def test_applying_works_without_gradients_and_in_inference_mode(remedy):
    for mode in (torch.no_grad, torch.inference_mode):
        model, compute_loss = sick()
        with mode():
            flow = chainrule.apply_remedy(remedy, model, compute_loss)
        assert flow.to_json() == remedy.after.to_json()


def test_a_change_that_cannot_be_made_on_a_copy_is_counted():
    """Such a copy is one that a class makes itself."""

    class Expanding(nn.Linear):
        def __deepcopy__(self, memo):
            copied = Expanding(32, 32)
            copied.weight = nn.Parameter(self.weight[:1].detach().expand(32, 32))
            return copied

    model, compute_loss = sick()
    model[0] = Expanding(32, 32)
    with unchanged(model):
        found = chainrule.find_remedies(model, compute_loss)
    assert "could not be measured" in found.note
    assert "RuntimeError" in found.note


def test_a_loss_that_is_no_function(remedy):
    model, _ = sick()
    with unchanged(model), pytest.raises(InspectionError, match=r"compute_loss .*got int"):
        chainrule.apply_remedy(remedy, model, 3)


def test_values_that_are_not_numbers_come_back_too():
    model = nn.Linear(2, 2)
    with torch.no_grad():
        model.weight[0, 0] = torch.nan
    before = copy.deepcopy(model.state_dict())
    edit = Edit(parameter="weight", shape=(2, 2), action="fill", value=3.0)
    inside = []

    def use():
        with apply_or_undo(model, [edit]):
            inside.append(model.weight.detach().clone())
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        use()
    assert (inside[0] == 3.0).all()
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(tensor, before[name], rtol=0, atol=0, equal_nan=True)


def test_a_comparison_without_edits_cannot_be_applied(remedy):
    model, _ = sick()
    by_hand = compare_flows(
        remedy.before, remedy.after, title="", reason="", kinds=("initialization",)
    )
    with unchanged(model), pytest.raises(RemedyError, match="no edits"):
        chainrule.apply_remedy(by_hand, model)
    with unchanged(model), pytest.raises(RemedyError, match="no edits"):
        chainrule.apply_remedy(replace(remedy, edits=()), model)


def test_healthy_flows_have_nothing_to_compare(remedy):
    with pytest.raises(RemedyError, match=r"before must be .* not healthy"):
        compare_flows(remedy.after, remedy.before, title="", reason="", kinds=())


@pytest.mark.parametrize(
    ("fields", "facts"),
    [
        ({"action": "norm"}, ["action", "'norm'", "'normal'"]),
        ({"action": "shift", "values": (1.0, 2.0)}, ["values", "3", "got 2"]),
        ({"action": "fill", "rows": (1, 4)}, ["rows", "3", "(1, 4)"]),
        ({"action": "orthogonal", "blocks": 2}, ["blocks", "3", "got 2"]),
        ({"action": "orthogonal", "shape": ()}, ["blocks", "0"]),
    ],
)
def test_edits_that_fit_no_parameter(fields, facts):
    with pytest.raises(RemedyError) as caught:
        Edit(**{"parameter": "weight", "shape": (3, 2), **fields})
    assert all(fact in str(caught.value) for fact in facts)


def test_copies_that_could_not_be_measured_are_released():
    """One copy is there at a time, also where the loss raises on all of them."""
    copies, others, calls = [], [], []
    model, compute_loss = sick()

    def count(m):
        others.append(sum(copied() is not None and copied() is not m for copied in copies))
        if m is not model:
            copies.append(weakref.ref(m))
        if len(calls) > 2:
            raise ValueError("no more data")
        calls.append(1)
        return compute_loss(m)

    found = chainrule.find_remedies(model, count)
    assert "ValueError: no more data" in found.note
    assert len(copies) > 5
    assert max(others) == 0
