"""What Hypothesis draws tests from."""

import json
from functools import cache

import torch
from hypothesis import strategies as st
from torch import nn

from chainrule.flow.gradient_flow import SCHEMA_VERSION
from chainrule.flow.loading import decode_flow
from chainrule.flow.trial import TrialOutcome
from chainrule.measure.inspection import inspect
from chainrule.measure.simulation import simulate
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import NetworkSpec


@st.composite
def legal_fields(draw):
    """Every combination of fields that makes a legal specification."""
    init = draw(st.sampled_from(tuple(INITIALIZERS)))
    normalization = draw(st.sampled_from(("none", "layernorm", "batchnorm", "rmsnorm")))
    deviations = st.floats(0.0, 1e6)
    return {
        "depth": draw(st.integers(1, 1000)),
        "width": draw(st.integers(1, 4096)),
        "activation": draw(st.sampled_from(tuple(ACTIVATIONS))),
        "init": init,
        "distribution": draw(st.sampled_from((None, *INITIALIZERS[init].distributions))),
        "weight_std": draw(deviations) if init == "random" else 1.0,
        "bias_std": draw(st.none() | deviations),
        "residual": draw(st.sampled_from(("none", "plain", "scaled"))),
        "normalization": normalization,
        "clip_norm": draw(st.none() | st.floats(0.0, 1e30, exclude_min=True)),
        "batch_size": draw(st.integers(2 if normalization == "batchnorm" else 1, 4096)),
        "input_scale": draw(st.floats(1e-6, 1e6)),
        "seed": draw(st.integers(0, 2**31 - 1)),
        "dtype": draw(st.sampled_from(("float32", "float64"))),
    }


legal_specs = legal_fields().map(lambda fields: NetworkSpec(**fields))


# --- Flows: whatever a file may hold -------------------------------------------------------------

TAME = (0.0, 1e-9, 2e-5, 1e-3, 0.04, 0.5, 1.0, 2.5, 300.0, 1e7)
WILD = (*TAME, 5e-324, 1e-300, 1e300, 1.7e308, "NaN", "Infinity")
SHARES = (0.0, 1e-7, 0.01, 0.3, 0.75, 0.95, 1.0)
SHAPES = ((), (0,), (1,), (7,), (4, 3), (1, 1), (0, 5), (5, 0, 2), (2, 3, 4, 4), (2**62,) * 20)
NAMES = ("", "a", "b", "a.b", "norm", "head", "1", "blocks.0.norm")
PARTS = ("weight", "bias", "scale")
KINDS = ("Linear", "Conv2d", "ReLU", "Tanh", "Sigmoid", "Identity", "LayerNorm", "Own")
ROLES = ("weight", "activation", "normalization", "residual", "other")


class FlowWriter:
    """Draws the parts of a flow file, each of them legal by itself."""

    def __init__(self, draw, members):
        self.draw, self.members = draw, members
        self.numbers = st.sampled_from(draw(st.sampled_from((TAME, WILD))))
        self.wild = "NaN" if draw(st.integers(0, 5)) == 0 else 0.5
        self.bad = 9 if draw(st.integers(0, 3)) == 0 else 0  # infinite or undefined numbers

    def pick(self, options):
        return self.draw(st.sampled_from(options))

    def quantity(self, values):
        return [self.draw(values) for _ in range(self.members)]

    def optional(self, make):
        return make() if self.draw(st.integers(0, 4)) else None

    def size(self):
        return self.quantity(self.numbers)

    def share(self):
        return self.quantity(st.sampled_from((*SHARES, -1e-7, 1 + 1e-7, self.wild)))

    def count(self, most=None):
        return self.quantity(st.sampled_from((0, 0, self.bad if most is None else most)))

    def signed(self):
        return [-v if isinstance(v, float) and self.draw(st.booleans()) else v for v in self.size()]

    def shape(self):
        return list(self.pick(SHAPES))

    def layer(self, layers):
        return self.draw(st.none() | st.integers(1, layers)) if layers else None

    def statistics(self):
        return {
            "mean": self.signed(),
            "std": self.size(),
            "min": self.pick(([-1.0] * self.members, ["-Infinity"] * self.members)),
            "max": self.pick(([1.0] * self.members, ["NaN"] * self.members)),
            "zero_share": self.share(),
            "non_finite": self.count(),
            "variation": self.optional(self.share),
            "saturation": self.optional(self.share),
            "dead_units": self.optional(lambda: self.count(4)),
            "units": self.pick((4, 5, 2**40)),
            "histogram": self.optional(
                lambda: {"low": -1.0, "high": 1.0, "counts": [0, 3], "sampled": 3}
            ),
        }

    def gradient(self):
        return {
            "norm": self.size(),
            "max_abs": self.size(),
            "zero_share": self.share(),
            "non_finite": self.count(),
        }

    def call(self, at, count, layers):
        later = list(range(at + 1, count))
        return {
            "name": self.pick(NAMES),
            "kind": self.pick(KINDS),
            "role": self.pick(ROLES),
            "layer": self.layer(layers),
            "call": self.pick((0, 0, 1)),
            "output": self.pick(("", "", "1.0")),
            "shape": self.shape(),
            "dtype": "float32",
            "parent": self.pick((None, None, *later)),
            "statistics": self.optional(self.statistics),
            "gradient": self.optional(self.gradient),
            "gain": self.optional(self.size),
        }

    def parameter(self, layer, shape):
        status = self.pick((*["measured"] * 12, "unreached", "frozen"))
        measured = status == "measured"
        return {
            "name": f"{self.pick(NAMES)}.{self.pick(PARTS)}",
            "aliases": [],
            "shape": shape,
            "dtype": "float32",
            "layer": layer,
            "status": status,
            "norm": self.size(),
            "non_finite": self.count(),
            "grad_norm": self.size() if measured else None,
            "grad_zero_share": self.share() if measured else None,
            "grad_non_finite": self.count() if measured else None,
        }

    def residual(self, calls, parameters):
        return {
            "stream": self.pick((0, 0, 1, 7)),
            "branch": self.draw(st.none() | st.integers(0, calls - 1)) if calls else None,
            "normalization": self.pick(("before", "after", "none")),
            "before": self.optional(self.size),
            "added": self.optional(self.size),
            "after": self.size(),
            "gradient": self.optional(self.size),
            "parameters": self.many(lambda: self.pick(range(parameters)), 4 if parameters else 0),
        }

    def attention(self):
        return {
            "name": self.pick(NAMES),
            "call": 0,
            "heads": 2,
            "queries": 3,
            "keys": 3,
            "entropy": self.share(),
            "one_hot": self.share(),
            "uniform": self.share(),
        }

    def origin(self):
        shape, value = self.shape(), self.pick(("NaN", "Infinity", "-Infinity"))
        element = {
            "index": [0] * len(shape),
            "value": value,
            "inputs": self.many(lambda: self.signed()[0], 3),
            "gradient": self.optional(lambda: self.signed()[0]),
        }
        return {
            "source": self.pick(("operation", "constant", "input", "parameter", "buffer")),
            "op": self.pick(("acos", "division", "multiplication", "own")),
            "function": "AcosBackward0",
            "direction": self.pick(("forward", "backward")),
            "module": self.pick((None, *NAMES)),
            "dtype": "float16",
            "overflow": self.draw(st.booleans()),
            "shape": shape,
            "count": 3,
            "elements": [element] * self.pick((0, 1, 3)),
            "file": self.pick(("", "a/b.py", "C:\\b.py")),
            "line": self.pick((None, 7)),
            "code": self.pick(("", "x.acos()")),
            "loss": self.pick((0.5, "NaN")),
            "parameters": [],
            "parameter_count": self.pick((0, 1, 5)),
        }

    def trial(self):
        """Return what was tried: rates whose losses may be anything."""
        loss = (0.5, 1e300, 0.0, -2.0, "NaN", "Infinity", "-Infinity")
        rate = {
            "rate": self.pick((0.1, 0.0, 1e-300, "NaN")),
            "steps": self.pick((0, 1, 80)),
            "before": self.pick(loss),
            "after": self.pick(loss),
            "learned": self.pick(loss),
            "outcome": self.pick([str(each) for each in TrialOutcome]),
            "failed_at": self.pick((1, 3)),
            "stopped": self.draw(st.booleans()),
            "guessing": self.pick((None, *loss)),
            "terms": [
                {"name": "kl", "before": self.pick(loss), "after": self.pick(loss), "fell": fell}
                for fell in self.pick(((), (True,), (False, False)))
            ],
            "moved": self.pick((None, 0.0, 0.5, "Infinity")),
            "unchanged": self.pick((None, 0.9)),
        }
        optimizer = {
            "name": self.pick(("SGD", "Adam", "<b>")),
            "rates": [rate] * self.pick((0, 1, 2)),
            "skipped": self.pick(("", "no room")),
        }
        return {
            "optimizers": [optimizer] * self.pick((0, 1, 2)),
            "passes": self.pick((0.0, 80.5)),
            "limit": 300,
            "fresh": self.draw(st.booleans()),
            "kept": self.pick((0, 3)),
            "guessing": self.pick((None, *loss)),
            "notes": self.pick(([], ["Fewer passes."])),
            "skipped": self.pick(("", "no room")),
        }

    def entering(self):
        return {
            "reader": self.pick(NAMES),
            "shape": self.shape(),
            "dtype": self.pick(("float32", "float16")),
            "examples": self.pick((1, 5, 2**40)),
            "columns": self.pick((4, 7)),
            "mean": self.signed(),
            "std": self.size(),
            "min": self.signed(),
            "max": self.signed(),
            "non_finite": self.share(),
            "constant_columns": self.count(4),
            "zero_columns": self.count(3),
            "offset": self.optional(self.size),
            "spread_ratio": self.optional(self.size),
            "repeated": self.share(),
        }

    def time(self):
        length = self.pick((1, 2, 9, 64, 1000))
        steps = sorted({self.draw(st.integers(0, length - 1)) for _ in range(min(length, 12))})
        return {
            "name": self.pick(NAMES),
            "kind": self.pick(("LSTM", "GRU", "RNNCell", "Own")),
            "call": self.pick((0, 0, 1)),
            "of": self.pick(("input", "state", "output")),
            "length": length,
            "steps": steps,
            "gradients": [self.size() for _ in steps],
            "read": [self.size() for _ in steps] if self.draw(st.booleans()) else [],
        }

    def symmetry(self, layers):
        return {
            "parameter": f"{self.pick(NAMES)}.{self.pick(PARTS)}",
            "layer": self.layer(layers),
            "units": self.pick((8, 9)),
            "copies": self.count(4),
            "idle": self.count(3),
        }

    def precision(self, calls):
        return {
            "name": self.pick(NAMES),
            "of": self.pick(("output", "weight", "arriving")),
            "dtype": self.pick(("float16", "bfloat16", "float8_e5m2")),
            "layer": self.draw(st.none() | st.integers(0, calls - 1)) if calls else None,
            "zero_share": self.share(),
            "subnormal_share": self.share(),
            "size": self.size(),
            "largest": self.size(),
        }

    def optimizer(self, parameters):
        return {
            "name": self.pick(("SGD", "Adam", "Own")),
            "steps": self.pick(("gradient", "rescaled", "other")),
            "rates": [self.pick((None, 0.0, 0.1, 1e-3, 1e30)) for _ in range(parameters)],
            "momentum": self.pick((0.0, 0.9, 1.0)),
            "foreign": self.pick((0, 3)),
        }

    def further_facts(self, calls, parameters, layers):
        """Return what files hold since version 3, apart from the loss and an origin."""
        return {
            "inputs": self.many(self.entering, 2),
            "times": self.many(self.time, 2),
            "symmetries": self.many(lambda: self.symmetry(layers), 2),
            "precisions": self.many(lambda: self.precision(calls), 2),
            "optimizer": self.optional(lambda: self.optimizer(parameters)),
        }

    def loss_facts(self, calls, parameters):
        outputs = sorted({self.pick(range(calls)) for _ in range(2)}) if calls else []
        reached = sorted({self.pick(range(parameters)) for _ in range(2)}) if parameters else []
        return {
            "parts": self.many(lambda: self.part(outputs), 3),
            "outputs": outputs,
            "offset": self.optional(self.signed),
            "step": self.optional(self.size),
            "reaction": self.optional(self.size),
            "zero_examples": self.optional(self.share),
            "terms": self.many(lambda: self.term(reached), 2),
            "cut": self.optional(self.signed),
            "detached": self.optional(self.signed),
        }

    def part(self, outputs):
        return {
            "kind": self.pick(("mse", "cross_entropy", "nll", "penalty", "custom")),
            **{
                name: self.optional(self.signed)
                for name in ("value", "guessing", "constant", "floor")
            },
            "activation": self.pick((None, "softmax", "log_softmax", "sigmoid")),
            "width": self.pick((None, 1, 10)),
            "is_direct": self.draw(st.booleans()),
            "outputs": outputs,
        }

    def term(self, reached):
        return {
            "name": self.pick(NAMES),
            "value": self.signed(),
            "gradients": self.optional(
                lambda: [
                    {"parameter": at, "norm": self.size(), "cosine": self.signed()}
                    for at in reached
                ]
            ),
        }

    def many(self, make, most):
        return [make() for _ in range(self.draw(st.integers(0, most)))]


_SPEC = NetworkSpec(depth=2, width=4, batch_size=5, activation="relu", init="he", clip_norm=0.1)
_SPECS = (
    None,
    _SPEC,
    _SPEC.replace(activation="tanh", residual="plain", normalization="layernorm"),
    _SPEC.replace(depth=900, activation="sigmoid", init="random"),
)


class _Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.branch = nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x):
        return x + self.branch(self.norm(x))


def _inspect_blocks(zero):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 4), *(_Block() for _ in range(5)), nn.Tanh(), nn.Linear(4, 2)
    )
    if zero:
        for block in model[1:6]:
            nn.init.zeros_(block.branch.weight)
    x = torch.randn(6, 4)
    return inspect(model, lambda m: m(x).square().mean())


@cache
def _measure():
    """Return files of real flows: of specifications, and of a model with residual streams."""
    flows = [simulate(spec, 2) for spec in _SPECS[1:3]]
    flows += [_inspect_blocks(zero=False), _inspect_blocks(zero=True)]
    return [flow.to_json() for flow in flows]


@st.composite
def flow_files(draw):
    """The text of a flow file that `load_flow` accepts, made up or a real one that was changed.

    Layers without statistics or gradients, empty and scalar shapes, infinite and undefined numbers
    anywhere, positions that point anywhere, one network or several, a specification that fits or
    does not.
    """
    document = draw(_made_up() | _changed())
    if draw(st.booleans()):
        spec = draw(st.sampled_from(_SPECS))
        document["spec"] = None if spec is None else spec.model_dump()
    loss = document["loss"]
    if not isinstance(loss, list) or len(loss) == 1:
        writer = FlowWriter(draw, members=1)
        if draw(st.booleans()):
            document["origin"] = writer.origin()
        document["trial"] = writer.optional(writer.trial)
    return json.dumps(document)


@st.composite
def _made_up(draw):
    writer = FlowWriter(draw, members=draw(st.sampled_from((1, 1, 2, 3))))
    layers = draw(st.integers(0, 4))
    parameters = [
        writer.parameter(number, list(writer.pick(((4, 3), (1, 1), (5, 0, 2), (2, 3, 4, 4)))))
        for number in range(1, layers + 1)
    ]
    parameters += writer.many(lambda: writer.parameter(writer.layer(layers), writer.shape()), 4)
    count = draw(st.integers(0, 6))
    return {
        "layers": [writer.call(at, count, layers) for at in range(count)],
        "parameters": parameters,
        "loss": writer.signed(),
        "chain": draw(st.booleans()),
        "seeds": draw(st.sampled_from(([], list(range(writer.members))))),
        "spec": None,
        "device": "cpu",
        "torch_version": "2",
        "chainrule_version": "0",
        "schema_version": SCHEMA_VERSION,
        "residuals": writer.many(lambda: writer.residual(count, len(parameters)), 5),
        "attentions": writer.many(writer.attention, 3),
        "origin": None,
        "trial": None,
        "loss_facts": writer.optional(lambda: writer.loss_facts(count, len(parameters))),
        **writer.further_facts(count, len(parameters), layers),
    }


@st.composite
def _changed(draw):
    document = json.loads(draw(st.sampled_from(_measure())))
    calls, parameters = document["layers"], document["parameters"]
    loss = document["loss"]
    writer = FlowWriter(draw, members=len(loss) if isinstance(loss, list) else 1)
    layers = max(p["layer"] or 0 for p in parameters)
    for _ in range(draw(st.integers(0, 8))):
        at = draw(st.integers(0, len(calls) - 1))
        call = writer.call(at, len(calls), layers)
        fields = ("layer", "role", "shape", "statistics", "gradient", "gain", "kind", "name")
        name = writer.pick(fields)
        calls[at][name] = call[name]
    for _ in range(draw(st.integers(0, 4))):
        parameter = parameters[draw(st.integers(0, len(parameters) - 1))]
        written = writer.parameter(None, [])
        parameter |= {
            name: written[name]
            for name in ("status", "norm", "grad_norm", "grad_zero_share", "grad_non_finite")
        }
    if draw(st.booleans()):
        document["loss_facts"] = writer.loss_facts(len(calls), len(parameters))
    if draw(st.booleans()):
        document |= writer.further_facts(len(calls), len(parameters), layers)
    for residual in document["residuals"]:
        if draw(st.booleans()):
            name = writer.pick(("before", "added", "after", "gradient", "branch", "stream"))
            residual[name] = writer.residual(len(calls), len(parameters))[name]
    return document


flows = flow_files().map(decode_flow)
