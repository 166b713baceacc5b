"""Renew what others made and the pages carry: the versions below, from npm, with their licences.

A chart library, which the pages load, and a font, with which the server writes on the pictures that
it draws: a server often has no fonts. Of the font only the characters that pictures use are kept.

Run `make vendor`; it needs npm and fonttools, which the extra `scripts` brings.
"""

import gzip
import hashlib
import io
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

CHARACTERS = (
    (0x20, 0x7E),  # Latin
    (0xA0, 0xFF),
    (0x391, 0x3C9),  # Greek
    (0x2010, 0x2044),  # dashes, quotes, …
    (0x2070, 0x209C),  # superscripts and subscripts
    (0x2112, 0x2112),  # ℒ
    (0x2190, 0x21FF),  # arrows
    (0x2200, 0x22FF),  # mathematical signs
    (0x2580, 0x25FF),  # blocks and shapes
    (0x2714, 0x2716),  # ✔ ✖
)
"""First and last of each range that is kept."""


@dataclass(frozen=True, slots=True)
class Package:
    """A package of npm.

    Attributes:
        name: Its name.
        version: Its version.
        files: What is taken from it, and what it is called here.
    """

    name: str
    version: str
    files: dict[str, str]


PACKAGES = (
    Package(
        "plotly.js-basic-dist-min",
        "4.1.1",
        {"plotly-basic.min.js": "plotly-basic.min.js.gz", "LICENSE": "plotly-LICENSE.txt"},
    ),
    Package(
        "dejavu-fonts-ttf",
        "2.37.3",
        {
            "ttf/DejaVuSans.ttf": "dejavu-sans.ttf",
            "ttf/DejaVuSans-Bold.ttf": "dejavu-sans-bold.ttf",
            "LICENSE": "dejavu-LICENSE.txt",
        },
    ),
)

FOLDER = Path(__file__).parent.parent / "src/chainrule/app/assets/vendor"


def renew(package: Package, folder: Path) -> None:
    """Write the files of a package into a folder."""
    with tempfile.TemporaryDirectory() as place:
        wanted = f"{package.name}@{package.version}"
        subprocess.run(["npm", "pack", "--silent", wanted, "--pack-destination", place], check=True)
        (path,) = Path(place).glob("*.tgz")
        with tarfile.open(path) as archive:
            for source, target in package.files.items():
                file = archive.extractfile(f"package/{source}")
                assert file is not None
                content = file.read()
                print(source, len(content), hashlib.sha256(content).hexdigest())
                if target.endswith(".gz"):
                    content = gzip.compress(content, 9, mtime=0)
                elif target.endswith(".ttf"):
                    content = subset(content)
                (folder / target).write_bytes(content)


def subset(font: bytes) -> bytes:
    """Return a font with `CHARACTERS` alone."""
    from fontTools.subset import Options, Subsetter
    from fontTools.ttLib import TTFont

    options = Options(layout_features=["kern"], hinting=False, notdef_outline=True)
    options.recalc_timestamp = False
    file = TTFont(io.BytesIO(font), recalcTimestamp=False)
    subsetter = Subsetter(options)
    subsetter.populate(
        unicodes=[code for first, last in CHARACTERS for code in range(first, last + 1)]
    )
    subsetter.subset(file)
    out = io.BytesIO()
    file.save(out)
    return out.getvalue()


if __name__ == "__main__":
    for each in PACKAGES:
        renew(each, FOLDER)
