"""A large model by block: the depth profile, the tree, and both in a terminal of 80 columns."""

import io
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import nn

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.display.terminal import print_flow
from chainrule.display.terminal_tables import SPARKS, Sparks
from chainrule.flow.blocks import build_profile, grow_tree, is_profiled
from chainrule.flow.quantity import Quantity
from chainrule.measure.inspection import inspect
from chainrule.measure.simulation import simulate
from chainrule.spec.network_spec import NetworkSpec
from report_models import measure_gpt2

EXAMPLE = Path(__file__).parents[2] / "examples" / "post_norm_transformer.py"


def build_flow(names, loss_scale=1.0):
    """A chain of linear layers with the given names."""
    torch.manual_seed(0)
    model = nn.Module()
    chain = []
    for name in names:
        *parts, last = name.split(".")
        place = model
        for part in parts:
            if not hasattr(place, part):
                place.add_module(part, nn.Module())
            place = getattr(place, part)
        place.add_module(last, nn.Linear(4, 4))
        chain.append(getattr(place, last))
    x = torch.randn(3, 4)

    def compute_loss(_model):
        h = x
        for layer in chain:
            h = layer(h)
        return h.square().mean() * loss_scale

    return inspect(model, compute_loss)


def describe(flow):
    return [(s.name, s.labels, [row.name for row in s.rows]) for s in build_profile(flow)]


def render(flow, width=80, **options):
    buffer = io.StringIO()
    print_flow(Console(file=buffer, width=width), flow, diagnose(flow), **options)
    return buffer.getvalue()


class TestProfile:
    def test_puts_what_sits_at_the_same_place_of_every_block_in_a_row(self):
        names = [f"h.{at}.{part}" for at in range(3) for part in ("attn.proj", "mlp")]
        flow = build_flow(["embed", *names, "head"])
        assert describe(flow) == [
            ("", ("",), ["embed"]),
            ("h.*", ("0", "1", "2"), ["attn.proj", "mlp"]),
            ("", ("",), ["head"]),
        ]
        (stack,) = [each for each in build_profile(flow) if each.repeats]
        assert stack.rows[0].norms == tuple(
            layer.weight_gradient_norm for layer in flow.weight_layers if "attn" in layer.name
        )

    @pytest.mark.parametrize(
        ("names", "stack", "labels", "rows"),
        [
            (
                ["layer1.0.conv1", "layer1.1.conv1", "layer2.0.conv1", "layer2.0.down.0"],
                "layer*.*",
                ("1.0", "1.1", "2.0"),
                ["conv1", "down.0"],
            ),
            (
                ["blocks.3.mlp.0", "blocks.3.mlp.2", "blocks.4.mlp.0", "blocks.4.mlp.2"],
                "blocks.*",
                ("3", "4"),
                ["mlp.0", "mlp.2"],
            ),
            (["h.10.fc", "h.11.fc"], "h.*", ("10", "11"), ["fc"]),
        ],
    )
    def test_finds_the_numbers_that_count_blocks(self, names, stack, labels, rows):
        assert describe(build_flow(names)) == [(stack, labels, rows)]

    def test_leaves_a_gap_where_a_block_has_no_such_module(self):
        (stack,) = build_profile(build_flow(["b.0.x", "b.0.y", "b.1.x", "b.2.x", "b.2.y"]))
        assert [layer is None for layer in stack.rows[1].layers] == [False, True, False]

    def test_splits_long_blocks_at_the_next_number(self):
        names = [f"stages.{s}.layers.{at}.{n}" for s in range(2) for at in range(8) for n in "ab"]
        assert [(s[0], len(s[1]), s[2]) for s in describe(build_flow(names))] == [
            ("stages.*.layers.*", 16, ["a", "b"])
        ]

    def test_behind_the_first_number_a_number_within_a_word_counts_nothing(self):
        """The parts of a stage are of two kinds, whose names end with a number."""
        names = [
            f"stages.{s}.{kind}.{at}.w"
            for s in range(2)
            for kind in ("b1", "b2")
            for at in range(7)
        ]
        labels = tuple(f"{s}.{at}" for s in range(2) for at in range(7))
        assert describe(build_flow(names)) == [
            (f"stages.*.{kind}.*", labels, ["w"]) for kind in ("b1", "b2")
        ]

    def test_modules_in_a_plain_row_are_no_blocks(self):
        flow = build_flow([str(at) for at in range(30)])
        assert [stack.repeats for stack in build_profile(flow)] == [False]
        assert not is_profiled(flow)

    def test_specified_networks_and_small_models_are_listed_layer_by_layer(self):
        assert not is_profiled(simulate(NetworkSpec(depth=60, width=4), 1))
        assert not is_profiled(build_flow([f"h.{at}.fc" for at in range(5)]))
        assert is_profiled(build_flow([f"h.{at}.fc" for at in range(30)]))

    def test_shows_the_stream_as_autograd_has_it(self):
        torch.manual_seed(0)
        width = 8

        class Block(nn.Module):
            def __init__(self):
                super().__init__()
                self.norm, self.a, self.b = (
                    nn.LayerNorm(width),
                    nn.Linear(width, width),
                    nn.Linear(width, width),
                )

            def forward(self, x):
                return x + self.b(torch.relu(self.a(self.norm(x))))

        model = nn.Sequential()
        model.embed = nn.Linear(width, width)
        model.h = nn.Sequential(*(Block() for _ in range(14)))
        model.head = nn.Linear(width, width)
        x = torch.randn(4, width)
        flow = inspect(model, lambda m: m(x).square().mean())
        (stack,) = [each for each in build_profile(flow) if each.repeats]
        outputs = []
        for block in model.h:
            block.register_forward_hook(lambda _m, _a, out: outputs.append(out))
        loss = model(x).square().mean()
        expected = [float(g.norm()) for g in torch.autograd.grad(loss, outputs)]
        assert [float(norm) for norm in stack.stream] == pytest.approx(expected, rel=1e-5)

    @pytest.mark.parametrize(("sums", "shown"), [(1, False), (2, True), (3, True)])
    def test_shows_the_stream_if_half_of_the_blocks_end_in_a_sum(self, sums, shown):
        torch.manual_seed(0)
        model = nn.ModuleDict({"h": nn.ModuleList(), "head": nn.Linear(4, 1)})
        model["h"].extend(nn.ModuleDict({"fc": nn.Linear(4, 4)}) for _ in range(4))
        x = torch.randn(3, 4)

        def compute_loss(m):
            h = x
            for at, block in enumerate(m["h"]):
                h = h + block["fc"](h) if 0 < at <= sums else block["fc"](h)
            return m["head"](h).square().mean()

        stack, _ = build_profile(inspect(model, compute_loss))
        found = [norm is not None for norm in stack.stream]
        assert found == ([0 < at <= sums for at in range(4)] if shown else [])


class TestTree:
    def test_holds_every_call_once_in_forward_order(self):
        flow = measure_gpt2(layers=2)
        seen = []

        def walk(branch, above):
            if above is not None and branch.name:
                assert branch.name.startswith(above)
                assert branch.name.endswith(branch.label)
            seen.extend(branch.calls)
            assert branch.size == len(branch.calls) + sum(each.size for each in branch.branches)
            for each in branch.branches:
                walk(each, branch.name)

        tree = grow_tree(flow)
        walk(tree, None)
        assert tree.size == len(flow.layers)
        order = {id(call): at for at, call in enumerate(flow.layers)}
        positions = [order[id(call)] for call in seen]
        assert sorted(positions) == list(range(len(flow.layers)))
        labels = [each.label for each in tree.branches[0].branches]
        assert labels == ["wte", "wpe", "drop", "h.0", "h.1", "ln_f"]

    def test_of_a_model_without_parts_is_one_branch(self):
        tree = grow_tree(inspect(nn.Linear(2, 2), lambda m: m(torch.ones(3, 2)).sum()))
        assert (tree.name, tree.size, tree.branches) == ("", 1, ())


class TestSparks:
    def test_heights_follow_the_log_of_the_figures(self):
        figures = [Quantity([10.0**power]) for power in range(-7, 1)]
        assert Sparks(figures).render(figures, 48).plain == SPARKS

    def test_small_differences_look_small(self):
        figures = [Quantity([value]) for value in (1.0, 1.1, 0.9)]
        assert len(set(Sparks(figures).render(figures, 48).plain)) == 1

    def test_what_has_no_place_on_the_scale_is_told(self):
        figures = [Quantity([1.0]), Quantity([0.0]), None, Quantity([float("nan")])]
        assert Sparks(figures).render(figures, 48).plain == "█0·!"

    def test_many_figures_share_cells_and_nothing_wrong_is_hidden(self):
        figures = [Quantity([1.0])] * 99 + [Quantity([0.0])]
        line = Sparks(figures).render(figures, 30).plain
        assert len(line) == 25
        assert line.endswith("0")


class TestTerminal:
    def test_shows_a_large_model_by_block_in_80_columns(self):
        flow = measure_gpt2(layers=12)
        text = render(flow)
        lines = text.splitlines()
        assert max(map(len, lines)) <= 80
        at = next(i for i, line in enumerate(lines) if line.startswith("transformer.h.*"))
        assert "12 blocks" in lines[at]
        rows = [line.split() for line in lines[at + 1 : at + 5]]
        assert [row[0] for row in rows] == ["attn.c_attn", "attn.c_proj", "mlp.c_fc", "mlp.c_proj"]
        assert all(len(row[2]) == 12 and set(row[2]) <= set(SPARKS) for row in rows)
        assert "transformer.h.3" not in text

    def test_all_shows_every_module_as_an_indented_tree(self):
        flow = measure_gpt2(layers=12)
        lines = [line.rstrip() for line in render(flow, everything=True).splitlines()]
        assert max(map(len, lines)) <= 80
        at = lines.index("  h.3")
        assert lines[at + 1].startswith("    ln_1 ")
        assert lines[at + 2] == "    attn"
        assert lines[at + 3].startswith("      c_attn ")
        table = lines[3 : lines.index("", 4)]
        assert sum(len(line.split()) > 1 for line in table) >= len(flow.layers)

    @pytest.mark.parametrize("width", [40, 60, 80, 200])
    def test_fits_any_width(self, width):
        flow = measure_gpt2(layers=12)
        for everything in (False, True):
            text = render(flow, width, everything=everything)
            assert max(map(len, text.splitlines())) <= width

    def test_goes_into_a_pipe_without_escapes(self):
        run = subprocess.run(
            [sys.executable, "-m", "chainrule", "inspect", f"{EXAMPLE}:build"],
            capture_output=True,
            encoding="utf-8",
            check=True,
        )
        assert "\x1b" not in run.stdout
        assert max(map(len, run.stdout.splitlines())) <= 80
        assert "blocks.layers.*" in run.stdout

    def test_no_color_leaves_no_colour(self, monkeypatch):
        monkeypatch.setenv("NO_COLOR", "1")
        buffer = io.StringIO()
        flow = measure_gpt2(layers=12)
        console = Console(file=buffer, width=80, force_terminal=True)
        print_flow(console, flow, diagnose(flow))
        colours = [f"\x1b[{code}m" for code in (*range(31, 38), *range(91, 98))]
        assert not any(colour in buffer.getvalue() for colour in colours)


def test_every_row_keeps_forward_order():
    for stack in build_profile(measure_gpt2(layers=12)):
        for row in stack.rows:
            numbers = [layer.layer for layer in row.layers if layer]
            assert all(a < b for a, b in pairwise(numbers))


def test_long_blocks_are_split_only_if_every_part_repeats():
    """`x` repeats in all blocks, but below `y` hardly two layers have the same name."""
    regular = [f"blocks.{i}.x.{j}.w" for i in range(2) for j in range(13)]
    odd = [f"blocks.{i}.y.{j}.u{i}{j}" for i in range(2) for j in range(2)]
    assert [name for name, *_ in describe(build_flow(regular))] == ["blocks.*.x.*"]
    (stack,) = describe(build_flow(regular[:13] + odd[:2] + regular[13:] + odd[2:]))
    assert stack[:2] == ("blocks.*", ("0", "1"))
