"""Text that is safe to print."""

import sys

import pytest

from chainrule._utils.text import make_printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("heads[en] ‖∂𝓛/∂W‖ 名前 é 25\u202f%", "heads[en] ‖∂𝓛/∂W‖ 名前 é 25\u202f%"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\rb\nc\td", r"a\rb\nc\td"),
        ("\x07\x7f\x9b", r"\x07\x7f\x9b"),
        ("\u202e\u2066\u200f", r"\u202e\u2066\u200f"),
        ("\u2028\ud800", r"\u2028\ud800"),
        ("", ""),
    ],
)
def test_what_acts_is_an_escape_and_the_rest_stays(text, shown):
    assert make_printable(text) == shown


def test_line_breaks_can_be_kept():
    assert make_printable("a\nb\r", keep="\n") == "a\nb\\r"


def test_every_character_comes_out_printable_and_can_be_read_back():
    for start in range(0, sys.maxunicode, 4096):
        text = "".join(map(chr, range(start, start + 4096)))
        shown = make_printable(text.replace("\\", ""))
        assert all(each.isprintable() or each.isspace() for each in shown)
        assert "\x1b" not in shown
        shown.encode()
