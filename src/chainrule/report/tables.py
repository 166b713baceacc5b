"""The tables of a report: weight layers, module calls by block, attention, parameters."""

from collections.abc import Sequence

from chainrule._utils.html import Content, Markup, element
from chainrule.diagnosis.attribution import Attribution
from chainrule.display.cards import describe_attention, start_sentence
from chainrule.display.tables import (
    ATTENTION_HEAD,
    BLAME_HEAD,
    CALL_HEAD,
    PARAMETER_HEAD,
    count_outputs,
    describe_block,
    list_layer_head,
    write_attention_row,
    write_blame_row,
    write_call_row,
    write_layer_row,
    write_parameter_row,
)
from chainrule.flow.blocks import Block, group_blocks, group_calls
from chainrule.flow.gradient_flow import GradientFlow


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
    rows = [write_layer_row(flow, layer) for layer in flow.weight_layers]
    names = (1,) if flow.spec is None else ()
    return _fold(
        f"Weight layers ({len(rows):,})", build_table(list_layer_head(flow), rows, words=names)
    )


def build_module_tables(flow: GradientFlow) -> Markup | None:
    """Return every module call as a folded tree; `None` if there is none.

    Repeated blocks are folded together, and each of them holds a table of its own.
    """
    blocks = group_calls(flow)
    if not blocks:
        return None
    title = f"Module calls ({count_outputs(len(flow.layers))})"
    if len(blocks) == 1:
        return _fold(title, _build_calls(blocks[0]))
    folded: list[Content] = []
    for pattern, members in group_blocks(blocks):
        own = [_fold_block(block.name, describe_block(block), block) for block in members]
        if len(members) > 1:
            calls = tuple(call for block in members for call in block.calls)
            note = f"{len(members)} blocks, {describe_block(Block(name=pattern, calls=calls))}"
            own = [element("details", _head_block(pattern, note), own)]
        folded += own
    return _fold(f"{title} in {len(blocks)} blocks", folded)


def _fold_block(name: str, note: str, block: Block) -> Markup:
    return element("details", _head_block(name, note), _build_calls(block))


def _head_block(name: str, note: str) -> Markup:
    return element(
        "summary",
        element("span", name or "(model)", class_="name"),
        " ",
        element("span", note, class_="dim"),
    )


def build_blame_table(flow: GradientFlow, blames: Sequence[Attribution]) -> Markup:
    """Return the modules that are the main causes, one row each."""
    rows = [write_blame_row(flow, blame) for blame in blames]
    return build_table(BLAME_HEAD, rows, words=(0, 1))


def build_attention_table(flow: GradientFlow) -> Markup | None:
    """Return one row per computation of attention weights; `None` if there is none."""
    if not flow.attentions:
        return None
    rows = [write_attention_row(each) for each in flow.attentions]
    about = element("span", start_sentence(describe_attention(flow)), class_="dim")
    table = build_table(ATTENTION_HEAD, rows, words=(0,))
    return _fold([f"Attention ({len(rows):,}) ", about], table)


def build_parameter_table(flow: GradientFlow) -> Markup | None:
    """Return one row per parameter; `None` if there is none."""
    if not flow.parameters:
        return None
    rows = [write_parameter_row(parameter) for parameter in flow.parameters]
    return _fold(f"Parameters ({len(rows):,})", build_table(PARAMETER_HEAD, rows, words=(0,)))


def _build_calls(block: Block) -> Markup:
    return build_table(CALL_HEAD, [write_call_row(call) for call in block.calls], words=(0, 1))


def _fold(title: Content, content: Content) -> Markup:
    return element("details", element("summary", title), content)
