"""Renew the chart library that the pages load: the version below, from npm, with its licence.

Run `make vendor`; it needs npm, which the extra `scripts` brings.
"""

import gzip
import hashlib
import subprocess
import tarfile
import tempfile
from pathlib import Path

PACKAGE = "plotly.js-basic-dist-min"
VERSION = "4.1.1"
FILES = {
    "plotly-basic.min.js": "plotly-basic.min.js.gz",
    "LICENSE": "plotly-LICENSE.txt",
}
"""What is taken from the package, and what it is called here."""

FOLDER = Path(__file__).parent.parent / "src/chainrule/app/assets/vendor"


def renew(folder: Path) -> None:
    """Write the library and its licence into a folder."""
    with tempfile.TemporaryDirectory() as place:
        subprocess.run(
            ["npm", "pack", "--silent", f"{PACKAGE}@{VERSION}", "--pack-destination", place],
            check=True,
        )
        (archive,) = Path(place).glob("*.tgz")
        with tarfile.open(archive) as package:
            for source, target in FILES.items():
                file = package.extractfile(f"package/{source}")
                assert file is not None
                content = file.read()
                print(source, len(content), hashlib.sha256(content).hexdigest())
                if target.endswith(".gz"):
                    content = gzip.compress(content, 9, mtime=0)
                (folder / target).write_bytes(content)


if __name__ == "__main__":
    renew(FOLDER)
