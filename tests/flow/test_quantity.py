"""`Quantity`: a float that is the median of an ensemble; and the arithmetic of norms."""

import copy
import math
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from chainrule.flow.quantity import Quantity, combine_norms, divide, divide_members

INF, NAN = math.inf, math.nan
ADAPTER = TypeAdapter(Quantity)

finite = st.floats(-1e300, 1e300)
"""Wide, but such that no difference of two overflows."""
anything = st.floats()


def lists_of(elements):
    return st.lists(elements, min_size=1, max_size=40)


def equal(left, right):
    """Equal as a reader sees it: NaN equals NaN."""
    return np.array_equal(left, right, equal_nan=True)


class TestQuantiles:
    @settings(deadline=None)
    @given(lists_of(finite))
    def test_are_those_of_numpy(self, values):
        quantity = Quantity(values)
        expected = np.percentile(values, [10, 50, 90])
        tolerance = 1e-12 * max(map(abs, values))
        received = [quantity.low, float(quantity), quantity.high]
        np.testing.assert_allclose(received, expected, rtol=0, atol=tolerance)

    @settings(deadline=None)
    @given(lists_of(anything))
    def test_do_not_depend_on_the_order_of_members(self, values):
        there, back = Quantity(values), Quantity(values[::-1])
        assert equal([there, there.low, there.high], [back, back.low, back.high])
        assert equal(there.values, values)

    @settings(deadline=None)
    @given(lists_of(finite), st.integers(0, 40))
    def test_nan_counts_as_worse_than_every_number(self, values, lost):
        """A quantile is a number exactly if the numbers alone reach up to it."""
        quantity = Quantity([*values, *[NAN] * lost])
        last = len(values) + lost - 1
        for share, value in ((0.1, quantity.low), (0.5, quantity), (0.9, quantity.high)):
            assert math.isnan(value) == (math.ceil(share * last) >= len(values))

    @pytest.mark.parametrize(
        ("values", "median"),
        [
            ([NAN], NAN),
            ([1.0, NAN], NAN),
            ([1.0, 2.0, NAN], 2.0),
            ([1.0, NAN, NAN], NAN),
            ([INF], INF),
            ([INF, INF], INF),
            ([1.0, INF], INF),
            ([1.0, INF, INF], INF),
            ([1.0, 2.0, INF], 2.0),
            ([INF, INF, NAN], INF),
            ([-INF, -INF], -INF),
            ([-INF, 1.0], -INF),
            ([-INF, -INF, 1.0, 2.0], -INF),
            ([-INF, INF], NAN),
        ],
    )
    def test_of_non_finite_members(self, values, median):
        assert equal(float(Quantity(values)), median)

    def test_band_around_overflow(self):
        quantity = Quantity([*range(1, 10), INF, NAN])
        assert quantity.low == 2.0
        assert quantity == 6.0
        assert quantity.high == INF

    def test_of_one_member_are_that_member(self):
        quantity = Quantity([0.1])
        assert quantity == quantity.low == quantity.high == 0.1
        assert quantity.values == (0.1,)


class TestFloat:
    def test_behaves_as_its_median(self):
        quantity = Quantity(value for value in (3.0, 1.0, 2.5))
        assert f"{quantity:.2f}" == "2.50"
        assert quantity == 2.5
        assert quantity < 2.6
        assert hash(quantity) == hash(2.5)
        assert type(quantity * 2) is float
        assert math.log(quantity) == math.log(2.5)
        assert quantity.values == (3.0, 1.0, 2.5)

    def test_equals_a_number_by_its_median_and_an_ensemble_by_its_members(self):
        quantity = Quantity([1.0, 2.0, 9.0])
        assert quantity == 2.0
        assert 2.0 == quantity  # noqa: SIM300
        assert quantity != 2.5
        assert quantity == Quantity([1.0, 2.0, 9.0])
        assert quantity != Quantity([2.0])
        assert quantity != Quantity([9.0, 2.0, 1.0])
        assert quantity != "2.0"
        assert quantity != None  # noqa: E711
        assert quantity <= Quantity([2.0]) <= quantity

    @pytest.mark.parametrize("value", [NAN, INF, -INF])
    def test_equals_its_copy_where_members_are_not_finite(self, value):
        for members in ([value], [1.0, value], [value, 1.0, NAN], [INF, -INF]):
            twin = Quantity(list(members))
            assert Quantity(members) == twin
            assert not Quantity(members) != twin  # noqa: SIM202
            assert hash(Quantity(members)) == hash(twin)
        assert Quantity([value, 1.0]) != Quantity([1.0, value])
        assert Quantity([NAN]) != NAN

    @settings(deadline=None)
    @given(lists_of(anything), lists_of(anything))
    def test_equal_ones_have_equal_hashes(self, left, right):
        assert hash(Quantity(left)) == hash(Quantity(tuple(left)))
        assert Quantity(left) == Quantity(tuple(left))
        same = Quantity(left) == Quantity(right)
        assert same == equal(left, right)
        if not math.isnan(Quantity(left)):
            assert hash(Quantity(left)) == hash(float(Quantity(left)))

    def test_needs_a_member(self):
        with pytest.raises(ValueError, match="at least one ensemble member; got none"):
            Quantity([])

    @pytest.mark.parametrize("name", ["values", "low", "high", "colour"])
    def test_is_immutable(self, name):
        quantity = Quantity([1.0, 2.0])
        with pytest.raises(AttributeError, match=f"immutable; cannot set '{name}'"):
            setattr(quantity, name, (5.0,))
        assert quantity.values == (1.0, 2.0)

    def test_its_members_cannot_be_deleted(self):
        quantity = Quantity([1.0, 2.0])
        with pytest.raises(AttributeError):
            del quantity.values
        assert quantity.values == (1.0, 2.0)

    def test_members_are_floats_whatever_they_came_as(self):
        assert [type(value) for value in Quantity([1, 2]).values] == [float, float]

    @settings(deadline=None)
    @given(lists_of(anything), st.sampled_from(range(2, pickle.HIGHEST_PROTOCOL + 1)))
    def test_survives_pickle_and_copy(self, values, protocol):
        quantity = Quantity(values)
        for twin in (
            pickle.loads(pickle.dumps(quantity, protocol)),
            copy.copy(quantity),
            copy.deepcopy(quantity),
        ):
            assert type(twin) is Quantity
            assert equal(twin.values, quantity.values)
            assert equal(float(twin), float(quantity))


class TestFiles:
    @settings(deadline=None)
    @given(lists_of(anything))
    def test_come_back_from_json_member_by_member(self, values):
        text = ADAPTER.dump_json(Quantity(values))
        back = ADAPTER.validate_json(text)
        assert type(back) is Quantity
        assert equal(back.values, values)
        assert ADAPTER.dump_json(back) == text

    @pytest.mark.parametrize(
        ("values", "text"),
        [
            ([0.5], b"0.5"),
            ([1.0, 2.0], b"[1.0,2.0]"),
            ([NAN], b'"NaN"'),
            ([INF, -INF, NAN, 0.0], b'["Infinity","-Infinity","NaN",0.0]'),
        ],
    )
    def test_are_a_number_or_a_list_of_numbers(self, values, text):
        assert ADAPTER.dump_json(Quantity(values)) == text

    def test_keep_a_quantity_as_it_is(self):
        quantity = Quantity([1.0, 2.0])
        assert ADAPTER.validate_python(quantity) is quantity

    @pytest.mark.parametrize("text", ["[]", "null", '"many"', "{}", "[[1.0]]", '[1.0,"x"]'])
    def test_with_anything_else_are_refused(self, text):
        with pytest.raises(ValidationError):
            ADAPTER.validate_json(text)


class TestNorms:
    @pytest.mark.parametrize(
        ("numerator", "denominator", "quotient"),
        [
            (3.0, 2.0, 1.5),
            (0.0, 2.0, 0.0),
            (1.0, 0.0, INF),
            (INF, 0.0, INF),
            (0.0, 0.0, NAN),
            (NAN, 0.0, NAN),
            (NAN, 1.0, NAN),
            (1.0, NAN, NAN),
            (1.0, INF, 0.0),
            (INF, 1.0, INF),
            (INF, INF, NAN),
            (1e308, 1e-308, INF),
        ],
    )
    def test_quotient_has_the_limits_a_reader_expects(self, numerator, denominator, quotient):
        assert equal(divide(numerator, denominator), quotient)

    def test_quotient_is_taken_member_by_member(self):
        quotient = divide_members(Quantity([1.0, 6.0, 0.0]), Quantity([2.0, 2.0, 0.0]))
        assert type(quotient) is Quantity
        assert equal(quotient.values, (0.5, 3.0, NAN))

    def test_norms_combine_member_by_member(self):
        combined = combine_norms(
            [Quantity([3.0, 1.0]), Quantity([4.0, 2.0]), Quantity([12.0, 2.0])]
        )
        assert combined.values == (13.0, 3.0)

    def test_one_norm_is_left_alone_and_none_is_none(self):
        assert combine_norms([Quantity([3.0, INF])]).values == (3.0, INF)
        assert combine_norms([]) is None
        assert combine_norms(iter(())) is None

    @pytest.mark.parametrize("scale", [1e200, 1e-200])
    def test_combined_norm_neither_overflows_nor_underflows(self, scale):
        combined = combine_norms([Quantity([3 * scale]), Quantity([4 * scale])])
        assert float(combined) == pytest.approx(5 * scale, rel=1e-14, abs=0)
