"""Factories that tests give to workers."""

import os
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path

import torch
from torch import nn

SCALE = 2.0


def build(width, log=""):
    if log:
        with open(log, "a") as file:
            file.write(f"{width}\n")
    model = nn.Sequential(nn.Linear(3, width), nn.Tanh(), nn.Linear(width, 1))
    inputs = torch.randn(4, 3) * SCALE
    return model, lambda m: m(inputs).square().mean()


def build_slowly(width, log=""):
    time.sleep(0.02)
    return build(width, log)


def fail_at(width, bad):
    if width == bad:
        raise ValueError("a bad width")
    return build(width)


def die_at(width, bad, marks, always):
    """Kill the worker at one width, the first time or always."""
    mark = Path(marks) / f"died-{width}"
    if width == bad and (always or not mark.exists()):
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return build(width)


def interrupt_at(width, bad, parent, store):
    """Press Ctrl-C in the process that started the sweep once it stored a cell, then take long."""
    if width == bad:
        while not count_stored(store):
            time.sleep(0.01)
        os.kill(parent, signal.SIGINT)
        time.sleep(60)
    return build(width)


def count_stored(store):
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as file:
        return file.execute("SELECT count(*) FROM results").fetchone()[0]


def tell_threads(width):
    assert torch.get_num_threads() == 1
    return build(width)
