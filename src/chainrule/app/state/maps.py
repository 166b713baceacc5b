"""What the page of maps shows, as an address: repaired on the way in, canonical on the way out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl, urlencode

from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import NetworkSpec
from chainrule.spec.query import MAX_QUERY
from chainrule.sweeps.axes import Axis
from chainrule.sweeps.cells import Training
from chainrule.sweeps.grids import WEIGHT_SCALE

STEPS = 100
"""Optimizer steps of each network, if the map trains them."""

SIZES = (12, 24)
"""Cells along each axis of numbers."""

WIDTHS = (32, 64, 128)

Values = Callable[[int], tuple[Any, ...]]


def _space(low: float, span: float) -> Values:
    return lambda count: tuple(round(low + span * place / count, 3) for place in range(count))


@dataclass(frozen=True, slots=True)
class Kind:
    """A choice of axes.

    Attributes:
        label: What it is called.
        x: The axis to the right: its name, and its values for a number of cells.
        y: The axis upwards.
        settings: Settings of the form that count for it.
    """

    label: str
    x: tuple[str, Values]
    y: tuple[str, Values]
    settings: tuple[str, ...]


KINDS: Mapping[str, Kind] = MappingProxyType(
    {
        "depth": Kind(
            "weight scale × depth",
            (WEIGHT_SCALE, _space(0.5, 2.4)),
            ("depth", lambda count: tuple(range(48 // count, 49, 48 // count))),
            ("activation", "bias_std", "width", "size"),
        ),
        "bias": Kind(
            "weight scale × spread of the biases",
            (WEIGHT_SCALE, _space(0.5, 2.4)),
            ("bias_std", _space(0.0, 1.2)),
            ("activation", "depth", "width", "size"),
        ),
        "names": Kind(
            "initialization × activation",
            ("init", lambda _: tuple(INITIALIZERS)),
            ("activation", lambda _: tuple(ACTIVATIONS)),
            ("depth", "width"),
        ),
    }
)
"""The maps that the page draws."""

SETTINGS: Mapping[str, tuple[Any, ...]] = MappingProxyType(
    {
        "activation": tuple(ACTIVATIONS),
        "bias_std": (0.0, 0.1, 0.2, 0.4, 0.8),
        "depth": (5, 10, 20, 30, 48),
        "width": WIDTHS,
        "size": SIZES,
        "train": ("", "sgd", "adam"),
    }
)
"""What can be chosen for each setting."""

DEFAULTS: Mapping[str, Any] = MappingProxyType(
    {"activation": "tanh", "bias_std": 0.2, "depth": 20, "width": 64, "size": 12, "train": ""}
)


@dataclass(frozen=True, slots=True)
class MapView:
    """The whole state of the page.

    Attributes:
        kind: A name of `KINDS`.
        settings: A value for each name of `SETTINGS`.
    """

    kind: str
    settings: Mapping[str, Any]

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """The axes, the one to the right first."""
        kind, size = KINDS[self.kind], self.settings["size"]
        x, y = (Axis(name=name, values=values(size)) for name, values in (kind.x, kind.y))
        return x, y

    @property
    def base(self) -> NetworkSpec:
        """The settings that are the same in all cells."""
        fields = {name: self.settings[name] for name in ("activation", "bias_std", "depth")}
        own = {name: each for name, each in fields.items() if name in KINDS[self.kind].settings}
        return NetworkSpec(width=self.settings["width"], **own)

    @property
    def training(self) -> Training | None:
        """How each network is trained; `None` if it is not."""
        optimizer = self.settings["train"]
        return Training(optimizer=optimizer, steps=STEPS) if optimizer else None

    def replace_setting(self, name: str, value: Any) -> "MapView":
        """Return the view with one setting changed.

        Args:
            name: A name of `SETTINGS`.
            value: One of its values.
        """
        return MapView(self.kind, MappingProxyType({**self.settings, name: value}))

    @property
    def address(self) -> str:
        """The address: what is not as usual."""
        fields = {"map": self.kind} if self.kind != next(iter(KINDS)) else {}
        fields |= {
            name: str(value) for name, value in self.settings.items() if value != DEFAULTS[name]
        }
        return urlencode(fields)


def read_map(query: str) -> tuple[MapView, tuple[str, ...]]:
    """Return the nearest legal view to an address, and what was changed.

    Args:
        query: Whatever stands after the question mark.

    Returns:
        The view, and one notice per repaired setting.
    """
    notices: list[str] = []
    pairs = parse_qsl(query[:MAX_QUERY], keep_blank_values=True, errors="replace")
    given = dict(pairs)
    kind = given.pop("map", next(iter(KINDS)))
    if kind not in KINDS:
        notices.append(f"There is no map “{kind[:40]}”. Known: {', '.join(KINDS)}.")
        kind = next(iter(KINDS))
    settings = dict(DEFAULTS)
    for name, text in given.items():
        if name not in SETTINGS:
            notices.append(f"There is no setting “{name[:40]}”; it was ignored.")
            continue
        known = {str(value): value for value in SETTINGS[name]}
        if text in known:
            settings[name] = known[text]
        else:
            choices = ", ".join(each or "none" for each in known)
            notices.append(f"{name} “{text[:40]}” is not possible here. Possible: {choices}.")
    return MapView(kind, MappingProxyType(settings)), tuple(notices)
