"""Many visitors at once: is every answer right, does each belong to its question, how long is it?

Visitors drag sliders as people do and ask as the page does (`assets/explore/explore.js`): one
question at a time, the newest setting next, what takes long given up for something newer, a quick
answer refined after a moment of rest. Every setting has a seed of its own, so that nothing has been
measured before. They come from this process, which shares the machine with the server; so the times
are an upper bound. Whether the numbers are right is checked when the load is over.

`--largest` lets one more visitor in, who asks for the largest network of the page again and again,
and compares the others' times with and without.
"""

import argparse
import asyncio
import contextlib
import os
import random
import resource
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import torch
from rich.console import Console
from rich.table import Table

from chainrule import simulate
from chainrule.app.state.controls import CONTROLS
from chainrule.app.state.view import read_view

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from browsing import serve_explorer

STEP = 0.04
"""Seconds between two values of a drag."""

PATIENCE = 0.3
"""Seconds after which the page gives up an unanswered question for a newer one (explore.js)."""

REST = 0.15
"""Seconds of rest after which the page lets the others refine what one network showed."""

USUAL = 128
"""Widths up to this are usual; the slider of the page goes up to 512."""

LARGEST = ("depth=26&width=1024&batch_size=1024&activation=relu&init=he", "depth=1000&width=240")
"""Of the largest networks that the page measures: a wide and a deep one."""

PIN_SHARE, CHECK_SHARE = 0.15, 0.25

CHOICES = ("activation", "init", "residual", "normalization")


@dataclass(frozen=True)
class Sample:
    """An answer whose numbers are checked afterwards."""

    query: str
    seeds: int
    norms: list[float | None]


@dataclass
class Tally:
    """What all visitors found."""

    first: list[float] = field(default_factory=list)
    refined: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)  # from the end of a drag to its answer
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)


class Visitor:
    """One page with its sliders."""

    def __init__(self, url: str, number: int, widest: int, tally: Tally) -> None:
        self.random = random.Random(number)
        self.url, self.widest, self.tally = url, widest, tally
        self.settings = dict.fromkeys(("depth", "width", *CHOICES), "")
        self.wanted = self.asked = ""
        self.task: asyncio.Task[None] | None = None
        self.refining = False
        self.since = 0.0
        self.patience = PATIENCE
        self.client = httpx.AsyncClient(timeout=60)

    async def visit(self, until: float) -> None:
        """Drag one control after the other until the time is over."""
        draw = self.random
        await asyncio.sleep(draw.uniform(0, 1))
        self.settings |= {"depth": str(draw.randint(2, 100)), "width": "64"}
        for name in CHOICES:
            self.choose(name)
        while time.monotonic() < until:
            await self.drag()
            ended = time.monotonic()
            while self.task and not self.task.done() and time.monotonic() < until:
                await asyncio.sleep(0.02)
                if self.asked == self.wanted and self.refining and ended:
                    break  # the first answer is there; the visitor looks at it
            if self.asked == self.wanted and (self.refining or (self.task and self.task.done())):
                self.tally.last.append(time.monotonic() - ended)
            await asyncio.sleep(draw.uniform(0.3, 1.5))
        await self.give_up()
        await self.client.aclose()

    async def drag(self) -> None:
        """Move a slider over some of its values, or choose in a list."""
        draw = self.random
        name = draw.choice(("depth", "depth", "width", *CHOICES))
        if name in CHOICES:
            self.choose(name)
            await self.ask()
            return
        stops = [stop for stop in CONTROLS[name].slider if name != "width" or stop <= self.widest]
        position = draw.randrange(len(stops))
        for _ in range(draw.randint(3, 30)):
            position = min(max(position + draw.choice((-1, 1, 1)), 0), len(stops) - 1)
            self.settings[name] = str(stops[position])
            await self.ask()
            await asyncio.sleep(STEP)

    def choose(self, name: str) -> None:
        self.settings[name] = self.random.choice([c for c, _ in CONTROLS[name].choices])

    async def ask(self) -> None:
        draw = self.random
        query = "&".join(f"{name}={value}" for name, value in self.settings.items() if value)
        query += f"&seed={draw.randrange(10**6)}"
        if draw.random() < PIN_SHARE:
            query += f"&pin={quote(f'depth={draw.randint(2, 40)}&activation=relu', safe='')}"
        self.wanted = query
        if self.task and not self.task.done():
            slow = time.monotonic() - self.since > self.patience
            if not slow and not self.refining:
                return
            if not self.refining:
                self.patience *= 2
            await self.give_up()
        self.task = asyncio.create_task(self.follow())

    async def give_up(self) -> None:
        if self.task and not self.task.done():
            self.task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self.task
            self.tally.counts["given up"] += 1

    async def follow(self) -> None:
        """Ask until the newest setting is answered, and its quick answer refined."""
        while True:
            self.refining = False
            query = self.wanted
            stage: str | None = "quick"
            while stage and self.wanted == query:
                answer = await self.fetch(query, stage)
                self.refining = True
                stage = answer["ensemble"]["next"] if answer else None
                if stage:
                    await asyncio.sleep(REST)
            if self.wanted == query:
                return

    async def fetch(self, query: str, stage: str) -> dict[str, Any] | None:
        tally, first = self.tally, stage == "quick"
        mark = "" if stage == "whole" else f"&{stage}=1"
        self.since = start = time.monotonic()
        try:
            response = await self.client.get(f"{self.url}/api/explore?{query}{mark}")
        except httpx.HTTPError as error:
            tally.counts["failed"] += 1
            tally.wrong.append(f"{type(error).__name__}: {query}")
            return None
        (tally.first if first else tally.refined).append(time.monotonic() - start)
        tally.counts[str(response.status_code)] += 1
        answer: dict[str, Any] = response.json()
        if response.status_code != 200:
            if response.status_code == 503:
                await asyncio.sleep(float(response.headers["Retry-After"]))
            elif response.status_code != 422:
                tally.wrong.append(f"{response.status_code}: {query}")
            return None
        self.asked = query
        self.patience = PATIENCE
        self.compare(query, answer, stage)
        return answer

    def compare(self, query: str, answer: dict[str, Any], stage: str) -> None:
        """Compare an answer with its question; keep some to check their numbers later."""
        view, _ = read_view(query)
        is_its_own = answer["view"]["address"] == view.address
        is_whole = len(answer["journey"]) == view.spec.depth
        is_refined = not answer["ensemble"]["partial"] or stage != "whole"
        if not (is_its_own and is_whole and is_refined):
            self.tally.wrong.append(f"another question's answer: {query}")
        if self.random.random() < CHECK_SHARE:
            norms = answer["figures"]["gradient"]["data"][1]["y"]
            sample = Sample(query, answer["ensemble"]["seeds"], norms)
            self.tally.samples.append(sample)


@contextlib.contextmanager
def serve(workers: int) -> Iterator[str]:
    """Start the explorer with several workers; give its address once they answer."""
    with serve_explorer("--workers", str(workers)) as url:
        httpx.get(url, timeout=120)
        time.sleep(5)  # the other workers are about to be there
        yield url


async def visit(
    url: str, visitors: int, seconds: float, widest: int, *, largest: bool = False
) -> Tally:
    """Let visitors in for some seconds; return what they found.

    Args:
        url: Of the explorer.
        visitors: How many.
        seconds: For how long.
        widest: The widest network that they drag to.
        largest: Whether one more asks for the largest networks all the time.
    """
    tally = Tally()
    until = time.monotonic() + seconds
    crowd = [Visitor(url, number, widest, tally).visit(until) for number in range(visitors)]
    if largest:
        crowd.append(ask_largest(url, until, tally))
    await asyncio.gather(*crowd)
    return tally


async def ask_largest(url: str, until: float, tally: Tally) -> None:
    """Ask for the largest networks, one after the other, each with a seed of its own."""
    async with httpx.AsyncClient(timeout=None) as client:
        seed = 10**7
        while (left := until - time.monotonic()) > 0:
            seed += 1
            query = f"{LARGEST[seed % len(LARGEST)]}&seed={seed}"
            with contextlib.suppress(TimeoutError):
                answer = await asyncio.wait_for(client.get(f"{url}/api/explore?{query}"), left)
                tally.counts[f"largest: {answer.status_code}"] += 1


def check_numbers(samples: list[Sample]) -> list[str]:
    """Return the questions whose answers are not exactly what `simulate` measures here."""
    wrong = []
    for sample in samples:
        view, _ = read_view(sample.query)
        norms = simulate(view.spec, sample.seeds).weight_gradient_norms
        expected = [
            float(norm) if norm is not None and 0 < norm < float("inf") else None for norm in norms
        ]
        if expected != sample.norms:
            wrong.append(f"other numbers: {sample.query}")
    return wrong


def check_bytes(url: str, samples: list[Sample]) -> tuple[int, list[str]]:
    """Ask the same on many new connections, which different workers take; compare the bytes."""
    wrong, count = [], 0
    for sample in samples:
        answers = {
            httpx.get(f"{url}/api/explore?{sample.query}&quick=1", timeout=60).content
            for _ in range(8)
        }
        count += 8
        if len(answers) > 1:
            wrong.append(f"workers differ: {sample.query}")
    return count, wrong


def spend(usage: resource.struct_rusage) -> float:
    """Return seconds of processor time."""
    return usage.ru_utime + usage.ru_stime


def show_times(title: str, tally: Tally) -> Table:
    """Return the table of what visitors waited for."""
    table = Table(title=title)
    for heading in ("what", "number", "median", "p95", "p99"):
        table.add_column(heading, justify="left" if heading == "what" else "right")
    for what, times in (
        ("first answers", tally.first),
        ("refined answers", tally.refined),
        ("end of a drag → its answer", tally.last),
    ):
        if len(times) > 1:
            cuts = statistics.quantiles(times, n=100, method="inclusive")
            table.add_row(what, str(len(times)), *(f"{cuts[i]:.2f} s" for i in (49, 94, 98)))
    return table


def main() -> int:
    """Print the tables; return 1 if anything was wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--visitors", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument(
        "--widest",
        type=int,
        default=512,
        help=f"widest network that is dragged to: up to {USUAL} is usual, 512 the slider's end",
    )
    parser.add_argument(
        "--largest", action="store_true", help="once more beside a visitor of the largest networks"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console(width=110)
    print("load averages before:", *(f"{load:.1f}" for load in os.getloadavg()))
    tallies: list[Tally] = []
    repeated, differing = 0, list[str]()
    with serve(options.workers) as url:
        before = spend(resource.getrusage(resource.RUSAGE_SELF))
        for largest in (False, True) if options.largest else (False,):
            begun = visit(url, options.visitors, options.seconds, options.widest, largest=largest)
            tallies.append(asyncio.run(begun))
        crowd = spend(resource.getrusage(resource.RUSAGE_SELF)) - before
        print("load averages after:", *(f"{load:.1f}" for load in os.getloadavg()))
        for tally in tallies:
            count, wrong = check_bytes(url, tally.samples[:12])
            repeated, differing = repeated + count, [*differing, *wrong]
    for tally, beside in zip(tallies, ("", ", beside one of the largest networks"), strict=False):
        title = (
            f"{options.visitors} visitors dragging sliders for {options.seconds:g} s against "
            f"{options.workers} workers, up to {options.widest} wide{beside}"
        )
        console.print(show_times(title, tally))
        print(f"statuses {dict(tally.counts)}")
    if len(tallies) > 1:
        alone, together = (statistics.median(tally.first) for tally in tallies)
        print(f"the median first answer takes {together / alone:.2f} times as long beside it")
    samples = [sample for tally in tallies for sample in tally.samples[:100]]
    wrong = [
        *(each for tally in tallies for each in tally.wrong),
        *check_numbers(samples),
        *differing,
    ]
    others = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(
        f"processor time of visitors {crowd:.0f} s, of the server {spend(others):.0f} s (with its "
        f"start) in {len(tallies) * options.seconds:g} s on {os.cpu_count()} cores"
    )
    print(
        f"every answer compared with its question; the numbers of {len(samples)} with simulate; "
        f"the bytes of {repeated} repetitions with each other"
    )
    print(f"wrong: {len(wrong)}", *wrong[:10], sep="\n  ")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
