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
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule.errors import SpecError, suggest
from chainrule.measure.networks import branch_scale, build_network, get_dtype
from chainrule.measure.simulation import FUNCTIONS, normalize_members
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
    rates = RATES[optimizer] if learning_rates is None else tuple(learning_rates)
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

    Attributes:
        owners: Which network each copy that is still running belongs to.
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
        models = [nn.Sequential(build_network(s), build_read_out(s, data.count)) for s in specs]
        copies = [model for model in models for _ in rates]
        names = [name for name, _ in models[0].named_parameters()]
        columns = [dict(copy.named_parameters()) for copy in copies]
        self.spec, self.data = spec, data
        self.inputs = spec.input_scale * adapt(data.inputs, spec.width).to(get_dtype(spec))
        self.values = [torch.stack([c[name].detach() for c in columns]) for name in names]
        self.owners = torch.arange(len(specs)).repeat_interleave(len(rates))
        self.rates = torch.tensor(rates, dtype=torch.float64).repeat(len(specs))
        self.clip_norm = spec.clip_norm
        self.order = make_order(spec)
        self.optimizer = _Sgd() if optimizer == "sgd" else _Adam(self.values)
        self.best = [_Best(0.0, rates[0], 0) for _ in specs]

    def run(self, steps: int) -> None:
        """Train until every network is settled."""
        for step in range(1, steps + 1):
            batch = torch.randint(0, len(self.inputs), (BATCH_SIZE,), generator=self.order)
            alive = self._advance(self.inputs[batch], self.data.classes[batch])
            if step % _CHECK_EVERY == 0 or step == steps:
                alive &= ~self._note(step, last=step == steps)
            if not alive.all():
                self._keep(alive)
            if not len(self.owners):
                return

    def _predict(self, values: Sequence[Tensor], inputs: Tensor) -> Tensor:
        """Return the scores of every copy, [copies, examples, classes]."""
        spec, remaining = self.spec, iter(values)
        function, scale = FUNCTIONS[spec.activation], branch_scale(spec)
        h = inputs.expand(len(values[0]), -1, -1)
        for _ in range(spec.depth):
            z = _apply(next(remaining), next(remaining), h)
            if spec.normalization != "none":
                gain = next(remaining)
                shift = None if spec.normalization == "rmsnorm" else next(remaining)
                z = normalize_members(spec, z, gain, shift)
            branch = function(z)
            h = branch if spec.residual == "none" else h + scale * branch
        return _apply(next(remaining), next(remaining), h)

    def _advance(self, inputs: Tensor, classes: Tensor) -> Tensor:
        """Take a step; return which copies had a finite loss."""
        leaves = [value.detach().requires_grad_() for value in self.values]
        scores = self._predict(leaves, inputs).transpose(1, 2)
        losses = F.cross_entropy(scores, classes.expand(len(scores), -1), reduction="none").mean(1)
        gradients = list(torch.autograd.grad(losses.sum(), leaves))
        with torch.no_grad():
            if self.clip_norm is not None:
                norms = [g.flatten(1).norm(dim=1) for g in gradients]
                total = torch.stack(norms).norm(dim=0)
                factor = (self.clip_norm / (total + 1e-6)).clamp(max=1.0)
                gradients = [g * _align(factor, g) for g in gradients]
            self.optimizer.step(self.values, gradients, self.rates)
        return losses.detach().isfinite()

    def _note(self, step: int, *, last: bool) -> Tensor:
        """Measure the accuracy; return which copies belong to settled networks."""
        stride = 1 if last else -(-len(self.inputs) // CHECKED)
        accuracies = self._measure(range(len(self.owners)), stride)
        settled = set()
        for position, owner in enumerate(self.owners.tolist()):
            accuracy = accuracies[position]
            if not last and accuracy > self.best[owner].accuracy and self._suffices(accuracy):
                [accuracy] = self._measure([position], 1)
                if self._suffices(accuracy):
                    settled.add(owner)
                    self.best[owner] = _Best(accuracy, float(self.rates[position]), step)
            if last and accuracy > self.best[owner].accuracy:
                self.best[owner] = _Best(accuracy, float(self.rates[position]), step)
        return torch.tensor([owner in settled for owner in self.owners.tolist()])

    def _suffices(self, accuracy: float) -> bool:
        return measure_progress(accuracy, self.data.chance) > SETTLED

    @torch.no_grad()
    def _measure(self, positions: Sequence[int], stride: int) -> list[float]:
        chosen = torch.tensor(list(positions))
        values = [value[chosen] for value in self.values]
        right = torch.zeros(len(chosen), dtype=torch.float64)
        classes = self.data.classes[::stride]
        scores = self._predict(values, self.inputs[::stride])
        right = (scores.argmax(2) == classes) & scores.isfinite().all(2)
        return right.double().mean(1).tolist()

    def _keep(self, alive: Tensor) -> None:
        self.values = [value[alive] for value in self.values]
        self.owners, self.rates = self.owners[alive], self.rates[alive]
        self.optimizer.keep(alive)


def _align(column: Tensor, tensor: Tensor) -> Tensor:
    return column.to(tensor.dtype).view(-1, *[1] * (tensor.dim() - 1))


def _apply(weight: Tensor, bias: Tensor, h: Tensor) -> Tensor:
    """Return W h + b of every copy, [copies, examples, outputs]."""
    return torch.baddbmm(bias.unsqueeze(1), h, weight.transpose(1, 2))


class _Sgd:
    """Plain stochastic gradient descent with a rate per copy."""

    def step(self, values: list[Tensor], gradients: list[Tensor], rates: Tensor) -> None:
        """Move the values of every copy in place."""
        for value, gradient in zip(values, gradients, strict=True):
            value.addcmul_(gradient, _align(rates, gradient), value=-1.0)

    def keep(self, alive: Tensor) -> None:
        """Forget the copies that are not alive."""


class _Adam(_Sgd):
    """PyTorch's Adam with its defaults, one for each copy.

    The fused kernel passes over each tensor once; calling it by copy gives each its rate.
    """

    def __init__(self, values: Sequence[Tensor]) -> None:
        self.first = [torch.zeros_like(value) for value in values]
        self.second = [torch.zeros_like(value) for value in values]
        self.steps = 0.0

    def step(self, values: list[Tensor], gradients: list[Tensor], rates: Tensor) -> None:
        self.steps += 1
        gradients = [gradient.contiguous() for gradient in gradients]
        for copy, rate in enumerate(rates.tolist()):
            torch._fused_adam_(
                [value[copy] for value in values],
                [gradient[copy] for gradient in gradients],
                [first[copy] for first in self.first],
                [second[copy] for second in self.second],
                [],
                [torch.tensor(self.steps) for _ in values],
                lr=rate,
                beta1=0.9,
                beta2=0.999,
                weight_decay=0.0,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )

    def keep(self, alive: Tensor) -> None:
        self.first = [each[alive] for each in self.first]
        self.second = [each[alive] for each in self.second]
