"""Changes worth trying on a specification.

Nothing here says that a change helps: `spec_search` measures that.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.rule import Verdict
from chainrule.errors import SpecError
from chainrule.remedies.changes import CLIP_NORM, CLIPPING, RESIDUAL, ZERO_BIASES, Change, join
from chainrule.spec.activations import ACTIVATIONS, get_activation
from chainrule.spec.initializers import get_initializer
from chainrule.spec.network_spec import MAX_WIDTH, NetworkSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class SpecChange(Change):
    """A change of a specification, not yet measured.

    Attributes:
        spec: The specification after it.
    """

    spec: NetworkSpec


def list_spec_changes(spec: NetworkSpec, verdict: Verdict) -> Iterator[SpecChange]:
    """Yield the single changes worth measuring, the cheapest kind first.

    The kind "gain" is not among them, because its scale must be found by measuring first (see
    `scale_weights`).

    Args:
        spec: The network to change.
        verdict: What is wrong with it.
    """
    yield from _list_initializations(spec)
    yield from _list_biases(spec)
    yield from _list_clipping(spec, verdict)
    yield from _list_residuals(spec)
    yield from _list_normalizations(spec)
    yield from _list_activations(spec)
    yield from _list_depths(spec)
    yield from _list_widths(spec, verdict)


def scale_weights(spec: NetworkSpec, std: float) -> SpecChange:
    """Return the change to weights of a standard deviation that was found by measuring."""
    return SpecChange(
        kinds=("gain",),
        title=f"Weights of σ = {format_number(std)}",
        reason="This scale was found by measuring: with it, each layer passes back about as much "
        "gradient as it receives. That holds at the start of training.",
        spec=spec.replace(init="random", weight_std=std, **_keep_distribution(spec, "random")),
    )


def combine_spec_changes(
    spec: NetworkSpec, first: SpecChange, second: SpecChange
) -> SpecChange | None:
    """Return two changes at once; `None` if they contradict each other."""
    changes = [list_changed_fields(spec, part.spec) for part in (first, second)]
    if set(changes[0]) & set(changes[1]) or set(first.kinds) & set(second.kinds):
        return None
    both = _replace(spec, **changes[0], **changes[1])
    if both is None:
        return None
    return SpecChange(**join(first, second), spec=both)


def list_changed_fields(before: NetworkSpec, after: NetworkSpec) -> dict[str, Any]:
    """Return the fields in which two specifications differ, with the values of the second."""
    old = before.model_dump()
    return {name: value for name, value in after.model_dump().items() if value != old[name]}


def _replace(spec: NetworkSpec, **changes: Any) -> NetworkSpec | None:
    """Return the changed specification; `None` if it is not legal or the same."""
    try:
        changed = spec.replace(**changes)
    except SpecError:
        return None
    return None if changed == spec else changed


def _keep_distribution(spec: NetworkSpec, init: str) -> dict[str, Any]:
    legal = (None, *get_initializer(init).distributions)
    return {} if spec.distribution in legal else {"distribution": None}


def _change_init(spec: NetworkSpec, init: str) -> dict[str, Any]:
    return {"init": init, "weight_std": 1.0, **_keep_distribution(spec, init)}


def _draws(spec: NetworkSpec) -> tuple[object, ...]:
    """Return what tells initializations of one shape apart: equal ones draw the same weights."""
    biases = spec.bias_std if spec.bias_std is not None else spec.initializer.bias_bound
    orthogonal = spec.init == "orthogonal"
    return round(spec.weight_std_drawn, 9), spec.drawn_distribution, orthogonal, biases


def _list_initializations(spec: NetworkSpec) -> Iterator[SpecChange]:
    seen = {_draws(spec)}
    suited = ACTIVATIONS[spec.activation].initialization
    for init in dict.fromkeys((suited, "he", "xavier", "orthogonal")):
        changed = _replace(spec, **_change_init(spec, init))
        if changed is None or _draws(changed) in seen:
            continue
        seen.add(_draws(changed))
        entry = get_initializer(init)
        yield SpecChange(
            kinds=("initialization",),
            title=f"{entry.label} initialization",
            reason=f"It draws {_describe_drawing(spec, changed)}. It is made for {entry.best_for}.",
            spec=changed,
        )


def _describe_drawing(before: NetworkSpec, after: NetworkSpec) -> str:
    """Return what an initialization draws, and how that differs from what was drawn before."""
    old, new = (format_number(spec.weight_std_drawn) for spec in (before, after))
    if old != new:
        return f"weights with σ = {new} instead of {old}"
    other = ""
    if after.init == "orthogonal":
        other = ", but the rows or columns of each matrix are at right angles to each other"
    elif before.init == "orthogonal":
        other = ", but each weight is drawn independently instead of as orthogonal matrices"
    return f"weights with σ = {new}, as before{other}"


def _list_biases(spec: NetworkSpec) -> Iterator[SpecChange]:
    if spec.bias_std or (spec.bias_std is None and spec.initializer.bias_bound is not None):
        yield SpecChange(
            kinds=("bias",),
            title=ZERO_BIASES.title,
            reason=ZERO_BIASES.reason,
            spec=spec.replace(bias_std=0.0),
        )


def _list_clipping(spec: NetworkSpec, verdict: Verdict) -> Iterator[SpecChange]:
    if spec.clip_norm is None and verdict in (Verdict.EXPLODING, Verdict.VANISHING):
        yield SpecChange(
            kinds=("clipping",),
            title=CLIPPING.title,
            reason=f"{CLIPPING.reason} The diagnosis uses the gradients before clipping.",
            spec=spec.replace(clip_norm=CLIP_NORM),
        )


def _list_residuals(spec: NetworkSpec) -> Iterator[SpecChange]:
    reasons = {
        "scaled": f"{RESIDUAL.reason} What is added is divided by √depth, so sums do not grow.",
        "plain": RESIDUAL.reason,
    }
    for residual, reason in reasons.items():
        changed = _replace(spec, residual=residual)
        if changed:
            scaled = ", scaled by 1/√depth" if residual == "scaled" else ""
            yield SpecChange(
                kinds=("residual",),
                title=f"{RESIDUAL.title}{scaled}",
                reason=reason,
                spec=changed,
            )


_NORMALIZATIONS = {
    "layernorm": (
        "Layer normalization",
        "In every layer the values of each example get mean 0 and standard deviation 1, at any "
        "scale of the weights.",
    ),
    "rmsnorm": (
        "RMS normalization",
        "In every layer the values of each example get a mean square of 1, at any scale of the "
        "weights.",
    ),
    "batchnorm": (
        "Batch normalization",
        "In every layer each unit gets mean 0 and standard deviation 1 over the batch, so the "
        "examples cannot all give the same output.",
    ),
}


def _list_normalizations(spec: NetworkSpec) -> Iterator[SpecChange]:
    for name, (title, reason) in _NORMALIZATIONS.items():
        changed = _replace(spec, normalization=name)
        if changed:
            yield SpecChange(kinds=("normalization",), title=title, reason=reason, spec=changed)


_ALTERNATIVES = ("relu", "leaky_relu", "elu", "selu", "tanh")
"""Activations to change to: those whose derivative reaches 1."""


def _list_activations(spec: NetworkSpec) -> Iterator[SpecChange]:
    old = get_activation(spec.activation)
    for name in _ALTERNATIVES:
        new = get_activation(name)
        suited = _change_init(spec, new.initialization)
        changed = _replace(spec, activation=name, **suited)
        if changed is None or name == spec.activation:
            continue
        suited_label = get_initializer(new.initialization).label
        if old.derivative_max < 0.5:
            reason = (
                f"Its derivative reaches {format_number(new.derivative_max)}, that of "
                f"{old.label} only {format_number(old.derivative_max)}."
            )
        else:
            reason = new.note
        yield SpecChange(
            kinds=("activation",),
            title=f"{new.label} with {suited_label} initialization",
            reason=reason,
            spec=changed,
        )


def _list_depths(spec: NetworkSpec) -> Iterator[SpecChange]:
    depth = spec.depth // 2
    while depth >= 2:
        yield SpecChange(
            kinds=("depth",),
            title=f"Only {depth} layers",
            reason="With fewer layers, fewer factors are multiplied.",
            spec=spec.replace(depth=depth),
        )
        depth //= 2


def _list_widths(spec: NetworkSpec, verdict: Verdict) -> Iterator[SpecChange]:
    if verdict is not Verdict.DEAD_UNITS and spec.width > 32:
        return  # 128 and 256 units instead of 64 moved no preset's metric towards its bound
    for factor in (2, 4, 8):
        width = spec.width * factor
        if width <= min(MAX_WIDTH, 512):
            yield SpecChange(
                kinds=("width",),
                title=f"{width} units per layer",
                reason="With more units in a layer, it is less likely that all of them are off. "
                "How much gradient the layer passes back depends less on chance.",
                spec=spec.replace(width=width),
            )


def choose_ingredients(ranked: Sequence[SpecChange]) -> list[SpecChange]:
    """Return what pairs are made of: of every kind but clipping and width the best one or two.

    Args:
        ranked: Measured single changes, the best first.
    """
    limits = {"residual": 2, "normalization": 2, "clipping": 0, "width": 1}
    chosen: list[SpecChange] = []
    for treatment in ranked:
        kind = treatment.kinds[0]
        if sum(each.kinds[0] == kind for each in chosen) < limits.get(kind, 1):
            chosen.append(treatment)
    return chosen
