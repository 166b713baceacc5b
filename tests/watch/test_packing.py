"""Numbers survive packing: exactly, or to the error that is promised."""

import math
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from chainrule.watch import packing
from chainrule.watch.packing import (
    EXACT,
    NOTHING,
    DamagedError,
    is_nothing,
    make_table,
    pack_floats,
    pack_integers,
    pack_parts,
    unpack_floats,
    unpack_integers,
    unpack_parts,
)

SHAPES = arrays.array_shapes(min_dims=2, max_dims=2, max_side=12)
ANY = st.floats() | st.sampled_from([0.0, -0.0, -1.0, NOTHING, 5e-324, 1.7976931348623157e308])


@given(arrays.arrays(np.float64, SHAPES, elements=ANY))
def test_exact_floats_come_back_exactly(values):
    found, _ = unpack_floats(pack_floats(values))
    assert np.array_equal(found, values, equal_nan=True)


@given(arrays.arrays(np.float64, SHAPES, elements=ANY), st.integers(1, EXACT - 1), st.booleans())
def test_rounded_floats_keep_their_kind_and_their_error(values, bits, signed):
    found, kept = unpack_floats(pack_floats(values, bits, signed=signed))
    assert kept == bits
    finite = np.isfinite(values)
    assert np.array_equal(np.isfinite(found), finite)
    assert np.array_equal(np.isnan(found), np.isnan(values))
    assert np.array_equal(found[~finite], values[~finite], equal_nan=True)
    assert np.array_equal(found == 0, values == 0)
    assert np.array_equal(found[values == -1], values[values == -1])
    normal = finite & (np.abs(values) > 1e-300) & (np.abs(values) < 1e307)
    error = np.abs(found[normal] / values[normal] - 1)
    assert np.all(error <= 2.0 ** -(bits + 1) * (1 + 1e-9))
    assert np.all(np.sign(found[normal]) == np.sign(values[normal]))


@given(arrays.arrays(np.int64, SHAPES, elements=st.integers(-(2**63), 2**63 - 1)))
def test_whole_numbers_come_back(values):
    assert np.array_equal(unpack_integers(pack_integers(values)), values)


def test_none_is_not_undefined():
    table = make_table([[1.0, None, math.nan], [2.0]], 3)
    for bits in (3, EXACT):
        found, _ = unpack_floats(pack_floats(table, bits))
        assert is_nothing(found).tolist() == [[False, True, False], [False, True, True]]
        assert math.isnan(found[0, 2])


@pytest.mark.parametrize("columns", [0, 1, 9])
def test_one_row_and_no_columns_are_tables_too(columns):
    table = np.ones((1, columns))
    assert np.array_equal(unpack_floats(pack_floats(table, 4))[0], table)


@given(st.data())
def test_any_damage_is_noticed(data):
    table = np.linspace(1, 2, 60).reshape(20, 3)
    whole = pack_parts(
        {"a": [1, "ü"]}, [pack_floats(table, 8), pack_integers(np.ones((2, 2), int))]
    )
    assert np.allclose(unpack_floats(unpack_parts(whole)[1][0])[0], table, rtol=2**-9)
    place = data.draw(st.integers(0, len(whole) - 1))
    value = data.draw(st.integers(1, 255))
    spoiled = bytearray(whole)
    spoiled[place] ^= value
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    for piece in (bytes(spoiled), cut):
        try:
            head, parts = unpack_parts(piece)
            unpack_integers(parts[1])
            found, _ = unpack_floats(parts[0])
        except (DamagedError, IndexError):
            continue
        assert head == {"a": [1, "ü"]}
        assert np.allclose(found, table, rtol=2**-9)


def test_a_piece_that_would_fill_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(packing, "MAX_SIZE", 2**20)
    bomb = zlib.compress(struct.pack("<BBII", 8, 0, 2**31, 2**31) + bytes(1000))
    with pytest.raises(DamagedError):
        unpack_floats(bomb)
    with pytest.raises(DamagedError):
        unpack_floats(zlib.compress(bytes(2**20 + 1)))
