"""The tables of a report: weight layers, module calls by block, parameters."""

from collections.abc import Sequence

from chainrule.blocks import Block, group_calls
from chainrule.flow import GradientFlow
from chainrule.measurement import LayerFlow
from chainrule.report.markup import Content, Markup, element
from chainrule.wording import write_band, write_shape, write_share, write_text

OPEN_BLOCKS = 1
"""Up to so many blocks are shown without being opened first."""


def build_table(
    head: Sequence[str], rows: Sequence[Sequence[Content]], *, words: Sequence[int] = ()
) -> Markup:
    """Return a table that scrolls sideways where it does not fit.

    Args:
        head: The headings.
        rows: The cells; text is escaped.
        words: Positions of columns that hold words, not numbers.
    """

    def place(index: int) -> str | None:
        return "words" if index in words else None

    return element(
        "div",
        element(
            "table",
            element(
                "thead",
                element(
                    "tr",
                    [
                        element("th", name, scope="col", class_=place(index))
                        for index, name in enumerate(head)
                    ],
                ),
            ),
            element(
                "tbody",
                [
                    element(
                        "tr",
                        [
                            element("td", cell, class_=place(index))
                            for index, cell in enumerate(row)
                        ],
                    )
                    for row in rows
                ],
            ),
        ),
        class_="scroll",
        tabindex=0,
        role="region",
        aria_label="table",
    )


def build_layer_table(flow: GradientFlow) -> Markup | None:
    """Return the numbers of the charts, one row per weight layer; `None` if there is none."""
    if not flow.weight_layers:
        return None
    named, banded = flow.spec is None, flow.ensemble_size > 1
    head = [
        "layer",
        *(["module"] if named else []),
        "‖∂𝓛/∂W‖",
        *(["10–90 %"] if banded else []),
        "‖δ‖",
        "gradient ÷ weight",
        "std of h",
        "saturated",
        "dead",
    ]
    rows: list[list[Content]] = [
        [
            layer.layer,
            *([_write_name(layer.name or "(model)")] if named else []),
            write_text(layer.weight_gradient_norm),
            *([write_band(layer.weight_gradient_norm)] if banded else []),
            write_text(layer.delta_norm),
            write_text(layer.grad_to_weight),
            write_text(layer.std),
            write_share(layer.saturation),
            write_share(layer.dead_share),
        ]
        for layer in flow.weight_layers
    ]
    return _fold(
        f"Weight layers ({len(rows):,})", build_table(head, rows, words=(1,) if named else ())
    )


def build_module_tables(flow: GradientFlow) -> Markup | None:
    """Return every module call, one folded table per block; `None` if there is none."""
    blocks = group_calls(flow)
    if not blocks:
        return None
    count = len(flow.layers)
    title = f"Module calls ({count:,} output{'' if count == 1 else 's'})"
    if len(blocks) <= OPEN_BLOCKS:
        return _fold(title, [_build_calls(block) for block in blocks])
    return _fold(
        f"{title} in {len(blocks)} blocks",
        [
            element(
                "details",
                element("summary", _write_name(block.name or "(model)"), " ", _describe(block)),
                _build_calls(block),
            )
            for block in blocks
        ],
    )


def build_parameter_table(flow: GradientFlow) -> Markup | None:
    """Return one row per parameter; `None` if there is none."""
    if not flow.parameters:
        return None
    rows: list[list[Content]] = [
        [
            _write_name(", ".join((parameter.name, *parameter.aliases))),
            write_shape(parameter.shape),
            write_text(parameter.norm),
            parameter.status if parameter.grad_norm is None else write_text(parameter.grad_norm),
            write_text(parameter.grad_to_weight),
            write_share(parameter.grad_zero_share),
        ]
        for parameter in flow.parameters
    ]
    head = ["parameter", "shape", "norm", "gradient", "gradient ÷ norm", "zeros in gradient"]
    return _fold(f"Parameters ({len(rows):,})", build_table(head, rows, words=(0,)))


def _build_calls(block: Block) -> Markup:
    head = ["module", "kind", "shape", "‖∂𝓛/∂output‖", "gain", "mean", "std", "zeros"]
    return build_table(head, [_list_cells(call) for call in block.calls], words=(0, 1))


def _list_cells(call: LayerFlow) -> list[Content]:
    statistics = call.statistics
    return [
        _write_name(call.label),
        call.kind,
        write_shape(call.shape),
        write_text(call.gradient.norm if call.gradient else None),
        write_text(call.gain),
        write_text(statistics.mean if statistics else None),
        write_text(statistics.std if statistics else None),
        write_share(statistics.zero_share if statistics else None),
    ]


def _describe(block: Block) -> Markup:
    count = f"{len(block.calls)} output{'' if len(block.calls) == 1 else 's'}"
    low, high = block.smallest_gradient, block.largest_gradient
    reach = "no gradient" if low is None else f"gradients {write_text(low)} to {write_text(high)}"
    bad = f", {block.non_finite} not finite" if block.non_finite else ""
    return element("span", f"{count}, {reach}{bad}", class_="dim")


def _write_name(name: str) -> Markup:
    return element("span", name, class_="name")


def _fold(title: str, content: Content) -> Markup:
    return element("details", element("summary", title), content)
