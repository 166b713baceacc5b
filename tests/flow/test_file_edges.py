"""The edges of what a flow file may say: every position and count at its last value and beyond."""

import json

import pytest

from chainrule.errors import FlowFileError
from chainrule.flow.inputs import InputFlow
from chainrule.flow.loading import NEW_IN_3, Limits, decode_flow, load_flow
from chainrule.flow.loss import LossFlow, LossPart, LossTerm, TermGradient
from chainrule.flow.non_finite import NonFiniteOrigin
from chainrule.flow.optimizer import OptimizerFlow
from chainrule.flow.precision import PrecisionFlow
from chainrule.flow.quantity import Quantity
from chainrule.flow.slips import SlipFlow
from chainrule.flow.symmetry import SymmetryFlow
from chainrule.flow.time import TimeFlow
from made_flows import call, make_flow, parameter, residual


@pytest.fixture(scope="module")
def text():
    """A flow of 3 outputs and 2 parameters with one of every other part, as in its file."""
    linear = call("0", layer=1, parent=2, statistics={"units": 4, "dead_units": 0.0})
    layers = [linear, call("1", "ReLU", parent=2), call("", "Net", "other")]
    one, zero = Quantity([1.0]), Quantity([0.0])
    sizes = dict.fromkeys(("mean", "std", "min", "max"), one)
    none = dict.fromkeys(("non_finite", "constant_columns", "zero_columns", "repeated"), zero)
    rounded = dict.fromkeys(("zero_share", "subnormal_share", "size", "largest"), zero)
    gradients = tuple(TermGradient(parameter=at, norm=one, cosine=one) for at in range(2))
    flow = make_flow(
        layers,
        [parameter("0.weight", 1), parameter("0.bias", 1, shape=(4,))],
        residuals=(residual(branch=0, parameters=(0,)),),
        inputs=(
            InputFlow(
                **{"reader": "0", "shape": (3, 4), "dtype": "float32", "examples": 3},
                **{"columns": 4, "offset": one, "spread_ratio": one} | sizes | none,
            ),
        ),
        times=(
            TimeFlow(
                **{"name": "0", "kind": "RNN", "call": 0, "of": "input", "length": 5},
                **{"steps": (1, 3), "gradients": (one, one), "read": (one, one)},
            ),
        ),
        symmetries=(SymmetryFlow(parameter="0.weight", layer=1, units=4, copies=one, idle=zero),),
        precisions=(PrecisionFlow(name="0", of="output", dtype="float16", layer=0, **rounded),),
        loss_facts=LossFlow(
            parts=(LossPart(kind="mse"),),
            terms=(LossTerm(name="a", value=one, gradients=gradients),),
        ),
        optimizer=OptimizerFlow(name="SGD", steps="gradient", rates=(0.1, None)),
        slips=(SlipFlow(kind="flat", operation="sign", module="0", shape=(3, 4), result=(3, 4)),),
    )
    assert decode_flow(flow.to_json()) == flow
    return flow.to_json()


def change(text, path, value):
    """Return the JSON text with another value at a path."""
    document = json.loads(text)
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return json.dumps(document)


def histogram(low, high):
    return {"low": low, "high": high, "counts": [3], "sampled": 3}


@pytest.mark.parametrize(
    ("path", "last", "beyond"),
    [
        (("layers", 0, "parent"), 1, 0),
        (("layers", 0, "parent"), 2, 3),
        (("layers", 0, "layer"), 1, 2),
        (("layers", 0, "name"), "." * 100, "." * 101),
        (("layers", 0, "statistics", "dead_units"), 4, 5),
        (("layers", 0, "statistics", "min"), 2.0, 2.5),
        (("layers", 0, "statistics", "histogram"), histogram(1.0, 1.0), histogram(1.0, 0.5)),
        (("residuals", 0, "branch"), 2, 3),
        (("residuals", 0, "parameters"), [1], [2]),
        (("inputs", 0, "constant_columns"), 4, 5),
        (("inputs", 0, "zero_columns"), 4, 5),
        (("optimizer", "decays"), [0.1, None], [0.1]),
        (("optimizer", "planned"), [0.1, None], [0.1]),
        (("optimizer", "rounded"), [0.5, None], [0.5]),
        (("times", 0, "steps"), [1, 4], [1, 5]),
        (("times", 0, "steps"), [2, 3], [3, 3]),
        (("times", 0, "read"), [], [1.0]),
        (("times", 0, "chances"), [0.5, 0.5], [0.5]),
        (("times", 0, "gradients"), [2.0, 1.0], [1.0]),
        (("times", 0, "gradients"), [2.0, 1.0], [1.0, 1.0, 1.0]),
        (("symmetries", 0, "copies"), 3, 4),
        (("precisions", 0, "layer"), 2, 3),
        (("loss_facts", "outputs"), [2], [3]),
        (("loss_facts", "parts", 0, "outputs"), [2], [3]),
        (("loss_facts", "terms", 0, "gradients", 0, "parameter"), 0, 1),
        (("loss_facts", "terms", 0, "gradients", 1, "parameter"), 1, 2),
        (("optimizer", "rates"), [None, 0.1], [0.1]),
        (("optimizer", "rates"), [None, 0.1], [0.1, 0.1, 0.1]),
        (("seeds",), [7], [7, 8]),
    ],
    ids=lambda part: ".".join(map(str, part)) if isinstance(part, tuple) else "",
)
def test_the_last_value_is_read_and_the_next_one_refused(text, path, last, beyond):
    decode_flow(change(text, path, last))
    with pytest.raises(FlowFileError, match=str(path[-1])):
        decode_flow(change(text, path, beyond))


@pytest.mark.parametrize("name", ["grad_norm", "grad_zero_share", "grad_non_finite"])
def test_only_what_was_measured_has_a_gradient(text, name):
    frozen = json.loads(text)["parameters"][1] | {"status": "frozen"}
    frozen |= dict.fromkeys(("grad_norm", "grad_zero_share", "grad_non_finite"))
    document = json.loads(text)
    document["loss_facts"]["terms"][0]["gradients"].pop()
    text = json.dumps(document)
    decode_flow(change(text, ("parameters", 1), frozen))
    with pytest.raises(FlowFileError, match=rf"parameters.1.{name}: .*null unless"):
        decode_flow(change(text, ("parameters", 1), frozen | {name: 0.0}))
    with pytest.raises(FlowFileError, match=rf"parameters.1.{name}: .*number where"):
        decode_flow(change(text, ("parameters", 1, name), None))


def test_seeds_are_one_for_each_network_and_all_different():
    two = make_flow(loss=[1.0, 2.0]).to_json()
    assert decode_flow(change(two, ("seeds",), [7, 9])).seeds == (7, 9)
    assert decode_flow(change(two, ("seeds",), [])).seeds == ()
    for wrong in ([7], [7, 8, 9], [7, 7]):
        with pytest.raises(FlowFileError, match="seeds"):
            decode_flow(change(two, ("seeds",), wrong))


@pytest.mark.parametrize("at", [0, 1])
def test_every_step_has_a_number_for_each_network(text, at):
    document = json.loads(text)
    document["times"][0]["gradients"][at] = [1.0, 1.0]
    with pytest.raises(FlowFileError, match=r"times.0.gradients: .*one value for each of 1"):
        decode_flow(json.dumps(document))


def test_files_from_before_slips_were_looked_for_are_read(text):
    document = json.loads(text)
    del document["slips"]
    assert decode_flow(json.dumps(document)).slips == ()


@pytest.mark.parametrize("name", [*NEW_IN_3[:-1], "residuals", "attentions"])
def test_a_field_with_a_default_must_be_there_all_the_same(text, name):
    document = json.loads(text)
    del document[name]
    with pytest.raises(FlowFileError, match=rf"{name}: .*missing"):
        decode_flow(json.dumps(document))


def test_an_output_may_have_two_precisions(text):
    document = json.loads(text)
    document["precisions"] *= 6
    decode_flow(json.dumps(document), limits=Limits(entries=3))
    document["precisions"] += document["precisions"][:1]
    with pytest.raises(FlowFileError, match="at most 6 entries in precisions; this one has 7"):
        decode_flow(json.dumps(document), limits=Limits(entries=3))


def test_an_origin_is_that_of_one_network():
    where = {"function": "SqrtBackward0", "module": None, "dtype": "float32", "shape": (4,)}
    origin = NonFiniteOrigin(
        op="sqrt", direction="backward", count=1, loss=Quantity([0.5]), **where
    )
    one, two = (make_flow(loss=loss, origin=origin) for loss in (0.5, [0.5, 0.5]))
    assert decode_flow(one.to_json()) == one
    with pytest.raises(FlowFileError, match=r"origin: .*several networks"):
        decode_flow(two.to_json())


def test_a_file_may_be_as_large_as_its_limit_and_no_byte_larger(text, tmp_path):
    path = tmp_path / "flow.json"
    path.write_text(text, encoding="utf-8")
    size = len(text.encode())
    count = {"entries": 3, "members": 1, "text": 40}
    for read, given in ((load_flow, path), (decode_flow, text.encode())):
        assert read(given, limits=Limits(size=size, **count)) == decode_flow(text)
        with pytest.raises(FlowFileError, match="at most"):
            read(given, limits=Limits(size=size - 1, **count))
