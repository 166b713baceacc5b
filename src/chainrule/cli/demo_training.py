"""Small trainings that go wrong at a step of one's choice: what `chainrule demo` watches.

Each is real: a network, data, an optimizer, and one mistake as people make it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from threading import Event
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule.watch.records import Alarm
from chainrule.watch.watching import watch

BATCH = 64
JUMP = 1000.0
SHRINK = 1e-4


def _do_nothing(model: nn.Module, optimizer: torch.optim.Optimizer, since: int) -> None:
    pass


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A way to go wrong.

    Attributes:
        words: What happens, in one sentence; "{step}" stands for the step.
        build: Makes the network.
        loss: The loss of a batch: network, inputs, classes, and whether the mistake is made.
        before: What happens before a step from the mistake on: network, optimizer, steps since.
        rate: The learning rate at the beginning.
    """

    words: str
    build: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Tensor, Tensor, bool], Tensor]
    before: Callable[[nn.Module, torch.optim.Optimizer, int], None] = _do_nothing
    rate: float = 0.05


def load_digits() -> tuple[Tensor, Tensor]:
    """Return pictures of digits and what they show: those of scikit-learn, or made ones.

    Without scikit-learn each class is a random picture, and its examples are noisy copies.
    """
    if find_spec("sklearn"):
        from sklearn import datasets

        data = datasets.load_digits()
        return torch.tensor(data.data / 16, dtype=torch.float32), torch.tensor(data.target)
    generator = torch.Generator().manual_seed(0)
    classes = torch.rand(10, 64, generator=generator)
    labels = torch.randint(0, 10, (1797,), generator=generator)
    return classes[labels] + 0.3 * torch.randn(1797, 64, generator=generator), labels


def build_dense(
    depth: int = 8, width: int = 48, activation: type[nn.Module] = nn.ReLU
) -> nn.Sequential:
    """Return a network of dense layers with the initialization of its activation.

    Args:
        depth: Its hidden layers.
        width: Units of each.
        activation: What follows each of them.
    """
    sizes = [64, *[width] * depth, 10]
    modules: list[nn.Module] = []
    for index, (inputs, outputs) in enumerate(pairwise(sizes)):
        linear = nn.Linear(inputs, outputs)
        gain = nn.init.calculate_gain("relu" if activation is nn.ReLU else "tanh")
        nn.init.normal_(linear.weight, std=gain / math.sqrt(inputs))
        nn.init.zeros_(linear.bias)
        modules += [linear, activation()] if index < depth else [linear]
    return nn.Sequential(*modules)


class Attention(nn.Module):
    """Attention over the eight rows of a picture; rows that are masked are not looked at."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Linear(8, width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 10)

    def forward(self, pictures: Tensor, masked: Tensor) -> Tensor:
        """Return the scores of the classes.

        Args:
            pictures: [batch, 64].
            masked: Rows that are not looked at [batch, 8].
        """
        rows = self.embed(pictures.reshape(-1, 8, 8))
        scores = self.query(rows) @ self.key(rows).transpose(1, 2) / math.sqrt(rows.shape[-1])
        scores = scores.masked_fill(masked[:, None, :], -math.inf)
        mixed = torch.softmax(scores, -1) @ self.value(rows)
        return self.out(torch.relu(self.hidden(rows + mixed)).mean(1))


class Half(nn.Module):
    """A network in half precision, for inputs and outputs in single precision."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = build_dense(3, 64).half()

    def forward(self, pictures: Tensor) -> Tensor:
        """Return the scores of the classes.

        Args:
            pictures: [batch, 64].
        """
        return self.inner(pictures.half()).float()


def _classify(model: nn.Module, x: Tensor, y: Tensor, wrong: bool) -> Tensor:
    return F.cross_entropy(model(x), y)


def _classify_masked(model: nn.Module, x: Tensor, y: Tensor, wrong: bool) -> Tensor:
    masked = torch.zeros(len(x), 8, dtype=torch.bool)
    masked[:, -1] = True  # an edge without ink, as padding would be
    if wrong:
        masked[0] = True
    return F.cross_entropy(model(x, masked), y)


def _classify_small(model: nn.Module, x: Tensor, y: Tensor, wrong: bool) -> Tensor:
    return F.cross_entropy(model(x), y) * (SHRINK if wrong else 1.0)


def _raise(model: nn.Module, optimizer: torch.optim.Optimizer, since: int) -> None:
    if since == 0:
        for group in optimizer.param_groups:
            group["lr"] *= JUMP


def _kill(model: nn.Module, optimizer: torch.optim.Optimizer, since: int) -> None:
    if since == 0:
        layer = model.get_submodule("8")
        with torch.no_grad():
            layer.bias.sub_(30.0)  # type: ignore[operator]


def _make_up(model: nn.Module, optimizer: torch.optim.Optimizer, since: int) -> None:
    if since == 0:
        for group in optimizer.param_groups:
            group["lr"] /= SHRINK


FAULTS: Mapping[str, Fault] = MappingProxyType(
    {
        "rate": Fault(
            words="from step {step} on, the learning rate is 50 instead of 0.05",
            build=partial(build_dense, activation=nn.Tanh),
            loss=_classify,
            before=_raise,
        ),
        "dead": Fault(
            words="at step {step}, one update pushes the biases of a layer far below zero",
            build=build_dense,
            loss=_classify,
            before=_kill,
        ),
        "masked": Fault(
            words="from step {step} on, all rows of one picture are masked in the attention",
            build=Attention,
            loss=_classify_masked,
            rate=0.5,
        ),
        "underflow": Fault(
            words="from step {step} on, the loss in half precision is divided by ten thousand",
            build=Half,
            loss=_classify_small,
            before=_make_up,
        ),
    }
)
"""What can go wrong, by name."""


def train_demo(
    path: Path,
    fault: str,
    *,
    at: int,
    steps: int,
    on_alarm: Callable[[Alarm], object],
    pause: float = 0.0,
    stop: Event | None = None,
) -> None:
    """Train a network that goes wrong, and keep the run.

    Args:
        path: Where the run is kept.
        fault: What goes wrong; a name of `FAULTS`.
        at: The step from which on it does.
        steps: How many steps there are.
        on_alarm: Called with every alarm.
        pause: Seconds to wait after each step, so that one can look on.
        stop: Ends the training when it is set.
    """
    chosen, stop = FAULTS[fault], stop or Event()
    x, y = load_digits()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = chosen.build()
    generator = torch.Generator().manual_seed(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=chosen.rate)
    with watch(model, optimizer, store=path, every=10, on_alarm=on_alarm, keep_batches=True) as run:
        for step in range(1, steps + 1):
            wrong = step >= at
            if wrong:
                chosen.before(model, optimizer, step - at)
            picked = torch.randint(0, len(x), (BATCH,), generator=generator)
            loss = chosen.loss(model, x[picked], y[picked], wrong)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            run.log(loss=loss)
            if stop.wait(pause):
                return
