"""Text from other people's code and files, made safe to print."""

import unicodedata


def make_printable(text: str, *, keep: str = "") -> str:
    r"""Return a text in which characters that act on a terminal are shown as escapes.

    That is every character that Python's own `repr` would escape: control characters (ESC, CR,
    BEL, C1), bidirectional overrides, line separators, lone surrogates. All others, brackets too,
    stay as they are.

    Args:
        text: Any text, for example the name of a module or the message of an error.
        keep: Characters to leave alone, for example line breaks.

    Example:
        >>> print(make_printable("heads[en]\x1b[2J\u202e"))
        heads[en]\x1b[2J\u202e
    """
    return "".join(
        each
        if each.isprintable() or each in keep or unicodedata.category(each) == "Zs"
        else each.encode("unicode_escape").decode("ascii")
        for each in text
    )
