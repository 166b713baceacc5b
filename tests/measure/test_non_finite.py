"""`find_non_finite`: the operation, the place and the line, on models that fail in many ways."""

import inspect as sources
import json
import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import chainrule
import non_finite_zoo as zoo
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.viability.model import Outlook
from chainrule.errors import InspectionError, LossError
from chainrule.flow.loading import decode_flow
from chainrule.measure.non_finite import add_origin, find_non_finite
from traces import RAISING, unchanged
from zoo import ZOO


def _list_bad(model, compute_loss):
    """Return the loss and the parameters with a gradient that is not finite, by plain autograd."""
    model.zero_grad()
    loss = compute_loss(model)
    loss.backward()
    found = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    values = {n: g.coalesce().values() if g.is_sparse else g for n, g in found.items()}
    bad = {name for name, gradient in values.items() if not gradient.isfinite().all()}
    model.zero_grad()
    return loss.item(), bad


@pytest.mark.parametrize("name", zoo.FAULTS)
def test_what_makes_the_first_number_is_named_with_its_place_and_line(name):
    fault = zoo.FAULTS[name]
    model, compute_loss = fault.build()
    origin = find_non_finite(model, compute_loss)
    assert (origin.op, origin.direction, origin.module) == (fault.op, fault.direction, fault.module)
    assert origin.overflow is fault.overflow
    assert origin.source == "operation"
    lines, _ = sources.findsource(zoo)
    assert "# here" in lines[origin.line - 1]
    assert origin.code == lines[origin.line - 1].strip()
    assert origin.file == zoo.__file__
    loss, bad = _list_bad(model, compute_loss)
    assert not origin.is_harmless
    assert float(origin.loss) == pytest.approx(loss, nan_ok=True)
    assert origin.parameter_count == len(bad)
    assert set(origin.parameters) <= bad
    assert origin.elements
    assert not any(math.isfinite(each.value) for each in origin.elements)
    for words in (origin.op, origin.place, origin.position, origin.code):
        assert words in origin.sentence


@pytest.mark.parametrize("name", zoo.HARMLESS)
def test_numbers_that_reach_no_parameter_are_found_and_said_to_reach_none(name):
    fault = zoo.HARMLESS[name]
    model, compute_loss = fault.build()
    origin = find_non_finite(model, compute_loss)
    assert (origin.op, origin.direction) == (fault.op, fault.direction)
    assert origin.is_harmless
    assert _list_bad(model, compute_loss)[1] == set()


@pytest.mark.parametrize("name", zoo.SOUND)
def test_sound_models_have_none(name):
    model, compute_loss = zoo.SOUND[name]()
    assert find_non_finite(model, compute_loss) is None
    loss, bad = _list_bad(model, compute_loss)
    assert math.isfinite(loss)
    assert not bad


@pytest.mark.parametrize("name", [*zoo.FAULTS, "plain"])
def test_it_leaves_no_trace(name):
    build = zoo.FAULTS[name].build if name in zoo.FAULTS else zoo.SOUND[name]
    model, compute_loss = build()
    with unchanged(model):
        find_non_finite(model, compute_loss)


def test_values_that_went_in_are_those_of_the_forward_pass():
    model, compute_loss = zoo.acos_at_one()
    first = find_non_finite(model, compute_loss).elements[0]
    assert first.inputs == (1.0,)
    assert first.gradient == pytest.approx(1 / 6)
    model, compute_loss = zoo.power_of_negative()
    base, exponent = find_non_finite(model, compute_loss).elements[0].inputs
    assert base < 0
    assert exponent == 0.5


def _linear():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 1))


def test_an_input_that_is_undefined_is_the_origin():
    x = torch.randn(5, 4)
    x[3, 2] = torch.nan
    origin = find_non_finite(_linear(), lambda m: m(x).mean())
    assert (origin.source, origin.module, origin.count) == ("input", "0", 1)
    assert origin.elements[0].index == (3, 2)
    assert "input already holds" in origin.sentence


def test_a_parameter_that_is_undefined_is_named():
    model = _linear()
    with torch.no_grad():
        model[2].weight[0, 1] = torch.nan
    origin = find_non_finite(model, lambda m: m(torch.randn(5, 4)).mean())
    assert (origin.source, origin.op, origin.module) == ("parameter", "2.weight", "2")
    assert "'2.weight'" in origin.sentence


def test_a_buffer_that_is_undefined_is_named():
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)).eval()
    model[1].running_mean.fill_(torch.nan)
    origin = find_non_finite(model, lambda m: m(torch.randn(5, 4)).mean())
    assert (origin.source, origin.op) == ("buffer", "1.running_mean")


def test_a_mask_in_the_data_is_no_fault_but_infinity_in_the_data_is():
    mask = torch.full((4, 4), -torch.inf).triu(1)
    model = nn.Linear(4, 4)
    x = torch.randn(4, 4)
    assert find_non_finite(model, lambda m: (m(x) + mask).softmax(1).square().sum()) is None
    x[0, 0] = -torch.inf
    assert find_non_finite(model, lambda m: m(x).square().sum()).source == "input"


def test_recomputed_checkpoints_without_modules_keep_their_line():
    def compute_loss(m):
        def run(h):
            return torch.where(h > 9, 1 / (h - h.detach()), h)  # here

        return torch.utils.checkpoint.checkpoint(run, m(zoo.X), use_reentrant=False).mean()

    origin = find_non_finite(_linear(), compute_loss)
    assert (origin.op, origin.direction, origin.module) == ("division", "forward", None)
    assert "# here" in origin.code


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_of_two_faults_the_one_that_reaches_the_last_parameter_is_named(order):
    model = nn.ModuleDict({name: nn.Linear(4, 1) for name in "ab"})
    operations = {"a": torch.sqrt, "b": lambda zeros: torch.acos(1 + zeros)}

    def fail(name):
        y = model[name](zoo.X)
        return operations[name](y - y.detach()).sum()

    alone = find_non_finite(model, lambda m: fail("b"))
    origin = find_non_finite(model, lambda m: sum(map(fail, order)))
    assert origin.parameter_count == 4
    assert origin.op == alone.op != find_non_finite(model, lambda m: fail("a")).op


def test_gradients_in_half_precision_overflow_on_the_way_back():
    model = nn.Linear(4, 1).half()

    def compute_loss(m):
        return (m(torch.ones(2, 4).half()).float() * 1e6).sum()

    origin = find_non_finite(model, compute_loss)
    assert (origin.direction, origin.overflow, origin.dtype) == ("backward", True, "float16")


@pytest.mark.parametrize(
    ("compute", "overflow"),
    [
        (lambda y: y * 1e5, True),
        (lambda y: y.exp() * 0 + (12 * y).exp(), True),
        (lambda y: 1.0 / (y - y.detach()), False),  # infinite in float32, too
        (lambda y: (y - y.detach()).log(), False),
        (lambda y: (-y).log(), False),
    ],
)
def test_only_what_float32_can_hold_is_too_large_for_half_precision(compute, overflow):
    model = nn.Linear(4, 1).half()
    with torch.no_grad():
        model.weight.fill_(0.25)
        model.bias.zero_()
    origin = find_non_finite(model, lambda m: compute(m(torch.ones(2, 4).half())).float().sum())
    assert (origin.direction, origin.overflow, origin.dtype) == ("forward", overflow, "float16")


def test_errors_are_those_of_inspect():
    model = _linear()
    x = torch.ones(2, 4)
    with pytest.raises(InspectionError, match=r"torch\.nn\.Module"):
        find_non_finite("model", lambda m: m(x).sum())
    with pytest.raises(LossError, match="one number"):
        find_non_finite(model, lambda m: m(x))
    with pytest.raises(LossError, match="attached"):
        find_non_finite(model, lambda m: m(x).sum().detach())
    with pytest.raises(InspectionError, match="ZeroDivisionError"):
        find_non_finite(model, lambda m: m(x).sum() / (1 // 0))

    def run_backward(m):
        loss = m(x).square().sum()
        loss.backward()
        return loss

    with pytest.raises(LossError, match="already used"):
        find_non_finite(model, run_backward)


@pytest.mark.parametrize("name", ["acos_at_one", "masked_everywhere", "half_overflow"])
def test_verdict_and_file_carry_the_origin(name):
    model, compute_loss = zoo.FAULTS[name].build()
    flow = add_origin(chainrule.inspect(model, compute_loss), model, compute_loss)
    diagnosis = chainrule.diagnose(flow)
    assert diagnosis.verdict is Verdict.NON_FINITE
    for text in (diagnosis.findings[0].evidence, diagnosis.summary):
        assert flow.origin.op in text
        assert flow.origin.position in text
    assert flow.origin.position in diagnosis.action
    assert decode_flow(flow.to_json()) == flow
    document = json.loads(flow.to_json())
    document["origin"]["loss"] = [1.0, 2.0]
    with pytest.raises(chainrule.errors.FlowFileError, match=r"origin\.loss"):
        decode_flow(json.dumps(document))


def test_a_finite_flow_has_no_origin():
    model, compute_loss = zoo.SOUND["plain"]()
    flow = chainrule.inspect(model, compute_loss)
    assert add_origin(flow, model, compute_loss) is flow
    assert replace(flow).origin is None


class Spread(nn.Module):
    """A classifier with a penalty on features that vary too little; units that are off are zero.

    Args:
        stops: Whether a ReLU after them stops what comes back undefined.
    """

    def __init__(self, *, stops):
        super().__init__()
        torch.manual_seed(3)
        self.features = nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 16))
        self.off, self.head = nn.ReLU() if stops else nn.Identity(), nn.Linear(16, 3)
        with torch.no_grad():
            self.features[2].weight[:4] = 0.0
            self.features[2].bias[:4] = -5.0

    def forward(self, x):
        features = self.off(self.features(x))
        return features.var(0).sqrt(), self.head(features)


def _compute_spread_loss(m):
    x = torch.linspace(-2, 2, 240).reshape(60, 4).sin()
    spreads, outputs = m(x)
    targets = (torch.arange(60) // 20) % 3
    penalty = torch.relu(1 - spreads).mean()
    return nn.functional.cross_entropy(outputs, targets) + 0.1 * penalty


@pytest.mark.parametrize("stops", [True, False])
def test_whether_numbers_reach_a_parameter_decides_whether_it_trains(stops):
    model = Spread(stops=stops)
    flow = chainrule.inspect(model, _compute_spread_loss)
    with_origin = add_origin(flow, model, _compute_spread_loss)
    assert with_origin.origin.op == "square root"
    assert with_origin.origin.is_harmless is stops
    for each in (flow, with_origin):
        diagnosis = chainrule.diagnose(each)
        names = {note.name for note in diagnosis.notes}
        prospects = (diagnosis.viability.sgd, diagnosis.viability.adam)
        assert (diagnosis.verdict is Verdict.NON_FINITE) is not stops
        assert ("stopped_non_finite" in names) is stops
        for prospect in prospects:  # where nothing is wrong, such a model has a score alone
            assert prospect.word is (Outlook.UNKNOWN if stops else Outlook.NOT_VIABLE)
            assert (prospect.probability < 0.01) is not stops
    before = _compute_spread_loss(model).item()
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        loss = _compute_spread_loss(model)
        loss.backward()
        optimizer.step()
    assert (loss.item() < 0.5 * before) is stops


@pytest.mark.parametrize(
    ("owner", "name", "found"),
    [
        (torch._C, "_current_autograd_node", ("1 ÷ square root", None)),
        (torch.autograd, "_get_sequence_nr", ("acos", None)),
    ],
)
def test_without_private_names_of_torch_it_knows_less(owner, name, found, monkeypatch):
    monkeypatch.delattr(owner, name)
    model, compute_loss = zoo.acos_at_one()
    origin = find_non_finite(model, compute_loss)
    assert (origin.op, origin.module) == found
    assert origin.direction == "backward"
    assert origin.parameter_count == 4


@pytest.mark.parametrize("spoil", RAISING)
def test_it_leaves_no_trace_though_it_raises(spoil):
    model, compute_loss = ZOO["batch_norm_eval"]()
    spoiled = spoil(compute_loss)
    with unchanged(model), pytest.raises(InspectionError):
        find_non_finite(model, spoiled)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize("name", ZOO)
def test_any_model_gets_an_origin_exactly_if_autograd_is_not_finite(name):
    model, compute_loss = ZOO[name]()
    with unchanged(model):
        origin = find_non_finite(model, compute_loss)
    loss, bad = _list_bad(model, compute_loss)
    assert (origin is None) == (math.isfinite(loss) and not bad)


@pytest.mark.parametrize("masked_rows", [1, 3])
def test_what_was_masked_rightly_does_not_count_beside_what_is_undefined(masked_rows):
    torch.manual_seed(0)
    model, x = nn.Linear(4, 6), torch.randn(8, 4)
    mask = torch.zeros(8, 6)
    mask[:, 4:] = -torch.inf  # these may never be answered
    mask[:masked_rows] = -torch.inf

    def compute(m):
        target = torch.zeros(8, dtype=torch.long)
        target[:masked_rows] = -1
        return F.cross_entropy(m(x) + mask, target, ignore_index=-1)

    origin = find_non_finite(model, compute)
    assert origin.count == 6 * masked_rows
    assert f"{6 * masked_rows} of 48" in origin.cause
