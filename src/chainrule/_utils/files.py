"""Writing files whole or not at all."""

import os
import secrets
import tempfile
from contextlib import suppress
from pathlib import Path

from chainrule.errors import FlowFileError, abbreviate


def read_path(path: object) -> Path:
    """Return what was given as the path of a file.

    Raises:
        FlowFileError: If it is no path, or an empty one.
    """
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else path
    if not isinstance(text, str) or not text:
        raise FlowFileError(
            f"A file must be given by its path, such as 'flow.json'; got {abbreviate(path)}."
        )
    return Path(text)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise unless a file could be written at `path`, so that no work is done in vain.

    Raises:
        FlowFileError: If the folder does not exist, is not writable, or `path` is a folder or none
            that a file can have.
    """
    target = read_path(path)
    try:
        with suppress(FileNotFoundError, NotADirectoryError):
            os.lstat(target)
        exists = target.exists()
    except (OSError, ValueError) as error:
        raise FlowFileError(f"No file can be called {str(path)[:60]!r}: {error}.") from None
    if exists and not target.is_file():
        kind = "a folder" if target.is_dir() else "no regular file"
        raise FlowFileError(f"The output must be a file, but {target} is {kind}.")
    if not target.parent.is_dir():
        raise FlowFileError(
            f"The output must be in an existing folder; there is no {target.parent}. "
            "Create it first."
        )
    if not os.access(target.parent, os.W_OK):
        raise FlowFileError(f"The output folder must be writable; {target.parent} is not.")
    try:  # permissions do not tell all: a file system may take no files
        with tempfile.TemporaryFile(dir=target.parent):
            pass
    except OSError as error:
        raise FlowFileError(
            f"The output folder must take files; {target.parent} does not: {error.strerror}."
        ) from None


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to a file, replacing an older one only when all is written.

    Raises:
        FlowFileError: If the file cannot be written there.
    """
    check_writable(path)
    target = Path(path).resolve()  # a link stays, and the file it leads to is replaced
    mode = target.stat().st_mode & 0o777 if target.exists() else None
    draft = target.with_name(f".{target.name[:80]}.{secrets.token_hex(8)}")
    try:
        # Like any new file: the system takes away the permissions that the user's umask names.
        with open(draft, "xb") as file:
            file.write(text.encode())
        if mode is not None:
            os.chmod(draft, mode)
        os.replace(draft, target)
    except BaseException as error:
        draft.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise FlowFileError(f"Could not write {target}: {error.strerror}.") from None
        raise
