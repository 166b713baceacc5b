"""Writing files whole or not at all."""

import os
from pathlib import Path
from tempfile import NamedTemporaryFile

from chainrule.errors import FlowFileError


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise unless a file could be written at `path`, so that no work is done in vain.

    Raises:
        FlowFileError: If the folder does not exist, is not writable, or `path` is a folder.
    """
    target = Path(path)
    try:
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


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` to a file, replacing an older one only when all is written.

    Raises:
        FlowFileError: If the file cannot be written there.
    """
    check_writable(path)
    target = Path(path).resolve()  # a link stays, and the file it leads to is replaced
    mode = target.stat().st_mode & 0o777 if target.exists() else 0o644
    draft = None
    try:
        with NamedTemporaryFile(
            "w", encoding="utf-8", dir=target.parent, prefix=f".{target.name}.", delete=False
        ) as draft:
            draft.write(text)
        os.chmod(draft.name, mode)
        os.replace(draft.name, target)
    except BaseException as error:
        if draft is not None:
            Path(draft.name).unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise FlowFileError(f"Could not write {target}: {error.strerror}.") from None
        raise
