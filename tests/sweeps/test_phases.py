"""Phase maps: against plain autograd, SciPy-free quadrature, `simulate`, `train`, and the store."""

import json
import math
import multiprocessing
import sqlite3
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import chainrule
from chainrule._utils.numbers import format_number
from chainrule.errors import ChainruleError, SweepError
from chainrule.spec.network_spec import NetworkSpec
from chainrule.sweeps import Axis, PhaseCell, PhaseMap, Training, phase_map
from chainrule.sweeps.axes import is_line_critical, read_axes, trace_critical_line
from chainrule.sweeps.grids import make_spec
from chainrule.sweeps.mapping import AXES, BASE, make_cells, order_cells
from chainrule.sweeps.phase_figure import build_phase_figure, locate, outline, shade
from chainrule.sweeps.phases import read_cell
from chainrule.sweeps.records import Trained
from chainrule.theory.critical import critical_line
from chainrule.training.training import train

TANH = NetworkSpec(width=32, activation="tanh", bias_std=0.2)
SMALL = {"weight_scale": [0.8, 1.3, 2.2], "depth": [3, 9]}


@pytest.fixture(scope="module")
def threads():
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture(scope="module")
def small(threads):
    return phase_map(SMALL, TANH, seeds=2, training=Training(steps=8), executor=threads)


NODES = np.linspace(-12, 12, 1201)
WEIGHTS = np.exp(-0.5 * NODES**2) * 0.02 / math.sqrt(2 * math.pi)


def expect(function, q):
    """E f(√q z) by the trapezoidal rule: another one than the library's, as exact for tanh."""
    return float((WEIGHTS * function(math.sqrt(q) * NODES)).sum())


def find_critical_tanh(bias_std):
    """σ_w of tanh at which χ = 1, by iteration to the fixed point and halving."""

    def measure_chi(weight):
        q = 1.0
        for _ in range(3000):
            new = weight**2 * expect(lambda z: np.tanh(z) ** 2, q) + bias_std**2
            if abs(new - q) < 1e-15:
                break
            q = new
        return weight**2 * expect(lambda z: np.cosh(z) ** -4.0, q)

    low, high = 1.0, 3.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if measure_chi(middle) < 1.0 else (low, middle)
    return low


class TestAxes:
    def test_the_weight_scale_is_the_deviation_times_the_root_of_the_width(self):
        spec = make_spec(TANH, {"weight_scale": 2.0, "width": 16})
        assert (spec.init, spec.weight_std, spec.bias_std) == ("random", 0.5, 0.2)
        weight = torch.cat([p.flatten() for p in chainrule.build_network(
            make_spec(NetworkSpec(depth=4, width=128), {"weight_scale": 1.5})).parameters()
            if p.dim() == 2])  # fmt: skip
        assert float(weight.detach().std()) * math.sqrt(128) == pytest.approx(1.5, rel=0.02)

    @pytest.mark.parametrize(
        ("axes", "fact"),
        [
            ({"weight_scale": [1.0]}, "two axes"),
            ({"weight_scale": [1.0], "depth": [2], "width": [4]}, "got 3"),
            ({"weight_scal": [1.0], "depth": [2]}, "weight_scale"),
            ({"weight_scale": [1.0], "init": ["he"]}, "init"),
            ({"weight_scale": [], "depth": [2]}, "at least one"),
            ({"weight_scale": iter([1.0]), "depth": [2]}, "list"),
            ({"weight_scale": [1.0], "depth": range(1, 200)}, "limit=199"),
            ({"weight_scale": [-1.0], "depth": [2]}, "at least 0"),
            ({"weight_scale": ["a"], "depth": [2]}, "number"),
            ({"weight_scale": [1.0], "depth": [0]}, "depth=0"),
            ({"weight_scale": [1.0], "seed": [0]}, "seed"),
        ],
    )
    def test_bad_axes_are_refused_before_anything_runs(self, axes, fact, tmp_path, threads):
        with pytest.raises(SweepError, match=fact):
            phase_map(axes, TANH, executor=threads, limit=100, store=tmp_path / "a.db")
        assert not list(tmp_path.iterdir())

    def test_cells_that_share_theory_follow_one_another(self):
        x, y = read_axes({"depth": [2, 4], "weight_scale": [1.0, 2.0]}, 9)
        ordered = order_cells(x, y, make_cells(x, y, TANH, seeds=1))
        pairs = [(round(each.spec.weight_std * math.sqrt(32)), each.spec.depth) for each in ordered]
        assert pairs == [(1, 4), (1, 2), (2, 4), (2, 2)]

    def test_words_are_an_axis(self):
        x = Axis(name="activation", values=("relu", "tanh"))
        assert not x.is_numeric
        assert x.describe("relu") == "activation ReLU"


class TestCriticalLine:
    @pytest.mark.parametrize("bias", [0.1, 0.05**0.5, 0.6])
    def test_is_that_of_another_quadrature(self, bias):
        x = Axis(name="weight_scale", values=(1.0, 3.0))
        ((across, up),) = trace_critical_line(x, Axis(name="bias_std", values=(bias,)), TANH)
        assert up == bias
        assert across == pytest.approx(find_critical_tanh(bias), rel=1e-9)
        if bias == 0.05**0.5:  # the value that Schoenholz et al. 2017 use
            assert across**2 == pytest.approx(1.76095464, rel=1e-8)

    @pytest.mark.parametrize(
        ("activation", "scale"),
        [("relu", math.sqrt(2)), ("identity", 1.0), ("leaky_relu", math.sqrt(2 / (1 + 1e-4)))],
    )
    def test_of_two_straight_lines_has_a_closed_form_for_every_bias(self, activation, scale):
        y = Axis(name="weight_scale", values=(0.5, 2.0))
        x = Axis(name="bias_std", values=tuple(0.1 * step for step in range(30)))
        line = trace_critical_line(x, y, NetworkSpec(activation=activation))
        assert (line[0][0], line[-1][0]) == (0.0, x.values[-1])
        assert all(up == pytest.approx(scale, rel=1e-12) for _, up in line)

    def test_is_left_out_where_the_map_has_none(self):
        x, depth = Axis(name="weight_scale", values=(1.0,)), Axis(name="depth", values=(2, 3))
        words = Axis(name="activation", values=("relu", "tanh"))
        assert trace_critical_line(x, depth, TANH.replace(residual="plain")) == ()
        assert trace_critical_line(x, depth, TANH.replace(normalization="layernorm")) == ()
        assert trace_critical_line(x, words, TANH) == ()
        assert trace_critical_line(depth, words, TANH) == ()

    def test_has_the_two_phases_on_its_sides(self, small):
        (across, _), *_ = small.line
        assert across == pytest.approx(find_critical_tanh(0.2), rel=1e-9)
        for row in small.rows:
            for x, cell in zip(small.x.values, row, strict=True):
                assert cell.phase == ("ordered" if x < across else "chaotic")
                assert (cell.chi < 1) == (x < across)


class TestCells:
    def test_equal_plain_autograd(self, small):
        for x in SMALL["weight_scale"]:
            for depth in SMALL["depth"]:
                ratios = []
                for seed in (0, 1):
                    spec = make_spec(TANH, {"weight_scale": x, "depth": depth})
                    model = chainrule.build_network(spec, seed)
                    z = []
                    for layer in model:
                        if isinstance(layer, torch.nn.Linear):
                            layer.register_forward_hook(lambda _m, _i, out, z=z: z.append(out))
                    loss = chainrule.make_loss(spec, seed)(model)
                    first, last = torch.autograd.grad(loss, [z[0], z[-1]])
                    ratios.append(float(first.norm() / last.norm()))
                found = small.at(x, depth).measured_ratio
                assert found == pytest.approx(sum(ratios) / 2, rel=1e-4)

    def test_equal_simulate_predict_and_train(self, small):
        cell = small.at(2.2, 9)
        flow = chainrule.simulate(cell.spec, 2)
        bands = chainrule.theory.predict(cell.spec, 2).list_bands("delta")
        *_, last = train(cell.spec, steps=8, every=8)
        assert cell.measured_ratio == float(flow.delta_ratio)
        assert cell.verdict == str(chainrule.diagnose(flow).verdict)
        assert cell.expected_ratio == bands[0][1] / bands[-1][1]
        assert (cell.trained.accuracy, cell.trained.loss) == (last.accuracy, last.loss)
        assert cell.dot == ("filled" if last.accuracy > 0.8 else "empty")

    def test_theory_expects_training_within_six_depth_scales(self):
        for depth, scale, expected in ((12, 2.0, True), (13, 2.0, False), (9, math.inf, True)):
            cell = PhaseCell(spec=NetworkSpec(depth=depth), depth_scale=scale)
            assert cell.expects_training is expected
        assert PhaseCell(spec=TANH).expects_training is None

    def test_a_line_tells_theory_measurement_and_training(self, small):
        said = small.at(0.8, 9).sentence
        assert said.count(";") == 2
        assert "vanish" in said
        assert f"measured δ first ÷ last {format_number(small.at(0.8, 9).measured_ratio)}" in said
        assert "8 steps" in said
        assert "explode" in small.at(2.2, 9).sentence

    def test_a_line_for_everything_that_can_be_missing(self):
        def tell(**parts):
            return PhaseCell(spec=TANH, **parts).sentence

        def end(**parts):
            usual = {"optimizer": "sgd", "steps": 7, "loss": 1.0, "accuracy": 0.5}
            return Trained(**{**usual, "diverged": False, "trained": False, **parts})

        assert "says nothing" in tell(missing=("depth_scales: residual connections",))
        assert "residual connections" in tell(missing=("depth_scales: residual connections",))
        assert "no gradient" in tell()
        assert "No room" in tell(error="No room")
        assert "diverged" in tell(trained=end(diverged=True))
        assert "failed, 50 %" in tell(trained=end())
        assert "any depth trains" in tell(chi=1.0, depth_scale=math.inf)
        assert "none trains" in tell(chi=0.001, depth_scale=0.1)
        assert "1 layer train" in tell(chi=0.01, depth_scale=0.2)
        assert "2 of 10 layers" in tell(measured_ratio=1.0, layers_outside=(1, 4))

    def test_where_theory_says_nothing_the_map_says_so(self, threads):
        axes = {"residual": ["none", "plain"], "depth": [3]}
        found = phase_map(axes, TANH.replace(init="xavier"), seeds=1, executor=threads)
        assert found.at("plain", 3).phase is None
        assert found.at("plain", 3).expects_training is None
        assert "Of 1 cells" in found.summary
        assert found.line == ()

    def test_a_cell_that_fails_is_a_cell(self, threads):
        axes = {"width": [4, 1024], "depth": [2, 900]}
        found = phase_map(axes, NetworkSpec(batch_size=2), seeds=1, executor=threads)
        failed = found.at(1024, 900)
        assert failed.error
        assert failed.measured_ratio is None
        assert "1 cells could not be measured" in found.summary
        assert "measured 3 of 4" in repr(found)

    def test_the_ratio_of_theory_where_only_chi_is_known(self):
        from chainrule.sweeps.records import Foreseen, Outcome

        def read(chi, depth):
            foreseen = Foreseen(weight_gradient_bands=(), layers_outside=None, chi=chi,
                                depth_scale=1.0, missing=())  # fmt: skip
            spec = NetworkSpec(depth=depth)
            return read_cell(spec, Outcome(foreseen=foreseen)).expected_ratio

        assert read(0.25, 5) == pytest.approx(0.25**2)
        assert read(0.0, 5) == 0.0
        assert read(None, 5) is None
        assert read(1e300, 1000) == math.inf


class TestMap:
    def test_what_is_stored_is_what_was_computed(self, threads, tmp_path):
        store = tmp_path / "a.db"
        seen = []
        first = phase_map(SMALL, TANH, seeds=2, executor=threads, store=store)
        again = phase_map(SMALL, TANH, seeds=2, executor=threads, store=store, progress=seen.append)
        assert again == first
        assert (seen[0].kept, seen[0].total) == (6, 6)
        assert again.to_json() == first.to_json()

    def test_a_killed_map_goes_on(self, tmp_path):
        store = tmp_path / "a.db"
        context = multiprocessing.get_context("forkserver")
        process = context.Process(target=map_three_cells, args=(store,))
        process.start()
        while process.is_alive() and count_rows(store) < 3:
            time.sleep(0.01)
        process.kill()
        process.join()
        before = count_rows(store)
        assert before >= 3
        seen = []
        found = map_slowly(store, seen.append)
        assert seen[0].kept == before < seen[0].total
        with ThreadPoolExecutor(1) as threads:
            assert found == phase_map(SLOW, TANH, seeds=1, executor=threads)

    def test_is_one_readable_line_and_immutable(self, small):
        assert repr(small).startswith("PhaseMap(3 × 2 over weight_scale and depth; measured 6 of 6")
        assert "\n" not in repr(small)
        with pytest.raises(AttributeError):
            small.seeds = 3

    def test_counts_agreement(self, small):
        fits = [cell.fits for cell in small]
        assert small.measured.same == sum(fits)
        assert small.measured.compared == 6
        same = [cell.expects_training == cell.trained.trained for cell in small]
        assert (small.trained.same, small.trained.compared) == (sum(same), 6)
        assert str(small.trained) in small.summary

    def test_writes_rows_and_json(self, small):
        rows = small.to_records()
        assert [(row["x"], row["y"]) for row in rows][:4] == [
            (0.8, 3),
            (1.3, 3),
            (2.2, 3),
            (0.8, 9),
        ]
        assert rows[0]["measured_ratio"] == small.rows[0][0].measured_ratio
        read = json.loads(small.to_json())
        assert read["x"] == {"name": "weight_scale", "values": SMALL["weight_scale"]}
        assert len(read["cells"]) == 6
        endless = PhaseCell(spec=TANH, depth_scale=math.inf)
        one = Axis(name="depth", values=(1,))
        made = PhaseMap(x=one, y=Axis(name="width", values=(4,)), rows=((endless,),), seeds=1)
        assert json.loads(made.to_json())["cells"][0]["depth_scale"] == "Infinity"

    def test_a_value_that_is_not_on_the_map_is_refused(self, small):
        with pytest.raises(SweepError, match=r"weight_scale.*0\.8, 1\.3"):
            small.at(0.9, 3)

    def test_the_usual_map_is_24_by_24_around_the_line(self):
        assert [len(values) for values in AXES.values()] == [24, 24]
        line = find_critical_tanh(BASE.bias_std)
        assert AXES["weight_scale"][4] < line < AXES["weight_scale"][-4]


class TestFigure:
    def test_shows_colours_lines_and_dots(self, small):
        figure = small.plot()
        names = [trace.name for trace in figure.data]
        assert figure.data[0].z[1][0] == shade(small.at(0.8, 9).measured_ratio)
        assert "training failed" in names
        assert "theory: critical line" in names
        (line,) = (trace for trace in figure.data if trace.name == "theory: critical line")
        assert (min(line.y), max(line.y)) == (-0.5, 1.5)  # from edge to edge
        assert small.plot("accuracy").data[0].z[0][0] == small.at(0.8, 3).trained.accuracy
        assert small.plot("theory").data[0].z[0][0] == shade(small.at(0.8, 3).expected_ratio)
        with pytest.raises(ChainruleError, match="accuracy"):
            small.plot("accurate")

    def test_every_value_is_in_the_text_too(self, small):
        text = build_phase_figure(small.read_grid())["data"][0]["text"]
        assert "weight scale σ_w 0.8, depth 9" in text[1][0]
        assert small.at(0.8, 9).sentence.split("; ")[1] in text[1][0]

    def test_colours_end_at_four_powers_of_ten(self):
        given = (0.0, 1e-9, 1e-2, 1.0, 1e4, math.inf, math.nan, None)
        assert [shade(ratio) for ratio in given] == [-1, -1, -0.5, 0, 1, 1, None, None]

    def test_the_outline_runs_between_cells_that_differ(self):
        flags = ((True, False, None), (True, True, False))
        assert list(outline(flags)) == [
            ((0.5, -0.5), (0.5, 0.5)),
            ((1.5, 0.5), (1.5, 1.5)),
            ((0.5, 0.5), (1.5, 0.5)),
        ]

    def test_a_line_stands_between_unevenly_spaced_values(self):
        assert locate((1.0, 2.0, 10.0), 6.0) == 1.5
        assert locate((1.0, 2.0), 0.5) is None
        assert locate((3.0,), 3.0) == 0.0


SLOW = {"weight_scale": [0.9, 1.5], "depth": [4, 8, 12, 16, 20]}


def map_slowly(store, progress=None):
    with ThreadPoolExecutor(1) as threads:
        return phase_map(SLOW, TANH, seeds=1, executor=threads, store=store, progress=progress)


def map_three_cells(store):
    """Stop there, and wait to be killed."""
    map_slowly(store, lambda progress: time.sleep(3600 if progress.done >= 3 else 0))


def count_rows(path):
    if not path.exists():
        return 0
    file = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return file.execute("SELECT count(*) FROM results").fetchone()[0]
    except sqlite3.Error:
        return 0
    finally:
        file.close()


@pytest.mark.parametrize(
    ("given", "name"),
    [({"axes": 3}, "axes"), ({"base": "x"}, "base"), ({"training": "sgd"}, "training")],
)
def test_wrong_kinds_are_refused_with_the_name(given, name):
    with pytest.raises(SweepError, match=f"{name}: must be .*; got"):
        phase_map(**given)


@pytest.mark.parametrize("spreads", [(0.0,), (0.0, 0.2), (0.2, 0.0), (0.1, 0.2), (None, 0.0)])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_a_line_is_critical_if_there_is_a_critical_point_at_each_of_its_biases(activation, spreads):
    x = Axis(name="weight_scale", values=(1.0, 2.0))
    y = Axis(name="bias_std", values=spreads)
    base = NetworkSpec(width=8, activation=activation, bias_std=0.3)
    points = [critical_line(activation, each or 0.0) for each in spreads]
    assert is_line_critical(x, y, base) is all(point is not None for point in points)


def test_a_line_of_rectifiers_with_biases_is_not_called_critical():
    axes = {"weight_scale": [1.0, 2.0], "depth": [2, 3]}
    base = NetworkSpec(width=8, activation="relu", bias_std=0.2)
    with ThreadPoolExecutor(1) as threads:
        found = phase_map(axes, base, seeds=1, executor=threads)
    names = [trace["name"] for trace in build_phase_figure(found.read_grid())["data"]
             if "name" in trace]  # fmt: skip
    assert not found.is_critical
    assert any("χ = 1" in name for name in names)
    assert not any("critical" in name for name in names)
