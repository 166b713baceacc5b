"""One training of the truth about alarms, watched as anybody watches one."""

import math
import time
from dataclasses import dataclass

import torch
from alarm_parts import Setup

from chainrule.watch.records import Alarm
from chainrule.watch.watching import watch

ENDS = 5
"""Steps with a loss that is not finite after which a training is left."""


@dataclass(frozen=True)
class Outcome:
    """What became of one training.

    Attributes:
        alarms: What was said.
        losses: The loss of every step.
        trained: Whether it did what it was for, by its own measure.
        word: That measure.
        seconds: What it took of the processor.
    """

    alarms: tuple[Alarm, ...]
    losses: tuple[float, ...]
    trained: bool
    word: str
    seconds: float


def train_watched(setup: Setup) -> Outcome:
    """Train a program to its end under `watch`."""
    began = time.process_time()
    losses: list[float] = []
    with watch(setup.model, setup.optimizers) as run:
        for step in range(1, setup.steps + 1):
            setup.before(setup, step)
            losses.append((setup.loop or _take_step)(setup, step))
            if setup.logged:
                run.log(loss=losses[-1])
            for schedule in setup.schedules:
                schedule.step()
            if len(losses) > ENDS and not any(map(math.isfinite, losses[-ENDS:])):
                break
    trained, word = setup.judge(setup.model, losses)
    return Outcome(run.alarms, tuple(losses), trained, word, time.process_time() - began)


def _take_step(setup: Setup, step: int) -> float:
    if setup.zeroes(step):
        for optimizer in setup.optimizers:
            optimizer.zero_grad()
    loss = setup.backward(setup, step)
    if setup.scaler is not None:
        for optimizer in setup.optimizers:
            setup.scaler.unscale_(optimizer)
    if setup.clip is not None:
        torch.nn.utils.clip_grad_norm_(setup.model.parameters(), setup.clip)
    for optimizer in setup.optimizers:
        if setup.scaler is None:
            optimizer.step()
        else:
            setup.scaler.step(optimizer)
            setup.scaler.update()
    return loss
