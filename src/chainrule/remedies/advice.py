"""Advice: what a measurement suggests beyond what was tried, in words and code.

Advice was not measured. What was tried and measured is a `Remedy`.
"""

import math
import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.diagnosis import Diagnosis, overlook
from chainrule.diagnosis.loss_rules import is_applied_twice, is_single
from chainrule.diagnosis.origins import find_cure
from chainrule.diagnosis.reach import list_unreached
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.rules import IGNORED_BY_REMEDIES
from chainrule.diagnosis.time_rules import fades_on_the_way
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.remedies.changes import CLIP_NORM, CLIPPING, RESIDUAL

UPDATE_RATIO = 1e-3
"""How much a step should change a weight matrix, relative to its size (Karpathy, CS231n 2015)."""

WIDE = 1000.0
"""From this spread of relative gradients on, one learning rate of SGD does not suit all layers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Something worth trying that chainrule did not measure.

    Attributes:
        title: What to do, in a few words.
        reason: Why, with the numbers it rests on.
        code: A few lines that do it.
    """

    title: str
    reason: str
    code: str


def advise(
    flow: GradientFlow, diagnosis: Diagnosis, cured: GradientFlow | None = None
) -> tuple[Advice, ...]:
    """Return advice on the learning rate, clipping, the architecture and unreached weights.

    Args:
        flow: A measurement by `inspect`.
        diagnosis: What it means.
        cured: The measurement after a remedy that cures. A learning rate is advised for it, or for
            the model as it is if nothing is wrong with what the loss reaches: gradients that vanish
            or explode suit no rate.
    """
    rest = overlook(diagnosis, flow, IGNORED_BY_REMEDIES)
    found = [
        *_advise_origin(flow, rest),
        *_advise_cause(flow, diagnosis),
        *_advise_architecture(flow, rest),
        *_advise_clipping(flow, rest),
    ]
    if list_unreached(flow):
        found.append(_advise_unreached(flow))
    if rest.verdict in (Verdict.HEALTHY, Verdict.OPTIMIZER, Verdict.LEARNING_RATE):
        found += _advise_learning_rate(flow, "")
    elif cured is not None:
        found += _advise_learning_rate(cured, "After the first remedy, ")
    return tuple(dict.fromkeys(found))


def _advise_origin(flow: GradientFlow, diagnosis: Diagnosis) -> Iterator[Advice]:
    if diagnosis.verdict is Verdict.NON_FINITE and flow.origin is not None:
        cure = find_cure(flow.origin)
        if cure is not None:
            reason = f"{flow.origin.cause} {cure.reason}"
            yield Advice(title=cure.title, reason=reason, code=cure.code)


def _advise_cause(flow: GradientFlow, diagnosis: Diagnosis) -> Iterator[Advice]:
    """Yield what to do against causes that lie outside of the weights of a model."""
    parts = () if flow.loss_facts is None else flow.loss_facts.parts
    kinds = {part.kind for part in parts}
    for finding in diagnosis.findings:
        if finding.rule == "unsuited_output":
            yield from _advise_output(flow)
        elif finding.rule == "flat_loss" and "binary_cross_entropy" in kinds:
            yield ON_LOGITS
        elif finding.rule == "large_loss" and kinds & {"mse", "l1", "smooth_l1", "huber"}:
            yield SCALED_TARGETS
        else:
            found = BY_RULE.get(finding.rule, ())
            if found != (_SHORTER,) or fades_on_the_way(flow, finding.modules):
                yield from found


def _advise_output(flow: GradientFlow) -> Iterator[Advice]:
    parts = () if flow.loss_facts is None else flow.loss_facts.parts
    if any(map(is_single, parts)):
        yield YES_OR_NO
    elif any(map(is_applied_twice, parts)):
        kinds = {part.kind for part in parts if is_applied_twice(part)}
        yield LOGITS_OF_LABELS if "binary_cross_entropy_with_logits" in kinds else LOGITS


def _advise_unreached(flow: GradientFlow) -> Advice:
    names = list_unreached(flow)
    count = f"{names[0]!r}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
    return Advice(
        title="Freeze or remove weights that the loss does not reach, or connect them to the loss",
        reason=f"No change of weights makes a gradient reach {count}. This is right if you left "
        "them out on purpose, such as a head that is not used or weights that are trained in "
        "another step.",
        code="for name, parameter in model.named_parameters():\n"
        f"    if name in {tuple(names)!r}:\n"
        "        parameter.requires_grad_(False)  # then they no longer count",
    )


def _advise_learning_rate(flow: GradientFlow, when: str) -> Iterator[Advice]:
    steps = []  # (relative step of SGD, of Adam) at a learning rate of 1
    for parameter in flow.parameters:
        norm, gradient = parameter.norm, parameter.grad_norm
        if parameter.is_weight and gradient and 0 < norm < math.inf and gradient < math.inf:
            size = norm / math.sqrt(math.prod(parameter.shape))
            steps.append((gradient / norm, 1.0 / size))
    if not steps:
        return
    plain, adaptive = (statistics.median(column) for column in zip(*steps, strict=True))
    low, high = min(step for step, _ in steps), max(step for step, _ in steps)
    sgd, adam = (format_rate(UPDATE_RATIO / step) for step in (plain, adaptive))
    basis = f"{when}‖∂𝓛/∂W‖ ÷ ‖W‖ is {format_number(plain)} in the median layer"
    if high > WIDE * low:
        title = f"Adam, with a learning rate near {adam}"
        basis += f" and differs by a factor of {format_number(high / low)} between layers, so"
        basis += " no learning rate of plain SGD suits all of them. "
    else:
        title = f"A learning rate near {sgd} for SGD, or near {adam} for Adam"
        basis += ". "
    yield Advice(
        title=title,
        reason=f"{basis}With this rate, one step changes the median layer by about a thousandth "
        "of its size, which is a usual start.",
        code=f"optimizer = torch.optim.Adam(model.parameters(), lr={adam})",
    )


def format_rate(rate: float) -> str:
    """Return a learning rate to one digit: 0.03, 3e-05."""
    return f"{float(f'{rate:.0e}'):g}"


def _advise_clipping(flow: GradientFlow, diagnosis: Diagnosis) -> Iterator[Advice]:
    factor, norm = flow.compute_clip_factor(CLIP_NORM), flow.gradient_norm
    if diagnosis.verdict is Verdict.EXPLODING and norm is not None and factor is not None:
        yield Advice(
            title=CLIPPING.title,
            reason=f"All gradients together have a norm of {format_number(norm)}; clipping would "
            f"multiply each by {format_number(factor)}. {CLIPPING.reason}",
            code=f"torch.nn.utils.clip_grad_norm_(model.parameters(), {CLIP_NORM:g})",
        )


_SHORTER = Advice(
    title="Shorter paths through time",
    reason="In a recurrent layer the gradient passes through every step. Attention, or a mean over "
    "the outputs of all steps, gives it a shorter path.",
    code="hidden = rnn(x)[0].mean(dim=1)  # instead of rnn(x)[0][:, -1]",
)
LOGITS = Advice(
    title="Logits into the loss",
    reason="cross_entropy takes the softmax itself. Leave it out at the end of the model, and use "
    "it only where probabilities are shown.",
    code="loss = torch.nn.functional.cross_entropy(logits, y)  # logits: before the softmax",
)
LOGITS_OF_LABELS = Advice(
    title="Logits into the loss",
    reason="binary_cross_entropy_with_logits takes the sigmoid itself. Leave it out at the end of "
    "the model, and use it only where probabilities are shown.",
    code="loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y)\n"
    "# logits: before the sigmoid",
)
YES_OR_NO = Advice(
    title="A sigmoid for a single output",
    reason="A softmax over one value is always 1. For a yes or no question, take the output as it "
    "is and let the loss apply a sigmoid; for a number, leave the softmax out.",
    code="loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y)\n"
    "# logits: before the softmax",
)
_STANDARDIZE = Advice(
    title="Standardized inputs",
    reason="Every column then has a mean of 0 and a standard deviation of 1. Take both from the "
    "training data, and use the same for all later data.",
    code="mean, std = x.mean(dim=0), x.std(dim=0)\nx = (x - mean) / std.clamp(min=1e-8)",
)
ON_LOGITS = Advice(
    title="The loss on logits",
    reason="A sigmoid that has reached its end has no slope, and a clamp has none outside of its "
    "range. Computed from logits, the loss keeps its slope however wrong the output is.",
    code="loss = torch.nn.functional.binary_cross_entropy_with_logits(logits, y)\n"
    "# instead of binary_cross_entropy(torch.sigmoid(logits), y)",
)
_BFLOAT16 = Advice(
    title="bfloat16 instead of float16",
    reason="It has the range of float32, so small gradients do not become zero.",
    code="with torch.autocast(x.device.type, dtype=torch.bfloat16):\n    output = model(x)",
)
_LOSS_SCALE = Advice(
    title="A loss scale",
    reason="The loss is multiplied before the backward pass, so that gradients fit into float16, "
    "and gradients are divided by the same factor before the step.",
    code="scaler = torch.amp.GradScaler(x.device.type)\n"
    "scaler.scale(loss).backward()\nscaler.step(optimizer)\nscaler.update()",
)
_OPTIMIZER_LAST = Advice(
    title="An optimizer of this model's parameters",
    reason="Build it after everything that copies or replaces parameters.",
    code="optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)",
)
_WARM_UP = Advice(
    title="A learning rate that rises over the first steps",
    reason="The first steps are then small, until the weights have left the steep place where they "
    "start.",
    code="schedule = torch.optim.lr_scheduler.LinearLR(\n"
    "    optimizer, start_factor=0.01, total_iters=100\n)\n"
    "# after every optimizer.step(): schedule.step()",
)
SCALED_TARGETS = Advice(
    title="Standardized targets",
    reason="In a regression, outputs start near 0 and near a size of 1. Targets of mean 0 and "
    "standard deviation 1 fit that; undo it where predictions are shown.",
    code="mean, std = y.mean(dim=0), y.std(dim=0)\ny = (y - mean) / std.clamp(min=1e-8)",
)
_SOFT = Advice(
    title="A function with a derivative",
    reason="argmax, comparisons and rounding pass no gradient. Probabilities do.",
    code="chosen = torch.softmax(logits, dim=-1)  # instead of a one-hot of logits.argmax(dim=-1)",
)

_AVERAGE_FIRST = Advice(
    title="An activation between the normalization and the average",
    reason="A normalization gives its values the mean 0, so their average is the same for every "
    "input. That of their positive part is not.",
    code="pooled = torch.relu(norm(h)).mean(dim=-1)  # instead of norm(h).mean(dim=-1)",
)

BY_RULE: Mapping[str, tuple[Advice, ...]] = MappingProxyType(
    {
        "large_inputs": (_STANDARDIZE,),
        "small_inputs": (_STANDARDIZE,),
        "offset_inputs": (_STANDARDIZE,),
        "uneven_inputs": (_STANDARDIZE,),
        "underflow": (_BFLOAT16, _LOSS_SCALE),
        "lost_epsilon": (_BFLOAT16,),
        "not_held": (_OPTIMIZER_LAST,),
        "large_step": (_WARM_UP,),
        "overshoots": (_WARM_UP,),
        "diverges": (_WARM_UP,),
        "detached_term": (_SOFT,),
        "vanishing_time": (_SHORTER,),
        "unheard_steps": (_SHORTER,),
        "untold_steps": (_SHORTER,),
        "averaged_away": (_AVERAGE_FIRST,),
    }
)
"""Advice by the rule that found something, for causes that lie outside of most weights."""

_RESIDUAL = Advice(
    title=RESIDUAL.title,
    reason=RESIDUAL.reason,
    code="def forward(self, x):\n    return x + self.layer(x)  # where the shapes agree",
)
_NORMALIZATION = Advice(
    title="Normalization",
    reason="It scales the output of a layer to a fixed size, at any scale of the weights.",
    code="nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width), nn.ReLU())",
)
_PRE_NORM = Advice(
    title="Normalization before each branch instead of after each sum",
    reason="Then no normalization lies on the residual stream, from the input to the output.",
    code="nn.TransformerEncoderLayer(width, heads, norm_first=True)\n"
    "# or: x = x + branch(norm(x)) instead of x = norm(x + branch(x))",
)
_RECTIFIER = Advice(
    title="An activation that is flat on one side only",
    reason="The derivative of sigmoid is at most 0.25. Where sigmoid or tanh is saturated, almost "
    "no gradient passes through.",
    code="nn.ReLU()  # or nn.GELU(), nn.SiLU()",
)


_OF_ARCHITECTURE = frozenset(
    {
        Verdict.EXPLODING,
        Verdict.VANISHING,
        Verdict.SATURATED,
        Verdict.SIGNAL_COLLAPSE,
        Verdict.DEAD_UNITS,
        Verdict.HARD_TO_TRAIN,
    }
)
"""What another architecture may cure; the rest lies in the loss, the inputs or the numbers."""


def _advise_architecture(flow: GradientFlow, diagnosis: Diagnosis) -> Iterator[Advice]:
    if diagnosis.verdict not in _OF_ARCHITECTURE or diagnosis.findings[0].rule in BY_RULE:
        return
    if diagnosis.findings[0].rule == "fading_stream" and not any(
        each.normalization == "after" for each in flow.residuals
    ):
        return  # something multiplies the stream: no other layer makes up for it
    rules = {finding.rule for finding in diagnosis.findings}
    kinds = {call.kind for call in flow.layers}
    if any("RNN" in kind or "LSTM" in kind or "GRU" in kind for kind in kinds):
        if "same_answer" in rules:
            yield _SHORTER
    elif not flow.residuals and len(flow.weight_layers) > 2:
        yield _RESIDUAL
    if any(each.normalization == "after" for each in flow.residuals):
        yield _PRE_NORM
    if not any(call.role == "normalization" for call in flow.layers):
        yield _NORMALIZATION
    if kinds & {"Sigmoid", "Tanh"}:
        yield _RECTIFIER
