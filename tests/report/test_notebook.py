"""A flow in a notebook: what it shows, and a notebook that is executed."""

import os
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbclient
import nbformat
import pytest
import torch
from torch import nn

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.attribution import rank_attributions
from chainrule.measure.inspection import inspect
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec

NOTEBOOK = Path(__file__).parents[2] / "examples" / "gradient_flow.ipynb"


def measure_empty():
    return inspect(nn.Tanh(), lambda m: m(torch.ones(2, requires_grad=True)).sum())


FLOWS = {
    "vanishing": lambda: simulate(NetworkSpec(depth=12, width=16, activation="sigmoid"), 3),
    "healthy": lambda: simulate(NetworkSpec(depth=4, width=64, activation="relu", init="he"), 1),
    "empty": measure_empty,
}


class TestBundle:
    @pytest.mark.parametrize("name", FLOWS)
    def test_shows_table_and_figure(self, name):
        flow = FLOWS[name]()
        bundle = flow._repr_mimebundle_()
        assert set(bundle) == {"text/plain", "text/html"}
        page, text = bundle["text/html"], bundle["text/plain"]
        ElementTree.fromstring(page)  # well-formed: it cannot break the page around it
        assert page.count("<svg") == page.count("</svg")
        assert ("<svg" in page) is bool(flow.weight_layers)
        assert "<script" not in page
        assert "http" not in page
        assert "\x1b" not in text
        for layer in flow.weight_layers:
            assert format_number(layer.weight_gradient_norm) in page
            assert format_number(layer.weight_gradient_norm) in text
        for blame in rank_attributions(flow):
            assert format_number(blame.factor) in page

    @pytest.mark.parametrize(("depth", "is_open"), [(30, True), (31, False)])
    def test_a_long_table_is_folded(self, depth, is_open):
        page = simulate(NetworkSpec(depth=depth, width=2), 1)._repr_mimebundle_()["text/html"]
        assert ("<details open" in page) is is_open
        assert f"Weight layers ({depth})" in page

    def test_gives_only_what_is_asked_for(self):
        flow = FLOWS["healthy"]()
        assert set(flow._repr_mimebundle_(include=["text/html"])) == {"text/html"}
        assert set(flow._repr_mimebundle_(exclude={"text/html"})) == {"text/plain"}

    def test_names_are_text_whatever_they_are(self):
        model = nn.Sequential()
        model.add_module("<script>alert(1)</script>", nn.Linear(2, 2))
        flow = inspect(model, lambda m: m(torch.ones(3, 2)).square().mean())
        page = flow._repr_mimebundle_()["text/html"]
        assert "<script" not in page
        assert "&lt;script&gt;" in page


@pytest.fixture(scope="module")
def executed():
    """The notebook after a kernel of its own has run it, in a folder of its own."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(sys.path),
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
    }
    client = nbclient.NotebookClient(
        notebook, timeout=600, startup_timeout=600, kernel_name="python3"
    )
    client.execute(env=environment)
    return notebook


@pytest.mark.filterwarnings("default")  # of the libraries that run kernels
class TestNotebook:
    def test_is_kept_without_outputs(self):
        notebook = nbformat.read(NOTEBOOK, as_version=4)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            assert not cell.get("outputs")
            assert cell.get("execution_count") is None

    def test_shows_the_flow_and_its_cure(self, executed):
        code = [cell for cell in executed.cells if cell.cell_type == "code"]
        assert [len(cell.outputs) for cell in code] == [1, 1, 1, 1]
        before, after = (code[at].outputs[-1].data for at in (0, 2))
        assert "▼ VANISHING" in before["text/plain"]
        assert "Main causes" in before["text/html"]
        assert "Sigmoid" in before["text/html"]
        assert "<svg" in before["text/html"]
        assert "✔ HEALTHY" in after["text/plain"]
        assert "Main causes" not in after["text/html"]
        printed = code[1].outputs[0].text
        assert re.match(r"measures well: .*, vanishing → healthy", printed)

    def test_makes_a_frame_of_numbers(self, executed):
        table = executed.cells[-1].outputs[-1].data["text/plain"]
        assert re.search(r"Linear\s+\S+e?\S*\s+\d", table)
        assert "Sigmoid" in table
