"""Claims that are often repeated, and what measuring says about each.

A claim is a sentence as people say it, and cases in which it can be checked. A case compares one
measured figure with a bound. The verdict follows: true if every case holds, false if none does,
else partly true.
"""

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from chainrule.app.lesson.figures import Figures, Value
from chainrule.diagnosis.rule import Verdict
from chainrule.spec.activations import ACTIVATIONS
from chainrule.training.training import TRAINED


class Standing(StrEnum):
    """What measuring says about a claim."""

    TRUE = "true"
    PARTLY = "only partly true"
    FALSE = "false"


@dataclass(frozen=True, slots=True)
class Case:
    """One configuration in which a claim is checked.

    Attributes:
        words: The configuration, in words.
        subject: Its name.
        figure: What is read of it.
        relation: How the figure is compared, a key of `RELATIONS`.
        bound: With what.
    """

    words: str
    subject: str
    figure: str
    relation: str
    bound: Value

    def holds(self, figures: Figures) -> bool:
        """Return whether the claim holds in this case."""
        return RELATIONS[self.relation](figures.values[f"{self.subject}.{self.figure}"], self.bound)


@dataclass(frozen=True, slots=True)
class Claim:
    """A claim and its cases.

    Attributes:
        name: Key.
        words: The claim as people say it.
        test: What must be measured for it to hold in a case; in the lesson's notation.
        cases: Where it is checked.
        finding: What is true instead, or why it is true; in the lesson's notation.
    """

    name: str
    words: str
    test: str
    cases: tuple[Case, ...]
    finding: str

    def judge(self, figures: Figures) -> Standing:
        """Return the verdict that the measured figures give."""
        held = [case.holds(figures) for case in self.cases]
        if all(held):
            return Standing.TRUE
        return Standing.PARTLY if any(held) else Standing.FALSE


def _is_within(value: Value, bound: Value) -> bool:
    """Return whether a figure is within 10 % of a bound."""
    return abs(float(value) - float(bound)) <= 0.1 * abs(float(bound))


RELATIONS: Mapping[str, Callable[[Value, Value], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "is": operator.eq,
    "is not": operator.ne,
    "≈": _is_within,
}
"""The ways to compare; "≈" allows for 10 %."""

_SLOPE = ACTIVATIONS["sigmoid"].derivative(2.0)


def _check(subject: str, words: str, relation: str, verdict: Verdict) -> Case:
    return Case(words, subject, "verdict", relation, str(verdict))


CLAIMS: tuple[Claim, ...] = (
    Claim(
        "sigmoid_depth",
        "Sigmoid networks get into trouble after 5 to 10 layers.",
        "the diagnosis is not “healthy”",
        (
            *(
                _check(
                    f"sigmoid_{init}_{depth}", f"{label}, {depth} layers", "is not", Verdict.HEALTHY
                )
                for init, label in (
                    ("pytorch", "PyTorch default"),
                    ("xavier", "Xavier"),
                    ("he", "He"),
                )
                for depth in (5, 10)
            ),
            _check("survivor", "random, spread 1, 10 layers", "is not", Verdict.HEALTHY),
        ),
        "True for the three usual initializations: none of them makes up for a slope of at most "
        "{sigmoid.most}. Large weights do. With [spread {survivor.weight_std} at {survivor.depth} "
        "layers](show:survivor) the first layer still receives {survivor.ratio|%} of what the last "
        "one does. Trained for real, that network gets {survivor.sgd|%} right, and "
        "[the same with Xavier](show:sigmoid_xavier_10) {sigmoid_xavier_10.sgd|%}, which is "
        "guessing.",
    ),
    Claim(
        "tanh_depth",
        "Tanh networks get into trouble after 10 to 15 layers.",
        "the diagnosis is not “healthy”",
        (
            _check("tanh_pytorch_10", "PyTorch default, 10 layers", "is not", Verdict.HEALTHY),
            _check("tanh_pytorch_15", "PyTorch default, 15 layers", "is not", Verdict.HEALTHY),
            _check("tanh_xavier_15", "Xavier, 15 layers", "is not", Verdict.HEALTHY),
            _check("tanh_xavier_100", "Xavier, 100 layers", "is not", Verdict.HEALTHY),
        ),
        "It is the initialization, not tanh. [PyTorch's default](show:tanh_pytorch_15) passes on "
        "only {tanh_pytorch_15.step|%} per layer. With Xavier, [{tanh_xavier_15.depth} "
        "layers](show:tanh_xavier_15) are healthy, and even at "
        "[{tanh_xavier_100.depth}](show:tanh_xavier_100) the gradient keeps its size, with a "
        "first-to-last ratio of {tanh_xavier_100.ratio}: what makes so many hard to train is that "
        "each layer distorts what the others learn.",
    ),
    Claim(
        "relu_depth",
        "ReLU with He initialization trains hundreds of layers.",
        "the diagnosis is “healthy”; trained for real, plain SGD gets more than "
        "{training.learned|%} of the training examples right in {training.steps} steps",
        tuple(
            case
            for subject, depth in (("relu_he_50", 50), ("relu_he_100", 100))
            for case in (
                _check(subject, f"{depth} layers, diagnosed", "is", Verdict.HEALTHY),
                Case(f"{depth} layers, trained", subject, "sgd", ">", TRAINED),
            )
        ),
        "Gradients of a usable size arrive, and still each layer more makes it harder: at "
        "[{healthy.depth} layers](show:healthy) between {healthy.sgd_low|%} and "
        "{healthy.sgd_high|%} right, depending on the first weights ({lesson.starts} tries); "
        "{relu_he_50.sgd|%} at {relu_he_50.depth} and "
        "{relu_he_100.sgd|%} at {relu_he_100.depth}. What people quote is the *mean* gradient: at "
        "[{relu_he_100.depth} layers](show:relu_he_100) the mean over {lesson.seeds} networks is "
        "{relu_he_100.mean_first} at the first layer, but the median {relu_he_100.first}. "
        "A few lucky networks carry it. And size is not all: see “shattered gradients” in the "
        "[reading list](#lesson-reading). [A path around each layer](show:rescued) is what trains "
        "{rescued.depth} of them: {rescued.sgd|%} right.",
    ),
    Claim(
        "sigmoid_quarter",
        "Sigmoid shrinks the gradient by at least 75 % in every layer.",
        "a layer passes on less than a quarter, on average",
        tuple(
            Case(words, subject, "step", "<", 0.25)
            for subject, words in (
                ("sigmoid_pytorch_10", "PyTorch default"),
                ("sigmoid_xavier_10", "Xavier"),
                ("sigmoid_he_10", "He"),
                ("survivor", "random, spread 1, width 64"),
                ("sigmoid_random_wide", "random, spread 1, width 256"),
            )
        ),
        "The slope alone takes at least {sigmoid.loss|%}. But a layer's factor is slope times "
        "weights, and weights can be large: [{survivor.step|times} per layer](show:survivor), and "
        "[{sigmoid_random_wide.step|times} at width {sigmoid_random_wide.width}]"
        "(show:sigmoid_random_wide), where the gradient *grows*. The claim is safe only where "
        "$n_\\text{in}\\operatorname{Var}(w) \\le 1$.",
    ),
    Claim(
        "hidden",
        "Xavier initialization makes deep ReLU networks vanish.",
        "the diagnosis is “vanishing”",
        (
            _check("relu_with_xavier", "15 layers", "is", Verdict.VANISHING),
            _check("hidden", "30 layers", "is", Verdict.VANISHING),
        ),
        "And the usual measure, first divided by last, does not show it. At [{hidden.depth} "
        "layers](show:hidden) every gradient is below {hidden.largest}, yet first divided by last "
        "is {hidden.ratio}: values shrink on the way forward as fast as gradients on the way "
        "back, and the two cancel.",
    ),
    Claim(
        "ratio",
        "If the first and the last layer receive about the same gradient, all is well.",
        "the diagnosis is “healthy”, the ratio being near one",
        (
            _check("healthy", "ReLU with He", "is", Verdict.HEALTHY),
            _check("hidden", "ReLU with Xavier", "is", Verdict.HEALTHY),
            _check("exploding", "ReLU with random weights of spread 1", "is", Verdict.HEALTHY),
            _check("silu_he_30", "SiLU with He", "is", Verdict.HEALTHY),
        ),
        "A ratio near one says that the layers are alike, not that they are well. It is "
        "{healthy.ratio} in a [healthy network](show:healthy), {hidden.ratio} in one with "
        "[gradients near {hidden.first}](show:hidden), and {exploding.ratio} in one with "
        "[gradients near {exploding.first}](show:exploding). Always look at the size as well.",
    ),
    Claim(
        "random",
        "Random weights of spread 1 explode.",
        "the diagnosis is “exploding”",
        tuple(
            _check(f"{name}_random_15", label, "is", Verdict.EXPLODING)
            for name, label in (
                ("tanh", "Tanh"),
                ("relu", "ReLU"),
                ("leaky_relu", "Leaky ReLU"),
                ("elu", "ELU"),
                ("selu", "SELU"),
                ("gelu", "GELU"),
                ("silu", "SiLU"),
                ("sigmoid", "Sigmoid"),
            )
        ),
        "True for all but one at {sigmoid_random_15.depth} layers. The exception is "
        "[sigmoid](show:sigmoid_random_15), whose small slope and large weights nearly cancel: "
        "{sigmoid_random_15.step|times} per layer, against [{relu_random_15.step|times} with "
        "ReLU](show:relu_random_15).",
    ),
    Claim(
        "selu",
        "SELU with LeCun initialization normalizes itself.",
        "the figure is within a tenth of one",
        (
            Case("forward: spread of the last activations", "selu_100", "std_last", "≈", 1.0),
            Case("backward: first-to-last ratio", "selu_100", "ratio", "≈", 1.0),
        ),
        "Forward it does: after [{selu_100.depth} layers](show:selu_100) activations still have a "
        "standard deviation of {selu_100.std_last}. Backward the gradient grows a little in every "
        "layer, {selu_100.step|times}, which makes {selu_100.ratio|times} from last to first.",
    ),
    Claim(
        "selu_gain",
        "For SELU, use calculate_gain('selu') = 3/4.",
        "the last activations have a standard deviation within a tenth of one",
        (Case("30 layers, gain 3/4", "selu_gain", "std_last", "≈", 1.0),),
        "With that gain [activations shrink](show:selu_gain) to {selu_gain.std_last}. "
        "[LeCun's variance](show:selu), a gain of one, keeps {selu.std_last}, and it is what SELU "
        "was designed for.",
    ),
    Claim(
        "normalization",
        "Normalization layers end vanishing and exploding gradients.",
        "the diagnosis becomes “healthy”",
        (
            _check("vanishing_batchnorm", "vanishing sigmoid + batch", "is", Verdict.HEALTHY),
            _check("vanishing_layernorm", "vanishing sigmoid + layer", "is", Verdict.HEALTHY),
            _check("exploding_layernorm", "exploding ReLU + layer", "is", Verdict.HEALTHY),
            _check("he_layernorm_50", "ReLU, 50 layers + layer", "is", Verdict.HEALTHY),
            _check("he_batchnorm_50", "ReLU, 50 layers + batch", "is", Verdict.HEALTHY),
        ),
        "It depends on which, and before what. [Layer normalization before a "
        "sigmoid](show:vanishing_layernorm) leaves {vanishing_layernorm.first} at the first layer: "
        "the slope is as small as ever. [Batch normalization with ReLU at {he_batchnorm_50.depth} "
        "layers](show:he_batchnorm_50) makes gradients *explode*, {he_batchnorm_50.step|times} per "
        "layer, where [nothing at all](show:relu_he_50) keeps them at {relu_he_50.step|times}.",
    ),
    Claim(
        "residual",
        "Residual connections end vanishing gradients in any network.",
        "the diagnosis becomes “healthy”",
        (
            _check("vanishing_residual", "vanishing sigmoid, scaled", "is", Verdict.HEALTHY),
            _check("rescued", "100 layers of ReLU, scaled", "is", Verdict.HEALTHY),
            _check("he_residual_50", "ReLU with He, 50 layers, scaled", "is", Verdict.HEALTHY),
            _check("he_plain_50", "ReLU with He, 50 layers, plain", "is", Verdict.HEALTHY),
        ),
        "They end vanishing, and can overdo it. Added at full size to layers that already keep "
        "the gradient, they [multiply it by {he_plain_50.step}](show:he_plain_50) per layer and "
        "it explodes. [Scaled by $1/\\sqrt{L}$](show:he_residual_50) the step is "
        "{he_residual_50.step}.",
    ),
    Claim(
        "leaky",
        "Leaky ReLU keeps units from dying.",
        "fewer than one unit in a hundred is dead; the diagnosis is “healthy”",
        (
            Case("dead units", "dying_leaky", "dead", "<", 0.01),
            _check("dying_leaky", "diagnosis", "is", Verdict.HEALTHY),
        ),
        "Units no longer die: the share of dead ones goes from [{dying.dead|%}](show:dying) to "
        "[{dying_leaky.dead|%}](show:dying_leaky). But in a network {dying.width} units wide the "
        "gradient that comes back is {dying_leaky.first}. The cause is that the network is narrow: "
        "with [{dying_wide.width} units](show:dying_wide) per layer, plain ReLU is healthy.",
    ),
    Claim(
        "gelu",
        "GELU and SiLU can replace ReLU, with the same initialization.",
        "the diagnosis is “healthy” with He initialization",
        (
            _check("gelu_he_30", "GELU", "is", Verdict.HEALTHY),
            _check("silu_he_30", "SiLU", "is", Verdict.HEALTHY),
        ),
        "Near zero both are almost a line of slope one half, so once the signal has become small "
        "they shrink it ever faster. After {silu_he_30.depth} layers the spread is "
        "[{gelu_he_30.std_last} with GELU](show:gelu_he_30), [{silu_he_30.std_last} with "
        "SiLU](show:silu_he_30) and [{relu_he_30.std_last} with ReLU](show:relu_he_30). "
        "In transformers, normalization and residual paths make up for it.",
    ),
    Claim(
        "slope",
        "The derivative of the sigmoid is z (1 − z).",
        "it gives the slope at an input of {sigmoid.z}, within a tenth",
        (
            Case("if z is the input", "sigmoid", "from_input", "≈", _SLOPE),
            Case("if z is the output", "sigmoid", "from_output", "≈", _SLOPE),
        ),
        "Texts mix two meanings of one letter. With the output $h = \\sigma(z)$ the slope is "
        "$h(1-h)$; with the input it is $\\sigma(z)(1-\\sigma(z))$. At an input of {sigmoid.z} the "
        "slope is {sigmoid.slope}; putting the input itself into the formula gives "
        "{sigmoid.from_input}. [Check it on the chain-rule page]"
        "(/chain-rule?x=2&weights=1&activation=sigmoid). No slope is above {sigmoid.most}, and "
        "in [sigmoid layers](show:sigmoid_xavier_10) one sees it: no activation factor is "
        "above it.",
    ),
    Claim(
        "listing",
        "In ten default sigmoid layers, gradients run from 0.284719 (last) to 0.000003 (first).",
        "our measurement is within a tenth of it",
        (
            Case("first layer", "sigmoid_pytorch_10", "first", "≈", 0.000003),
            Case("last layer", "sigmoid_pytorch_10", "last", "≈", 0.284719),
        ),
        "A script with these numbers has been copied from page to page. Measured on "
        "{sigmoid_pytorch_10.depth} such layers of {sigmoid_pytorch_10.width} units, "
        "[we find](show:sigmoid_pytorch_10) {sigmoid_pytorch_10.first} and "
        "{sigmoid_pytorch_10.last}: the gradient does vanish, and far more than those numbers say.",
    ),
)
"""Every claim, in display order."""
