"""What to do against infinite and undefined numbers, by the operation that makes the first."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from chainrule.flow.non_finite import NonFiniteOrigin


@dataclass(frozen=True, slots=True, kw_only=True)
class Cure:
    """A change of code that keeps numbers finite.

    Attributes:
        title: What to do, in a few words.
        reason: Why.
        code: A few lines that do it, with tensors named as in PyTorch's documentation.
    """

    title: str
    reason: str
    code: str


_ANGLE = Cure(
    title="Clamp the argument just inside of −1 and 1",
    reason="The slope of acos and asin is infinite at −1 and 1.",
    code="angle = torch.acos(x.clamp(-1 + 1e-6, 1 - 1e-6))",
)
_ROOT = Cure(
    title="Add a small constant inside the root",
    reason="The slope of a square root is infinite at 0. A constant outside of it does not help.",
    code="root = (x + 1e-8).sqrt()",
)
_INVERSE_ROOT = Cure(
    title="Add a small constant inside the root",
    reason="1 ÷ √x is infinite at 0.",
    code="inverse = (x + 1e-8).rsqrt()",
)
_NORM = Cure(
    title="Keep the norm away from zero",
    reason="A vector of length 0 has no direction, so dividing by its norm is undefined.",
    code="unit = torch.nn.functional.normalize(x, dim=-1, eps=1e-6)",
)
_DIVISION = Cure(
    title="Replace zeros in the denominator before the division",
    reason="torch.where after the division hides infinity in the value, but not in the gradient: "
    "0 × ∞ is undefined. So the denominator itself must not be zero.",
    code="is_zero = y == 0\n"
    "ratio = torch.where(is_zero, torch.zeros_like(y), x / y.masked_fill(is_zero, 1.0))",
)
_LOG = Cure(
    title="Keep the argument of the logarithm above zero, or compute it from logits",
    reason="The logarithm is minus infinity at 0 and undefined below.",
    code="log = x.clamp(min=1e-6).log()\n"
    "# of a softmax: torch.nn.functional.log_softmax(logits, dim=-1)",
)
_POWER = Cure(
    title="Keep the base of the power above zero",
    reason="A power that is not whole is undefined below 0, and below 1 its slope is infinite at "
    "0.",
    code="power = x.clamp(min=1e-6) ** exponent",
)
_EXP = Cure(
    title="Keep the argument of exp small",
    reason="In float32, exp overflows above 88 (in float16 above 11). Make the initial weights of "
    "what comes before smaller, subtract the largest value first, or limit it.",
    code="value = x.clamp(max=30).exp()\n# of a sum: torch.logsumexp(x, dim=-1)",
)
_ROW = Cure(
    title="Mask with a large finite number",
    reason="If every entry of a row is minus infinity, softmax divides 0 by 0. With a finite "
    "number, the row gets equal weights instead; then ignore it in the loss.",
    code="scores = scores.masked_fill(mask, torch.finfo(scores.dtype).min)\n"
    "weights = scores.softmax(dim=-1)",
)
_MASK = Cure(
    title="Fill in a mask instead of multiplying it by infinity",
    reason="0 × ∞ and ∞ − ∞ are undefined.",
    code="scores = scores.masked_fill(mask, torch.finfo(scores.dtype).min)",
)
_ALIGNMENT = Cure(
    title="Give the loss longer inputs or shorter targets, or the impossible ones as zero",
    reason="A target that is longer than its input (a repeated label needs a blank in between) has "
    "probability 0, so its loss is infinite.",
    code="loss = torch.nn.functional.ctc_loss(\n"
    "    log_probs, targets, input_lengths, target_lengths, zero_infinity=True\n)",
)
_HALF = Cure(
    title="Compute in bfloat16, or this operation in float32",
    reason="float16 ends at 65,504. bfloat16 has the range of float32.",
    code="with torch.autocast(x.device.type, dtype=torch.bfloat16):\n    output = model(x)",
)
_HALF_GRADIENT = Cure(
    title="Scale the loss so that gradients fit into half precision",
    reason="A scaler lowers the factor of the loss until no gradient overflows.",
    code="scaler = torch.amp.GradScaler(x.device.type)\n"
    "scaler.scale(loss).backward()\nscaler.step(optimizer)\nscaler.update()",
)
_WEIGHTS = Cure(
    title="Smaller initial weights",
    reason="The values grow from layer to layer until they are larger than the number format can "
    "hold.",
    code="for parameter in model.parameters():\n    if parameter.dim() >= 2:\n"
    "        torch.nn.init.xavier_uniform_(parameter)",
)
_INPUT = Cure(
    title="Remove examples that are not finite from the data",
    reason="One such number in the input makes every value undefined that is computed with it.",
    code="is_sound = x.isfinite().flatten(1).all(dim=1)\nx, y = x[is_sound], y[is_sound]",
)
_PARAMETER = Cure(
    title="Set the parameters that are not finite anew, or load an earlier checkpoint",
    reason="A weight that is undefined stays so: every step adds to it.",
    code="with torch.no_grad():\n    for parameter in model.parameters():\n"
    "        if not parameter.isfinite().all():\n"
    "            torch.nn.init.normal_(parameter, std=0.02)",
)
_BUFFER = Cure(
    title="Reset running statistics, or load an earlier checkpoint",
    reason="A buffer that is undefined was filled from undefined values, or never.",
    code="for module in model.modules():\n    if hasattr(module, 'reset_running_stats'):\n"
    "        module.reset_running_stats()",
)

_DETERMINANT = Cure(
    title="Take the logarithm of the determinant's size, or keep its sign positive",
    reason="A determinant may be negative, and a number below 0 has no logarithm.",
    code="log_size = torch.linalg.slogdet(matrix).logabsdet",
)
_SINGULAR = Cure(
    title="Keep the matrix away from one without an inverse",
    reason="If its determinant is 0, it has no inverse, and the logarithm is minus infinity.",
    code="matrix = matrix + 1e-4 * torch.eye(matrix.shape[-1], device=matrix.device)",
)
_FACTORS = Cure(
    title="Keep singular values or eigenvalues apart",
    reason="Where two of them are the same, their vectors, and so the derivatives, are undefined.",
    code="steps = torch.arange(matrix.shape[-1], device=matrix.device)\n"
    "matrix = matrix + 1e-4 * torch.diag(steps)",
)
_ONE = Cure(
    title="Give it more than one element, or set correction=0",
    reason="With one element, the usual formula divides by their number − 1, so by 0.",
    code="spread = x.std(dim=0, correction=0)",
)
_NOTHING = Cure(
    title="Leave out what has no elements",
    reason="The mean of nothing is 0 ÷ 0. A mask or a filter has let nothing through.",
    code="loss = x.sum() / max(1, x.numel())",
)
_UNCOUNTED = Cure(
    title="Leave out batches in which no target counts",
    reason="The mean over no targets is 0 ÷ 0.",
    code="losses = torch.nn.functional.cross_entropy(logits, target, reduction='sum')\n"
    "loss = losses / (target != -100).sum().clamp(min=1)",
)
_LOGIT = Cure(
    title="Keep the argument just inside of its range",
    reason="logit is defined between 0 and 1, atanh and erfinv between −1 and 1; at the ends they "
    "are infinite.",
    code="value = torch.logit(p, eps=1e-6)  # torch.atanh(x.clamp(-1 + 1e-6, 1 - 1e-6))",
)

CURES: Mapping[str, Cure] = MappingProxyType(
    {
        **dict.fromkeys(("acos", "asin", "arccos", "arcsin"), _ANGLE),
        **dict.fromkeys(("square root", "standard deviation"), _ROOT),
        "1 ÷ square root": _INVERSE_ROOT,
        "norm": _NORM,
        "division": _DIVISION,
        **dict.fromkeys(("log", "log2", "log10", "log1p", "xlogy"), _LOG),
        **dict.fromkeys(("logit", "atanh", "arctanh", "erfinv"), _LOGIT),
        "logdet": _DETERMINANT,
        **dict.fromkeys(("slogdet", "inv"), _SINGULAR),
        **dict.fromkeys(("svd", "eigh", "eig"), _FACTORS),
        "power": _POWER,
        **dict.fromkeys(("exp", "exp2", "expm1", "sinh", "cosh"), _EXP),
        "softmax of a row that is masked everywhere": _ROW,
        **dict.fromkeys(("multiplication", "addition", "subtraction"), _MASK),
        "ctc_loss": _ALIGNMENT,
        **dict.fromkeys(("matrix product", "convolution"), _WEIGHTS),
    }
)
"""What to do, by the operation (`NonFiniteOrigin.op`)."""


_BY_DETAIL: Mapping[str, Cure] = MappingProxyType(
    {"single element": _ONE, "no element went in": _NOTHING, "no target counts": _UNCOUNTED}
)
"""What to do, by what else was seen of a call (`NonFiniteOrigin.detail`)."""


def find_cure(origin: NonFiniteOrigin) -> Cure | None:
    """Return what to do against the numbers of an origin; `None` if only its formula can tell."""
    by_source = {"input": _INPUT, "parameter": _PARAMETER, "buffer": _BUFFER, "constant": _MASK}
    if origin.source != "operation":
        return by_source[origin.source]
    if origin.overflow:
        return _HALF if origin.direction == "forward" else _HALF_GRADIENT
    name = origin.op.partition(", in ")[0]
    if origin.direction == "forward" and origin.detail:
        found = next((cure for words, cure in _BY_DETAIL.items() if words in origin.detail), None)
        if found is not None:
            return found
    is_large = any(abs(x) > 1.0 for each in origin.elements for x in each.inputs)
    if name in ("multiplication", "addition", "subtraction") and is_large and _is_made(origin):
        return _WEIGHTS
    return CURES.get(name)


def is_of_formula(origin: NonFiniteOrigin) -> bool:
    """Return whether the formula has to change: other weights would only hide the fault.

    Values that grow too large, and weights that are undefined themselves, are a matter of weights.
    """
    return find_cure(origin) not in (None, _WEIGHTS, _EXP, _PARAMETER, _HALF, _HALF_GRADIENT)


def _is_made(origin: NonFiniteOrigin) -> bool:
    """Whether only finite numbers went in where the first element is not finite."""
    return all(abs(x) < float("inf") for each in origin.elements for x in each.inputs)


def describe_cure(origin: NonFiniteOrigin) -> str:
    """Return what to do next, in one sentence or two."""
    cure = find_cure(origin)
    where = f" at {origin.position}" if origin.position else f" in {origin.place}"
    if cure is None:
        return (
            f"Look at {origin.op}{where}: keep what goes into it away from where it, or its slope, "
            "is not finite."
        )
    detail = f": {origin.detail}" if origin.detail else ""
    return f"{cure.title} ({origin.op}{where}{detail}). Then measure again."
