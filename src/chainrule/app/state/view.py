"""What the explore page shows, as an address: repaired on the way in, canonical on the way out."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlencode

from chainrule.app.state.controls import CONTROLS, DEFAULT_SEEDS, MAX_SEEDS, write_setting
from chainrule.errors import SpecError
from chainrule.figures import MEASURES, SCALES
from chainrule.presets import PRESETS, get_preset
from chainrule.spec.network_spec import MAX_SEED, NetworkSpec
from chainrule.spec.query import MAX_QUERY, repair_query

DEFAULT_PRESET = next(iter(PRESETS))

PANELS: Mapping[str, str] = {
    "gradient": "Gradient magnitude per layer",
    "activation": "Activation distribution per layer",
    "factor": "The product, factor by factor",
}
"""The charts by name: what can be embedded alone and downloaded."""

PARTS: Mapping[str, str] = {
    "presets": "the scenarios",
    "more": "the further settings",
    "compare": "pinning and comparing",
    "remedies": "what to change",
    "train": "training",
    "lesson": "the lesson",
    "share": "sharing and keeping",
}
"""Parts of the page that an address can hide, beside single controls."""

COVERS: Mapping[str, str] = {
    "cards": "the status cards",
    "charts": "the charts",
    "diagnosis": "the diagnosis and what to change",
}
"""What an address can keep covered until the visitor has guessed."""

MAX_QUESTION = 200
"""Most characters of a question that an address asks."""

STEPS = ("1", "2", "3")
"""The steps of the tour by which a first visitor gets to know the page."""

_OWN = ("preset", "seeds", "measure", "scale", "layer", "pin", "hide", "lock", "embed", "tour",
        "guess", "ask", "theory")  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """The whole state of the explore page.

    Attributes:
        spec: The network.
        seeds: How many networks of it.
        measure: What the main chart shows; a name of `MEASURES`.
        scale: "log" or "linear".
        layer: The layer shown in full.
        pin: The network to compare with, or `None`.
        hide: Controls and parts that are not shown.
        lock: Controls that cannot be changed.
        embed: The one chart that is shown, or `None` for the whole page.
        tour: The step of the tour that is shown, one of `STEPS`, or `None`.
        guess: What is covered until the visitor has guessed; names of `COVERS`.
        ask: The question that is asked before; "" for the usual one.
        theory: Whether the main chart shows what theory says, too.
    """

    spec: NetworkSpec
    seeds: int = DEFAULT_SEEDS
    measure: str = "weight"
    scale: str = "log"
    layer: int = 1
    pin: NetworkSpec | None = None
    hide: tuple[str, ...] = ()
    lock: tuple[str, ...] = ()
    embed: str | None = None
    tour: str | None = None
    guess: tuple[str, ...] = ()
    ask: str = ""
    theory: bool = False

    @property
    def query(self) -> str:
        """The address of what is measured: the network and the number of seeds."""
        fields: dict[str, Any] = {"depth": self.spec.depth}  # never empty, so never the default
        fields |= dict(parse_qsl(self.spec.to_query()))
        if self.seeds != DEFAULT_SEEDS:
            fields["seeds"] = self.seeds
        return urlencode(fields)

    @property
    def address(self) -> str:
        """The address of the whole view."""
        fields = {
            "measure": self.measure if self.measure != "weight" else "",
            "scale": self.scale if self.scale != "log" else "",
            "layer": str(self.layer) if self.layer != 1 else "",
            "pin": write_query(self.pin) if self.pin else "",
            "hide": ",".join(self.hide),
            "lock": ",".join(self.lock),
            "embed": self.embed or "",
            "tour": self.tour or "",
            "guess": ",".join(self.guess),
            "ask": self.ask,
            "theory": "1" if self.theory else "",
        }
        extra = urlencode({name: value for name, value in fields.items() if value}, safe=",")
        return f"{self.query}&{extra}" if extra else self.query

    def describe(self) -> dict[str, Any]:
        """Return the view as JSON can hold it; settings are text, empty where not given."""
        settings = {
            name: "" if value is None else write_setting(value)
            for name, value in self.spec.model_dump().items()
        }
        return {
            "settings": {**settings, "seeds": str(self.seeds)},
            "measure": self.measure,
            "scale": self.scale,
            "layer": self.layer,
            "pin": write_query(self.pin) if self.pin else None,
            "hide": list(self.hide),
            "lock": list(self.lock),
            "embed": self.embed,
            "tour": self.tour,
            "guess": list(self.guess),
            "ask": self.ask,
            "theory": "1" if self.theory else "",
            "query": self.query,
            "address": self.address,
        }


def write_query(spec: NetworkSpec) -> str:
    """Return the address of a network; the depth is always in it."""
    return View(spec=spec).query


def read_view(query: str) -> tuple[View, tuple[str, ...]]:
    """Return the nearest legal view to an address, and what was changed.

    Args:
        query: Whatever stands after the question mark. `preset` names a scenario to start from; an
            address without any setting starts from the first one.

    Returns:
        The view, and one notice per repaired setting (empty if nothing was).
    """
    notices: list[str] = []
    if len(query) > 2 * MAX_QUERY:
        return View(spec=get_preset(DEFAULT_PRESET).spec), (
            "The address was too long and was ignored.",
        )
    pairs = parse_qsl(query.removeprefix("?"), keep_blank_values=True, errors="replace")
    own = {name: text for name, text in pairs if name in _OWN}
    rest = [(name, text) for name, text in pairs if name not in _OWN]
    spec, spec_notices = _read_spec(own.get("preset"), rest, notices)
    notices += spec_notices
    pin = None
    if own.get("pin"):
        pairs = parse_qsl(own["pin"][:MAX_QUERY], keep_blank_values=True, errors="replace")
        pin, pin_notices = repair_query(urlencode([pair for pair in pairs if pair[0] != "seeds"]))
        notices += [f"Pinned network: {notice}" for notice in pin_notices]
    most = min(MAX_SEEDS, MAX_SEED - spec.seed + 1)  # seeds are counted up from the first one
    view = View(
        spec=spec,
        seeds=_read_number("seeds", own.get("seeds"), 1, most, min(DEFAULT_SEEDS, most), notices),
        measure=_read_name("measure", own.get("measure"), MEASURES, "weight", notices),
        scale=_read_name("scale", own.get("scale"), SCALES, "log", notices),
        layer=_read_number("layer", own.get("layer"), 1, spec.depth, 1, notices),
        pin=pin,
        hide=_read_names("hide", own.get("hide"), {**CONTROLS, **PARTS}, notices),
        lock=_read_names("lock", own.get("lock"), CONTROLS, notices),
        embed=_read_name("embed", own.get("embed"), PANELS, None, notices),
        tour=_read_name("tour", own.get("tour"), STEPS, None, notices),
        guess=_read_names("guess", own.get("guess"), COVERS, notices),
        ask=_read_question(own.get("ask") or ""),
        theory=_read_name("theory", own.get("theory"), ("1",), None, notices) is not None,
    )
    return view, tuple(notices)


def _read_spec(
    preset: str | None, pairs: list[tuple[str, str]], notices: list[str]
) -> tuple[NetworkSpec, tuple[str, ...]]:
    base: NetworkSpec | None = None
    if preset is not None:
        try:
            base = get_preset(preset).spec
        except SpecError:
            notices.append(f"There is no scenario “{preset[:60]}”.")
    if not any(name in NetworkSpec.model_fields for name, _ in pairs):
        base = base or get_preset(DEFAULT_PRESET).spec
        _, unknown = repair_query(urlencode(pairs))
        return base, unknown
    if base is not None:
        given = {name for name, _ in pairs}
        pairs = [(n, t) for n, t in parse_qsl(base.to_query()) if n not in given] + pairs
    return repair_query(urlencode(pairs))


def _read_question(text: str) -> str:
    """Return a question on one line, without characters that change how others are read."""
    return "".join(mark for mark in " ".join(text.split()) if mark.isprintable())[:MAX_QUESTION]


def _read_number(
    name: str, text: str | None, low: int, high: int, default: int, notices: list[str]
) -> int:
    if text is None:
        return default
    try:
        number = float(text)
        value = round(min(max(number, low), high))
    except ValueError:  # not a number, or NaN
        notices.append(f"{name} “{text[:40]}” is not possible; using {default}.")
        return default
    if value != number:
        notices.append(f"{name} “{text[:40]}” is not possible; using {value}.")
    return value


def _read_name(name: str, text: str | None, known: Any, default: Any, notices: list[str]) -> Any:
    if not text:
        return default
    if text in known:
        return text
    notices.append(f"{name} “{text[:40]}” is unknown and was ignored. Known: {', '.join(known)}.")
    return default


def _read_names(name: str, text: str | None, known: Any, notices: list[str]) -> tuple[str, ...]:
    wanted = dict.fromkeys(part.strip() for part in (text or "").split(",") if part.strip())
    unknown = [part for part in wanted if part not in known]
    if unknown:
        notices.append(
            f"{name}: “{', '.join(unknown)[:80]}” is unknown and was ignored. "
            f"Known: {', '.join(known)}."
        )
    return tuple(part for part in wanted if part in known)
