"""The vocabulary of remedies: which changes there are to try, and what each costs.

Nothing here says that a change helps: `remedies` measures that.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.rules import Verdict
from chainrule.errors import SpecError
from chainrule.spec.activations import ACTIVATIONS, get_activation
from chainrule.spec.initializers import get_initializer
from chainrule.spec.network_spec import MAX_WIDTH, NetworkSpec

CLIP_NORM = 1.0
"""The total norm that gradients are clipped to, as most recipes have it (Pascanu et al. 2013)."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of change.

    Attributes:
        name: Key of the kind.
        label: The name shown to people.
        price: Why it costs what it does, in one sentence.
    """

    name: str
    label: str
    price: str


_KINDS = (
    Kind("initialization", "initialization", "One line before training; nothing while it runs."),
    Kind("bias", "biases", "One line before training; nothing while it runs."),
    Kind("clipping", "gradient clipping", "One line in the training loop; the network stays."),
    Kind("residual", "residual connections", "One addition per layer; no further weights."),
    Kind(
        "normalization",
        "normalization",
        "Statistics of every layer at every step, and further weights.",
    ),
    Kind(
        "gain",
        "measured scale",
        "The scale has to be measured, and again for every new depth, width or activation.",
    ),
    Kind("activation", "activation", "Another function in every layer: another model."),
    Kind("depth", "fewer layers", "Cheaper to run, but a smaller model can express less."),
    Kind("width", "more units", "Weights and time grow with the square of the width."),
)

KINDS: Mapping[str, Kind] = MappingProxyType({kind.name: kind for kind in _KINDS})
"""Every kind of change by name, the cheapest first."""

COSTS: Mapping[str, int] = MappingProxyType({name: rank for rank, name in enumerate(KINDS)})
"""The place of a kind in that order. Two changes are dearer than any one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Treatment:
    """A change to try, not yet measured.

    Attributes:
        kinds: What kind of change it is; two names for a pair of changes.
        title: The change in a few words.
        reason: Why it could help, in one plain sentence (one for each of a pair).
        spec: The specification after it.
    """

    kinds: tuple[str, ...]
    title: str
    reason: str
    spec: NetworkSpec

    @property
    def cost(self) -> tuple[int, ...]:
        """What treatments are ranked by, cheap first: how many changes, then their kinds."""
        return (len(self.kinds), *sorted((COSTS[kind] for kind in self.kinds), reverse=True))


def list_treatments(spec: NetworkSpec, verdict: Verdict) -> Iterator[Treatment]:
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


def scale_weights(spec: NetworkSpec, std: float) -> Treatment:
    """Return the change to weights of a standard deviation that was found by measuring."""
    return Treatment(
        kinds=("gain",),
        title=f"Weights of σ = {format_number(std)}",
        reason="At this scale, found by measuring, a layer hands back about as much gradient as it "
        "receives; it holds at the start, and training may leave it.",
        spec=spec.replace(init="random", weight_std=std, **_keep_distribution(spec, "random")),
    )


def combine_treatments(spec: NetworkSpec, first: Treatment, second: Treatment) -> Treatment | None:
    """Return two changes at once; `None` if they contradict each other."""
    changes = [list_changes(spec, part.spec) for part in (first, second)]
    if set(changes[0]) & set(changes[1]) or set(first.kinds) & set(second.kinds):
        return None
    both = _replace(spec, **changes[0], **changes[1])
    if both is None:
        return None
    return Treatment(
        kinds=(*first.kinds, *second.kinds),
        title=f"{first.title} + {second.title}",
        reason=f"{first.reason} {second.reason}",
        spec=both,
    )


def list_changes(before: NetworkSpec, after: NetworkSpec) -> dict[str, Any]:
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


def _list_initializations(spec: NetworkSpec) -> Iterator[Treatment]:
    seen = {_draws(spec)}
    suited = ACTIVATIONS[spec.activation].initialization
    for init in dict.fromkeys((suited, "he", "xavier", "orthogonal")):
        changed = _replace(spec, **_change_init(spec, init))
        if changed is None or _draws(changed) in seen:
            continue
        seen.add(_draws(changed))
        entry = get_initializer(init)
        yield Treatment(
            kinds=("initialization",),
            title=f"{entry.label} initialization",
            reason=f"It draws weights with σ = {format_number(changed.weight_std_drawn)} instead "
            f"of {format_number(spec.weight_std_drawn)}; made for {entry.best_for}.",
            spec=changed,
        )


def _list_biases(spec: NetworkSpec) -> Iterator[Treatment]:
    if spec.bias_std or (spec.bias_std is None and spec.initializer.bias_bound is not None):
        yield Treatment(
            kinds=("bias",),
            title="Zero biases",
            reason="A bias shifts all examples alike, so without it they stay further apart.",
            spec=spec.replace(bias_std=0.0),
        )


def _list_clipping(spec: NetworkSpec, verdict: Verdict) -> Iterator[Treatment]:
    if spec.clip_norm is None and verdict in (Verdict.EXPLODING, Verdict.VANISHING):
        yield Treatment(
            kinds=("clipping",),
            title=f"Gradient clipping at {CLIP_NORM:g}",
            reason="It shortens the step when all gradients together are too long; what one layer "
            "receives compared with another stays as it was, and so does the diagnosis, which is "
            "of the gradients before clipping.",
            spec=spec.replace(clip_norm=CLIP_NORM),
        )


def _list_residuals(spec: NetworkSpec) -> Iterator[Treatment]:
    reasons = {
        "scaled": "The path around each layer hands the gradient on unchanged, and dividing what "
        "is added by √depth keeps the sum from growing.",
        "plain": "The path around each layer hands the gradient on unchanged.",
    }
    for residual, reason in reasons.items():
        changed = _replace(spec, residual=residual)
        if changed:
            scaled = ", scaled by 1/√depth" if residual == "scaled" else ""
            yield Treatment(
                kinds=("residual",),
                title=f"Residual connections{scaled}",
                reason=reason,
                spec=changed,
            )


_NORMALIZATIONS = {
    "layernorm": (
        "Layer normalization",
        "In every layer each example's values get mean 0 and standard deviation 1, whatever the "
        "scale of the weights.",
    ),
    "rmsnorm": (
        "RMS normalization",
        "In every layer each example's values get a mean square of 1, whatever the scale of the "
        "weights.",
    ),
    "batchnorm": (
        "Batch normalization",
        "In every layer each unit gets mean 0 and standard deviation 1 over the batch, so "
        "examples cannot all give the same answer.",
    ),
}


def _list_normalizations(spec: NetworkSpec) -> Iterator[Treatment]:
    for name, (title, reason) in _NORMALIZATIONS.items():
        changed = _replace(spec, normalization=name)
        if changed:
            yield Treatment(kinds=("normalization",), title=title, reason=reason, spec=changed)


_ALTERNATIVES = ("relu", "leaky_relu", "elu", "selu", "tanh")
"""Activations to change to: those whose derivative reaches 1."""


def _list_activations(spec: NetworkSpec) -> Iterator[Treatment]:
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
                f"It passes on up to {100 * new.derivative_max:.0f} % of a gradient, "
                f"{old.label} {100 * old.derivative_max:.0f} %."
            )
        else:
            reason = f"{new.note}"
        yield Treatment(
            kinds=("activation",),
            title=f"{new.label} with {suited_label} initialization",
            reason=reason,
            spec=changed,
        )


def _list_depths(spec: NetworkSpec) -> Iterator[Treatment]:
    depth = spec.depth // 2
    while depth >= 2:
        yield Treatment(
            kinds=("depth",),
            title=f"{depth} layers",
            reason="The fewer layers, the fewer factors are multiplied.",
            spec=spec.replace(depth=depth),
        )
        depth //= 2


def _list_widths(spec: NetworkSpec, verdict: Verdict) -> Iterator[Treatment]:
    if verdict is not Verdict.DEAD_UNITS and spec.width > 32:
        return  # 128 and 256 units instead of 64 moved no preset's metric towards its bound
    for factor in (2, 4, 8):
        width = spec.width * factor
        if width <= min(MAX_WIDTH, 512):
            yield Treatment(
                kinds=("width",),
                title=f"{width} units per layer",
                reason="The more units a layer has, the rarer it is that all are off or that "
                "chance decides its gain.",
                spec=spec.replace(width=width),
            )


def choose_ingredients(ranked: Sequence[Treatment]) -> list[Treatment]:
    """Return what pairs are made of: of every kind but clipping and width the best one or two.

    Args:
        ranked: Measured single changes, the best first.
    """
    limits = {"residual": 2, "normalization": 2, "clipping": 0, "width": 1}
    chosen: list[Treatment] = []
    for treatment in ranked:
        kind = treatment.kinds[0]
        if sum(each.kinds[0] == kind for each in chosen) < limits.get(kind, 1):
            chosen.append(treatment)
    return chosen
