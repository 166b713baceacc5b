"""Standard output for results, standard error for everything else, and both safe to read.

Names, messages and paths are printed as they are: no markup is read in them, and characters that
act on a terminal are shown as escapes.
"""

import io
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from rich.console import Console
from rich.text import Text

from chainrule._utils.text import make_printable


def open_console(file: TextIO | None = None, *, stderr: bool = False) -> Console:
    """Return a console that reads no markup, no emoji codes and no numbers in what it prints."""
    return Console(file=file, stderr=stderr, markup=False, emoji=False, highlight=False)


def print_note(text: str) -> None:
    """Print a remark, such as where a file was written, on standard error."""
    open_console(stderr=True).print(_clean(text), style="dim", soft_wrap=True)


def print_error(message: str, *, label: str = "error: ") -> None:
    """Print what went wrong on standard error."""
    text = Text.assemble((label, "bold red"), _clean(message))
    open_console(stderr=True).print(text, soft_wrap=True)


def print_json(document: dict[str, Any] | list[Any] | str, file: TextIO | None = None) -> None:
    """Print a document as JSON; what a terminal or the encoding cannot take is escaped in it.

    Args:
        document: Plain data, or JSON text.
        file: Where to; standard output by default.
    """
    out = file or sys.stdout
    text = (
        document
        if isinstance(document, str)
        else json.dumps(document, ensure_ascii=False, indent=2, allow_nan=False)
    )
    encoding = out.encoding or "utf-8"

    def escape(found: re.Match[str]) -> str:
        character = found[0]
        if character.isprintable():
            with suppress(UnicodeEncodeError):
                character.encode(encoding)
                return character
        return json.dumps(character)[1:-1].replace("\x7f", "\\u007f")

    out.write(re.sub(r"[^\n -~]", escape, text) + "\n")
    out.flush()


@contextmanager
def keep_output() -> Iterator[TextIO]:
    """Keep standard output for results while the user's code runs, and give access to it.

    Inside, what is printed goes to standard error: by Python, by C libraries and by child
    processes. Where standard output is the process's own it stays so until the end, for a thread or
    an exit handler may print after the result; a replaced one is put back.
    """
    replaced, own = sys.stdout, sys.stdout is sys.__stdout__
    if not own:
        sys.stdout = sys.stderr
        try:
            yield replaced
        finally:
            sys.stdout = replaced
        return
    replaced.flush()
    try:
        saved = os.dup(replaced.fileno())
        os.dup2(sys.stderr.fileno(), replaced.fileno())
    except (OSError, ValueError, io.UnsupportedOperation):  # closed, or not a file
        yield replaced
        return
    with open(saved, "w", encoding=replaced.encoding, errors=replaced.errors) as out:
        yield out


def guard_encoding() -> None:
    """Have characters that the streams' encoding does not know printed as escapes.

    A stream that is closed, as by `>&-` in a shell, is replaced by one that leads nowhere.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def close_output() -> None:
    """Send what is still to be printed nowhere: the program that read it has ended."""
    with suppress(OSError, ValueError, io.UnsupportedOperation):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _clean(text: str) -> str:
    return make_printable(text, keep="\n\t")
