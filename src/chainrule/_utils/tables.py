"""Tables for other programs: CSV with the standard library, Parquet where it is installed.

A cell is empty where there was nothing; what is undefined or infinite is NaN, inf or -inf.
"""

import contextlib
import csv
import os
import secrets
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from chainrule._utils.files import check_writable
from chainrule.errors import ChainruleError, abbreviate

PARQUET_PACKAGES = ("pyarrow", "polars")
"""Packages that can write Parquet, the first that is installed is used."""

Rows = Iterator[Sequence[Any]]


def check_table(target: Path, refusal: type[ChainruleError]) -> None:
    """Raise unless a table could be written to a file.

    Raises:
        ChainruleError: Of the kind `refusal`, if its ending is neither .csv nor .parquet, or no
            package for Parquet is installed.
        FlowFileError: If the file cannot be written.
    """
    ending = target.suffix.lower()
    if ending not in {".csv", ".parquet"}:
        raise refusal(
            f"The file to export to must end with .csv or .parquet; got {abbreviate(target.name)}."
        )
    if ending == ".parquet":
        _find_package(refusal)
    check_writable(target)


def write_table(target: Path, head: list[str], rows: Rows, refusal: type[ChainruleError]) -> int:
    """Write rows to a file that `check_table` accepts, and return how many.

    Raises:
        ChainruleError: Of the kind `refusal`, if two columns of a Parquet file have one name, or
            the file cannot be written.
    """
    if target.suffix.lower() == ".csv":
        return _write_csv(target, head, rows, refusal)
    return _write_parquet(target, head, rows, refusal)


@contextlib.contextmanager
def _draft(target: Path, refusal: type[ChainruleError]) -> Iterator[Path]:
    """Give a name to write to, and move what was written to its place when all is well."""
    draft = target.with_name(f".{target.name[:80]}.{secrets.token_hex(8)}")
    try:
        yield draft
        os.replace(draft, target)
    except OSError as error:
        raise refusal(f"Could not write {target}: {error.strerror or error}.") from None
    finally:
        draft.unlink(missing_ok=True)


def _write_csv(target: Path, head: list[str], rows: Rows, refusal: type[ChainruleError]) -> int:
    count = 0
    with _draft(target, refusal) as draft, draft.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(head)
        for count, row in enumerate(rows, 1):  # noqa: B007  (the last one is how many)
            writer.writerow(row)
    return count


def _find_package(refusal: type[ChainruleError]) -> str:
    installed = next((name for name in PARQUET_PACKAGES if find_spec(name)), None)
    if installed is None:
        raise refusal(
            "Parquet needs pyarrow or polars, and neither is installed. Run: pip install pyarrow. "
            "Or export to .csv."
        )
    return installed


def _write_parquet(target: Path, head: list[str], rows: Rows, refusal: type[ChainruleError]) -> int:
    installed = _find_package(refusal)
    if len(set(head)) < len(head):
        twice = next(name for name in head if head.count(name) > 1)
        raise refusal(
            f"The columns of a Parquet file must have different names; {abbreviate(twice)} is "
            "there twice. Export to .csv."
        )
    table = [list(column) for column in zip(*rows, strict=True)] or [[] for _ in head]
    columns = dict(zip(head, table, strict=True))
    package = import_module(installed)
    with _draft(target, refusal) as draft:
        if installed == "pyarrow":
            import_module("pyarrow.parquet").write_table(package.table(columns), str(draft))
        else:
            package.DataFrame(columns, strict=False).write_parquet(draft)
    return len(table[0])
