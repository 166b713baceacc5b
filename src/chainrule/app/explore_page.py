"""The explore page: choose a network, see the gradient of every layer."""

import math
from typing import Any
from urllib.parse import parse_qsl, urlencode

import dash_mantine_components as dmc
from dash import ClientsideFunction, Dash, Input, Output, no_update

from chainrule.app.explore_answer import (
    build_cards,
    build_findings,
    build_table,
    describe_ensemble,
    describe_scenario,
    describe_settings,
)
from chainrule.app.explore_layout import (
    MAX_DEPTH,
    MIN_DEPTH,
    WIDTH_EXPONENTS,
    build_controls,
    build_results,
)
from chainrule.diagnosis import diagnose
from chainrule.errors import SpecError
from chainrule.figures import (
    build_activation_figure,
    build_factor_figure,
    build_gradient_figure,
)
from chainrule.presets import PRESETS, Preset
from chainrule.simulation import simulate
from chainrule.spec import NetworkSpec, repair_query

SEEDS = 16

LIVE_WEIGHTS = 2**23
"""Above this many weights in an ensemble, fewer networks are drawn so that the page stays live."""

_CONTROLS = ("depth", "width", "activation", "init")


def layout() -> Any:
    """Return the page; it holds nothing that depends on a visitor."""
    return dmc.Container(
        dmc.Grid(
            [
                dmc.GridCol(build_controls(), span={"base": 12, "md": 4, "lg": 3}),
                dmc.GridCol(build_results(), span={"base": 12, "md": 8, "lg": 9}),
            ],
            gutter="md",
        ),
        size=1400,
        px={"base": 0, "sm": "md"},
    )


def register_callbacks(app: Dash) -> None:
    """Connect the controls with the measurement."""

    @app.callback(
        *(Output(name, "value") for name in _CONTROLS),
        Output("scenario", "data"),
        Input("preset", "value"),
        prevent_initial_call=True,
    )
    def apply_preset(name: str | None) -> Any:
        """Set every control as the scenario says; its other settings stay in force after that."""
        if not isinstance(name, str) or name not in PRESETS:
            return [no_update] * (len(_CONTROLS) + 1)
        return *_read_controls(PRESETS[name].spec), name

    @app.callback(
        *(Output(name, "value", allow_duplicate=True) for name in _CONTROLS),
        Output("scenario", "data", allow_duplicate=True),
        Output("preset", "value"),
        Input("location", "search"),
        prevent_initial_call="initial_duplicate",
    )
    def read_address(search: str | None) -> Any:
        """Set the controls as the address says, if it names a network."""
        if not search or len(search) < 2:
            return [no_update] * (len(_CONTROLS) + 2)
        spec, _ = repair_query(search)
        settings = _select_settings(spec)
        same = [name for name, preset in PRESETS.items() if preset.spec == spec]
        alike = [name for name, p in PRESETS.items() if _select_settings(p.spec) == settings]
        base = next(iter([*same, *alike]), None)
        return *_read_controls(spec), base, next(iter(same), None)

    # One question at a time: while the server measures, the newest setting waits. See explore.js.
    app.clientside_callback(
        ClientsideFunction("explore", "ask"),
        Output("wanted", "data"),  # with an output it is called when the page appears, too
        *(Input(name, "value") for name in _CONTROLS),
        Input("scenario", "data"),
    )
    app.clientside_callback(ClientsideFunction("explore", "hear"), Input("answered", "data"))

    @app.callback(
        Output("cards", "children"),
        Output("gradient-chart", "figure"),
        Output("activation-chart", "figure"),
        Output("factor-chart", "figure"),
        Output("gradient-table", "children"),
        Output("findings", "children"),
        Output("look-at", "children"),
        Output("chart-note", "children"),
        Output("settings-note", "children"),
        Output("depth-value", "children"),
        Output("width-value", "children"),
        Output("chain-link", "href"),
        Output("answered", "data"),
        Input("asked", "data"),
        prevent_initial_call=True,
    )
    def measure(asked: list[Any]) -> Any:
        """Measure the network that the controls describe and show it."""
        answered = {"asked": asked, "isScenario": False}
        try:
            spec, scenario = _read_spec(asked)
            seeds = _choose_seeds(spec)
            flow = simulate(spec, seeds)
        except SpecError as error:
            alert = dmc.Alert(str(error), color="red")
            return alert, *[no_update] * 11, answered
        diagnosis = diagnose(flow)
        answered["isScenario"] = scenario is not None and scenario.spec == spec
        return (
            build_cards(flow, diagnosis),
            build_gradient_figure(flow),
            build_activation_figure(flow),
            build_factor_figure(flow),
            build_table(flow),
            build_findings(diagnosis),
            describe_scenario(spec, diagnosis, scenario),
            describe_ensemble(seeds),
            describe_settings(spec),
            str(spec.depth),
            str(spec.width),
            f"/chain-rule?{_write_link(spec)}",
            answered,
        )


def _read_controls(spec: NetworkSpec) -> tuple[int, int, str, str]:
    """Return the values of the controls that come nearest to a specification."""
    exponent = min(max(round(math.log2(spec.width)), WIDTH_EXPONENTS[0]), WIDTH_EXPONENTS[-1])
    return min(max(spec.depth, MIN_DEPTH), MAX_DEPTH), exponent, spec.activation, spec.init


def _select_settings(spec: NetworkSpec) -> dict[str, Any]:
    """Return the settings of a specification that this page has no control for."""
    return spec.model_dump(exclude={"depth", "width", "activation", "init"})


def _write_link(spec: NetworkSpec) -> str:
    """Return the address of the chain-rule page's view of a network.

    The page's own chain has an activation too, so the network's goes by another name.
    """
    query = dict(parse_qsl(spec.to_query()))
    query.setdefault("depth", str(spec.depth))
    query["network_activation"] = query.pop("activation", spec.activation)
    return urlencode(query)


def _read_spec(asked: Any) -> tuple[NetworkSpec, Preset | None]:
    """Return the specification on screen, and the scenario whose other settings are in force.

    Args:
        asked: Depth, exponent of the width, activation, initialization, name of the scenario: from
            a visitor, so anything.

    Raises:
        SpecError: If it is no specification of this page.
    """
    if not isinstance(asked, list) or len(asked) != len(_CONTROLS) + 1:
        raise SpecError("The page must ask with its controls. Load it again.")
    depth, exponent, activation, init, name = asked
    scenario = PRESETS.get(name) if isinstance(name, str) else None
    base = scenario.spec if scenario else NetworkSpec()
    if exponent not in WIDTH_EXPONENTS:
        raise SpecError(
            f"width: must be a power of two from {2 ** WIDTH_EXPONENTS[0]} to "
            f"{2 ** WIDTH_EXPONENTS[-1]}; got 2 to the {str(exponent)[:40]}."
        )
    if isinstance(depth, int) and depth > MAX_DEPTH:
        raise SpecError(f"depth: must be at most {MAX_DEPTH} on this page; got {depth}.")
    changes = {"weight_std": 1.0} if init != "random" else {}
    spec = base.replace(depth=depth, width=2**exponent, activation=activation, init=init, **changes)
    return spec, scenario


def _choose_seeds(spec: NetworkSpec) -> int:
    return max(2, min(SEEDS, LIVE_WEIGHTS // (spec.depth * spec.width**2)))
