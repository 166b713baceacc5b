"""`NetworkSpec`: defaults, error texts, and its form as JSON."""

import json
from typing import get_type_hints

import pytest
from hypothesis import given, settings
from pydantic import ValidationError

from chainrule.errors import ChainruleError, SpecError
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import FIELD_NAMES, NetworkSpec, SpecFields
from strategies import legal_fields, legal_specs

DEFAULTS = {
    "depth": 10,
    "width": 64,
    "activation": "sigmoid",
    "init": "pytorch",
    "distribution": None,
    "weight_std": 1.0,
    "bias_std": None,
    "residual": "none",
    "normalization": "none",
    "clip_norm": None,
    "batch_size": 32,
    "input_scale": 1.0,
    "seed": 0,
    "dtype": "float32",
}
FIELDS = ", ".join(DEFAULTS)
ACTIVATION_NAMES = ", ".join(ACTIVATIONS)
INIT_NAMES = ", ".join(INITIALIZERS)
DEPTHS = "depth: must be a whole number from 1 to 1000; got"
DEVIATIONS = "must be a finite number from 0 to 1e6; got"


class TestFields:
    def test_defaults_are_the_classic_script(self):
        assert NetworkSpec().model_dump() == DEFAULTS

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({"depth": 0}, f"{DEPTHS} 0."),
            ({"depth": 10**9}, f"{DEPTHS} 1000000000."),
            ({"depth": "ten"}, f"{DEPTHS} 'ten'."),
            ({"depth": 1.5}, f"{DEPTHS} 1.5."),
            ({"depth": None}, f"{DEPTHS} None."),
            ({"depth": float("inf")}, f"{DEPTHS} inf."),
            ({"width": 4097}, "width: must be a whole number from 1 to 4096; got 4097."),
            ({"batch_size": 0}, "batch_size: must be a whole number from 1 to 4096; got 0."),
            ({"seed": -1}, "seed: must be a whole number from 0 to 2147483647; got -1."),
            ({"seed": 2**31}, "seed: must be a whole number from 0 to 2147483647; got 2147483648."),
            ({"weight_std": -0.1, "init": "random"}, f"weight_std: {DEVIATIONS} -0.1."),
            ({"weight_std": float("nan"), "init": "random"}, f"weight_std: {DEVIATIONS} nan."),
            ({"weight_std": 2e6, "init": "random"}, f"weight_std: {DEVIATIONS} 2000000.0."),
            ({"bias_std": float("inf")}, f"bias_std: {DEVIATIONS} inf."),
            (
                {"input_scale": 0.0},
                "input_scale: must be a finite number above 0, at most 1e6; got 0.0.",
            ),
            ({"bias_std": -1}, f"bias_std: {DEVIATIONS} -1."),
            (
                {"clip_norm": 0.0},
                "clip_norm: must be a finite number above 0, at most 1e30; got 0.0.",
            ),
            (
                {"clip_norm": float("nan")},
                "clip_norm: must be a finite number above 0, at most 1e30; got nan.",
            ),
            (
                {"residual": "full"},
                "residual: must be one of 'none', 'plain' or 'scaled'; got 'full'.",
            ),
            (
                {"normalization": "batch"},
                "normalization: must be one of 'none', 'layernorm', 'batchnorm' or 'rmsnorm'; "
                "got 'batch'.",
            ),
            (
                {"distribution": "gaussian"},
                "distribution: must be one of 'normal' or 'uniform'; got 'gaussian'.",
            ),
            (
                {"dtype": "float16"},
                "dtype: must be one of 'float32' or 'float64'; got 'float16'.",
            ),
            (
                {"activation": "sigmod"},
                f"activation: unknown 'sigmod'. Did you mean 'sigmoid'? Known: {ACTIVATION_NAMES}.",
            ),
            (
                {"activation": 3},
                "activation: must be a name in quotes; got 3.",
            ),
            (
                {"init": "xaver"},
                f"init: unknown 'xaver'. Did you mean 'xavier'? Known: {INIT_NAMES}.",
            ),
            (
                {"deph": 3},
                f"deph: no such field. Did you mean 'depth'? Known: {FIELDS}.",
            ),
        ],
    )
    def test_an_illegal_value_is_named_with_what_must_hold(self, fields, text):
        with pytest.raises(SpecError) as caught:
            NetworkSpec(**fields)
        assert str(caught.value) == text

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            (
                {"init": "he", "weight_std": 0.5},
                "weight_std: only init='random' uses it, but init='he' came with weight_std=0.5. "
                "Set init='random' or leave weight_std out.",
            ),
            (
                {"init": "orthogonal", "distribution": "uniform"},
                "distribution: init='orthogonal' has no uniform form; leave distribution out or "
                "choose another init.",
            ),
            (
                {"normalization": "batchnorm", "batch_size": 1},
                "batch_size: must be at least 2 with batch normalization; got 1.",
            ),
        ],
    )
    def test_fields_that_contradict_each_other_are_named(self, fields, text):
        with pytest.raises(SpecError) as caught:
            NetworkSpec(**fields)
        assert str(caught.value) == text

    def test_several_wrong_fields_get_a_line_each(self):
        with pytest.raises(SpecError) as caught:
            NetworkSpec(depth=0, width="wide", activation="rely")
        assert [line.partition(":")[0] for line in str(caught.value).splitlines()] == [
            "depth",
            "width",
            "activation",
        ]

    def test_long_input_is_not_repeated_whole(self):
        with pytest.raises(SpecError) as caught:
            NetworkSpec(depth="1" * 10_000 + "x")
        assert len(str(caught.value)) < 150

    def test_long_names_are_not_repeated_whole(self):
        for fields in ({"activation": "s" * 10**6}, {"x" * 10**6: 1}, {"depth": [1] * 10**6}):
            with pytest.raises(SpecError) as caught:
                NetworkSpec(**fields)
            assert len(str(caught.value)) < 400

    def test_type_checkers_and_sentences_know_the_same_fields(self):
        hints = get_type_hints(NetworkSpec)
        assert tuple(SpecFields.__annotations__) == tuple(NetworkSpec.model_fields)
        assert get_type_hints(SpecFields) == {
            name: hints[name] for name in NetworkSpec.model_fields
        }
        assert tuple(FIELD_NAMES) == tuple(NetworkSpec.model_fields)

    def test_the_error_is_caught_as_either_kind(self):
        with pytest.raises(ValueError, match="depth") as caught:
            NetworkSpec(depth=0)
        assert isinstance(caught.value, ChainruleError)

    @settings(deadline=None)
    @given(legal_fields())
    def test_every_legal_combination_is_kept_as_given(self, fields):
        assert NetworkSpec(**fields).model_dump() == fields

    def test_bounds_themselves_are_legal(self):
        least = {"depth": 1, "width": 1, "batch_size": 1, "seed": 0, "bias_std": 0.0}
        most = {"depth": 1000, "width": 4096, "batch_size": 4096, "seed": 2**31 - 1}
        for fields in (least, most):
            assert NetworkSpec(**fields).model_dump(include=set(fields)) == fields


class TestValueObject:
    @pytest.mark.parametrize("field", [*DEFAULTS, "unknown"])
    def test_is_frozen(self, field):
        spec = NetworkSpec()
        with pytest.raises(ValidationError):
            setattr(spec, field, 3)
        assert spec == NetworkSpec()

    @settings(deadline=None)
    @given(legal_fields())
    def test_equal_fields_make_equal_hashes(self, fields):
        assert {NetworkSpec(**fields), NetworkSpec(**fields)} == {NetworkSpec(**fields)}

    def test_replace_changes_only_what_it_is_told(self):
        spec = NetworkSpec(depth=3, init="random", weight_std=0.1)
        assert spec.replace(depth=4) == NetworkSpec(depth=4, init="random", weight_std=0.1)
        assert spec == NetworkSpec(depth=3, init="random", weight_std=0.1)

    def test_replace_validates_again(self):
        spec = NetworkSpec(init="random", weight_std=0.1)
        with pytest.raises(SpecError, match="weight_std: only init='random'"):
            spec.replace(init="he")
        with pytest.raises(SpecError, match="dept: no such field"):
            spec.replace(dept=3)

    def test_derived_figures_come_from_the_table(self):
        spec = NetworkSpec(init="random", weight_std=0.25, width=9)
        assert spec.initializer is INITIALIZERS["random"]
        assert spec.drawn_distribution == "normal"
        assert spec.replace(distribution="uniform").drawn_distribution == "uniform"
        assert NetworkSpec(init="pytorch").drawn_distribution == "uniform"
        assert spec.weight_std_drawn == 0.25
        assert NetworkSpec(init="lecun", width=9).weight_std_drawn == pytest.approx(1 / 3)


class TestJson:
    @settings(deadline=None)
    @given(legal_specs)
    def test_comes_back(self, spec):
        assert NetworkSpec.from_json(spec.to_json()) == spec
        assert json.loads(spec.to_json()) == spec.model_dump()
        assert "\n" not in spec.to_json()

    @pytest.mark.parametrize(
        ("text", "problem"),
        [
            ('{"depth": 0}', f"{DEPTHS} 0."),
            ('{"weight_std": NaN, "init": "random"}', f"weight_std: {DEVIATIONS} nan."),
            ('{"depth": 3', "specification: Invalid JSON"),
            ("[]", "specification: Input should be an object; got []."),
            ("", "specification: Invalid JSON"),
        ],
    )
    def test_illegal_json_is_an_error(self, text, problem):
        with pytest.raises(SpecError) as caught:
            NetworkSpec.from_json(text)
        assert str(caught.value).startswith(problem)
