"""A measurement in a terminal: its numbers, names and order, whatever the width."""

import io
import re
from collections import OrderedDict

import pytest
import torch
from rich.console import Console
from torch import nn

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.display.cards import LOOKS
from chainrule.display.terminal import print_flow, render_remedies
from chainrule.display.terminal_tables import (
    FOLD_BEYOND,
    Bars,
    Sparks,
    render_layers,
    render_profile,
    render_tree,
    shorten,
)
from chainrule.flow.quantity import format_band
from chainrule.flow.time import TimeFlow
from chainrule.measure.inspection import inspect
from chainrule.measure.simulation import simulate
from chainrule.remedies.result import Remedies, compare_flows
from chainrule.remedies.spec_search import find_remedies
from chainrule.spec.network_spec import NetworkSpec
from made_flows import make_chain, make_flow, quantity

VANISHING = NetworkSpec(depth=12, width=8, activation="sigmoid", init="xavier")


def draw(*content, width=100):
    """Return what a terminal of some width shows, line by line, without colours."""
    console = Console(file=io.StringIO(), width=width, color_system=None)
    for each in content:
        console.print(each)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def draw_flow(flow, width=100, **settings):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    print_flow(console, flow, diagnose(flow), **settings)
    return console.file.getvalue()


def build_blocks(depth=6):
    """Return a measured model of repeated blocks with attention, in float64."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    parts = {
        "inputs": nn.Linear(8, 8),
        "blocks": nn.TransformerEncoder(layer, depth, enable_nested_tensor=False),
        "head": nn.Linear(8, 8),
    }
    model = nn.Sequential(OrderedDict(parts)).double()
    x = torch.randn(4, 5, 8, dtype=torch.float64)
    return inspect(model, lambda m: m(x).square().mean())


class TestLayers:
    def test_a_row_holds_the_layers_own_numbers_in_order(self):
        flow = simulate(VANISHING, 3)
        head, *rows, note = draw(render_layers(flow, 200), width=200)
        assert head.split()[:2] == ["layer", "‖∂𝓛/∂W‖"]
        assert len(rows) == 12
        for row, layer in zip(rows, flow.weight_layers, strict=True):
            cells = re.split(r"  +", row.replace("█", "").strip())
            assert cells[0] == str(layer.layer)
            assert cells[1] == format_number(layer.weight_gradient_norm)
            assert format_number(layer.delta_norm) in cells
            assert format_number(layer.std) in cells
            assert cells[-1] == format_band(layer.weight_gradient_norm)
        assert "log" in note

    def test_bars_are_as_long_as_the_powers_of_ten_between_the_layers(self):
        flow = simulate(VANISHING, 1)
        _, *rows, _ = draw(render_layers(flow, 80), width=80)
        lengths = [row.count("█") for row in rows]
        assert lengths == sorted(lengths, reverse=True)
        assert lengths[-1] == 0
        first, last = (flow.weight_layers[at].weight_gradient_norm for at in (0, -1))
        (width,) = {row.index("│") for row in rows}
        assert width > 0
        per_decade = Bars([first, last]).cells_per_decade
        assert lengths[0] == round(per_decade * abs(torch.tensor(first / last).log10().item()))

    @pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 160])
    @pytest.mark.parametrize("flow", [simulate(VANISHING, 3), build_blocks()], ids=["spec", "own"])
    def test_it_fits_and_leaves_out_whole_columns(self, flow, width):
        lines = draw(render_layers(flow, width), width=width)
        assert max(map(len, lines)) <= width
        table = lines[: 1 + len(flow.weight_layers)]
        assert "…" not in "".join(table)

    def test_deep_networks_show_their_ends(self):
        flow = simulate(NetworkSpec(depth=FOLD_BEYOND + 10, width=4), 1)
        rows = draw(render_layers(flow, 80), width=80)[1:-1]
        assert [row.split()[0] for row in rows[:1] + rows[-1:]] == ["1", str(FOLD_BEYOND + 10)]
        (gap,) = [row for row in rows if row.split()[0] == "⋯"]
        assert str(FOLD_BEYOND + 10) in gap
        assert len(rows) == 2 * (FOLD_BEYOND // 3) + 1

    def test_what_has_no_place_on_a_log_scale_is_a_word(self):
        bars = Bars([None, 0.0, float("inf"), float("nan"), 1.0])
        words = [bars.render(value).plain.strip() for value in (None, 0.0, float("inf"))]
        assert words == ["no gradient", "zero", "not finite"]

    def test_without_weights_there_is_a_sentence(self):
        flow = inspect(nn.Tanh(), lambda m: m(torch.ones(2, requires_grad=True)).sum())
        assert "weights" in " ".join(draw(render_layers(flow, 80)))

    def test_the_layout(self, golden):
        flow = simulate(NetworkSpec(depth=6, width=8, dtype="float64"), 1)
        golden("layer_table", "\n".join(draw(render_layers(flow, 80), width=80)))


class TestBlocks:
    def test_a_place_in_a_block_is_a_row_with_its_first_and_last_value(self):
        flow = build_blocks()
        lines = draw(render_profile(flow, 80), width=80)
        norms = {layer.name: layer.weight_gradient_norm for layer in flow.weight_layers}
        for part in ("linear1", "linear2"):
            (row,) = [line for line in lines if line.split()[:1] == [part]]
            cells = row.split()
            assert cells[1] == format_number(norms[f"blocks.layers.0.{part}"])
            assert cells[-1] == format_number(norms[f"blocks.layers.5.{part}"])
            assert len(cells[2]) == 6
        assert any("6 blocks" in line for line in lines)

    @pytest.mark.parametrize("width", [50, 60, 80, 120])
    def test_it_fits(self, width):
        assert max(map(len, draw(render_profile(build_blocks(), width), width=width))) <= width

    def test_the_layout(self, golden):
        golden("block_table", "\n".join(draw(render_profile(build_blocks(), 80), width=80)))

    def test_sparks_share_cells_where_they_are_too_many(self):
        sparks = Sparks([1e-6, 1.0])
        assert sparks.render([1e-6] * 5 + [1.0] * 5, 2).plain == "▁█"
        assert sparks.render([1.0, 0.0, None, float("nan")], 4).plain == "█0·!"


class TestTree:
    def test_every_output_is_a_line_in_forward_order(self):
        flow = build_blocks(2)
        _, *rows = draw(render_tree(flow, 200), width=200)
        kinds = [call.kind for call in flow.layers]
        shown = [kind for row in rows for kind in row.split()[1:4] if kind in kinds]
        assert shown == kinds
        gains = [format_number(call.gain) for call in flow.layers if call.gain is not None]
        assert all(gain in "\n".join(rows) for gain in gains)

    @pytest.mark.parametrize("width", [50, 60, 80, 120])
    def test_it_fits(self, width):
        assert max(map(len, draw(render_tree(build_blocks(2), width), width=width))) <= width


class TestWhole:
    @pytest.mark.parametrize("everything", [False, True])
    def test_it_says_verdict_evidence_reasons_and_what_to_do(self, everything):
        flow = simulate(VANISHING, 3)
        diagnosis = diagnose(flow)
        out = " ".join(draw_flow(flow, everything=everything).split())
        assert f"{LOOKS[diagnosis.verdict].icon} VANISHING" in out
        for finding in diagnosis.findings:
            assert " ".join(finding.evidence.split()) in out
            assert finding.source in out
        assert f"Next: {diagnosis.action}" in out
        assert f"loss {format_number(flow.loss)} {format_band(flow.loss)}" in out
        assert f"first ÷ last {format_number(flow.gradient_ratio)}" in out

    def test_it_starts_with_what_was_measured(self):
        lines = draw_flow(simulate(VANISHING, 3)).splitlines()
        assert "12 layers × 8 units" in lines[0]
        assert "3 networks" in lines[1]

    def test_clipping_is_shown(self):
        flow = simulate(NetworkSpec(depth=3, width=8, init="he", clip_norm=0.1), 2)
        out = draw_flow(flow)
        for value in (flow.clip_factor, flow.gradient_norm, flow.clipped_gradient_norm):
            assert f" {format_number(value)} " in out

    @pytest.mark.parametrize("width", [60, 80])
    def test_attention_is_summed_up_and_listed(self, width):
        flow = build_blocks(2)
        short, whole = (draw_flow(flow, width, everything=each) for each in (False, True))
        assert "2 computations of attention" in short
        assert sum(attention.label in whole for attention in flow.attentions) == 2
        assert "queries" in whole
        assert "queries ×" not in short

    def test_a_console_that_reads_markup_changes_nothing(self):
        model = nn.ModuleDict({"[bold]heads[/bold]": nn.Linear(2, 2), "tasks[/x]": nn.Linear(2, 2)})
        flow = inspect(model, lambda m: sum(part(torch.ones(1, 2)).sum() for part in m.values()))
        for everything in (False, True):
            out = draw_flow(flow, everything=everything)
            assert "[bold]heads[/bold]" in out
            assert "tasks[/x]" in out


def test_remedies_are_listed_with_numbers_and_a_command_that_is_never_broken():
    found = find_remedies(VANISHING, 2)
    lines = draw(render_remedies(found), width=400)
    for number, remedy in enumerate(found, 1):
        comparison = remedy.comparison
        (row,) = [line for line in lines if line.split()[:1] == [str(number)] and "→" in line]
        assert remedy.title in row
        assert f"{comparison.before_text} → {comparison.after_text}" in row
        assert str(remedy.verdict_after) in row
        assert f"  {number}  {remedy.command}" in lines
    console = Console(file=io.StringIO(), width=40, color_system=None)
    console.print(render_remedies(found), crop=False)
    narrow = console.file.getvalue()
    assert all(f"  {remedy.command}\n" in narrow for remedy in found)


def test_remedies_show_what_was_measured_before_and_after_and_what_does_not_help():
    before = make_chain([1e-9, 1.0, 1.0], loss=[3.0, 3.0])
    tried = [
        compare_flows(
            before, make_chain([w, 1.0, 1.0], loss=[loss] * 2), title=t, reason="r", kinds=()
        )
        for w, loss, t in ((1.0, 2.0, "good"), (1.1e-9, 5.0, "useless"))
    ]
    found = Remedies(before=before, diagnosis=diagnose(before), tried=tuple(tried))
    lines = draw(render_remedies(found), width=300)
    assert "the same 2 networks" in lines[0]
    rows = {title: line for title in ("good", "useless") for line in lines if title in line}
    assert "3 → 2" in rows["good"]
    assert "3 → 5" in rows["useless"]


def test_both_ends_of_two_layers_are_shown():
    text = draw_flow(make_chain([0.25, 0.5]))
    lines = {line.strip().rpartition("  ")[0].strip(): line for line in text.splitlines()}
    assert "0.25" in lines["weight gradient at layer 1"]
    assert "0.5" in lines["weight gradient at layer 2"]
    assert diagnose(make_chain([0.25, 0.5])).summary[:40] in text


def test_long_names_keep_their_end_and_wide_characters_count_twice():
    assert shorten("blocks.layers.32.norm1", 10) == "….32.norm1"
    assert shorten("名前名前", 5) == "…名前"
    assert shorten("short", 5) == "short"
    assert shorten("a\x1bb", 6) == r"a\x1bb"


def test_a_recurrent_module_has_a_line_about_its_first_step():
    model, x = nn.Sequential(nn.GRU(2, 3, batch_first=True)), torch.randn(4, 6, 2)
    flow = inspect(model, lambda m: m(x)[0][:, -1].square().mean())
    console = Console(width=100, record=True, file=io.StringIO())
    print_flow(console, flow, diagnose(flow))
    text = console.export_text()
    assert "gradient at step 1 of 6" in text
    assert format_number(flow.times[0].shares[0]) in text


def test_of_many_recurrent_modules_the_first_three_have_a_line():
    times = tuple(
        TimeFlow(
            name=f"rnn{number}",
            kind="GRU",
            call=0,
            of="input",
            length=6,
            steps=(0, 5),
            gradients=(quantity(0.5), quantity(1.0)),
        )
        for number in range(5)
    )
    lines = draw_flow(make_flow(times=times)).splitlines()
    named = [line.strip().partition(":")[0] for line in lines if "gradient at step 1" in line]
    assert named == ["rnn0", "rnn1", "rnn2"]
