"""The pages' scripts write numbers as Python does: both are held to the same cases."""

import json
from pathlib import Path

import pytest

from chainrule._utils.numbers import format_number

CASES = Path(__file__).parents[1] / "scripts" / "number_cases.json"


@pytest.mark.parametrize(("value", "text"), json.loads(CASES.read_text(encoding="utf-8")))
def test_a_number_is_written_so(value, text):
    assert format_number(value) == text
