"""`train`: a few hundred real optimizer steps of a specified network on scikit-learn's digits.

The network is exactly `build_network(spec)`. What a 10-class task needs around it is fixed:

* 1797 images of 8 × 8 pixels, each of the 64 pixels standardized over all images;
* a network of another width gets them through a fixed matrix with orthonormal rows or columns,
  which is the same for every network of that width and is never trained;
* a fresh linear layer from `width` units to 10 classes on top, drawn as `nn.Linear` draws it, and
  trained along; the loss is the cross entropy.

Everything is drawn from generators of its own, so the global random state is never touched.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule.errors import ChainruleError, SpecError, suggest
from chainrule.measure.networks import build_network, get_dtype
from chainrule.spec.network_spec import MAX_SEED, NetworkSpec

Optimizer = Literal["sgd", "adam"]

DEFAULT_RATES: Mapping[Optimizer, float] = MappingProxyType({"sgd": 0.03, "adam": 0.001})
"""The learning rate of each optimizer unless another is given. At these, the presets that are
called healthy train within 300 steps: all of them with Adam, all but one with SGD."""

TRAINED = 0.8
"""A network with more than this share of the training examples right is said to be trained."""

CLASSES = 10
FEATURES = 64

CHANCE_LOSS = math.log(CLASSES)
"""Cross entropy of calling all ten classes equally likely."""

BUDGET = 2**31
"""Largest `estimate_cost` that is trained unless the caller allows more: some 20 seconds of one
core with SGD, twice that with Adam."""

MAX_STEPS = 100_000
MAX_BATCH = 1024

SHOWN_EXAMPLES = 360
"""Examples that the accuracy is measured on while training goes on: every fifth."""

_LAYER_COST = 64**2
_LEAST_STEPS = 64
_READ_OUT_OFFSET = 2 * (MAX_SEED + 1)
_ORDER_OFFSET = 3 * (MAX_SEED + 1)
_ADAPTER_SEED = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRecord:
    """The state of a training after some steps, before the next one.

    Attributes:
        step: Steps that were taken so far; 0 is the network as it was drawn.
        loss: Cross entropy on the batch of the next step.
        accuracy: Share of examples whose class the network names, in [0, 1]: of every fifth
            training example while it goes on, of all of them in the last record. An answer that
            is not a finite number is none.
        examples: Number of examples that the accuracy was measured on.
        gradient_norms: ‖∂𝓛/∂W_l‖ of the network's weight layers on that batch, input to output,
            before clipping; NaN where the loss is not finite, because no gradient was computed.
        total_norm: Norm of the gradient of all parameters together, before clipping.
        clipped_norm: The same after clipping, as the optimizer gets it; equal to `total_norm`
            without `clip_norm`.
        diverged: Whether the loss is infinite or undefined; then this is the last record.
        last: Whether no record follows.

    Example:
        >>> from chainrule import NetworkSpec
        >>> next(train(NetworkSpec(depth=2, width=8), steps=1)).step
        0
    """

    step: int
    loss: float
    accuracy: float
    examples: int
    gradient_norms: tuple[float, ...]
    total_norm: float
    clipped_norm: float
    diverged: bool
    last: bool


def train(  # noqa: PLR0913  (one argument per setting)
    spec: NetworkSpec,
    *,
    optimizer: Optimizer = "sgd",
    learning_rate: float | None = None,
    steps: int = 300,
    batch_size: int = 64,
    seed: int | None = None,
    every: int = 1,
    budget: int | None = BUDGET,
    should_stop: Callable[[], bool] | None = None,
) -> Iterator[TrainingRecord]:
    """Train the network of a specification on the digits, and measure it as it goes.

    Batch normalization stays in training mode throughout, also where the accuracy is measured.
    `spec.clip_norm` is applied by `torch.nn.utils.clip_grad_norm_` to all parameters together;
    `spec.batch_size` belongs to the untrained measurement and is not used. Momentum is 0, and
    Adam's other settings are PyTorch's.

    Args:
        spec: The network; its `seed` also draws the read-out and the order of the examples.
        optimizer: "sgd" or "adam".
        learning_rate: Above 0, at most 1000; `None` takes it from `DEFAULT_RATES`.
        steps: Number of optimizer steps.
        batch_size: Examples per step, drawn with replacement.
        seed: Used instead of `spec.seed` if given.
        every: A record is made after every so many steps, and always at the start and the end.
        budget: Largest `estimate_cost(spec, steps)` that is allowed; `None` for any.
        should_stop: Called before every step; once it returns true, no further record comes.

    Returns:
        An iterator of records: step 0, `every`, 2 · `every`, … `steps`; it works while it is
        iterated. If the loss is not finite at some step, the record of that step says so and is
        the last one; no error is raised.

    Raises:
        SpecError: If an argument is out of range or the budget is exceeded; raised by the call,
            not by the iteration.
        ChainruleError: If scikit-learn is not installed.

    Example:
        >>> from chainrule import NetworkSpec
        >>> records = train(NetworkSpec(depth=2, width=8), steps=20, every=10)
        >>> [record.step for record in records]
        [0, 10, 20]
    """
    check_optimizer(optimizer)
    rate = DEFAULT_RATES[optimizer] if learning_rate is None else learning_rate
    check_rate(rate)
    _check_count("steps", steps, 1, MAX_STEPS)
    _check_count("every", every, 1, MAX_STEPS)
    _check_count("batch_size", batch_size, 2 if spec.normalization == "batchnorm" else 1, MAX_BATCH)
    _check_budget(spec, steps, budget)
    spec = spec if seed is None else spec.replace(seed=seed)
    check_installed()
    return _iterate(spec, optimizer, rate, steps, batch_size, every, should_stop)


def estimate_cost(spec: NetworkSpec, steps: int) -> int:
    """Return depth · (width² + 64²) · steps, which the time of a training grows with.

    64² stands for what a layer costs however narrow it is (measured: a layer of 4 units takes about
    half as long as one of 64). Fewer than 64 steps count as 64, which bounds the memory too.

    Example:
        >>> estimate_cost(NetworkSpec(depth=15, width=64), steps=300)
        36864000
    """
    return spec.depth * (spec.width**2 + _LAYER_COST) * max(steps, _LEAST_STEPS)


def measure_chance() -> float:
    """Return the accuracy of naming the most frequent class always.

    Raises:
        ChainruleError: If scikit-learn is not installed.

    Example:
        >>> 0.1 < measure_chance() < 0.11
        True
    """
    _, classes = load_digits()
    return float(classes.bincount().max()) / len(classes)


def count_examples() -> int:
    """Return the number of training examples.

    Raises:
        ChainruleError: If scikit-learn is not installed.

    Example:
        >>> count_examples()
        1797
    """
    return len(load_digits()[1])


def check_installed() -> None:
    """Check that scikit-learn, which brings the digits, can be imported.

    Raises:
        ChainruleError: If not; the message says how to install it.

    Example:
        >>> check_installed()
    """
    if find_spec("sklearn") is None:
        raise ChainruleError(
            "Training needs scikit-learn for its handwritten digits, but it is not installed. "
            'Run: pip install "chainrule[app]"'
        )


def check_optimizer(name: Any) -> None:
    """Check the name of an optimizer.

    Raises:
        SpecError: If it is none; the message lists all.

    Example:
        >>> check_optimizer("adam")
    """
    known = get_args(Optimizer)
    if name not in known:
        raise SpecError(f"optimizer: unknown {str(name)[:40]!r}. {suggest(str(name)[:40], known)}")


def check_rate(value: Any) -> None:
    """Check a learning rate.

    Raises:
        SpecError: If it is not a number above 0, at most 1000.

    Example:
        >>> check_rate(0.1)
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= 1000:
        raise SpecError(
            f"learning_rate: must be a number above 0, at most 1000; got {str(value)[:40]!r}."
        )


def _check_count(name: str, value: Any, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        why = " (batch normalization compares examples)" if low == 2 else ""
        raise SpecError(
            f"{name}: must be a whole number from {low} to {high}{why}; got {str(value)[:40]!r}."
        )


def _check_budget(spec: NetworkSpec, steps: int, budget: int | None) -> None:
    if budget is None or estimate_cost(spec, steps) <= budget:
        return
    taken = max(steps, _LEAST_STEPS)
    depth = budget // (taken * (spec.width**2 + _LAYER_COST))
    width = math.isqrt(max(budget // (taken * spec.depth) - _LAYER_COST, 0))
    fewer = budget // (spec.depth * (spec.width**2 + _LAYER_COST))
    ways = [
        f"up to {_count(depth, 'layer')}" if depth else "",
        f"a width up to {width}" if width else "",
        f"up to {fewer} steps" if fewer >= _LEAST_STEPS else "",
    ]
    possible = [way for way in ways if way]
    advice = (
        f"Possible instead, with the rest as it is: {', or '.join(possible)}."
        if possible
        else "Make the network smaller in both."
    )
    subject = f"{_count(spec.depth, 'layer')} of width {spec.width}"
    raise SpecError(f"Training {subject} for {_count(steps, 'step')} would take too long. {advice}")


def _count(number: int, thing: str) -> str:
    return f"{number} {thing}{'' if number == 1 else 's'}"


@cache
def load_digits() -> tuple[Tensor, Tensor]:
    """Return standardized images [examples, 64] in float64 and their classes [examples].

    Raises:
        ChainruleError: If scikit-learn is not installed.
    """
    check_installed()
    from sklearn.datasets import load_digits

    images, classes = load_digits(return_X_y=True)
    with torch.inference_mode(False), torch.device("cpu"):
        inputs = torch.tensor(images, dtype=torch.float64)
        # Some pixels are always white: their deviation is 0.
        return (inputs - inputs.mean(0)) / (inputs.std(0) + 1e-3), torch.tensor(classes)


def adapt(inputs: Tensor, width: int) -> Tensor:
    """Return the inputs that a network of some width gets from the images.

    Images of 64 features go straight into a network of width 64. Otherwise they are multiplied by
    a fixed matrix with orthonormal rows (wider) or columns (narrower), scaled so that the entries'
    mean square stays what it was: by √(width/64) if wider, which holds exactly; by 1 if narrower,
    which holds on average over all such matrices.

    Args:
        inputs: [examples, 64].
        width: Number of features wanted.

    Returns:
        [examples, width], in the inputs' precision.
    """
    if width == FEATURES:
        return inputs
    generator = torch.Generator().manual_seed(_ADAPTER_SEED)
    matrix = torch.empty(FEATURES, width, dtype=torch.float64, device="cpu")
    nn.init.orthogonal_(matrix, max(1.0, math.sqrt(width / FEATURES)), generator=generator)
    return inputs @ matrix.to(inputs.dtype)


def _iterate(
    spec: NetworkSpec,
    optimizer: Optimizer,
    learning_rate: float,
    steps: int,
    batch_size: int,
    every: int,
    should_stop: Callable[[], bool] | None,
) -> Iterator[TrainingRecord]:
    """Yield outside of every `with`: what a caller does between records is its own affair."""
    with isolate():
        run = _Run(spec, optimizer, learning_rate, batch_size)
    for step in range(steps + 1):
        if should_stop is not None and should_stop():
            return
        with isolate():
            record = run.advance(step, measured=step % every == 0, last=step == steps)
        if record is not None:
            yield record
            if record.last:
                return


def isolate() -> ExitStack:
    """Return a context in which the caller's modes of PyTorch do not count."""
    stack = ExitStack()
    for context in (
        torch.device("cpu"),
        torch.autocast("cpu", enabled=False),
        torch.inference_mode(False),
        torch.enable_grad(),
    ):
        stack.enter_context(context)
    return stack


class _Run:
    """One training under way."""

    def __init__(
        self, spec: NetworkSpec, optimizer: Optimizer, learning_rate: float, batch_size: int
    ) -> None:
        inputs, self.classes = load_digits()
        self.inputs = spec.input_scale * adapt(inputs, spec.width).to(get_dtype(spec))
        body = build_network(spec)
        self.model = nn.Sequential(body, build_read_out(spec))
        self.parameters = list(self.model.parameters())
        self.weights = [m.weight for m in body.modules() if isinstance(m, nn.Linear)]
        kind = torch.optim.SGD if optimizer == "sgd" else torch.optim.Adam
        self.optimizer = kind(self.parameters, lr=learning_rate)
        self.clip_norm = spec.clip_norm
        self.batch_size = batch_size
        self.order = make_order(spec)

    def advance(self, step: int, *, measured: bool, last: bool) -> TrainingRecord | None:
        """Compute the gradient of the next batch, record it if wanted, and follow it."""
        batch = torch.randint(0, len(self.inputs), (self.batch_size,), generator=self.order)
        self.optimizer.zero_grad()
        loss = F.cross_entropy(self.model(self.inputs[batch]), self.classes[batch])
        value = float(loss.detach())
        diverged = not math.isfinite(value)
        last = last or diverged
        measured = measured or last
        norms, total, clipped = [math.nan] * len(self.weights), math.nan, math.nan
        if not diverged:
            loss.backward()
            if measured:
                norms = measure_norms([_get_gradient(weight) for weight in self.weights])
                clipped = total = self._measure_total()
            if self.clip_norm is not None:
                nn.utils.clip_grad_norm_(self.parameters, self.clip_norm)
                clipped = self._measure_total() if measured else clipped
        record = None
        if measured:
            accuracy, examples = self._measure_accuracy(everything=last)
            record = TrainingRecord(
                step=step,
                loss=value,
                accuracy=accuracy,
                examples=examples,
                gradient_norms=tuple(norms),
                total_norm=total,
                clipped_norm=clipped,
                diverged=diverged,
                last=last,
            )
        if not last:
            self.optimizer.step()
        return record

    def _measure_total(self) -> float:
        return math.hypot(*measure_norms([_get_gradient(each) for each in self.parameters]))

    def _measure_accuracy(self, *, everything: bool) -> tuple[float, int]:
        stride = 1 if everything else -(-len(self.inputs) // SHOWN_EXAMPLES)
        with torch.no_grad():
            scores = self.model(self.inputs[::stride])
        right = (scores.argmax(1) == self.classes[::stride]) & scores.isfinite().all(1)
        return float(right.double().mean()), len(right)


def make_order(spec: NetworkSpec) -> torch.Generator:
    """Return the generator that draws which examples each batch has."""
    return torch.Generator().manual_seed(spec.seed + _ORDER_OFFSET)


def build_read_out(spec: NetworkSpec, classes: int = CLASSES) -> nn.Linear:
    """Return the layer on top: weights and biases uniform on ±1/√width, as `nn.Linear` has them."""
    generator = torch.Generator().manual_seed(spec.seed + _READ_OUT_OFFSET)
    layer = nn.utils.skip_init(nn.Linear, spec.width, classes, dtype=torch.float32, device="cpu")
    bound = 1.0 / math.sqrt(spec.width)
    with torch.no_grad():
        layer.weight.uniform_(-bound, bound, generator=generator)
        layer.bias.uniform_(-bound, bound, generator=generator)
    return layer.to(get_dtype(spec))


def measure_norms(tensors: Sequence[Tensor]) -> list[float]:
    """Return Frobenius norms, in float64 so that squares of large entries do not overflow."""
    norms = [torch.linalg.vector_norm(tensor, dtype=torch.float64) for tensor in tensors]
    return torch.stack(norms).tolist()


def _get_gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        raise AssertionError("every parameter of a dense network has a gradient")
    return parameter.grad
