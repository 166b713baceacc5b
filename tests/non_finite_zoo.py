"""Models and losses in which numbers stop being finite, each with what is true of it.

The comment `# here` marks the line of code that makes the first such number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Loss = Callable[[Any], Tensor]


@dataclass(frozen=True)
class Fault:
    """A model, and what `find_non_finite` has to say of it."""

    build: Callable[[], tuple[nn.Module, Loss]]
    op: str
    direction: str
    module: str | None = None
    overflow: bool = False


def _net(out: int = 3) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, out))


X = torch.linspace(-1, 1, 24).reshape(6, 4)


def _zeros(m) -> Tensor:
    """Return zeros whose gradient reaches all weights."""
    y = m(X)
    return y - y.detach()


def acos_at_one():
    m = _net()
    nn.init.zeros_(m[2].weight)
    m[2].bias.data = torch.tensor([1.0, 0.0, 0.0])

    def loss(m):
        target = torch.eye(3)[torch.tensor([0, 1, 2, 0, 1, 2])]
        cosine = (F.normalize(m(X), dim=1) * target).sum(1)
        return torch.acos(cosine).mean()  # here

    return m, loss


def sqrt_of_zero():
    m = _net()

    def loss(m):
        return _zeros(m).sqrt().mean()  # here

    return m, loss


def norm_by_hand():
    m = _net()

    def loss(m):
        difference = m(X) - m(X).detach()
        return difference.square().sum(1).sqrt().mean()  # here

    return m, loss


def log_of_zero():
    m = _net()

    def loss(m):
        p = torch.relu(m(X))
        return -torch.log(p).mean()  # here

    return m, loss


def x_over_zero():
    m = _net()

    def loss(m):
        mask = torch.zeros(6, 3)
        return (m(X) * mask).sum() / mask.sum()  # here

    return m, loss


def one_over_zero():
    m = _net()

    def loss(m):
        return (1 / torch.relu(m(X))).mean()  # here

    return m, loss


def exp_overflow():
    m = _net()

    def loss(m):
        return (1000 * m(X).abs() + 100).exp().mean()  # here

    return m, loss


def hidden_by_where():
    m = _net()

    def loss(m):
        p = _zeros(m)
        inverse = 1 / p  # here
        return torch.where(p > 0, inverse, torch.zeros(())).mean()

    return m, loss


def spread_of_constants():
    m = _net()

    def loss(m):
        features = m(X) * torch.tensor([0.0, 1.0, 1.0])
        return features.var(0).sqrt().sum()  # here

    return m, loss


class Attention(nn.Module):
    """One head that masks what it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x, mask):
        scores = self.q(x) @ self.k(x).T / 2
        scores = scores.masked_fill(mask, float("-inf"))
        weights = scores.softmax(-1)  # here
        return weights @ self.v(x)


def _attend(mask):
    torch.manual_seed(0)
    model = nn.ModuleDict({"attention": Attention(), "head": nn.Linear(4, 1)})
    return model, lambda m: m["head"](m["attention"](X, mask)).square().mean()


def masked_everywhere():
    mask = torch.ones(6, 6, dtype=torch.bool).triu(1)
    mask[2] = True
    return _attend(mask)


def causal_mask():
    return _attend(torch.ones(6, 6, dtype=torch.bool).triu(1))


def power_of_negative():
    m = _net()

    def loss(m):
        return (m(X) ** 0.5).mean()  # here

    return m, loss


def power_at_zero():
    m = _net()

    def loss(m):
        return _zeros(m).pow(0.5).mean()  # here

    return m, loss


def cosine_by_hand():
    m = _net()

    def loss(m):
        a, b = torch.relu(m(X) - 100), torch.ones(3)
        return ((a * b).sum(1) / (a.norm(dim=1) * b.norm())).mean()  # here

    return m, loss


def impossible_alignment():
    m = _net(5)

    def loss(m):
        logs = m(X).log_softmax(-1)[:, None]
        targets, lengths = torch.tensor([[1, 1, 2, 2, 3, 3]]), torch.tensor([6])
        return F.ctc_loss(logs, targets, lengths, lengths)  # here

    return m, loss


class ByHand(nn.Module):
    """A layer normalization without ε."""

    def forward(self, x):
        centered = x - x.mean(-1, keepdim=True)
        return centered / centered.square().mean(-1, keepdim=True).sqrt()  # here


def layer_norm_by_hand():
    torch.manual_seed(0)
    m = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), ByHand(), nn.Linear(8, 1))
    nn.init.constant_(m[0].bias, -9.0)
    return m, lambda m: m(X).square().mean()


def log_hidden_by_where():
    m = _net()

    def loss(m):
        sums = _zeros(m).sum(1)
        return torch.where(sums > 0, sums.log(), 0).mean()  # here

    return m, loss


def masked_cross_entropy():
    m = _net()

    def loss(m):
        scores = m(X).masked_fill(torch.arange(6)[:, None] == 2, float("-inf"))
        return F.cross_entropy(scores, torch.zeros(6, dtype=torch.long))  # here

    return m, loss


def zero_times_infinity():
    m = _net()

    def loss(m):
        mask = torch.ones(6, 1)
        scores = m(X) + (1 - mask) * float("-inf")  # here
        return scores.softmax(1).square().mean()

    return m, loss


def half_overflow():
    m = _net()
    with torch.no_grad():
        m[0].weight.fill_(9.0)
        m[2].weight.fill_(3e4)

    def loss(m):
        with torch.autocast("cpu", torch.float16):
            return m(X + 2).float().square().mean()  # here

    return m, loss


class Bad(torch.autograd.Function):
    """A square root with a backward pass of its own."""

    @staticmethod
    def forward(ctx, x):
        y = x.sqrt()
        ctx.save_for_backward(y)
        return y

    @staticmethod
    def backward(ctx, g):
        (y,) = ctx.saved_tensors
        return g / (2 * y)  # here


def custom_function():
    m = _net()

    def loss(m):
        return Bad.apply(_zeros(m)).mean()

    return m, loss


class Root(nn.Module):
    """A square root in a module of its own."""

    def forward(self, x):
        return (x - x.detach()).sqrt()  # here


def _checkpointed(use_reentrant):
    torch.manual_seed(0)
    m = nn.Sequential(nn.Linear(4, 8), nn.Sequential(nn.Linear(8, 8), Root()), nn.Linear(8, 1))

    def loss(m):
        h = torch.utils.checkpoint.checkpoint(m[1], m[0](X), use_reentrant=use_reentrant)
        return m[2](h).square().mean()

    return m, loss


def checkpointed():
    return _checkpointed(False)


def checkpointed_reentrant():
    return _checkpointed(True)


def in_place():
    m = _net()

    def loss(m):
        p = m(X) * 0
        p.log_()  # here
        return p.mean()

    return m, loss


class Shared(nn.Module):
    """Calls one module three times; the numbers grow from call to call."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4, bias=False)
        nn.init.constant_(self.inner.weight, 1e15)

    def forward(self, x):
        for _ in range(3):
            x = self.inner(x)  # here
        return x


def several_calls():
    return Shared(), lambda m: m(X + 2).sum()


def penalty_of_derivative():
    m = _net(1)

    def loss(m):
        x = X.clone().requires_grad_()
        (slope,) = torch.autograd.grad(m(x * 0).sum(), x, create_graph=True)
        return (slope.norm(dim=1) + slope.square().sum(1).sqrt() - 1).square().mean()  # here

    return m, loss


FAULTS = {
    "acos_at_one": Fault(acos_at_one, "acos", "backward"),
    "sqrt_of_zero": Fault(sqrt_of_zero, "square root", "backward"),
    "norm_by_hand": Fault(norm_by_hand, "square root", "backward"),
    "log_of_zero": Fault(log_of_zero, "log", "forward"),
    "x_over_zero": Fault(x_over_zero, "division", "forward"),
    "one_over_zero": Fault(one_over_zero, "division", "forward"),
    "exp_overflow": Fault(exp_overflow, "exp", "forward"),
    "hidden_by_where": Fault(hidden_by_where, "division", "forward"),
    "spread_of_constants": Fault(spread_of_constants, "square root", "backward"),
    "masked_everywhere": Fault(
        masked_everywhere, "softmax of a row that is masked everywhere", "forward", "attention"
    ),
    "power_of_negative": Fault(power_of_negative, "power", "forward"),
    "power_at_zero": Fault(power_at_zero, "power", "backward"),
    "cosine_by_hand": Fault(cosine_by_hand, "division", "forward"),
    "impossible_alignment": Fault(impossible_alignment, "ctc_loss", "forward"),
    "layer_norm_by_hand": Fault(layer_norm_by_hand, "division", "forward", "2"),
    "log_hidden_by_where": Fault(log_hidden_by_where, "log", "backward"),
    "masked_cross_entropy": Fault(
        masked_cross_entropy, "softmax of a row that is masked everywhere", "forward"
    ),
    "zero_times_infinity": Fault(zero_times_infinity, "multiplication", "forward"),
    "half_overflow": Fault(half_overflow, "matrix product", "forward", "2", overflow=True),
    "custom_function": Fault(custom_function, "division, in Bad.backward", "backward"),
    "checkpointed": Fault(checkpointed, "square root", "backward", "1.1"),
    "checkpointed_reentrant": Fault(checkpointed_reentrant, "square root", "backward", "1.1"),
    "in_place": Fault(in_place, "log", "forward"),
    "penalty_of_derivative": Fault(penalty_of_derivative, "square root", "backward"),
    "several_calls": Fault(several_calls, "matrix product", "forward", "inner"),
}
"""What does harm."""


def _sound(loss: Loss) -> Callable[[], tuple[nn.Module, Loss]]:
    return lambda: (_net(), loss)


class Encoder(nn.Module):
    """A transformer layer with masks of minus infinity."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)

    def forward(self, x):
        mask = nn.Transformer.generate_square_subsequent_mask(x.shape[1])
        return self.layer(x, src_mask=mask, is_causal=True)


def encoder():
    torch.manual_seed(0)
    return Encoder(), lambda m: m(X[None]).square().mean()


HARMLESS = {
    "sqrt_behind_relu": Fault(
        _sound(lambda m: torch.relu(m(X) - 100).sqrt().mean()), "square root", "backward"
    ),
    "std_behind_relu": Fault(
        _sound(lambda m: torch.relu(m(X) - 100).var(0).sqrt().sum()), "square root", "backward"
    ),
    "unused": Fault(
        _sound(lambda m: m(X).mean() + 0 * (1 / m(X).detach().sub(m(X))).isinf().sum()),
        "division",
        "forward",
    ),
}
"""What trains in spite of a number that is not finite: it reaches no parameter."""

SOUND = {
    "plain": _sound(lambda m: m(X).square().mean()),
    "causal_mask": causal_mask,
    "encoder": encoder,
    "clamped_acos": _sound(
        lambda m: torch.acos(m(X).tanh().mul(9).clamp(-1 + 1e-6, 1 - 1e-6)).mean()
    ),
    "norm_of_zero": _sound(lambda m: (m(X) - m(X).detach()).norm(dim=1).mean()),
    "normalize_zero": _sound(lambda m: F.normalize(torch.relu(m(X) - 100), dim=1).mean()),
    "cosine_of_zero": _sound(
        lambda m: F.cosine_similarity(torch.relu(m(X) - 100), torch.ones(3)).mean()
    ),
    "std_of_constants": _sound(lambda m: torch.relu(m(X) - 100).std(0).sum()),
    "log_mask": _sound(
        lambda m: (m(X) + torch.tensor([1.0, 1.0, 0.0]).log()).softmax(-1).square().mean()
    ),
    "xlogy": _sound(lambda m: torch.xlogy(torch.relu(m(X)).detach(), m(X).exp()).mean()),
    "max_of_masked": _sound(
        lambda m: m(X).masked_fill(torch.eye(6, 3).bool(), -torch.inf).amax(1).mean()
    ),
    "logsumexp_of_masked": _sound(
        lambda m: m(X).masked_fill(torch.eye(6, 3).bool(), -torch.inf).logsumexp(1).mean()
    ),
    "sdpa": _sound(
        lambda m: F.scaled_dot_product_attention(
            *(m(X)[None, None] for _ in range(3)), is_causal=True
        ).mean()
    ),
}
"""What must give `None`."""
