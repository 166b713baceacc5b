"""What a server keeps for the next question, and how it sends what it has kept."""

import gzip

import pytest
from fastapi import Request

from chainrule.app.answers import map_answer
from chainrule.app.answers.map_answer import CellStore
from chainrule.app.answers.stored import Measured, Stored
from chainrule.app.jobs import measuring
from chainrule.app.jobs.measuring import Measurer
from chainrule.spec.network_spec import NetworkSpec
from chainrule.sweeps.cells import SpecCell


def ask(**headers):
    pairs = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "headers": pairs})


class TestSending:
    @pytest.mark.parametrize(
        ("kind", "size", "media_type", "accepted", "packs"),
        [
            (Stored, 512, "text/html", "br, gzip", True),
            (Stored, 511, "text/html", "gzip", False),
            (Stored, 512, "text/html", "br", False),
            (Stored, 512, "image/png", "gzip", False),
            (Measured, 2**14, "text/html", "gzip", True),
            (Measured, 2**14 - 1, "text/html", "gzip", False),
        ],
    )
    def test_text_is_compressed_where_that_saves_something(
        self, kind, size, media_type, accepted, packs
    ):
        body = b"a" * size
        answer = kind(body, media_type).send(ask(accept_encoding=accepted))
        assert answer.headers.get("content-encoding") == ("gzip" if packs else None)
        assert (gzip.decompress(answer.body) if packs else answer.body) == body
        assert answer.headers["vary"] == "Accept-Encoding"

    def test_what_the_browser_has_is_not_sent_again(self):
        answer = Stored(b"body", "text/plain")
        tag = answer.send(ask()).headers["etag"]
        again = answer.send(ask(if_none_match=tag))
        assert (again.status_code, again.body, again.headers["etag"]) == (304, b"", tag)
        assert Stored(b"other", "text/plain").send(ask(if_none_match=tag)).status_code == 200
        missing = answer.send(ask(if_none_match=tag), status=404)
        assert (missing.status_code, missing.body) == (404, b"body")

    def test_size_counts_what_is_kept_compressed(self):
        large, small = Measured(b"a" * 2**14, "text/html"), Measured(b"a" * 100, "text/html")
        assert large.size == 2**14 + len(large.packed)
        assert small.size == Stored(b"a" * 100, "text/html").size == 100


def test_cells_that_were_asked_for_longest_ago_go_first(monkeypatch):
    measured = []

    def measure_cell(cell):
        measured.append(cell.spec.depth)
        return cell.spec.depth, None

    monkeypatch.setattr(map_answer, "measure_cell", measure_cell)
    monkeypatch.setattr(map_answer, "KEPT", 2)
    store = CellStore()
    cells = {depth: SpecCell(NetworkSpec(depth=depth), seeds=1) for depth in (1, 2, 3)}
    for depth in (1, 2, 1, 3, 1, 2):  # the third one takes the place of 2, not of 1
        assert store.measure(cells[depth]) == depth
    assert measured == [1, 2, 3, 2]


def test_measurements_are_kept_as_long_as_they_fit(monkeypatch):
    measured = []

    def simulate(spec, seeds, *, progress, histograms):
        measured.append((spec.depth, seeds, histograms))
        return measured[-1]

    monkeypatch.setattr(measuring, "simulate", simulate)
    monkeypatch.setattr(measuring, "_CACHED_WEIGHTS", 2**12 * 10)  # ten layers of one network
    measurer = Measurer()

    def measure(depth, seeds=1, **options):
        count = len(measured)
        wanted = depth, seeds, options.get("histograms", True)
        assert measurer.measure(NetworkSpec(depth=depth), seeds, lambda: None, **options) == wanted
        return len(measured) > count

    assert [measure(4), measure(2, 3), measure(4), measure(2, 3)] == [True, True, False, False]
    assert measure(4) is False
    assert measure(1)  # eleven layers: what was asked for longest ago goes
    assert [measure(4), measure(2, 3)] == [False, True]
    assert measure(100)  # more than all that may be kept: it alone is
    assert [measure(100), measure(100, histograms=False)] == [False, True]
