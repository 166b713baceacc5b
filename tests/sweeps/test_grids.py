import itertools

import pytest

from chainrule.errors import SweepError
from chainrule.spec.network_spec import NetworkSpec
from chainrule.sweeps import (
    FactoryCell,
    SpecCell,
    Training,
    count_cells,
    list_axes,
    make_factory_grid,
    make_grid,
    parse_axis,
)
from sweep_factories import build


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("depth=2..5", [2, 3, 4, 5]),
        ("depth=2..9..3,20", [2, 5, 8, 20]),
        ("bias-std=0..0.3..0.1", [0.0, 0.1, 0.2, 0.3]),
        ("init=he, xavier", ["he", "xavier"]),
        ("clip_norm=none,0.5", [None, 0.5]),
        ("flag=true,False", [True, False]),
    ],
)
def test_axes_are_read(text, values):
    assert parse_axis(text) == (text.partition("=")[0].replace("-", "_"), values)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        ("depth", "NAME=VALUES"),
        ("=1", "NAME=VALUES"),
        ("depth=", "values"),
        ("depth=2,,3", "values"),
        ("depth=2..", "2.."),
        ("depth=2..inf", "inf"),
        ("depth=a..b", "a..b"),
        ("depth=5..2", "5..2"),
        ("depth=2..5..0", "above 0"),
        ("depth=2..5..-1", "above 0"),
        ("depth=0..1e9", "1,000,000"),
        ("depth=0..1..1e-300", "1,000,000"),
    ],
)
def test_axes_that_cannot_be_say_why(text, fact):
    with pytest.raises(SweepError, match=fact):
        parse_axis(text)


def test_a_grid_has_every_combination_once():
    cells = make_grid({"depth": [2, 3], "init": ["he", "xavier"]}, NetworkSpec(width=8), seeds=3)
    found = [(each.spec.depth, each.spec.init, each.spec.width, each.seeds) for each in cells]
    assert found == [(d, i, 8, 3) for d in (2, 3) for i in ("he", "xavier")]
    assert list_axes(cells) == ["depth", "init"]
    assert len({each.address for each in cells}) == 4


@pytest.mark.parametrize(
    ("axes", "fact"),
    [
        ({"deph": [2]}, "depth"),
        ({"depth": []}, "depth"),
        ({"depth": itertools.count(1)}, "length"),
        ({"depth": [2, 2]}, "twice"),
        ({"depth": [0, 2]}, "1 to 1000"),
        ({"depth": range(1, 1000), "width": range(1, 4000)}, "3,995,001"),
        ({"depth": range(1, 12)}, "limit=11"),
        ({"weight_scale": [1.0], "init": ["he"]}, "init"),
        ({"weight_scale": [-1.0]}, "at least 0"),
        ({"weight_scale": ["wide"]}, "at least 0"),
        (["depth"], "dictionary"),
        (None, "dictionary"),
    ],
)
def test_grids_that_cannot_be_say_why(axes, fact):
    with pytest.raises(SweepError, match=fact):
        make_grid(axes, limit=10)


@pytest.mark.parametrize(
    ("make", "fact"),
    [
        (lambda: make_grid({"depth": [1]}, "relu"), "NetworkSpec"),
        (lambda: make_grid({"depth": [1]}, training="adam"), "Training"),
        (lambda: make_grid({"depth": [1]}, limit="all"), "limit"),
        (lambda: make_factory_grid(None, {"a": [1]}), "factory"),
        (lambda: make_factory_grid(build, {"width": [1]}, seeds=3), "range"),
        (lambda: make_factory_grid(build, {"width": [1]}, arguments=["log"]), "dictionary"),
        (lambda: FactoryCell(build, [1]), "dictionary"),
        (lambda: SpecCell("relu"), "NetworkSpec"),
        (lambda: SpecCell(NetworkSpec(), weight_scale=3.0), "weight_std"),
        (lambda: Training(learning_rate="fast"), "learning_rate"),
        (lambda: parse_axis(None), "text"),
        (lambda: count_cells(3), "dictionary"),
    ],
)
def test_what_is_of_another_kind_says_what_it_must_be(make, fact):
    with pytest.raises(SweepError, match=fact):
        make()


def test_the_weight_scale_names_a_cell_and_leaves_its_address_alone():
    base = NetworkSpec(width=16, activation="tanh")
    cells = make_grid({"weight_scale": [1.0, 2.0], "width": [4, 16]}, base)
    assert [each.spec.weight_std for each in cells] == [0.5, 0.25, 1.0, 0.5]
    assert {each.spec.init for each in cells} == {"random"}
    assert list_axes(cells) == ["width", "weight_scale"]
    plain = SpecCell(base.replace(init="random", weight_std=0.5))
    assert plain.address == cells[3].address
    assert list_axes([plain, *cells]) == ["width", "weight_std", "weight_scale"]


def test_a_limit_can_be_raised():
    assert len(make_grid({"depth": range(1, 12)}, limit=11)) == 11


def test_a_grid_of_a_factory_knows_its_arguments():
    cells = make_factory_grid(build, {"width": [2, 3]}, seeds=(0, 7))
    assert [(each.settings, each.seed) for each in cells] == [
        ({"width": width}, seed) for width in (2, 3) for seed in (0, 7)
    ]
    with pytest.raises(SweepError, match="width"):
        make_factory_grid(build, {"widht": [2]})
    with pytest.raises(SweepError, match="seeds"):
        make_factory_grid(build, {"width": [2]}, seeds=())
    with pytest.raises(SweepError, match="limit"):
        make_factory_grid(build, {"width": [2]}, seeds=itertools.count(), limit=5)


def test_an_address_holds_all_that_decides():
    spec = NetworkSpec(depth=2)
    cells = [
        SpecCell(spec),
        SpecCell(spec.replace(depth=3)),
        SpecCell(spec.replace(seed=1)),
        SpecCell(spec, seeds=2),
        SpecCell(spec, training=Training()),
        SpecCell(spec, training=Training(steps=5)),
        FactoryCell(build, {"width": 2}),
        FactoryCell(build, {"width": 3}),
        FactoryCell(build, {"width": 2}, seed=1),
    ]
    assert len({each.address for each in cells}) == len(cells)
    assert SpecCell(NetworkSpec(depth=2)).address == cells[0].address


def test_an_address_follows_the_version_and_what_the_factory_uses(monkeypatch):
    before = FactoryCell(build, {"width": 2}).address
    monkeypatch.setattr("sweep_factories.SCALE", 3.0)
    changed = FactoryCell(build, {"width": 2}).address
    monkeypatch.setattr("chainrule.sweeps.cells._read_versions", lambda: {"chainrule": "9.9"})
    assert len({before, changed, FactoryCell(build, {"width": 2}).address}) == 3


def test_cells_that_cannot_be_say_why():
    with pytest.raises(SweepError, match="width"):
        FactoryCell(build)
    with pytest.raises(SweepError, match="width"):
        FactoryCell(build, {"width": [2]})
    with pytest.raises(SweepError, match="seeds"):
        SpecCell(NetworkSpec(), seeds=0)
    with pytest.raises(SweepError, match="sgd"):
        Training(optimizer="lion")
    width = 3
    with pytest.raises(SweepError, match="width"):
        FactoryCell(lambda: build(width)).address  # noqa: B018
