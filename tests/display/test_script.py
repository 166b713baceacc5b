import ast
import math
import re
import subprocess
import sys
import textwrap

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chainrule.display.script import format_listing_output, write_listing
from chainrule.errors import SpecError
from chainrule.measure.simulation import simulate
from chainrule.presets import PRESETS
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import MAX_SEED, NetworkSpec

DIFFERENT = {
    "classic": NetworkSpec(),
    "vanishing": NetworkSpec(depth=15, width=32, init="xavier"),
    "residual": NetworkSpec(
        depth=12, width=16, activation="relu", init="he", residual="scaled", batch_size=8
    ),
    "normalized": NetworkSpec(
        depth=6, width=24, activation="gelu", init="lecun", normalization="batchnorm", seed=7
    ),
    "clipped": NetworkSpec(
        depth=8, width=32, activation="tanh", init="random", weight_std=0.3, clip_norm=0.5
    ),
    "orthogonal": NetworkSpec(
        depth=9, width=20, activation="selu", init="orthogonal", bias_std=0.1, dtype="float64"
    ),
    "uniform": NetworkSpec(
        depth=5,
        activation="silu",
        init="random",
        distribution="uniform",
        normalization="rmsnorm",
        input_scale=3.0,
    ),
}


def run(listing: str) -> dict[str, object]:
    """Execute a listing here; return its names and, as "printed", what it printed."""
    printed: list[str] = []
    names: dict[str, object] = {"print": printed.append}
    exec(compile(listing, "listing.py", "exec"), names)
    return {**names, "printed": "\n".join([*printed, ""])}


def assert_alike(printed: str, expected: str) -> None:
    """The same text, but for one unit in the last of three digits."""
    number = re.compile(r"(?<![\w.])-?(?:\d+(?:\.\d+)?(?:e[+-]\d+)?|nan|inf)(?![\w.])")
    assert number.sub("#", printed).split() == number.sub("#", expected).split()
    left, right = (list(map(float, number.findall(text))) for text in (printed, expected))
    assert left == pytest.approx(right, rel=0.0101, nan_ok=True)


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_listing_prints_the_numbers_of_the_page(name):
    spec = DIFFERENT[name]
    assert_alike(run(write_listing(spec, 5))["printed"], format_listing_output(simulate(spec, 5)))


def test_a_listing_run_by_itself_needs_nothing_else(tmp_path):
    spec, script = DIFFERENT["normalized"], tmp_path / "listing.py"
    script.write_text(write_listing(spec, 5), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", str(script)], capture_output=True, text=True, check=True, timeout=600
    )
    assert done.stderr == ""
    assert_alike(done.stdout, format_listing_output(simulate(spec, 5)))


@pytest.mark.parametrize("name", [name for name in PRESETS if PRESETS[name].spec.depth < 50])
def test_listings_of_the_presets_measure_what_simulate_measures(name):
    spec = PRESETS[name].spec
    flow, names = simulate(spec, 16), run(write_listing(spec, 16))
    expected = list(map(float, flow.weight_gradient_norms))
    assert names["medians"] == pytest.approx(expected, rel=1e-3)
    assert_alike(names["printed"], format_listing_output(flow))


@pytest.mark.parametrize("init", INITIALIZERS)
@pytest.mark.parametrize("bias_std", [None, 0.2])
def test_every_initialization_is_drawn_alike(init, bias_std):
    for distribution in (None, *INITIALIZERS[init].distributions):
        spec = NetworkSpec(
            depth=3, width=10, init=init, bias_std=bias_std, distribution=distribution
        )
        expected = simulate(spec, 3)
        names = run(write_listing(spec, 3))
        norms = list(map(float, expected.weight_gradient_norms))
        assert names["medians"] == pytest.approx(norms, rel=1e-4)
        assert names["ratio"] == pytest.approx(float(expected.gradient_ratio), rel=1e-4)


@st.composite
def small_specs(draw):
    """Every combination of settings, in double precision, in which rounding decides nothing."""
    init = draw(st.sampled_from(tuple(INITIALIZERS)))
    normalization = draw(st.sampled_from(("none", "layernorm", "batchnorm", "rmsnorm")))
    deviations = (0.0, 0.5, 1.0, 2.5)[normalization != "none" :]  # no rounding error is normalized
    return NetworkSpec(
        depth=draw(st.integers(1, 6)),
        width=draw(st.integers(1, 9)),
        activation=draw(st.sampled_from(tuple(ACTIVATIONS))),
        init=init,
        distribution=draw(st.sampled_from((None, *INITIALIZERS[init].distributions))),
        weight_std=draw(st.sampled_from(deviations)) if init == "random" else 1.0,
        bias_std=draw(st.sampled_from((None, 0.0, 0.3))),
        residual=draw(st.sampled_from(("none", "plain", "scaled"))),
        normalization=normalization,
        clip_norm=draw(st.sampled_from((None, 0.01, 1e4))),
        batch_size=draw(st.integers(4, 9)),
        seed=draw(st.integers(0, MAX_SEED - 10)),
        input_scale=draw(st.sampled_from((1.0, 0.1, 4.0))),
        dtype="float64",
    )


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(small_specs(), st.integers(1, 4))
def test_any_listing_measures_what_simulate_measures(spec, seeds):
    flow, names = simulate(spec, seeds), run(write_listing(spec, seeds))
    expected = list(map(float, flow.weight_gradient_norms))
    assert names["medians"] == pytest.approx(expected, rel=1e-6, abs=1e-12)
    if spec.clip_norm is not None:
        assert names["factor"] == pytest.approx(float(flow.clip_factor), rel=1e-6)
    shown = format_listing_output(flow).splitlines()
    assert len(shown) == spec.depth + 4 + (spec.clip_norm is not None)


def test_what_overflows_is_printed_so():
    spec = NetworkSpec(depth=60, width=32, activation="relu", init="random")
    printed = run(write_listing(spec, 4))["printed"]
    assert "nan" in printed
    assert_alike(printed, format_listing_output(simulate(spec, 4)))


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_listing_is_short_plain_pytorch(name):
    listing = write_listing(DIFFERENT[name])
    tree = ast.parse(listing)
    modules = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in (
            [a.name for a in node.names] if isinstance(node, ast.Import) else [node.module]
        )
    }
    assert modules == {"torch"}
    assert len(listing.splitlines()) <= 75
    assert max(map(len, listing.splitlines())) <= 100
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    for node in ast.walk(tree):  # whatever is defined is used
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("__"):
            assert node.name in used or node.name == "forward"
    words = re.findall(r"\b[A-Z][A-Z_]+\b", listing)
    constants = re.findall(r"^([A-Z_]+) = ", listing, re.MULTILINE)
    assert len(set(constants)) == len(constants)  # each is written once
    for constant in constants:
        assert words.count(constant) >= 2, constant


@pytest.mark.parametrize("name", DIFFERENT)
def test_a_listing_is_formatted_as_ruff_would(name, tmp_path):
    ruff = pytest.importorskip("ruff")
    listing = write_listing(DIFFERENT[name])
    done = subprocess.run(
        [ruff.find_ruff_bin(), "format", "--line-length", "100", "-"],
        input=listing,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == listing


def test_seeds_that_do_not_exist_are_refused():
    with pytest.raises(SpecError, match=r"seeds: must be at least 1.*got 0"):
        write_listing(NetworkSpec(), 0)
    with pytest.raises(SpecError, match=rf"at most {MAX_SEED}"):
        write_listing(NetworkSpec(seed=MAX_SEED), 2)


def test_the_output_has_the_ends_and_their_ratio():
    flow = simulate(NetworkSpec(depth=3, width=4), 2)
    first, _, last = map(float, flow.weight_gradient_norms)
    assert format_listing_output(flow).endswith(
        textwrap.dedent(f"""\
        first layer: {first:.3g}
        last layer:  {last:.3g}
        first / last: {float(flow.gradient_ratio):.3g}
        """)
    )
    assert not math.isnan(first)
