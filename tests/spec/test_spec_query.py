"""`NetworkSpec` in addresses: the query string, and what becomes of illegal ones."""

import re
from urllib.parse import urlencode

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chainrule.errors import SpecError
from chainrule.spec.activations import ACTIVATIONS
from chainrule.spec.initializers import INITIALIZERS
from chainrule.spec.network_spec import FIELD_NAMES, NetworkSpec
from chainrule.spec.query import repair_query
from strategies import legal_specs

FIELDS = tuple(NetworkSpec.model_fields)


class TestQuery:
    @settings(deadline=None)
    @given(legal_specs)
    def test_comes_back(self, spec):
        assert NetworkSpec.from_query(spec.to_query()) == spec
        assert NetworkSpec.from_query("?" + spec.to_query()) == spec

    def test_query_holds_only_what_differs_from_the_defaults(self):
        assert NetworkSpec().to_query() == ""
        assert NetworkSpec(depth=15, activation="tanh").to_query() == "depth=15&activation=tanh"

    @pytest.mark.parametrize(
        ("query", "facts"),
        [
            ("depth=3&width=4&depth=5", ["depth: ", "once"]),
            ("depth=3&width=4&width=5", ["width: ", "once"]),
            ("depth=", ["depth: ", "1 to 1000", "got ''"]),
            ("depth=x", ["depth: ", "1 to 1000", "got 'x'"]),
            ("Depth=3", ["Depth: ", "'depth'", ", ".join(FIELDS)]),
            ("init=orthogonal&distribution=uniform", ["distribution: ", "orthogonal", "uniform"]),
        ],
    )
    def test_an_illegal_query_is_an_error(self, query, facts):
        with pytest.raises(SpecError) as caught:
            NetworkSpec.from_query(query)
        message = str(caught.value)
        assert message.startswith(facts[0])
        assert [fact for fact in facts if fact not in message] == []


def is_legal(query):
    try:
        NetworkSpec.from_query(query)
    except SpecError:
        return False
    return True


any_text = st.text(st.characters(exclude_categories=()))
numbers = (st.integers() | st.floats()).map(str)
words = st.sampled_from(
    (*ACTIVATIONS, *INITIALIZERS, "none", "plain", "uniform", "layernorm", "batchnorm", "float64")
)
near_queries = st.lists(
    st.tuples(st.sampled_from(FIELDS) | any_text, numbers | words | st.text()), max_size=8
).map(lambda pairs: urlencode(pairs, errors="replace"))


class TestRepair:
    @settings(deadline=None, max_examples=100)
    @given(any_text | near_queries)
    @example("normalization=batchnorm&batch_size=1")
    @example("weight_std=2&init=orthogonal&distribution=uniform")
    @example("&".join(f"field{number}=1" for number in range(101)))
    @example("depth=7&" * 600)
    def test_there_is_always_a_legal_specification(self, query):
        spec, notices = repair_query(query)
        assert NetworkSpec(**spec.model_dump()) == spec
        assert all(isinstance(notice, str) and notice for notice in notices)

    @settings(deadline=None, max_examples=100)
    @given(near_queries)
    @example("depth=3&depth=4")
    @example("depth=")
    def test_there_is_a_notice_exactly_if_something_was_illegal(self, query):
        _, notices = repair_query(query)
        assert (notices == ()) == is_legal(query)

    @settings(deadline=None)
    @given(legal_specs)
    def test_a_legal_query_stays_as_it_is(self, spec):
        assert repair_query(spec.to_query()) == (spec, ())
        fields = {name: value for name, value in spec.model_dump().items() if value is not None}
        assert repair_query("?" + urlencode(fields)) == (spec, ())

    @pytest.mark.parametrize(
        ("query", "field", "value"),
        [
            ("depth=0", "depth", 1),
            ("depth=-7.5", "depth", 1),
            ("depth=1e9", "depth", 1000),
            ("depth=inf", "depth", 1000),
            ("depth=2.7", "depth", 3),
            ("width=5000", "width", 4096),
            ("batch_size=0", "batch_size", 1),
            ("seed=99999999999", "seed", 2**31 - 1),
            ("seed=-1", "seed", 0),
            ("init=random&weight_std=-2", "weight_std", 0.0),
            ("weight_std=1e9&init=random", "weight_std", 1e6),
            ("bias_std=-1", "bias_std", 0.0),
            ("clip_norm=1e31", "clip_norm", 1e30),
            ("input_scale=1e7", "input_scale", 1e6),
        ],
    )
    def test_a_number_beyond_a_bound_becomes_the_bound(self, query, field, value):
        spec, (notice,) = repair_query(query)
        assert getattr(spec, field) == value
        assert type(getattr(spec, field)) is type(value)
        given_text, used = re.search(r"“(.+)”.*; using (.+)\.", notice).groups()
        assert notice.startswith(FIELD_NAMES[field])
        assert given_text in query
        assert float(used) == value

    @pytest.mark.parametrize(
        "query",
        [
            "depth=ten",
            "depth=nan",
            "activation=sigmod",
            "init=",
            "residual=all",
            "dtype=float16",
            "clip_norm=-1",
            "clip_norm=0",
            "input_scale=0",
            "unknown=3",
            "weight_std=2",
        ],
    )
    def test_everything_else_falls_back_to_the_default(self, query):
        spec, (notice,) = repair_query(query)
        assert spec == NetworkSpec()
        name, _, text = query.partition("=")
        assert notice.startswith(FIELD_NAMES.get(name, f"“{name}”"))
        assert "None" not in notice
        assert "_" not in notice
        if name in FIELD_NAMES:
            assert f"“{text}”" in notice

    @pytest.mark.parametrize(
        ("query", "spec", "culprit"),
        [
            ("init=he&weight_std=2", NetworkSpec(init="he"), "weight_std"),
            (
                "distribution=uniform&init=orthogonal",
                NetworkSpec(init="orthogonal"),
                "distribution",
            ),
            (
                "batch_size=1&normalization=batchnorm",
                NetworkSpec(normalization="batchnorm"),
                "batch_size",
            ),
        ],
    )
    def test_of_fields_that_contradict_each_other_the_lesser_gives_way(self, query, spec, culprit):
        repaired, (notice,) = repair_query(query)
        assert repaired == spec
        assert notice.startswith(FIELD_NAMES[culprit])
        assert "None" not in notice
        assert "_" not in notice

    def test_what_is_left_out_is_said_in_words(self):
        for query, words in (
            ("clip_norm=0", "no clipping is used"),
            ("bias_std=x", "the initialization's own is used"),
            ("distribution=x", "the initialization's own is used"),
        ):
            assert words in repair_query(query)[1][0]

    def test_a_field_named_like_the_object_is_no_field(self):
        assert repair_query("self=1")[0] == NetworkSpec()
        with pytest.raises(SpecError, match="self: no such field"):
            NetworkSpec.from_query("self=1")

    def test_one_wrong_field_leaves_the_others_alone(self):
        spec, notices = repair_query("?depth=5&width=wide&activation=tanh&colour=red")
        assert spec == NetworkSpec(depth=5, activation="tanh")
        assert len(notices) == 2
        assert notices[0].startswith("width “wide”")
        assert "64" in notices[0]
        assert "“colour”" in notices[1]

    def test_a_huge_address_is_ignored_as_a_whole(self):
        assert repair_query("depth=3&" + "x" * 4000) == (
            NetworkSpec(),
            ("The address was too long and was ignored.",),
        )
