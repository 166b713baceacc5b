"""What a measurement knows in addition to its layers, as sections: of any flow and of made ones."""

import json
import re

from hypothesis import given, settings

from chainrule import diagnose
from chainrule.app.routes.model_page import describe_model
from chainrule.diagnosis.time_rules import LOST
from chainrule.display.facts import list_sections
from chainrule.figures import build_time_figure
from chainrule.flow.quantity import Quantity
from chainrule.flow.time import TimeFlow
from strategies import flows


@settings(max_examples=15)
@given(flows)
def test_every_flow_that_can_be_loaded_can_be_shown(flow):
    diagnosis = diagnose(flow)
    for section in list_sections(flow, diagnosis):
        assert section.title
        assert section.sentences or section.tables
        for sentence in section.sentences:
            assert re.search(r"[.?]$", sentence)
        for table in section.tables:
            assert all(len(row) == len(table.head) for row in table.rows)
            assert all(type(cell) is str for row in table.rows for cell in row)
    json.dumps(describe_model(flow), allow_nan=False)


def test_a_step_that_is_lost_has_another_colour_and_zero_lies_on_the_edge():
    norms = tuple(Quantity([norm]) for norm in (0.0, 1e-9, 1e-3, 1.0))
    time = TimeFlow(
        name="a", kind="GRU", call=0, of="input", length=9, steps=(0, 2, 5, 8), gradients=norms
    )
    figure = build_time_figure(time, lost=LOST)
    (line,) = figure["data"]
    assert line["x"] == [1, 3, 6, 9]
    assert line["y"] == [1e-12, 1e-9, 1e-3, 1.0]
    colors, symbols = line["marker"]["color"], line["marker"]["symbol"]
    assert colors[0] == colors[1] != colors[2] == colors[3]
    assert symbols[1] != symbols[2]
    low, high = figure["layout"]["yaxis"]["range"]
    assert low <= -12 < 0 < high
