"""`measure_trainability`: whether some learning rate really trains a specified network.

The network is exactly `build_network(spec)` with a fresh linear read-out on top, trained as
`chainrule.training.train` trains it, but with all learning rates at once: the copies are stacked
and every step is one batched computation. Training stops as soon as the outcome is settled: one
copy is right often enough, or none has a finite loss any more.

Nothing here looks at gradients or at a diagnosis: it is the ground truth that those are judged by.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from chainrule.errors import SpecError, suggest
from chainrule.measure.networks import Stack, apply_linear, get_dtype, run_stack, stack_networks
from chainrule.spec.network_spec import NetworkSpec
from chainrule.training.tasks import Task, TaskName, load_task
from chainrule.training.training import (
    Optimizer,
    adapt,
    build_read_out,
    check_optimizer,
    check_rate,
    isolate,
    make_order,
)

RATES: Mapping[Optimizer, tuple[float, ...]] = MappingProxyType(
    {"sgd": (1e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0), "adam": (1e-4, 1e-3, 3e-3, 1e-2)}
)
"""The learning rates that are tried unless others are given: what people reach for."""

STEPS = 300
"""Optimizer steps unless another number is given: a few seconds of a notebook."""

BATCH_SIZE = 64

TRAINED: Mapping[TaskName, float] = MappingProxyType(
    {"digits": 7 / 9, "teacher": 2 / 3, "patterns": 7 / 9}
)
"""Share of the way from chance to always right that counts as trained: 80 % of the digits. The
teacher's labels are harder to learn exactly; there it is what a healthy network reaches as soon."""

SETTLED = 7 / 9
"""Share of that way from which on nothing more is tried."""

PARTLY = 2 / 9
"""Share of the way from chance to always right that counts as partly trained."""

CHECKED = 400
"""Examples that the accuracy is measured on, about, while training goes on."""

_CHECK_EVERY = 25


class Outcome(StrEnum):
    """What became of a training, the best first."""

    TRAINED = "trained"
    PARTLY = "partly"
    NOT = "not"


@dataclass(frozen=True, slots=True, kw_only=True)
class Trainability:
    """Whether a network trains, as it was found out by training it.

    Attributes:
        spec: The network.
        task: The name of the task.
        optimizer: "sgd" or "adam".
        outcome: "trained", "partly" or "not".
        accuracy: Best share of training examples right over the learning rates, in [0, 1].
        chance: Share right when the most frequent class is named always.
        learning_rate: The rate that got there.
        steps: Optimizer steps until then.

    Example:
        >>> from chainrule import NetworkSpec
        >>> spec = NetworkSpec(depth=2, width=8, activation="relu", init="he")
        >>> found = measure_trainability(spec, learning_rates=[0.1], steps=5)
        >>> found.steps
        5
    """

    spec: NetworkSpec
    task: TaskName
    optimizer: Optimizer
    outcome: Outcome
    accuracy: float
    chance: float
    learning_rate: float
    steps: int

    @property
    def progress(self) -> float:
        """Share of the way from chance (0) to always right (1); below 0 for worse than chance."""
        return measure_progress(self.accuracy, self.chance)


def measure_progress(accuracy: float, chance: float) -> float:
    """Return the share of the way from chance to always right."""
    return (accuracy - chance) / (1 - chance)


def measure_trainability(
    spec: NetworkSpec,
    *,
    task: TaskName = "digits",
    optimizer: Optimizer = "sgd",
    learning_rates: Sequence[float] | None = None,
    steps: int = STEPS,
) -> Trainability:
    """Return whether the network of a specification trains at some learning rate.

    Args:
        spec: The network; its `seed` also draws the read-out and the order of the examples.
        task: "digits" (scikit-learn's), "teacher" (Gaussian inputs, labelled by a random network)
            or "patterns" (stripes of some direction in noise).
        optimizer: "sgd" or "adam", with PyTorch's settings and no momentum for SGD.
        learning_rates: The rates to try, each above 0; `None` for those of `RATES`.
        steps: Optimizer steps, batches of 64.

    Raises:
        SpecError: If an argument is out of range.
        ChainruleError: If the task is "digits" and scikit-learn is not installed.

    Example:
        >>> from chainrule import NetworkSpec
        >>> spec = NetworkSpec(depth=2, width=8, activation="relu", init="he")
        >>> found = measure_trainability(spec, learning_rates=[0.1], steps=5)
        >>> found.outcome in ("trained", "partly", "not")
        True
    """
    [found] = measure_alike(
        [spec], task=task, optimizer=optimizer, learning_rates=learning_rates, steps=steps
    )
    return found


def measure_alike(
    specs: Sequence[NetworkSpec],
    *,
    task: TaskName = "digits",
    optimizer: Optimizer = "sgd",
    learning_rates: Sequence[float] | None = None,
    steps: int = STEPS,
) -> tuple[Trainability, ...]:
    """Return the same of several networks at once that differ only in how they are initialized.

    Args:
        specs: Equal but for `init`, `distribution`, `weight_std` and `bias_std`.
        task: As for `measure_trainability`, and so are the others.
        optimizer: The optimizer.
        learning_rates: The rates to try.
        steps: Optimizer steps.

    Raises:
        SpecError: If the networks differ in more, or as `measure_trainability` says.
    """
    check_optimizer(optimizer)
    rates = RATES[optimizer] if learning_rates is None else tuple(dict.fromkeys(learning_rates))
    for rate in rates:
        check_rate(rate)
    if not rates:
        raise SpecError("learning_rates: must be at least one; got none.")
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise SpecError(f"steps: must be a whole number, at least 1; got {steps!r:.40}.")
    if task not in get_args(TaskName):
        raise SpecError(
            f"task: unknown {task!r:.40}. {suggest(str(task)[:40], get_args(TaskName))}"
        )
    if len({_describe_architecture(spec) for spec in specs}) != 1:
        raise SpecError(
            "specs: must be networks that differ only in init, distribution, weight_std and "
            f"bias_std; got {len(specs)} that differ in more."
        )
    with isolate():
        data = load_task(task)
        race = _Race(specs, rates, optimizer, data)
        race.run(steps)
    return tuple(
        Trainability(
            spec=spec,
            task=task,
            optimizer=optimizer,
            outcome=judge_accuracy(best.accuracy, data.chance, task),
            accuracy=best.accuracy,
            chance=data.chance,
            learning_rate=best.rate,
            steps=best.steps,
        )
        for spec, best in zip(specs, race.best, strict=True)
    )


def _describe_architecture(spec: NetworkSpec) -> str:
    plain = spec.replace(
        init="xavier", distribution=None, weight_std=1.0, bias_std=None, batch_size=32
    )
    return plain.to_json()


def judge_accuracy(accuracy: float, chance: float, task: TaskName) -> Outcome:
    """Return what a share of right answers amounts to."""
    progress = measure_progress(accuracy, chance)
    if progress > TRAINED[task]:
        return Outcome.TRAINED
    return Outcome.PARTLY if progress > PARTLY else Outcome.NOT


@dataclass(frozen=True, slots=True)
class _Best:
    accuracy: float
    rate: float
    steps: int


class _Race:
    """Copies of some networks, one per learning rate, trained side by side.

    The copies are ordered by learning rate, so that those of one rate are neighbours: each of the
    optimizer's parameter groups holds views of their rows.

    Attributes:
        stack: The parameters of all copies that are still running.
        owners: Which network each of them belongs to.
        rates: Its learning rate.
        best: The best result of each network so far.
    """

    def __init__(
        self,
        specs: Sequence[NetworkSpec],
        rates: Sequence[float],
        optimizer: Optimizer,
        data: Task,
    ) -> None:
        spec = specs[0]
        self.spec, self.data = spec, data
        self.inputs = spec.input_scale * adapt(data.inputs, spec.width).to(get_dtype(spec))
        self.order = make_order(spec)
        self.best = [_Best(0.0, rates[0], 0) for _ in specs]
        self.kind = optimizer
        read_outs = [build_read_out(each, data.count) for each in specs]
        stack = stack_networks(specs)
        stack["read_out", "weight"] = [torch.stack([each.weight.detach() for each in read_outs])]
        stack["read_out", "bias"] = [torch.stack([each.bias.detach() for each in read_outs])]
        self.owners = torch.arange(len(specs)).repeat(len(rates))
        self.rates = torch.tensor(rates, dtype=torch.float64).repeat_interleave(len(specs))
        self.stack = _select(stack, self.owners)
        self.optimizer = self._build_optimizer()

    def run(self, steps: int) -> None:
        """Train until every network is settled."""
        for step in range(1, steps + 1):
            batch = torch.randint(0, len(self.inputs), (BATCH_SIZE,), generator=self.order)
            alive = self._advance(self.inputs[batch], self.data.classes[batch])
            if step % _CHECK_EVERY == 0 or step == steps:
                alive &= ~self._note(step, last=step == steps)
            if not alive.any():
                return
            if not alive.all():
                self._keep(alive)

    def _build_optimizer(self) -> torch.optim.Optimizer:
        """Return PyTorch's optimizer with a parameter group per learning rate."""
        leaves = _list_leaves(self.stack)
        groups = [
            {"params": [leaf.detach()[rows] for leaf in leaves], "lr": rate}
            for rate, rows in self._find_rows()
        ]
        kind = torch.optim.SGD if self.kind == "sgd" else torch.optim.Adam
        return kind(groups, fused=True)

    def _find_rows(self) -> list[tuple[float, slice]]:
        """Return the learning rates of the copies and the rows of the copies of each."""
        rates, counts = torch.unique_consecutive(self.rates, return_counts=True)
        ends = counts.cumsum(0).tolist()
        return [
            (rate, slice(start, end))
            for rate, start, end in zip(rates.tolist(), [0, *ends], ends, strict=False)
        ]

    def _advance(self, inputs: Tensor, classes: Tensor) -> Tensor:
        """Take a step; return which copies had a finite loss."""
        leaves = _list_leaves(self.stack)
        scores = self._predict(self.stack, inputs).transpose(1, 2)
        losses = F.cross_entropy(scores, classes.expand(len(scores), -1), reduction="none").mean(1)
        gradients = list(torch.autograd.grad(losses.sum(), leaves))
        if self.spec.clip_norm is not None:
            gradients = _clip(gradients, self.spec.clip_norm)
        gradients = [gradient.contiguous() for gradient in gradients]  # as the parameters are
        for group, (_, rows) in zip(self.optimizer.param_groups, self._find_rows(), strict=True):
            for parameter, gradient in zip(group["params"], gradients, strict=True):
                parameter.grad = gradient[rows]
        self.optimizer.step()
        return losses.detach().isfinite()

    def _predict(self, stack: Stack, inputs: Tensor) -> Tensor:
        """Return the scores of every copy, [copies, examples, classes]."""
        weight, bias = (stack["read_out", field][0] for field in ("weight", "bias"))
        *_, (_, h) = run_stack(self.spec, stack, inputs.expand(len(weight), -1, -1))
        return apply_linear(weight, bias, h)

    def _note(self, step: int, *, last: bool) -> Tensor:
        """Measure the accuracy; return which copies belong to settled networks."""
        stride = 1 if last else -(-len(self.inputs) // CHECKED)
        accuracies = self._measure(self.stack, stride)
        settled = set()
        for position, owner in enumerate(self.owners.tolist()):
            accuracy = accuracies[position]
            if not last and accuracy > self.best[owner].accuracy and self._suffices(accuracy):
                [accuracy] = self._measure(_select(self.stack, torch.tensor([position])), 1)
                if self._suffices(accuracy):
                    settled.add(owner)
                    self.best[owner] = _Best(accuracy, float(self.rates[position]), step)
            if last and accuracy > self.best[owner].accuracy:
                self.best[owner] = _Best(accuracy, float(self.rates[position]), step)
        return torch.tensor([owner in settled for owner in self.owners.tolist()])

    def _suffices(self, accuracy: float) -> bool:
        return measure_progress(accuracy, self.data.chance) > SETTLED

    @torch.no_grad()
    def _measure(self, stack: Stack, stride: int) -> list[float]:
        """Return the share of right answers of every copy among every `stride`-th example."""
        scores = self._predict(stack, self.inputs[::stride])
        right = (scores.argmax(2) == self.data.classes[::stride]) & scores.isfinite().all(2)
        return right.double().mean(1).tolist()

    def _keep(self, alive: Tensor) -> None:
        """Go on with some of the copies, at least one, and the state of their optimizer."""
        before = self.optimizer
        chosen = [alive[rows] for _, rows in self._find_rows()]
        self.stack = _select(self.stack, alive)
        self.owners, self.rates = self.owners[alive], self.rates[alive]
        self.optimizer = self._build_optimizer()
        old_groups = [
            (group["params"], kept)
            for group, kept in zip(before.param_groups, chosen, strict=True)
            if kept.any()
        ]
        new_groups = [group["params"] for group in self.optimizer.param_groups]
        for (parameters, kept), successors in zip(old_groups, new_groups, strict=True):
            for parameter, successor in zip(parameters, successors, strict=True):
                self.optimizer.state[successor] = {
                    name: value[kept] if value.dim() else value  # the step count is one number
                    for name, value in before.state[parameter].items()
                }


def _list_leaves(stack: Stack) -> list[Tensor]:
    return [leaf for leaves in stack.values() for leaf in leaves]


def _select(stack: Stack, members: Tensor) -> Stack:
    """Return the parameters of some members as new leaves, given their positions or a mask."""
    return {
        key: [leaf.detach()[members].requires_grad_() for leaf in leaves]
        for key, leaves in stack.items()
    }


def _clip(gradients: Sequence[Tensor], limit: float) -> list[Tensor]:
    """Do for every copy what `torch.nn.utils.clip_grad_norm_` does for a network."""
    norms = [gradient.flatten(1).norm(dim=1) for gradient in gradients]
    factor = (limit / (torch.stack(norms).norm(dim=0) + 1e-6)).clamp(max=1.0)
    return [g * factor.view(-1, *[1] * (g.dim() - 1)) for g in gradients]
