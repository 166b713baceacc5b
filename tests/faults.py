"""Training programs that fail, each with a sound twin: the kinds that people report.

Every builder takes `broken` and returns a model and a loss, or a `Program` where more belongs to
it. `FAULTS` says of each which verdict and which place are right, and what finds it.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

import non_finite_zoo
import sick_models
from chainrule.diagnosis.rule import Verdict

Loss = Callable[[Any], Any]


@dataclass(frozen=True)
class Program:
    """A model, its loss and, where it matters, how it is trained."""

    model: nn.Module
    compute_loss: Loss
    optimizer: torch.optim.Optimizer | None = None


@dataclass(frozen=True)
class Fault:
    """A fault and what has to be said of it.

    `places` are the module, parameter, term or operation that the finding names; none if the whole
    network is meant. `finds` is what it takes beyond a measurement: the sharpness or a training.
    """

    build: Callable[[bool], Any]
    verdict: Verdict
    rule: str
    places: tuple[str, ...] = ()
    finds: str = ""


def stack(*widths, end=None, activation=nn.ReLU):
    """Return linear layers of these widths with activations between them."""
    layers = []
    for before, after in itertools.pairwise(widths):
        layers += [nn.Linear(before, after), activation()]
    return nn.Sequential(*layers[:-1], *([end] if end else []))


# --- The loss is flat ----------------------------------------------------------------------------


def sure_critic(broken):
    """A generator against a critic that is sure: its probability is as good as zero."""
    z = torch.randn(48, 8)
    model = stack(8, 32, 32, 16)

    def compute(m):
        score = m(z).mean(1) - 60.0
        one = torch.ones(48)
        if broken:
            return F.binary_cross_entropy(torch.sigmoid(score), one)
        return F.binary_cross_entropy_with_logits(score, one)

    return model, compute


def empty_masks(broken):
    """An overlap (Dice) loss with targets that hold nothing."""
    x = torch.randn(16, 1, 8, 8)
    y = torch.zeros_like(x) if broken else (x > 0.8).float()
    model = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 1, 3, padding=1))
    model.append(nn.Sigmoid())
    return model, lambda m: 1 - 2 * (m(x) * y).sum() / (m(x) + y).sum()


def clamped(broken):
    """An output that lies outside of the range that the loss clamps it to."""
    x = torch.randn(32, 6)
    y = torch.tanh(x[:, :1]) + 5.0
    limit = 1.0 if broken else 10.0
    model = stack(6, 24, 1)
    with torch.no_grad():
        model[-1].bias.fill_(2.0)
    return model, lambda m: F.mse_loss(m(x).clamp(-limit, limit), y)


def reference_only(broken):
    """A policy whose only term is the distance to the reference that it starts at."""
    x = torch.randn(32, 6)
    model = stack(6, 24, 4)
    with torch.no_grad():
        reference = torch.log_softmax(model(x), 1)

    def compute(m):
        logs = torch.log_softmax(m(x), 1)
        loss = (reference.exp() * (reference - logs)).sum(1).mean()
        return loss if broken else loss - logs[:, 0].mean()

    return model, compute


def masked_examples(share):
    """A loss that a mask hides this share of the examples from."""
    x = torch.randn(60, 6)
    y = torch.tanh(x[:, :1])
    mask = (torch.arange(60) < (1 - share) * 60).float()
    return stack(6, 24, 1), lambda m: (F.mse_loss(m(x), y, reduction="none")[:, 0] * mask).sum()


class Reshaped(nn.Module):
    """Reads a sequence, time first inside, and answers from all of it or from its last states."""

    def __init__(self, broken, states):
        super().__init__()
        self.broken, self.states = broken, states
        self.rnn = nn.GRU(2, 12, bidirectional=True)
        self.head = nn.Linear(24 if states else 6 * 24, 3)

    def forward(self, x):
        steps, states = self.rnn(x.transpose(0, 1))
        read = states if self.states else steps
        return self.head((read if self.broken else read.transpose(0, 1)).reshape(len(x), -1))


def reshaped(states):
    """The examples are the second dimension, and a reshape takes them for the first."""

    def build(broken):
        x, labels = torch.randn(32, 6, 2), torch.randint(3, (32,))
        return Reshaped(broken, states), lambda m: F.cross_entropy(m(x), labels)

    return build


class Vectors(nn.Module):
    """The mean of frozen word vectors, or what a recurrent module makes of them."""

    def __init__(self, table, recurrent):
        super().__init__()
        self.words = nn.Embedding.from_pretrained(table)
        self.rnn = nn.GRU(8, 16, batch_first=True) if recurrent else nn.Linear(8, 16)
        self.head = nn.Linear(16, 2)

    def forward(self, ids):
        read = self.rnn(self.words(ids))
        return self.head((read[0] if isinstance(read, tuple) else read.tanh()).amax(1))


def unfound_words(recurrent):
    """No word was found in the file of vectors, and the table is frozen."""

    def build(broken):
        ids, labels = torch.randint(30, (40, 9)), torch.randint(2, (40,))
        table = torch.zeros(30, 8) if broken else torch.randn(30, 8)
        return Vectors(table, recurrent), lambda m: F.cross_entropy(m(ids), labels)

    return build


def smoothed(broken):
    """Label smoothing, taken for the confidence."""
    x, labels = torch.randn(48, 6), torch.randint(4, (48,))
    epsilon = 1.0 if broken else 0.1
    return stack(6, 24, 4), lambda m: F.cross_entropy(m(x), labels, label_smoothing=epsilon)


def weighted(broken):
    """The ones of a yes or no question have no weight."""
    x = torch.randn(48, 6)
    y = (x[:, :1] > 0).float()
    criterion = nn.BCEWithLogitsLoss(pos_weight=torch.tensor(0.0 if broken else 3.0))
    return stack(6, 24, 1), lambda m: criterion(m(x), y)


def one_class_counts(broken):
    x, labels = torch.randn(48, 6), torch.randint(3, (48,))
    criterion = nn.CrossEntropyLoss(torch.tensor([0.0, 0.0 if broken else 0.5, 1.0]))
    return stack(6, 24, 3), lambda m: criterion(m(x), labels)


# --- The loss is far above guessing --------------------------------------------------------------


class Tied(nn.Module):
    """A language model in small: a head that is tied to its embedding."""

    def __init__(self, size):
        super().__init__()
        self.embedding = nn.Embedding(40, 64)
        self.embedding.weight.data.mul_(size)
        self.body, self.norm = nn.Linear(64, 64), nn.LayerNorm(64)
        self.head = nn.Linear(64, 40, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, tokens):
        h = self.embedding(tokens)
        return self.head(self.norm(h + torch.tanh(self.body(h))))


def tied(size):
    tokens = torch.arange(40).repeat(4)
    return Tied(size), lambda m: F.cross_entropy(m(tokens), (tokens * 7 + 3) % 40)


def scaled_head(factor):
    """With another batch at every call: it is no use to learn one by heart."""
    means = torch.randn(10, 20)
    model = stack(20, 64, 64, 10)
    with torch.no_grad():
        model[-1].weight.mul_(factor)

    def compute(m):
        y = torch.randint(10, (128,))
        return F.cross_entropy(m(means[y] + torch.randn(128, 20)), y)

    return model, compute


def unscaled_targets(mean):
    x = torch.randn(128, 10)
    y = torch.tanh(x[:, :2]) + mean
    return stack(10, 48, 2), lambda m: F.mse_loss(m(x), y)


def wide_draws(broken):
    """A regression on one-hot labels; every weight is drawn from N(0, 1), without activations."""
    x, labels = torch.randn(24, 64), torch.randint(8, (24,))
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 8))
    if broken:
        for parameter in model.parameters():
            nn.init.normal_(parameter)
    return model, lambda m: F.mse_loss(m(x), F.one_hot(labels, 8).float())


# --- The loss gets another kind of output, or none -----------------------------------------------


def softmax_twice(broken):
    x, labels = torch.randn(64, 16), torch.randint(40, (64,))
    model = stack(16, 32, 40, end=nn.Softmax(1) if broken else None)
    return model, lambda m: F.cross_entropy(m(x), labels)


def sigmoid_as_logits(broken):
    """Labels that are rarely 1; a sigmoid is taken for logits."""
    x, y = torch.randn(64, 16), (torch.rand(64, 4) < 0.05).float()
    model = stack(16, 32, 4, end=nn.Sigmoid() if broken else None)
    return model, lambda m: F.binary_cross_entropy_with_logits(m(x), y)


def softmax_of_one(broken):
    """A yes or no question answered by a softmax over one unit, which is always 1."""
    x = torch.randn(48, 5)
    y = (x[:, :1] > 0).float()
    model = stack(5, 16, 1, end=nn.Softmax(1) if broken else nn.Sigmoid())
    return model, lambda m: F.mse_loss(m(x), y)


class Heads(nn.Module):
    """One body with a coarse and a fine answer."""

    def __init__(self):
        super().__init__()
        self.body, self.coarse, self.fine = stack(8, 24), nn.Linear(24, 2), nn.Linear(24, 6)

    def forward(self, x):
        h = torch.relu(self.body(x))
        return self.coarse(h), self.fine(h)


PARENT = torch.arange(6) // 3
"""The coarse class of every fine one."""


def consistency(broken, *, named=False):
    """Two heads that are to agree; the term that asks for it is made of argmax if broken."""
    x = torch.randn(96, 8)
    coarse, fine = torch.randint(2, (96,)), torch.randint(6, (96,))

    def compute(m):
        a, b = m(x)
        if broken:
            term = 3 * (PARENT[b.argmax(1)] != a.argmax(1)).float().mean()
        else:
            agree = torch.softmax(b, 1) @ F.one_hot(PARENT, 2).float() * torch.softmax(a, 1)
            term = 3 * (1 - agree.sum(1)).mean()
        terms = {"coarse": F.cross_entropy(a, coarse), "fine": F.cross_entropy(b, fine)}
        terms["agreement"] = term
        return terms if named else sum(terms.values())

    model = Heads()
    model.x = x
    return model, compute


def detached(broken):
    """Features that are detached on the way to the head."""
    x, labels = torch.randn(32, 8), torch.randint(3, (32,))
    model = nn.ModuleDict({"body": stack(8, 16, 16), "head": nn.Linear(16, 3)})

    def compute(m):
        h = m["body"](x)
        return F.cross_entropy(m["head"](h.detach() if broken else h), labels)

    return model, compute


class Between(nn.Module):
    """Two layers with a function of your own between them."""

    def __init__(self, change):
        super().__init__()
        self.body, self.head, self.change = nn.Linear(8, 24), nn.Linear(24, 3), change

    def forward(self, x):
        return self.head(torch.relu(self.change(self.body(x))))


def between(wrong, right):
    """A classifier with one function or the other on the way."""

    def build(broken):
        x, labels = torch.randn(48, 8), torch.randint(3, (48,))
        model = Between(wrong if broken else right)
        return model, lambda m: F.cross_entropy(m(x), labels)

    return build


def quantize(h):
    return torch.round(4 * h) / 4


def quantize_straight_through(h):
    return h + (quantize(h) - h).detach()


class Weighed(nn.Module):
    """A mean over steps, weighed by a softmax over the dimension `dim` of the scores."""

    def __init__(self, dim):
        super().__init__()
        self.enter, self.score, self.head = nn.Linear(4, 16), nn.Linear(16, 1), nn.Linear(16, 3)
        self.dim = dim

    def forward(self, x):
        h = torch.tanh(self.enter(x))
        return self.head((self.score(h).softmax(self.dim) * h).sum(1))


def weighed(wrong, right):
    def build(broken):
        x, labels = torch.randn(48, 9, 4), torch.randint(3, (48,))
        return Weighed(wrong if broken else right), lambda m: F.cross_entropy(m(x), labels)

    return build


class WeighedTimeFirst(Weighed):
    def forward(self, x):
        h = torch.tanh(self.enter(x.transpose(0, 1)))
        return self.head((self.score(h).softmax(self.dim) * h).sum(0))


def weighed_time_first(broken):
    """The same with time before the examples, [9, 48, …]."""
    x, labels = torch.randn(48, 9, 4), torch.randint(3, (48,))
    return WeighedTimeFirst(1 if broken else 0), lambda m: F.cross_entropy(m(x), labels)


def last_step(make):
    """A sequence is read by a module that takes its first dimension for time if broken."""

    def build(broken):
        x, y = torch.randn(24, 6, 2), torch.randint(2, (24,))
        x[:, 5, 0] = 3.0 * (2.0 * y - 1.0)
        return Reader(make(not broken)), lambda m: F.cross_entropy(m(x), y)

    return build


def turned(loss, targets):
    """A loss with a minus before it."""

    def build(broken):
        x = torch.randn(48, 6)
        y = targets(x)
        model = stack(6, 24, 3)
        return model, lambda m: -loss(m(x), y) if broken else loss(m(x), y)

    return build


def maximizes(broken):
    model, compute = _sound_regression()
    optimizer = torch.optim.SGD(model.parameters(), 0.1, maximize=broken)
    return Program(model, compute, optimizer)


def out_of_range(end, low, scale):
    """Targets that the last activation cannot give; the twin has none."""

    def build(broken):
        x = torch.randn(64, 6)
        y = scale * torch.tanh(x[:, :2]) + low
        return stack(6, 24, 2, end=end if broken else None), lambda m: F.mse_loss(m(x), y)

    return build


# --- Numbers stop being finite -------------------------------------------------------------------


class Coupling(nn.Module):
    """Half of the values are multiplied by the exp of what the other half says."""

    def __init__(self, gain, limit):
        super().__init__()
        self.scale, self.shift, self.limit = stack(4, 24, 24, 4), nn.Linear(4, 4), limit
        for module in self.scale:
            if isinstance(module, nn.Linear):
                nn.init.kaiming_normal_(module.weight)
                module.weight.data.mul_(gain)

    def forward(self, x):
        a, b = x.chunk(2, 1)
        s = self.scale(a)
        s = torch.tanh(s) if self.limit else s
        return torch.cat([b * s.exp() + self.shift(a), a], 1), s.sum(1)


class Couplings(nn.Module):
    """A normalizing flow."""

    def __init__(self, gain, limit):
        super().__init__()
        self.parts = nn.ModuleList(Coupling(gain, limit) for _ in range(6))

    def forward(self, x):
        volume = 0.0
        for part in self.parts:
            x, change = part(x)
            volume = volume + change
        return 0.5 * x.square().sum(1) - volume


def unbounded_scales(broken):
    x = torch.randn(64, 8)
    return Couplings(2.0, not broken), lambda m: m(x).mean()


class Exp(nn.Module):
    def forward(self, x):
        return x.exp()


def exp_layers(broken):
    """An activation that grows without bound, layer after layer."""
    x, y = torch.randn(32, 2), torch.randint(2, (32, 1)).float()
    model = stack(2, 6, 6, 6, 6, 6, 1, activation=Exp if broken else nn.Tanh)
    for module in model:
        if broken and isinstance(module, nn.Linear):
            nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
    return model, lambda m: F.binary_cross_entropy_with_logits(m(x), y)


def zoo_pair(broken, sound):
    """Return a builder of a broken model of `non_finite_zoo` and of a sound one."""
    return lambda is_broken: (
        non_finite_zoo.FAULTS[broken].build() if is_broken else non_finite_zoo.SOUND[sound]()
    )


def root_of_variance(broken):
    """A spread that is wanted; one feature is the same for all examples."""
    model, x = stack(6, 16, 3), torch.randn(32, 6)
    least = 0.0 if broken else 1e-4

    def compute(m):
        features = m(x) * torch.tensor([0.0, 1.0, 1.0])
        return -(features.var(0) + least).sqrt().sum() + features.square().mean()

    return model, compute


# --- Half precision ------------------------------------------------------------------------------


def small_loss_in_half(broken):
    """Autocast to float16 with a loss so small that its gradients become zero."""
    x, y = torch.randn(64, 16), torch.tanh(torch.randn(64, 8))
    dtype = torch.float16 if broken else torch.bfloat16

    def compute(m):
        with torch.autocast("cpu", dtype=dtype):
            out = m(x)
        return 1e-5 * F.mse_loss(out.float(), y)

    return stack(16, 32, 32, 8), compute


def half_network(broken):
    """All weights in float16, and a loss that is divided by a large number."""
    dtype = torch.float16 if broken else torch.float32
    x, labels = torch.randn(32, 16).to(dtype), torch.randint(4, (32,))
    return stack(16, 32, 4).to(dtype), lambda m: 1e-7 * F.cross_entropy(m(x).float(), labels)


# --- Time and depth ------------------------------------------------------------------------------


class Reader(nn.Module):
    """Classifies a sequence by the state after its last step, or by all its outputs."""

    def __init__(self, rnn, *, everywhere=False):
        super().__init__()
        self.rnn, self.head, self.everywhere = rnn, nn.Linear(rnn.hidden_size, 2), everywhere

    def forward(self, x):
        outputs = self.rnn(x)[0]
        return self.head(outputs if self.everywhere else outputs[:, -1])


def open_gates(module, size):
    """Let a fresh LSTM keep what it holds: forget gates open, input gates nearly closed."""
    bias = module.bias_ih_l0 if isinstance(module, nn.LSTM) else module.bias_ih
    with torch.no_grad():
        bias[size : 2 * size] += 5.0
        bias[:size] -= 5.0
    return module


def draw_sequences(length, examples=32):
    """Return sequences whose class stands in the first step."""
    x = 0.3 * torch.randn(examples, length, 2)
    y = torch.randint(2, (examples,))
    x[:, 0, 0] = 3.0 * (2.0 * y - 1.0)
    return x, y


def forgetful(broken):
    """The answer stands in the first of 80 steps; another batch at every call."""
    rnn = nn.LSTM(2, 24, batch_first=True)

    def compute(m):
        x, labels = draw_sequences(80, 16)
        return F.cross_entropy(m(x), labels)

    return Reader(rnn if broken else open_gates(rnn, 24)), compute


def derivative_loss(broken):
    """A distance function: what is wanted are its slopes; many smooth rectifiers."""
    layers = []
    for number in range(10):
        linear = nn.Linear(3 if number == 0 else 24, 24)
        if not broken:
            nn.init.normal_(linear.weight, std=math.sqrt(2 / linear.in_features))
            nn.init.zeros_(linear.bias)
        layers += [linear, nn.Softplus(beta=80)]
    points = F.normalize(torch.randn(32, 3), dim=1)

    def compute(m):
        x = points.clone().requires_grad_()
        value = m(x)
        (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
        return value.abs().mean() + (slope - points).norm(dim=1).mean()

    return nn.Sequential(*layers, nn.Linear(24, 1)), compute


def deep_sigmoids(broken):
    kind, init = (nn.Sigmoid, None) if broken else (nn.ReLU, nn.init.kaiming_normal_)
    return sick_models.plain(12, kind, init)


def growing_branches(broken):
    """Every residual sum is many times as large as the one before."""
    return sick_models.residuals(10, he=broken, scale=8.0 if broken else 1.0)


def large_draws(broken):
    """A network whose weights are all drawn from N(0, 1)."""
    x, labels = torch.randn(32, 32), torch.randint(4, (32,))
    model = stack(32, 64, 64, 64, 64, 64, 4)
    for module in model:
        if broken and isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model, lambda m: F.cross_entropy(m(x), labels)


def sunken_biases(broken):
    """Rectifiers that are off for every example."""
    model, compute = sick_models.plain(3, nn.ReLU, nn.init.kaiming_normal_)
    return sick_models.sink_biases((model, compute), -10.0) if broken else (model, compute)


# --- Units and inputs ----------------------------------------------------------------------------


def constant_start(value):
    """Every weight has the same value."""

    def build(broken):
        x, labels = torch.randn(48, 8), torch.randint(4, (48,))
        model = stack(8, 16, 16, 4, activation=nn.Tanh)
        for parameter in model.parameters():
            if broken:
                nn.init.constant_(parameter, value)
        return model, lambda m: F.cross_entropy(m(x), labels)

    return build


def raw_inputs(change, activation=nn.ReLU):
    """Inputs as they come; the twin's are standardized."""

    def build(broken):
        x = change(torch.randn(64, 10))
        if not broken:
            x = x.nan_to_num()
            x = (x - x.mean(0)) / x.std(0).clamp(min=1e-6)
        labels = torch.randint(3, (64,))
        return stack(10, 24, 3, activation=activation), lambda m: F.cross_entropy(m(x), labels)

    return build


def missing(x):
    x[5, 3] = math.nan
    return x


# --- The optimizer -------------------------------------------------------------------------------


def _sound_regression():
    x = torch.randn(64, 6)
    y = torch.tanh(x @ torch.randn(6, 2))
    model = stack(6, 24, 2, activation=nn.Tanh)
    return model, lambda m: F.mse_loss(m(x), y)


def other_parameters(broken):
    """The optimizer holds the parameters of a model that was copied afterwards."""
    model, compute = _sound_regression()
    holder = stack(6, 24, 2, activation=nn.Tanh) if broken else model
    return Program(model, compute, torch.optim.SGD(holder.parameters(), 0.1))


def half_with(kind, twin):
    """Weights in float16, with an ε that is 0 in this format, and with one that is not."""

    def build(broken):
        model, compute = _sound_classifier_in_half()
        return Program(model, compute, (kind if broken else twin)(model.parameters()))

    return build


def _sound_classifier_in_half():
    torch.manual_seed(0)
    x = torch.randn(64, 10)
    y = (x @ torch.randn(10, 4)).argmax(1)
    return stack(10, 24, 4).half(), lambda m: F.cross_entropy(m(x.half()), y)


def rate(wrong, right):
    """A learning rate that does not suit the gradients."""

    def build(broken):
        model, compute = _sound_regression()
        return Program(
            model, compute, torch.optim.SGD(model.parameters(), wrong if broken else right)
        )

    return build


def decay(kind, wrong, right, step):
    """Weight decay that outweighs the loss."""

    def build(broken):
        model, compute = _sound_regression()
        strength = wrong if broken else right
        return Program(model, compute, kind(model.parameters(), step, weight_decay=strength))

    return build


def below_epsilon(broken):
    """A loss so small that Adam's ε stops every step."""
    model, compute = _sound_regression()
    factor = 1e-12 if broken else 1.0
    return Program(model, lambda m: factor * compute(m), torch.optim.Adam(model.parameters(), 1e-3))


def valley(slow, fast, steps):
    """A regression with one large column: its loss is curved most along that weight."""

    def build(broken):
        x = torch.randn(64, 6) * torch.tensor([6.0, 1.0, 1.0, 1.0, 1.0, 1.0])
        model = nn.Linear(6, 1)
        y = x @ model.weight.detach().T + 0.01 * torch.randn(64, 1) + steps * x[:, :1]
        optimizer = torch.optim.SGD(model.parameters(), fast if broken else slow)
        return Program(model, lambda m: F.mse_loss(m(x), y), optimizer)

    return build


# --- What only a training shows ------------------------------------------------------------------


def rectified_answers(broken):
    """Answers that cannot be negative for targets that mostly are."""
    weights = torch.tensor([[1.0], [-2.0]])
    model = stack(2, 16, 1, end=nn.ReLU() if broken else None)

    def compute(m):
        x = torch.randn(32, 2)
        return F.mse_loss(m(x), x @ weights - 3)

    return model, compute


def foreign_targets(broken):
    """Labels that were shuffled against their inputs."""
    means = torch.randn(4, 12)
    model = stack(12, 32, 4)

    def compute(m):
        y = torch.randint(4, (32,))
        x = means[torch.randint(4, (32,)) if broken else y] + 0.3 * torch.randn(32, 12)
        return F.cross_entropy(m(x), y)

    return model, compute


class Pooled(nn.Module):
    """Attention over the steps of a sequence that are not padding."""

    def __init__(self, fill):
        super().__init__()
        self.enter, self.score, self.head = nn.Linear(4, 16), nn.Linear(16, 1), nn.Linear(16, 3)
        self.fill = fill

    def forward(self, x):
        h = torch.tanh(self.enter(x))
        is_padding = (x == 0).all(-1, keepdim=True)
        weights = self.score(h).masked_fill(is_padding, self.fill).softmax(1)
        return self.head((weights * h).sum(1))


def empty_example_later(broken):
    """One batch among many holds a sequence that is padding from end to end."""
    model = Pooled(-math.inf if broken else -1e4)
    number, means = itertools.count(), torch.randn(3, 4)

    def compute(m):
        y = torch.randint(3, (16,))
        x = means[y][:, None] + 0.3 * torch.randn(16, 5, 4)
        if next(number) % 20 == 19:
            x[2] = 0.0
        return F.cross_entropy(m(x), y)

    return Program(model, compute, torch.optim.Adam(model.parameters(), 1e-2))


def divergence_of_probabilities(broken):
    x = torch.randn(48, 6)
    target = x[:, :4].softmax(1)

    def compute(m):
        out = m(x)
        out = out.softmax(1) if broken else out.log_softmax(1)
        return F.kl_div(out, target, reduction="batchmean")

    return stack(6, 24, 4), compute


class Tabular(nn.Module):
    """Columns of numbers beside the embedding of a category."""

    def __init__(self):
        super().__init__()
        self.embedding, self.net = nn.Embedding(7, 8), stack(12, 32, 32, 1)

    def forward(self, x, c):
        return self.net(torch.cat([x, self.embedding(c)], 1))[:, 0]


def unscaled_column(broken):
    """A time in seconds stands beside columns of size 1."""
    x, c, y = torch.randn(64, 4), torch.randint(7, (64,)), torch.randn(64)
    if broken:
        x[:, 0] = 1.6e9 + 3e7 * torch.rand(64)
    return Tabular(), lambda m: F.mse_loss(m(x, c), y)


def cast_pictures(broken):
    """Pictures in [0, 1) are cast to bytes, so that all of them are 0."""
    x, labels = torch.rand(48, 1, 8, 8), torch.randint(3, (48,))
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 3))
    for layer in (model[0], model[3]):
        nn.init.zeros_(layer.bias)
    return model, lambda m: F.cross_entropy(m(x.byte().float() if broken else x), labels)


def low_prior(broken):
    """Rare ones, a bias at their logarithm, and a function that is flat there if broken."""
    x = torch.randn(48, 6)
    y = (x[:, :1] > 1.5).float()
    model = stack(6, 24, 1)
    nn.init.constant_(model[2].bias, -4.6)
    end = F.hardsigmoid if broken else torch.sigmoid
    return model, lambda m: F.binary_cross_entropy(end(m(x)), y)


FAULTS = {
    "low prior": Fault(low_prior, Verdict.FLAT_LOSS, "flat_loss", ("hardsigmoid",)),
    "divergence of probabilities": Fault(
        divergence_of_probabilities, Verdict.OUTPUT, "probabilities_for_logarithms", ("kl_div",)
    ),
    "unscaled column": Fault(unscaled_column, Verdict.INPUTS, "large_inputs", ("net.0",)),
    "cast pictures": Fault(cast_pictures, Verdict.INPUTS, "constant_inputs", ("'0'",)),
    "sure critic": Fault(sure_critic, Verdict.FLAT_LOSS, "flat_loss", ("4",)),
    "empty masks": Fault(empty_masks, Verdict.FLAT_LOSS, "flat_loss", ("3",)),
    "clamped output": Fault(clamped, Verdict.FLAT_LOSS, "flat_loss", ("2",)),
    "only the reference": Fault(reference_only, Verdict.FLAT_LOSS, "flat_loss", ("2",)),
    "masked examples": Fault(
        lambda broken: masked_examples(0.975 if broken else 0.0),
        Verdict.FLAT_LOSS, "idle_examples", ("2",),
    ),
    "tied head": Fault(
        lambda broken: tied(5.0 if broken else 0.02),
        Verdict.LARGE_LOSS, "large_tied_loss", ("head",),
    ),
    "large head": Fault(
        lambda broken: scaled_head(3000.0 if broken else 1.0),
        Verdict.LARGE_LOSS, "large_loss", ("4",),
    ),
    "far targets": Fault(
        lambda broken: unscaled_targets(30.0 if broken else 0.0),
        Verdict.LARGE_LOSS, "large_loss", ("2",),
    ),
    "wide draws": Fault(wide_draws, Verdict.LARGE_LOSS, "large_loss", ("1",)),
    "softmax twice": Fault(softmax_twice, Verdict.OUTPUT, "unsuited_output", ("3",)),
    "sigmoid as logits": Fault(sigmoid_as_logits, Verdict.OUTPUT, "unsuited_output", ("3",)),
    "softmax of one": Fault(softmax_of_one, Verdict.OUTPUT, "unsuited_output", ("3",)),
    "argmax in a term": Fault(
        lambda broken: consistency(broken, named=True),
        Verdict.NO_GRADIENT, "detached_term", ("agreement",),
    ),
    "argmax in the sum": Fault(consistency, Verdict.NO_GRADIENT, "detached_term"),
    "detached features": Fault(detached, Verdict.NO_GRADIENT, "unreached", ("body.0.weight",)),
    "rounded features": Fault(
        between(quantize, quantize_straight_through),
        Verdict.NO_GRADIENT, "flat_function", ("round", "faults.py"),
    ),
    "signs of features": Fault(
        between(torch.sign, torch.tanh), Verdict.NO_GRADIENT, "flat_function", ("sign",)
    ),
    "normalization of one": Fault(
        between(nn.GroupNorm(24, 24), nn.GroupNorm(4, 24)),
        Verdict.NO_GRADIENT, "flat_function", ("group_norm", "single value"),
    ),
    "softmax of one score": Fault(
        weighed(-1, 1), Verdict.NO_GRADIENT, "flat_function", ("softmax", "single value")
    ),
    "examples for steps": Fault(
        last_step(lambda first: nn.GRU(2, 16, batch_first=first)),
        Verdict.SHAPES, "examples_as_steps", ("rnn", "24"),
    ),
    "steps and examples in one row": Fault(
        reshaped(False), Verdict.SHAPES, "mixed_examples", ("reshape", "(6, 32, 24)")
    ),
    "last states in one row": Fault(
        reshaped(True), Verdict.SHAPES, "mixed_examples", ("reshape", "(2, 32, 12)")
    ),
    "words that were not found": Fault(
        unfound_words(recurrent=False), Verdict.INPUTS, "frozen_alike", ("words",)
    ),
    "words that were not found, in a sequence": Fault(
        unfound_words(recurrent=True), Verdict.INPUTS, "frozen_alike", ("words",)
    ),
    "label smoothing of 1": Fault(
        smoothed, Verdict.OUTPUT, "targets_without_effect", ("cross_entropy", "faults.py")
    ),
    "ones without weight": Fault(
        weighted, Verdict.OUTPUT, "targets_without_effect", ("pos_weight",)
    ),
    "one class with a weight": Fault(
        one_class_counts, Verdict.OUTPUT, "targets_without_effect", ("all classes but one",)
    ),
    "turned cross-entropy": Fault(
        turned(F.cross_entropy, lambda x: x[:, :3].argmax(1)), Verdict.SIGN, "wrong_sign", ("2",)
    ),
    "turned binary cross-entropy": Fault(
        turned(F.binary_cross_entropy_with_logits, lambda x: (x[:, :3] > 0).float()),
        Verdict.SIGN, "wrong_sign", ("2",),
    ),
    "turned square": Fault(
        turned(lambda out, y: (out - y).square().mean(), lambda x: torch.tanh(x[:, :3])),
        Verdict.SIGN, "wrong_sign", ("2",),
    ),
    "turned by hand": Fault(
        turned(
            lambda out, y: -out.log_softmax(1).gather(1, y[:, None]).mean(),
            lambda x: x[:, :3].argmax(1),
        ),
        Verdict.SIGN, "wrong_sign", ("2",),
    ),
    "maximized": Fault(maximizes, Verdict.SIGN, "wrong_sign", ("2",)),
    "rectifier below zero": Fault(
        out_of_range(nn.ReLU(), -1.5, 1.0), Verdict.OUTPUT, "out_of_reach", ("3",)
    ),
    "tanh for large targets": Fault(
        out_of_range(nn.Tanh(), 0.0, 6.0), Verdict.OUTPUT, "out_of_reach", ("3",)
    ),
    "sigmoid for standardized targets": Fault(
        out_of_range(nn.Sigmoid(), -0.4, 1.5), Verdict.OUTPUT, "out_of_reach", ("3",)
    ),
    "unbounded scales": Fault(
        unbounded_scales, Verdict.NON_FINITE, "non_finite", ("exp", "parts.")
    ),
    "exp layers": Fault(exp_layers, Verdict.NON_FINITE, "non_finite", ("exp", "5")),
    "acos at one": Fault(
        zoo_pair("acos_at_one", "clamped_acos"),
        Verdict.NON_FINITE, "non_finite", ("acos", "the loss"),
    ),
    "root of a variance": Fault(
        root_of_variance, Verdict.NON_FINITE, "non_finite", ("square root", "the loss")
    ),
    "log of outputs": Fault(
        zoo_pair("log_of_zero", "xlogy"), Verdict.NON_FINITE, "non_finite", ("log", "the loss")
    ),
    "masked everywhere": Fault(
        zoo_pair("masked_everywhere", "causal_mask"),
        Verdict.NON_FINITE, "non_finite", ("softmax", "attention"),
    ),
    "small loss in half precision": Fault(
        small_loss_in_half, Verdict.UNDERFLOW, "underflow", ("4",)
    ),
    "network in half precision": Fault(half_network, Verdict.UNDERFLOW, "underflow", ("2",)),
    "forgetful": Fault(forgetful, Verdict.VANISHING, "vanishing_time", ("rnn",)),
    "slopes": Fault(derivative_loss, Verdict.VANISHING, "vanishing_gradient", ("0",)),
    "deep sigmoids": Fault(
        deep_sigmoids,
        Verdict.VANISHING, "vanishing_gradient", ("0",),
    ),
    "growing branches": Fault(
        growing_branches,
        Verdict.EXPLODING, "exploding_gradient", ("0.branch.0",),
    ),
    "large draws": Fault(large_draws, Verdict.EXPLODING, "exploding_gradient", ("0",)),
    "sunken biases": Fault(sunken_biases, Verdict.DEAD_UNITS, "dead_units", ("0",)),
    "all zero": Fault(constant_start(0.0), Verdict.NO_GRADIENT, "zero_product", ("2.weight",)),
    "all the same": Fault(
        constant_start(0.2), Verdict.SYMMETRIC, "symmetric_units", ("0.weight",)
    ),
    "large inputs": Fault(
        raw_inputs(lambda x: 1e4 * x, nn.Tanh), Verdict.INPUTS, "large_inputs", ("0",)
    ),
    "small inputs": Fault(raw_inputs(lambda x: 1e-3 * x), Verdict.INPUTS, "small_inputs", ("0",)),
    "years": Fault(raw_inputs(lambda x: 2000 + 10 * x), Verdict.INPUTS, "large_inputs", ("0",)),
    "mixed units": Fault(
        raw_inputs(lambda x: x * torch.logspace(-5, 0, 10)),
        Verdict.INPUTS, "uneven_inputs", ("0",),
    ),
    "missing values": Fault(raw_inputs(missing), Verdict.NON_FINITE, "non_finite", ("'0'",)),
    "other parameters": Fault(other_parameters, Verdict.OPTIMIZER, "not_held", ("0.weight",)),
    "Adam in half": Fault(
        half_with(
            lambda p: torch.optim.Adam(p, 1e-2), lambda p: torch.optim.Adam(p, 1e-2, eps=1e-4)
        ),
        Verdict.UNDERFLOW,
        "lost_epsilon",
        ("0.weight",),
    ),
    "RMSprop in half": Fault(
        half_with(
            lambda p: torch.optim.RMSprop(p, 1e-2), lambda p: torch.optim.RMSprop(p, 1e-2, eps=1e-3)
        ),
        Verdict.UNDERFLOW,
        "lost_epsilon",
    ),
    "rate too large": Fault(rate(300.0, 0.1), Verdict.LEARNING_RATE, "large_step"),
    "rate too small": Fault(rate(1e-8, 0.1), Verdict.LEARNING_RATE, "small_step"),
    "decay beside SGD": Fault(
        decay(torch.optim.SGD, 3.0, 1e-3, 0.1), Verdict.OPTIMIZER, "strong_decay", ("0.weight",)
    ),
    "decay beside Adam": Fault(
        decay(torch.optim.Adam, 3.0, 1e-3, 1e-2), Verdict.OPTIMIZER, "strong_decay"
    ),
    "decay beside AdamW": Fault(
        decay(torch.optim.AdamW, 60.0, 0.05, 1e-2), Verdict.OPTIMIZER, "strong_decay"
    ),
    "loss below Adam's ε": Fault(below_epsilon, Verdict.OPTIMIZER, "below_epsilon"),
    "steep valley": Fault(
        valley(0.005, 0.5, 1e-3), Verdict.LEARNING_RATE, "overshoots", (), "sharpness"
    ),
    "rectified answers": Fault(rectified_answers, Verdict.OUTPUT, "out_of_reach", ("3",)),
    "foreign targets": Fault(
        foreign_targets, Verdict.HARD_TO_TRAIN, "did_not_train", (), "training"
    ),
    "empty example later": Fault(
        empty_example_later, Verdict.NON_FINITE, "loses_numbers", (), "training"
    ),
    "valley too steep for the rate": Fault(
        valley(0.005, 0.04, 0.1), Verdict.LEARNING_RATE, "diverges", (), "training"
    ),
}  # fmt: skip


# --- What gets a note ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Noted:
    """What training fails at, or learns by chance, and no measurement can call a fault for sure.

    `places` are words of the note's evidence.
    """

    build: Callable[[bool], Any]
    note: str
    places: tuple[str, ...] = ()


def permuted_by_view(broken):
    """Classes are to come before steps; a view does not carry the entries along."""
    tokens, table = torch.randint(9, (16, 5)), torch.randperm(9)
    model = nn.Sequential(nn.Embedding(9, 24), nn.ReLU(), nn.Linear(24, 9))

    def compute(m):
        out = m(tokens)
        return F.cross_entropy(out.view(16, 9, 5) if broken else out.mT, table[tokens])

    return model, compute


def steps_first_by_reshape(broken):
    x, y = torch.randn(24, 6, 2), torch.randint(2, (24,))
    x[:, 5, 0] = 3.0 * (2.0 * y - 1.0)
    model = Reader(nn.GRU(2, 16))

    def compute(m):
        steps = x.reshape(6, 24, 2) if broken else x.transpose(0, 1)
        return F.cross_entropy(m.head(m.rnn(steps)[0][-1]), y)

    return model, compute


def no_logarithms(broken):
    x, labels = torch.randn(48, 6), torch.randint(4, (48,))
    model = stack(6, 24, 4, end=None if broken else nn.LogSoftmax(1))
    return model, lambda m: F.nll_loss(m(x), labels)


def divergence_of_scores(broken):
    x = torch.randn(48, 6)
    target = x[:, :4].softmax(1)

    def compute(m):
        out = m(x)
        return F.kl_div(out if broken else out.log_softmax(1), target, reduction="batchmean")

    return stack(6, 24, 4), compute


def sampled_code(broken):
    """An autoencoder with a sampled code, through which no gradient comes if broken."""
    x = torch.randn(48, 6)
    model = nn.ModuleDict({"encoder": stack(6, 24, 6), "decoder": stack(3, 24, 6)})

    def compute(m):
        mean, spread = m["encoder"](x).chunk(2, 1)
        code = torch.distributions.Normal(mean, (spread / 2).exp())
        out = m["decoder"](code.sample() if broken else code.rsample())
        apart = 0.5 * (mean.square() + spread.exp() - 1 - spread).sum(1).mean()
        return {"error": F.mse_loss(out, x), "kl": 0.1 * apart}

    return model, compute


def ratio(*, named):
    """A policy gradient of which the ratio is computed while gradients are off."""

    def build(broken):
        x, actions = torch.randn(64, 6), torch.randint(3, (64,))
        gain = torch.randn(64)
        gain = (gain - gain.mean()) / gain.std()
        model = stack(6, 24, 4)

        def compute(m):
            out = m(x)
            logs = out[:, :3].log_softmax(1)
            picked = logs.gather(1, actions[:, None])[:, 0]
            with torch.set_grad_enabled(not broken):
                policy = -((picked - picked.detach()).exp() * gain).mean()
            entropy = 0.01 * (logs.exp() * logs).sum(1).mean()
            value = F.mse_loss(out[:, 3], gain)
            terms = {"policy": policy, "value": value, "entropy": entropy}
            return terms if named else policy + value + entropy

        return model, compute

    return build


def faint_start(broken):
    """A network that solves u' = -2 u, and hardly has to start at 1."""
    t, first = torch.linspace(0, 2, 48)[:, None].requires_grad_(), torch.zeros(1, 1)

    def compute(m):
        u = m(t)
        (slope,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        start = (m(first) - 1.0).square().mean()
        weight = 1e-6 if broken else 1.0
        return {"equation": (slope + 2 * u).square().mean(), "start": weight * start}

    return stack(1, 24, 24, 1, activation=nn.Tanh), compute


def constant_condition(broken):
    """One of two inputs is rounded up, so that it is 1 everywhere."""
    x, c, labels = torch.randn(48, 6), torch.rand(48, 4), torch.randint(3, (48,))
    model = nn.ModuleDict(
        {"body": nn.Linear(6, 24), "condition": nn.Linear(4, 24), "head": nn.Linear(24, 3)}
    )

    def compute(m):
        given = c.ceil() if broken else c
        return F.cross_entropy(m["head"](torch.relu(m["body"](x) + m["condition"](given))), labels)

    return model, compute


def one_class(broken):
    """A batch from a file that is sorted by class."""
    x = torch.randn(48, 6)
    labels = torch.full((48,), 2) if broken else torch.randint(4, (48,))
    return stack(6, 24, 4), lambda m: F.cross_entropy(m(x), labels)


def rare_ones(broken):
    x = torch.randn(200, 6)
    y = (x[:, 0] > (2.0 if broken else 0.0)).float()
    y[0] = 1.0
    return stack(6, 24, 1), lambda m: F.binary_cross_entropy_with_logits(m(x)[:, 0], y)


def thousandfold_targets(broken):
    x = torch.randn(64, 6)
    y = (1000.0 if broken else 1.0) * torch.tanh(x[:, :2])
    return stack(6, 24, 2), lambda m: F.mse_loss(m(x), y)


def no_activations(broken):
    x, labels = torch.randn(48, 6), torch.randint(3, (48,))
    activation = nn.Identity if broken else nn.ReLU
    return stack(6, 24, 24, 3, activation=activation), lambda m: F.cross_entropy(m(x), labels)


def dropout(rate):
    x, labels = torch.randn(48, 6), torch.randint(3, (48,))
    model = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Dropout(rate), nn.Linear(64, 3))
    return model, lambda m: F.cross_entropy(m(x), labels)


def heavy_divergence(broken):
    """A variational autoencoder whose KL is summed over the batch, and its error averaged."""
    x = torch.randn(64, 3) @ torch.randn(3, 8)
    model = nn.ModuleDict({"enter": stack(8, 24, 6), "leave": stack(3, 24, 8)})

    def compute(m):
        mean, spread = m["enter"](x).chunk(2, 1)
        out = m["leave"](mean + torch.randn_like(mean) * (spread / 2).exp())
        parting = 0.5 * (mean.square() + spread.exp() - 1 - spread)
        return F.mse_loss(out, x) + (parting.sum() if broken else 1e-3 * parting.mean())

    return model, compute


def narrow_mixture(broken):
    """A Gaussian likelihood whose deviation starts next to zero."""
    x = torch.randn(64, 4)
    y = torch.sin(x[:, :1]) + 0.3 * torch.randn(64, 1)
    model = stack(4, 24, 2)
    with torch.no_grad():
        model[-1].bias[1] = -7.0 if broken else 0.0

    def compute(m):
        mean, spread = m(x).chunk(2, 1)
        return (0.5 * ((y - mean) / spread.exp()).square() + spread).mean()

    return model, compute


def sure_critic_by_logarithm(broken):
    """A generator whose loss is log(1 - D), where the critic is sure."""
    z = torch.randn(48, 8)

    def compute(m):
        score = m(z).mean(1) - (22.0 if broken else 0.0)
        return (1 - torch.sigmoid(score) + 1e-8).log().mean()

    return stack(8, 32, 32, 16), compute


def rectified_classes(broken):
    x, labels = torch.randn(48, 6), torch.randint(4, (48,))
    model = stack(6, 24, 4, end=nn.ReLU() if broken else None)
    return model, lambda m: F.cross_entropy(m(x), labels)


def rectified_odds(broken):
    """Yes or no questions whose logits cannot be negative."""
    x = torch.randn(64, 6)
    y = (x[:, 0] > 0.5).float()
    model = stack(6, 24, 1)

    def compute(m):
        logits = m(x)
        return F.binary_cross_entropy_with_logits((logits.relu() if broken else logits)[:, 0], y)

    return model, compute


def pooled_features(broken):
    """A pooling goes over the features, so that one number is left."""
    x, labels = torch.randn(48, 6), torch.randint(5, (48,))
    left = 1 if broken else 24
    model = nn.Sequential(
        nn.Linear(6, 24), nn.ReLU(), nn.Unflatten(1, (1, 24)), nn.AdaptiveAvgPool1d(left),
        nn.Flatten(), nn.Linear(left, 5),
    )  # fmt: skip
    return model, lambda m: F.cross_entropy(m(x), labels)


def warm_up(broken):
    """A warm-up from 0 that has taken no step yet, and may take one per epoch."""
    model, compute = _sound_regression()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: (k + (not broken)) / 5)
    return Program(model, compute, optimizer)


def still_group(broken):
    """One of several groups has a rate of 0."""
    model, compute = _sound_regression()
    (weight, *rest) = model.parameters()
    groups = [{"params": [weight], "lr": 0.0 if broken else 0.05}, {"params": rest}]
    return Program(model, compute, torch.optim.SGD(groups, 0.1))


def rounded_steps(broken):
    """Weights in bfloat16, and steps of Adam that are less than half of its distances."""
    model, compute = _sound_regression()
    optimizer = torch.optim.Adam(model.parameters(), 1e-4)
    if not broken:
        return Program(model, compute, optimizer)
    half = stack(6, 24, 2, activation=nn.Tanh).bfloat16()
    x = torch.randn(64, 6).bfloat16()
    target = torch.tanh(x.float() @ torch.randn(6, 2))
    return Program(
        half,
        lambda m: F.mse_loss(m(x).float(), target),
        torch.optim.Adam(half.parameters(), 1e-4),
    )


def permuted_rows(broken):
    """Steps come first, without need, where each example becomes one row."""
    x, labels = torch.randn(32, 6, 2), torch.randint(3, (32,))
    model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(48, 3))

    def compute(m):
        read = m[:2](x)
        return F.cross_entropy(
            m[2]((read.mT.movedim(2, 0) if broken else read).reshape(32, -1)), labels
        )

    return model, compute


class Scaled(nn.Module):
    """Scales bytes itself."""

    def __init__(self, broken):
        super().__init__()
        self.broken, self.body = broken, stack(6, 24, 2)

    def forward(self, x):
        return self.body(x.div_(255.0) if self.broken else x / 255.0)


def scaled_in_place(broken):
    """Each pass divides the data that are kept."""
    data, labels = torch.rand(64, 6) * 255.0, torch.randint(2, (32,))
    return Scaled(broken), lambda m: F.cross_entropy(m(data[32:]), labels)


def rectified_in_place(broken):
    """A first layer that works in place, on the data."""
    x, labels = torch.randn(32, 6), torch.randint(2, (32,))
    model = nn.Sequential(nn.ReLU(inplace=True), *stack(6, 24, 2))
    return model, lambda m: F.cross_entropy(m(x if broken else x.clone()), labels)


def heavily_smoothed(broken):
    x, labels = torch.randn(48, 6), torch.randint(4, (48,))
    epsilon = 0.9 if broken else 0.2
    return stack(6, 24, 4), lambda m: F.cross_entropy(m(x), labels, label_smoothing=epsilon)


def frozen_condition(broken):
    """A table of conditions that is frozen and zero, beside features that differ."""
    x, ids, labels = torch.randn(32, 6), torch.randint(5, (32,)), torch.randint(2, (32,))
    table = nn.Embedding.from_pretrained(torch.zeros(5, 24) if broken else torch.randn(5, 24))
    model = nn.ModuleDict({"table": table, "body": stack(6, 24, 24), "head": nn.Linear(24, 2)})
    return model, lambda m: F.cross_entropy(m["head"](m["body"](x) + m["table"](ids)), labels)


def frozen_head(broken):
    """Only a bias is left to learn: a new last layer was frozen with the rest."""
    x, labels = torch.randn(48, 6), torch.randint(4, (48,))
    model = stack(6, 24, 24, 4).requires_grad_(False)
    (model[-1].bias if broken else model[-1]).requires_grad_(True)
    return model, lambda m: F.cross_entropy(m(x), labels)


class Words(nn.Module):
    """A transformer over words, of which a class token is read."""

    def __init__(self, *, turned):
        super().__init__()
        self.turned = turned
        self.words = nn.Embedding(14, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, 0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 3)

    def forward(self, words, padding):
        mask = ~padding if self.turned else padding
        return self.head(self.body(self.words(words), src_key_padding_mask=mask)[:, 0])


def turned_mask(broken):
    """A mask the wrong way round: padding is attended to, and words are not."""
    lengths = torch.randint(6, 12, (48,))
    words, labels = torch.randint(2, 14, (48, 16)), torch.randint(3, (48,))
    padding = torch.arange(16) >= lengths[:, None]
    words[padding] = 0
    return Words(turned=broken), lambda m: F.cross_entropy(m(words, padding), labels)


def codes(broken):
    """An autoencoder with a codebook; the gradient does not come past the choice if broken."""
    x = torch.randn(48, 6)
    model = nn.ModuleDict(
        {"encoder": stack(6, 24, 4), "codes": nn.Embedding(16, 4), "decoder": stack(4, 24, 6)}
    )

    def compute(m):
        z = m["encoder"](x)
        code = m["codes"](torch.cdist(z, m["codes"].weight).argmin(1))
        out = m["decoder"](code if broken else z + (code - z).detach())
        return {
            "error": F.mse_loss(out, x),
            "codes": F.mse_loss(code, z.detach()),
            "commitment": 0.25 * F.mse_loss(z, code.detach()),
        }

    return model, compute


def statistics_of_nothing(broken):
    """A network in eval mode whose running statistics have counted nothing, or all of training."""
    x, labels = torch.randn(48, 6), torch.randint(4, (48,))
    model = nn.Sequential(nn.Linear(6, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 4))
    if not broken:
        for _ in range(40):
            model(x)
    return model.eval(), lambda m: F.cross_entropy(m(x), labels)


NOTED = {
    "mask the wrong way round": Noted(
        turned_mask, "unheard_positions", ("positions 2 to 6 of 16", "'words'")
    ),
    "choice of a code": Noted(codes, "behind_lookup", ("'error'", "'encoder.0'", "'commitment'")),
    "steps first, in one row": Noted(permuted_rows, "mixed_rows", ("reshape", "6 of the 32")),
    "data scaled in place": Noted(scaled_in_place, "overwritten_input", ("div_", "100 %")),
    "data rectified in place": Noted(rectified_in_place, "overwritten_input", ("relu", "'0'")),
    "label smoothing of 0.9": Noted(heavily_smoothed, "smoothed_targets", ("10 %",)),
    "frozen condition": Noted(frozen_condition, "frozen_constant", ("'table'",)),
    "one bias is trained": Noted(frozen_head, "little_trained", ("1 of 6", "'4.bias'", "4 of 868")),
    "view in place of permute": Noted(permuted_by_view, "scrambled_sizes", ("view", "faults.py")),
    "reshape in place of transpose": Noted(
        steps_first_by_reshape, "scrambled_sizes", ("reshape", "(24, 6, 2)")
    ),
    "attention over examples": Noted(weighed(0, 1), "over_examples", ("softmax", "48")),
    "attention over examples, time first": Noted(
        weighed_time_first, "over_examples", ("softmax", "48", "(9, 48, 1)")
    ),
    "no logarithms": Noted(no_logarithms, "not_logarithms", ("nll_loss",)),
    "divergence of scores": Noted(divergence_of_scores, "not_logarithms", ("kl_div",)),
    "sampled code": Noted(sampled_code, "separate_terms", ("'error' reaches", "'decoder.0'")),
    "policy without gradient": Noted(ratio(named=True), "idle_term", ("'policy'",)),
    "policy without gradient, without a name": Noted(
        ratio(named=False), "detached_constant", ("detached",)
    ),
    "faint start": Noted(faint_start, "faint_term", ("'start'", "'equation'")),
    "constant input beside another": Noted(
        constant_condition, "constant_input", ("'condition'", "is 1")
    ),
    "rectified classes": Noted(rectified_classes, "one_sided_logits", ("relu", "cross-entropy")),
    "rectified odds": Noted(rectified_odds, "one_sided_logits", ("relu", "one half")),
    "pooled features": Noted(pooled_features, "one_number", ("'5'", "5 classes")),
    "one class": Noted(one_class, "same_targets"),
    "rare ones": Noted(rare_ones, "rare_targets"),
    "targets in thousands": Noted(thousandfold_targets, "slow_start"),
    "tanh for half of the targets": Noted(
        out_of_range(nn.Tanh(), 0.6, 1.0), "partly_out_of_reach", ("'3'",)
    ),
    "no activations": Noted(no_activations, "no_activations", ("3 weight layers",)),
    "dropout of nearly all": Noted(
        lambda broken: dropout(0.95 if broken else 0.1), "heavy_dropout", ("95 %", "'2'")
    ),
    "divergence that is summed": Noted(heavy_divergence, "unnamed_terms"),
    "narrow likelihood": Noted(narrow_mixture, "low_rate"),
    "sure critic, by a logarithm": Noted(sure_critic_by_logarithm, "tiny_gradients"),
    "slow rate": Noted(rate(1e-4, 0.1), "small_steps", ("SGD",)),
    "rate of zero at the start of a schedule": Noted(warm_up, "rate_of_zero", ("SGD", "0.1")),
    "a group that stays": Noted(still_group, "still_group", ("1 of 4", "'0.weight'")),
    "steps that bfloat16 rounds away": Noted(rounded_steps, "rounded_steps", ("bfloat16", "Adam")),
    "statistics of nothing": Noted(
        statistics_of_nothing, "untouched_statistics", ("'1'", "eval mode")
    ),
    "some decay": Noted(decay(torch.optim.SGD, 0.5, 1e-3, 0.1), "some_decay", ("0.5",)),
}  # fmt: skip


# --- What only looks broken ----------------------------------------------------------------------


class Looking(nn.Module):
    """Attention whose queries and keys start small, between residual sums."""

    def __init__(self):
        super().__init__()
        self.tokens, self.places = nn.Embedding(12, 24), nn.Parameter(torch.randn(8, 24))
        self.norm, self.head = nn.LayerNorm(24), nn.Linear(24, 12)
        self.attention = nn.MultiheadAttention(24, 4, batch_first=True)
        nn.init.normal_(self.attention.in_proj_weight[:48], std=1e-3)

    def forward(self, ids):
        x = self.tokens(ids) + self.places
        h = self.norm(x)
        return self.head(x + self.attention(h, h, h)[0])


def small_queries():
    ids = torch.randint(12, (32, 8))
    return Looking(), lambda m: F.cross_entropy(m(ids).flatten(0, 1), ids.roll(1, 1).flatten())


def nearly_done():
    """A regression that was trained before, on data that have moved a little."""
    x, teacher = torch.randn(128, 6), torch.randn(6, 2)
    model = stack(6, 32, 2, activation=nn.SiLU)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    for _ in range(150):
        optimizer.zero_grad()
        F.mse_loss(model(x), torch.tanh(x @ teacher)).backward()
        optimizer.step()
    shifted = x + 0.3
    return model, lambda m: F.mse_loss(m(shifted), torch.tanh(shifted @ teacher))


def zero_readout():
    """A linear model that starts at zero on features that are frozen."""
    model = nn.Sequential(nn.Conv1d(1, 8, 8, 4), nn.ReLU(), nn.Flatten(), nn.Linear(56, 4))
    model[0].requires_grad_(False)
    nn.init.zeros_(model[3].weight)
    x = torch.randn(64, 1, 32)
    y = (model[:3](x) @ torch.randn(56, 4) > 0).float()
    return model, lambda m: F.binary_cross_entropy_with_logits(m(x), y)


def small_answers():
    """A last layer that is small on purpose: so are the targets."""
    model, x = stack(12, 32, 32, 5), torch.randn(64, 12)
    with torch.no_grad():
        model[-1].weight.mul_(1e-3)
        model[-1].bias.zero_()
    return model, lambda m: F.mse_loss(m(x), 1e-3 * torch.tanh(x[:, :5]))


def off_units_in_a_root():
    """The spread of features that are off: undefined numbers that reach no weight."""
    model = nn.ModuleDict({"body": stack(8, 24, 16, end=nn.ReLU()), "head": nn.Linear(16, 3)})
    model["body"][2].bias.data[:3] = -9.0
    x, labels = torch.randn(48, 8), torch.randint(3, (48,))

    def compute(m):
        h = m["body"](x)
        spread = torch.relu(1 - h.var(0).sqrt()).mean()
        return F.cross_entropy(m["head"](h), labels) + 0.1 * spread

    return model, compute


class Waves(nn.Module):
    """Random Fourier features, whose frequencies are trained, and a small head."""

    def __init__(self):
        super().__init__()
        self.frequencies = nn.Linear(2, 64, bias=False)
        nn.init.normal_(self.frequencies.weight, std=20.0)
        self.body = stack(128, 64, 64, 1, activation=nn.Tanh)
        nn.init.normal_(self.body[-1].weight, std=0.01)

    def forward(self, x):
        angles = self.frequencies(x)
        return self.body(torch.cat([angles.sin(), angles.cos()], -1))


def fourier_features():
    """Large values that go into a bounded function: nothing of them fades on the way."""
    x = torch.rand(256, 2) * 2 - 1
    return Waves(), lambda m: F.mse_loss(m(x), torch.sin(4 * x[:, :1]) * torch.cos(3 * x[:, 1:]))


SOUND = {
    "fourier features": fourier_features,
    "small queries": small_queries,
    "nearly done": nearly_done,
    "zero readout": zero_readout,
    "small answers": small_answers,
    "off units in a root": off_units_in_a_root,
}
"""Models that look as if something were wrong, and train."""
