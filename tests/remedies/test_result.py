"""What is found, in words: one line each, tables for a notebook, JSON, and the reasons given."""

import html
import json
import math
from dataclasses import replace

import pytest
import torch
from markdown_it import MarkdownIt
from torch import nn

from chainrule._utils.numbers import encode_number
from chainrule.presets import PRESETS
from chainrule.remedies.advice import Advice
from chainrule.remedies.result import OUTCOMES, Comparison, Outcome
from chainrule.remedies.spec_changes import list_spec_changes
from chainrule.remedies.spec_search import find_remedies
from chainrule.spec.network_spec import NetworkSpec


@pytest.fixture(scope="module")
def found():
    return find_remedies(NetworkSpec(depth=15, width=16, activation="sigmoid"), 3)


@pytest.fixture(scope="module")
def healthy():
    return find_remedies(NetworkSpec(depth=2, activation="relu", init="he"), 2)


def read_table(text):
    """Return the cells of the table in a Markdown text, as a reader of the notebook sees them."""
    page = MarkdownIt("commonmark").enable("table").render(text)
    rows = page.partition("<table>")[2].partition("</table>")[0].split("<tr>")[1:]
    return [
        [
            html.unescape(cell.partition("<")[0])
            for cell in row.replace("<th>", "<td>").split("<td>")[1:]
        ]
        for row in rows
    ]


class TestOneLine:
    def test_a_search_counts_what_it_found(self, found, healthy):
        counts = len(found.measured), len(found.helps), len(found.refuted)
        assert repr(found).startswith("Remedies(vanishing: ")
        assert [int(word) for word in repr(found).split() if word.isdigit()] == list(counts)
        assert "nothing to change" in repr(healthy)
        assert "healthy" in repr(healthy)
        nothing = replace(found, tried=())
        assert "nothing was tried" in repr(nothing)
        one = replace(found, tried=(found.measured[0], found.helps[0], found.refuted[0]))
        assert repr(one) == "Remedies(vanishing: 1 measures well, 1 helps, 1 does not)"

    def test_a_remedy_names_outcome_and_both_values(self, found):
        for remedy in found.tried:
            facts = (remedy.title, remedy.outcome, remedy.comparison.before_text)
            assert all(fact in repr(remedy) for fact in (*facts, remedy.comparison.after_text))

    def test_a_comparison_names_metric_values_and_bound(self, found):
        comparison = found[0].comparison
        facts = (comparison.metric, comparison.before_text, comparison.threshold_text)
        assert all(fact in repr(comparison) for fact in facts)

    def test_short(self, found):
        for shown in (found, *found.tried, found[0].comparison):
            assert len(repr(shown)) < 200
            assert "\n" not in repr(shown)

    def test_edits_of_many_values(self):
        torch.manual_seed(0)
        model, x = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 2)), torch.randn(16, 8)
        nn.init.constant_(model[0].bias, -50.0)
        changes = find_remedies(model, lambda m: (m(x) - 1).square().mean())
        shifts = [e for remedy in changes.tried for e in remedy.edits if e.action == "shift"]
        assert shifts
        assert all(len(repr(edit)) < 100 and "64 values" in repr(edit) for edit in shifts)


class TestNotebook:
    def test_every_change_is_a_row(self, found):
        table = read_table(found._repr_markdown_())
        assert [row[0] for row in table[1:]] == [r.title for r in (*found, *found.refuted)]
        assert found[0].comparison.threshold_text in table[0][1]
        for row, remedy in zip(table[1:], (*found, *found.refuted), strict=True):
            assert remedy.comparison.before_text in row[1]
            assert row[2] == remedy.verdict_after
            assert row[3] == remedy.outcome_text

    def test_marks_in_words_are_shown_as_they_are(self, found):
        odd = "a|b *c* `d` <b>_e_ [f](g) & #h \\"
        shown = replace(
            found,
            tried=(replace(found[0], title=odd),),
            note=odd,
            advice=(Advice(title=odd, reason="", code=""),),
        )
        page = MarkdownIt("commonmark").enable("table").render(shown._repr_markdown_())
        assert html.unescape(page).count(odd) == 3
        assert read_table(shown._repr_markdown_())[1][0] == odd
        alone = MarkdownIt("commonmark").render(shown.tried[0]._repr_markdown_())
        assert odd in html.unescape(alone)

    def test_without_changes(self, healthy):
        assert "nothing to change" in healthy._repr_markdown_()
        assert "|" not in healthy._repr_markdown_()


@pytest.mark.parametrize(
    ("value", "text"),
    [(math.inf, "Infinity"), (-math.inf, "-Infinity"), (math.nan, "NaN"), (None, None), (0.5, 0.5)],
)
def test_json_spells_infinity_as_flow_files_do(found, value, text):
    remedy = found[0]
    comparison = replace(remedy.comparison, before=value if value is not None else 1.0, after=value)
    document = replace(remedy, comparison=comparison).to_dict()
    again = json.loads(json.dumps(document, allow_nan=False))["comparison"]
    assert again["after"] == text
    assert encode_number(value) == text


class TestWords:
    def test_no_reason_compares_a_number_with_itself(self):
        """An orthogonal matrix has the σ of Xavier: the reason says what else is new."""
        for init in ("xavier", "lecun", "orthogonal", "pytorch"):
            spec = NetworkSpec(depth=15, width=64, activation="tanh", init=init)
            for change in list_spec_changes(spec, PRESETS["Vanishing (Sigmoid)"].verdict):
                words = change.reason.split(". ")[0].split()
                if "instead" in words and "σ" in words:
                    at = words.index("instead")
                    assert words[at - 1] != words[at + 2]
        spec = NetworkSpec(depth=15, width=64, activation="tanh", init="xavier")
        reasons = {
            c.title: c.reason for c in list_spec_changes(spec, PRESETS["Dying ReLU"].verdict)
        }
        assert "σ = 0.125, as before" in reasons["Orthogonal initialization"]
        assert "each matrix" in reasons["Orthogonal initialization"]

    def test_fewer_layers_are_named_as_such(self, found):
        titles = [remedy.title for remedy in found.tried if "depth" in remedy.kinds]
        assert titles
        assert all(title.startswith("Only ") for title in titles if " + " not in title)

    def test_healthy_but_no_cure_says_why(self):
        hidden = find_remedies(PRESETS["Hidden vanishing (ReLU + Xavier)"].spec, 6)
        (he,) = (remedy for remedy in hidden if remedy.changes == {"init": "he"})
        assert (he.outcome, he.verdict_after) == (Outcome.HELPS, "healthy")
        assert he.outcome_text != OUTCOMES[Outcome.HELPS]
        assert "SGD" in he.outcome_text
        beyond = replace(he, comparison=replace(he.comparison, after=he.comparison.before))
        assert not beyond.comparison.passes
        assert "limit" in beyond.outcome_text
        vanishing = next(r for r in hidden.tried if r.verdict_after != "healthy")
        assert vanishing.outcome_text == OUTCOMES[vanishing.outcome]


def test_a_comparison_needs_no_value_afterwards():
    comparison = Comparison(
        rule="saturated", metric="share of saturated entries", before=0.9, after=None,
        threshold=0.7, beyond=">",
    )  # fmt: skip
    assert "90 % → –" in repr(comparison)
