"""Programs of their own, forked from one process that has loaded PyTorch.

To load it takes three seconds of computing time; a fork takes none. The program is a process of its
own all the same: with its own variables, it loads chainrule itself, and it ends as any does.
"""

import json
import os
import subprocess
import sys
import tempfile
import types
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Programs:
    """Runs programs, one after the other."""

    def __init__(self, mother: subprocess.Popen[str], folder: Path) -> None:
        self._mother, self._folder = mother, folder

    def run(
        self, code: str, *arguments: object, cwd: object = ".", strict: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run code and return how it ended and what it said.

        Args:
            code: The program.
            arguments: Its arguments, from `sys.argv[1]` on.
            cwd: The folder it starts in.
            strict: Whether a warning is an error.
        """
        out, err = self._folder / "out", self._folder / "err"
        request = {
            "code": code,
            "arguments": [*map(str, arguments)],
            "cwd": str(cwd),
            "strict": strict,
            "files": [os.devnull, str(out), str(err)],
        }
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._mother.stdin.write(json.dumps(request) + "\n")
        self._mother.stdin.flush()
        code_of_exit = int(self._mother.stdout.readline())
        said = (path.read_text(encoding="utf-8") for path in (out, err))
        return subprocess.CompletedProcess(request["arguments"], code_of_exit, *said)


@contextmanager
def start_programs() -> Iterator[Programs]:
    """Start the process that programs are forked from."""
    command = [sys.executable, "-W", "error", __file__]
    pipe = subprocess.PIPE
    with (
        tempfile.TemporaryDirectory() as folder,
        subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as mother,
    ):
        yield Programs(mother, Path(folder))
        assert mother.stdin is not None
        mother.stdin.close()  # it ends


def wait_for_request() -> dict[str, Any] | None:
    """Fork for every request; return it in the child, and None in the mother at the end."""
    for line in sys.stdin:
        child = os.fork()
        if not child:
            return json.loads(line)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)
    return None


def prepare(request: dict[str, Any]) -> dict[str, Any]:
    """Make this process look as if Python had just started; return the program's variables."""
    for target, (path, flags) in enumerate(
        zip(
            request["files"],
            (os.O_RDONLY, *[os.O_WRONLY | os.O_CREAT | os.O_TRUNC] * 2),
            strict=True,
        )
    ):
        descriptor = os.open(path, flags, 0o600)
        os.dup2(descriptor, target)
        os.close(descriptor)
    if not request["strict"]:
        warnings.resetwarnings()
    os.chdir(request["cwd"])
    sys.path[0] = ""
    sys.argv = ["-c", *request["arguments"]]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    return main.__dict__


if __name__ == "__main__":
    import numpy as np  # noqa: F401
    import torch  # noqa: F401

    if asked := wait_for_request():
        # Here and in no function, so that the interpreter itself ends it: exit codes, what is
        # called at the end, and errors that nobody caught are those of any program.
        exec(compile(asked["code"], "<string>", "exec"), prepare(asked))
