"""A training in lines and words, as the explorer's page shows it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast
from urllib.parse import parse_qsl, urlencode

from chainrule._utils.numbers import format_number
from chainrule.app.jobs.measuring import plan_seeds
from chainrule.app.state.controls import DEFAULT_SEEDS, MAX_SEEDS
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.errors import SpecError
from chainrule.measure.simulation import simulate
from chainrule.spec.activations import get_activation
from chainrule.spec.network_spec import NetworkSpec
from chainrule.spec.query import MAX_QUERY
from chainrule.training.training import (
    CHANCE_LOSS,
    DEFAULT_RATES,
    TRAINED,
    Optimizer,
    TrainingRecord,
    check_optimizer,
    count_examples,
    measure_chance,
    train,
)

MAX_STEPS = 1000
"""Most steps of one training on a page that others wait for."""

COLUMNS = 60
"""Most records of a whole training after the first: columns of the heatmap."""

CHANCE_MARGIN = 0.05
"""An accuracy within so much of chance counts as chance."""

_OTHER_RATES: dict[Optimizer, dict[str, tuple[float, ...]]] = {
    "sgd": {"small": (0.3, 0.1), "large": (0.003, 0.0003)},
    "adam": {"small": (0.01, 0.003), "large": (0.0001,)},
}
"""Learning rates to try next where one was too small, or too large."""

Line = dict[str, Any]

_LABELS: dict[Optimizer, str] = {"sgd": "SGD", "adam": "Adam"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What a visitor wants trained.

    Attributes:
        spec: The network.
        optimizer: "sgd" or "adam".
        learning_rate: As given, or the optimizer's default.
        steps: Number of optimizer steps.
        seeds: Networks that the diagnosis rests on, as many as on the explore page.
    """

    spec: NetworkSpec
    optimizer: Optimizer
    learning_rate: float
    steps: int
    seeds: int

    @property
    def every(self) -> int:
        """Steps from one record to the next."""
        return -(-self.steps // COLUMNS)


def read_order(query: str) -> Order:
    """Return what a URL query orders.

    Args:
        query: Fields of `NetworkSpec`, and `optimizer`, `learning_rate`, `steps`, `seeds`.

    Raises:
        SpecError: If something in it is unknown, given twice or out of range, or if the training
            would take too long.
    """
    if len(query) > MAX_QUERY:
        raise SpecError(f"The address must have at most {MAX_QUERY} characters; got {len(query)}.")
    own: dict[str, str] = {}
    rest = []
    for name, text in parse_qsl(query, keep_blank_values=True, errors="replace"):
        if name not in ("optimizer", "learning_rate", "steps", "seeds"):
            rest.append((name, text))
        elif name in own:
            raise SpecError(f"{name}: must be given once.")
        else:
            own[name] = text
    spec = NetworkSpec.from_query(urlencode(rest))
    name = own.get("optimizer", "sgd")
    check_optimizer(name)
    optimizer = cast("Optimizer", name)
    seeds = _read_count("seeds", own.get("seeds", str(DEFAULT_SEEDS)), MAX_SEEDS)
    order = Order(
        spec=spec,
        optimizer=optimizer,
        learning_rate=_read_rate(own.get("learning_rate"), DEFAULT_RATES[optimizer]),
        steps=_read_count("steps", own.get("steps", "300"), MAX_STEPS),
        seeds=seeds,
    )
    _start(order, None)
    return replace(order, seeds=plan_seeds(spec, seeds, first=False))


def describe_order(order: Order) -> Line:
    """Return the first line of a training: what will be trained, and what guessing gives."""
    return {
        "type": "start",
        "label": label_order(order),
        "spec": order.spec.model_dump(),
        "query": order.spec.to_query(),
        "optimizer": order.optimizer,
        "learning_rate": order.learning_rate,
        "steps": order.steps,
        "every": order.every,
        "layers": order.spec.depth,
        "examples": count_examples(),
        "chance": round_number(measure_chance()),
        "chance_loss": round_number(CHANCE_LOSS),
    }


def label_order(order: Order) -> str:
    """Return the network and the optimizer in a few words."""
    spec = order.spec
    layers = "1 layer" if spec.depth == 1 else f"{spec.depth} layers"
    parts = [
        f"{layers} of {spec.width}",
        get_activation(spec.activation).label,
        spec.initializer.label,
    ]
    if spec.init == "random":
        parts[-1] = f"random σ = {spec.weight_std:g}"
    if spec.distribution not in (None, spec.initializer.default_distribution):
        parts.append(str(spec.distribution))
    if spec.bias_std is not None:
        parts.append(f"biases σ = {spec.bias_std:g}")
    if spec.residual != "none":
        parts.append(f"{spec.residual} residual connections")
    if spec.normalization != "none":
        parts.append(spec.normalization)
    if spec.clip_norm is not None:
        parts.append(f"clipped at {spec.clip_norm:g}")
    parts.append(f"{_LABELS[order.optimizer]} {order.learning_rate:g}")
    return ", ".join(parts)


def describe_training(order: Order, should_stop: Callable[[], bool]) -> Iterator[Line]:
    """Diagnose, train, and yield a line per record and one that says how it ended.

    Args:
        order: What to do.
        should_stop: Asked before every step, and while the untrained network is measured; once it
            says yes nothing more is yielded.
    """

    def check(done: int, total: int) -> None:
        if should_stop():
            raise _Stopped

    try:
        verdict = diagnose(simulate(order.spec, order.seeds, progress=check)).verdict
    except _Stopped:
        return
    for record in _start(order, should_stop):
        yield _describe_record(order, record)
        if record.last:
            yield conclude(order, record, verdict)


class _Stopped(Exception):  # noqa: N818  (not an error: nobody waits any more)
    """The measurement before the training was stopped."""


def conclude(order: Order, record: TrainingRecord, verdict: Verdict) -> Line:
    """Return how a training ended, beside what the diagnosis said.

    Args:
        order: What was trained.
        record: The last record.
        verdict: The diagnosis of the untrained network.

    Returns:
        `outcome` ("trained", "partly", "chance" or "diverged"), `agrees` (`None` where neither
        yes nor no would be fair), `rates` to try next, and `sentence`.
    """
    chance = measure_chance()
    outcome = _judge(record, chance)
    agrees, remark = _compare(outcome, verdict, order)
    right, guess = _percent(record.accuracy), _percent(chance)
    steps = "1 step" if record.step == 1 else f"{record.step} steps"
    sentence = {
        "trained": f"After {steps} {right} are right (chance is {guess}): it trains",
        "partly": f"After {steps} {right} are right (chance is {guess}): it learns something, but "
        f"stays below {_percent(TRAINED)}",
        "chance": f"After {steps} {right} are right, about as many as by chance ({guess}): it does "
        "not train",
        "diverged": f"After {steps} the loss is no finite number any more: it does not train",
    }[outcome]
    return {
        "type": "diverged" if record.diverged else "done",
        "step": record.step,
        "accuracy": round_number(record.accuracy),
        "outcome": outcome,
        "verdict": str(verdict),
        "agrees": agrees,
        "rates": [f"{rate:g}" for rate in suggest_rates(order, outcome, verdict)],
        "sentence": f"{sentence}{remark}",
    }


def suggest_rates(order: Order, outcome: str, verdict: Verdict) -> tuple[float, ...]:
    """Return the learning rates that are worth trying next; none where that would not help.

    Args:
        order: What was trained.
        outcome: How it ended.
        verdict: The diagnosis of the untrained network: where it found something that stops the
            network, another learning rate seldom helps.
    """
    if outcome == "trained" or (outcome == "chance" and verdict is not Verdict.HEALTHY):
        return ()
    own = order.learning_rate
    if outcome == "diverged":
        found = [rate for rate in _OTHER_RATES[order.optimizer]["large"] if rate < own]
    else:
        found = [rate for rate in _OTHER_RATES[order.optimizer]["small"] if rate > own]
    return tuple(found[:1])


def _judge(record: TrainingRecord, chance: float) -> str:
    if record.diverged:
        return "diverged"
    if record.accuracy > TRAINED:
        return "trained"
    return "chance" if record.accuracy < chance + CHANCE_MARGIN else "partly"


def _compare(outcome: str, verdict: Verdict, order: Order) -> tuple[bool | None, str]:
    """Return whether training and diagnosis agree, and the end of the sentence about it."""
    healthy = verdict is Verdict.HEALTHY
    said = ", as the diagnosis said." if healthy else f", as the diagnosis ({verdict}) said."
    if outcome == "trained" and not healthy:
        why = (
            "Adam rescales every gradient, and the diagnosis speaks of plain SGD."
            if order.optimizer == "adam"
            else "What was trained is what counts."
        )
        return False, f". The diagnosis ({verdict}) said otherwise. {why}"
    blown_up = verdict in (Verdict.EXPLODING, Verdict.NON_FINITE)
    if (
        outcome == "trained"
        or (outcome == "chance" and not healthy)
        or (outcome == "diverged" and blown_up)
    ):
        return True, said
    agrees, remark = _explain_doubt(outcome, verdict)
    return agrees, f" with {_LABELS[order.optimizer]} {order.learning_rate:g}{remark}"


def _explain_doubt(outcome: str, verdict: Verdict) -> tuple[bool | None, str]:
    """Return the same where training has not confirmed the diagnosis."""
    if verdict is not Verdict.HEALTHY:
        if outcome == "partly":
            return None, f". The diagnosis ({verdict}) is right only in part."
        return None, (
            f". The diagnosis ({verdict}) said that it would not, but for another reason; a "
            "smaller learning rate would tell more."
        )
    if outcome == "partly":
        return None, (
            ". The diagnosis is healthy; whether more steps or another learning rate get further, "
            "only trying shows."
        )
    hint = "a smaller learning rate" if outcome == "diverged" else "more steps or another rate"
    return False, f", although the diagnosis is healthy. They disagree; worth trying: {hint}."


def _describe_record(order: Order, record: TrainingRecord) -> Line:
    loss = format_number(record.loss) if math.isfinite(record.loss) else "not finite"
    return {
        "type": "step",
        "step": record.step,
        "loss": round_number(record.loss),
        "accuracy": round_number(record.accuracy),
        "examples": record.examples,
        "norms": [round_number(norm) for norm in record.gradient_norms],
        "total": round_number(record.total_norm),
        "clipped": round_number(record.clipped_norm),
        "status": f"Step {record.step} of {order.steps}: loss {loss}, "
        f"{_percent(record.accuracy)} right; chance is {_percent(measure_chance())}.",
    }


def _start(order: Order, should_stop: Callable[[], bool] | None) -> Iterator[TrainingRecord]:
    return train(
        order.spec,
        optimizer=order.optimizer,
        learning_rate=order.learning_rate,
        steps=order.steps,
        every=order.every,
        should_stop=should_stop,
    )


def _read_rate(text: str | None, default: float) -> float:
    if text is None:
        return default
    try:
        return float(text)
    except ValueError:
        raise SpecError(f"learning_rate: must be a number; got {text[:40]!r}.") from None


def _read_count(name: str, text: str, high: int) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) < 10 else 0
    if not 1 <= number <= high:
        raise SpecError(f"{name}: must be a whole number from 1 to {high}; got {text[:40]!r}.")
    return number


def round_number(value: float) -> float | None:
    """Return a number with four significant digits; `None` (JSON has no word) if not finite."""
    return float(f"{value:.4g}") if math.isfinite(value) else None


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"
