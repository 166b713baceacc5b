"""The table of diagnoses: what can be wrong, from which threshold on, why, and what to try.

The thresholds were chosen on dense networks by comparing with short real trainings; how often
verdicts agree with training is in docs/viability.md (`make viability`). A verdict therefore speaks
of plain SGD: Adam, which rescales gradients, trains some networks that are called vanishing or
exploding here.

No verdict moves with the scale of the loss, which a learning rate can undo, nor with batch size:
gradients are compared with the error at the output (`GradientFlow.output_error`, about 1 for a
cross-entropy at initialization), or with each other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType


class Verdict(StrEnum):
    """What is wrong with a network, the gravest first."""

    NON_FINITE = "non-finite"
    NO_GRADIENT = "no gradient"
    DEAD_UNITS = "dead units"
    EXPLODING = "exploding"
    VANISHING = "vanishing"
    SATURATED = "saturated"
    SIGNAL_COLLAPSE = "signal collapse"
    HARD_TO_TRAIN = "hard to train"
    HEALTHY = "healthy"


class Outlook(StrEnum):
    """Whether an optimizer can be expected to train a network, the worst first."""

    NOT_VIABLE = "not viable"
    AT_RISK = "at risk"
    VIABLE = "viable"


VIABLE, NOT_VIABLE = 0.7, 0.3
"""From this probability on training is called viable; below that one it is called not viable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One way to arrive at a verdict.

    Attributes:
        name: Key of the rule.
        verdict: What it says when the metric is beyond the threshold.
        metric: What is compared, in words.
        threshold: The bound.
        beyond: ">" if metrics above the threshold are wrong, "<" if those below are.
        reason: Why it matters, in plain language.
        source: Where reason or threshold come from.
        feature: The feature of the model of viability that reads the same thing ("" for none).
    """

    name: str
    verdict: Verdict
    metric: str
    threshold: float
    beyond: str
    reason: str
    source: str
    feature: str = ""


_RULES = (
    Rule(
        name="non_finite",
        verdict=Verdict.NON_FINITE,
        metric="infinite or undefined numbers",
        threshold=0,
        beyond=">",
        reason="One infinite or undefined number spreads to every weight at the first update.",
        feature="non_finite",
        source="IEEE 754 arithmetic",
    ),
    Rule(
        name="unreached",
        verdict=Verdict.NO_GRADIENT,
        metric="layers whose weights the loss does not depend on",
        threshold=0,
        beyond=">",
        reason="No path leads from the loss to these weights, so training cannot change them.",
        source="reverse-mode differentiation: no path in the graph, no derivative",
    ),
    Rule(
        name="nothing_to_train",
        verdict=Verdict.NO_GRADIENT,
        metric="parameters that the loss depends on",
        threshold=1,
        beyond="<",
        reason="Nothing that was measured can be trained.",
        feature="no_gradient",
        source="reverse-mode differentiation: no path in the graph, no derivative",
    ),
    Rule(
        name="dead_units",
        verdict=Verdict.DEAD_UNITS,
        metric="share of units that are off for every example",
        threshold=0.7,
        beyond=">",
        reason="A unit whose derivative is zero for every example passes no gradient on and gets "
        "none, so no step on this batch can revive it.",
        feature="dead_units",
        source="Lu et al. 2019 (arXiv 1903.06733); threshold measured",
    ),
    Rule(
        name="exploding_gradient",
        verdict=Verdict.EXPLODING,
        metric="‖∂𝓛/∂W‖ ÷ error at the output",
        threshold=1500.0,
        beyond=">",
        reason="A step along a gradient this long throws the weights far away unless the learning "
        "rate is tiny, and then nothing else learns.",
        feature="largest_gradient",
        source="Pascanu et al. 2013 (arXiv 1211.5063); threshold measured",
    ),
    Rule(
        name="exploding_backward",
        verdict=Verdict.EXPLODING,
        metric="‖δ‖ at layer 1 ÷ ‖δ‖ at the last layer",
        threshold=1000.0,
        beyond=">",
        reason="On the way back the factors multiply to far more than 1: early layers are pushed "
        "hard while late ones hardly move.",
        feature="sensitivity",
        source="Hochreiter 1991; threshold measured",
    ),
    Rule(
        name="vanishing_gradient",
        verdict=Verdict.VANISHING,
        metric="‖∂𝓛/∂W‖ ÷ error at the output",
        threshold=3e-3,
        beyond="<",
        reason="A gradient this short moves the weights by next to nothing at any usual learning "
        "rate.",
        feature="smallest_gradient",
        source="Bengio et al. 1994; threshold measured",
    ),
    Rule(
        name="vanishing_backward",
        verdict=Verdict.VANISHING,
        metric="‖δ‖ at layer 1 ÷ ‖δ‖ at the last layer",
        threshold=0.01,
        beyond="<",
        reason="On the way back the factors multiply to next to nothing: the error signal does "
        "not reach the early layers.",
        feature="smallest_gradient",
        source="Hochreiter 1991; threshold measured",
    ),
    Rule(
        name="growing_stream",
        verdict=Verdict.EXPLODING,
        metric="size of the residual stream's last sum ÷ its start",
        threshold=100.0,
        beyond=">",
        reason="Every branch adds about as much as the residual stream already holds, so the values grow by "
        "a factor per block, and the first steps throw the weights far away.",
        feature="forward",
        source="Zhang et al. 2019, Fixup (arXiv 1901.09321); threshold measured",
    ),
    Rule(
        name="vanishing_typical",
        verdict=Verdict.VANISHING,
        metric="median ‖∂𝓛/∂W‖ of the layers ÷ error at the output",
        threshold=1e-4,
        beyond="<",
        reason="With paths around its layers a network can train though some receive little, but "
        "here most receive next to nothing.",
        feature="smallest_gradient",
        source="Veit et al. 2016 (arXiv 1605.06431); threshold measured",
    ),
    Rule(
        name="fading_stream",
        verdict=Verdict.VANISHING,
        metric="gradient of a residual stream's first sum ÷ its last",
        threshold=0.03,
        beyond="<",
        reason="The residual stream hands gradients on unchanged unless something in its way shrinks them: "
        "a normalization after every sum does so at each block.",
        feature="smallest_gradient",
        source="Xiong et al. 2020 (arXiv 2002.04745); threshold measured",
    ),
    Rule(
        name="saturated",
        verdict=Verdict.SATURATED,
        metric="share of saturated activations",
        threshold=0.9,
        beyond=">",
        reason="Where an activation is flat, its derivative is near zero and blocks the gradient.",
        feature="saturation",
        source="Glorot & Bengio 2010, section 3; threshold measured",
    ),
    Rule(
        name="starved_normalization",
        verdict=Verdict.SIGNAL_COLLAPSE,
        metric="spread of a normalization's output before its scale",
        threshold=0.1,
        beyond="<",
        reason="The values that reach it are smaller than what keeps its division from failing "
        "(ε), so it does not bring them back to size.",
        source="Ba et al. 2016 (arXiv 1607.06450), section 3; threshold measured",
    ),
    Rule(
        name="same_answer",
        verdict=Verdict.SIGNAL_COLLAPSE,
        metric="relative variation between examples",
        threshold=0.01,
        beyond="<",
        reason="Different inputs give almost the same output, so the loss cannot tell the network "
        "what to change for which input.",
        feature="variation",
        source="Schoenholz et al. 2017 (arXiv 1611.01232); threshold measured",
    ),
    Rule(
        name="fading_signal",
        verdict=Verdict.SIGNAL_COLLAPSE,
        metric="spread of the last layer's values ÷ first layer's",
        threshold=0.01,
        beyond="<",
        reason="The values shrink from layer to layer until nothing of the input is left.",
        feature="forward",
        source="He et al. 2015 (arXiv 1502.01852), section 2.2; threshold measured",
    ),
    Rule(
        name="unlikely",
        verdict=Verdict.HARD_TO_TRAIN,
        metric="chance that plain SGD trains it within 300 steps",
        threshold=NOT_VIABLE,
        beyond="<",
        reason="No single metric is beyond its bound, but dense networks that measured like this "
        "one seldom got going when they were really trained.",
        source="fitted on real trainings, docs/viability.md; Schoenholz et al. 2017 (arXiv "
        "1611.01232) on depth and the growth of small differences",
    ),
)

RULES: Mapping[str, Rule] = MappingProxyType({rule.name: rule for rule in _RULES})
"""Every rule by name, in the order of the verdicts."""

MEANINGS: Mapping[Verdict, str] = MappingProxyType(
    {
        Verdict.NON_FINITE: "some numbers are infinite or undefined",
        Verdict.NO_GRADIENT: "some weights are not reached by the loss",
        Verdict.DEAD_UNITS: "many units are off for every input",
        Verdict.EXPLODING: "gradients are too large to take a step along",
        Verdict.VANISHING: "some layers receive too little to learn",
        Verdict.SATURATED: "activations are flat, and block the gradient",
        Verdict.SIGNAL_COLLAPSE: "the input leaves no trace in the output",
        Verdict.HARD_TO_TRAIN: "gradients are of a usable size, but training seldom gets going",
        Verdict.HEALTHY: "every layer receives a usable gradient",
    }
)
"""What each verdict means, in a few words."""

ACTIONS: Mapping[Verdict, str] = MappingProxyType(
    {
        Verdict.NON_FINITE: "Find the first layer with such numbers; lower its initial scale, or "
        "look for a division, logarithm or half-precision overflow there.",
        Verdict.NO_GRADIENT: "Look for detach(), no_grad(), an unused branch, or a parameter that "
        "is replaced in forward().",
        Verdict.DEAD_UNITS: "Worth trying: a wider network, or Leaky ReLU; then measure again.",
        Verdict.EXPLODING: "Worth trying: {change}, normalization, or gradient clipping; then "
        "measure again.",
        Verdict.VANISHING: "Worth trying: {change}, residual connections, or normalization; then "
        "measure again.",
        Verdict.SATURATED: "Worth trying: {change}, smaller inputs, or normalization; then "
        "measure again.",
        Verdict.SIGNAL_COLLAPSE: "Worth trying: {change}, residual connections, or "
        "normalization; then measure again.",
        Verdict.HARD_TO_TRAIN: "Worth trying: residual connections, fewer layers, or {change}; "
        "then measure again.",
        Verdict.HEALTHY: "Nothing needs to change. Train it.",
    }
)
"""What to do next, by verdict; `{change}` is filled in with what suits the network."""

ACTION_AT_RISK = (
    "Train it, and watch: nothing is wrong at the start, but plain SGD got many networks that "
    "measured like this one only part of the way. Residual connections, or fewer layers, are worth "
    "trying."
)
"""What to do next with a healthy network that may not train, if viability covers its kind."""
