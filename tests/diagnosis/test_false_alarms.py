"""Kinds of sound models that look sick, judged by real trainings, and sick twins of each.

A sound model is called healthy and trains. Its twin has the same shape, is not called healthy, and
does not train in the same steps.
"""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule import Verdict, diagnose, inspect
from chainrule.diagnosis.comparison import compare_deltas
from chainrule.diagnosis.reach import read_unreached
from chainrule.diagnosis.structure import find_small_head, list_bypassed, list_composites
from zoo import Lambda

CLASSES = 4
LEARNED, STUCK = 0.5, 0.95
"""Shares of the first loss that count as learned, and as not."""


def draw_images(count=16, size=16, channels=3):
    labels = torch.arange(count) % CLASSES
    patterns = F.interpolate(torch.randn(CLASSES, channels, 4, 4), size=(size, size))
    return patterns[labels] + 0.3 * torch.randn(count, channels, size, size), labels


def draw_vectors(count=32, width=16):
    labels = torch.arange(count) % CLASSES
    return torch.randn(CLASSES, width)[labels] + 0.3 * torch.randn(count, width), labels


def classify(model, inputs, labels):
    return model, lambda m: F.cross_entropy(m(inputs), labels)


def train(build, rates=(0.1, 0.5), steps=80):
    """Return the last loss of plain SGD relative to the first, at the best rate."""
    best = float("inf")
    for rate in rates:
        torch.manual_seed(0)
        model, compute_loss = build()
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = torch.optim.SGD(parameters, lr=rate)
        losses = []
        for _ in range(steps):
            optimizer.zero_grad()
            loss = compute_loss(model)
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        best = min(best, losses[-1] / losses[0])
    return best


def judge(build):
    torch.manual_seed(0)
    return diagnose(inspect(*build()))


# --- Convolutions --------------------------------------------------------------------------------


def lenet(activation=nn.ReLU, pool=nn.AvgPool2d):
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5), activation(), pool(2), nn.Conv2d(6, 16, 5), activation(), pool(2),
        nn.Flatten(), nn.Linear(400, 120), activation(), nn.Linear(120, 84), activation(),
        nn.Linear(84, CLASSES),
    )  # fmt: skip
    return classify(net, *draw_images(16, 32, 1))


def strides():
    layers, width = [], 3
    for out in (16, 32, 32):
        layers += [nn.Conv2d(width, out, 3, 2, 1), nn.ReLU()]
        width = out
    return classify(
        nn.Sequential(*layers, nn.Flatten(), nn.Linear(128, CLASSES)), *draw_images(16, 16)
    )


def series():
    labels = torch.arange(16) % CLASSES
    x = torch.sin(torch.arange(32) * (0.2 + 0.3 * labels[:, None]))[:, None]
    net = nn.Sequential(
        nn.Conv1d(1, 16, 5), nn.ReLU(), nn.AvgPool1d(2), nn.Conv1d(16, 16, 5), nn.ReLU(),
        nn.AvgPool1d(2), nn.Flatten(), nn.Linear(80, CLASSES),
    )  # fmt: skip
    return classify(net, x, labels)


def sigmoid_maps():
    layers, width = [], 3
    for _ in range(7):
        layers += [nn.Conv2d(width, 12, 3, padding=1), nn.Sigmoid()]
        width = 12
    net = nn.Sequential(*layers, nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, CLASSES))
    return classify(net, *draw_images(16, 16))


# --- Residual sums -------------------------------------------------------------------------------


class Three(nn.Module):
    """A block that adds two branches at once."""

    def __init__(self, order, act=nn.Identity, width=32):
        super().__init__()
        self.norm, self.order, self.act = nn.LayerNorm(width), order, act()
        self.left, self.right = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        h = self.norm(x)
        a, m = self.act(self.left(h)), self.act(self.right(h))
        return eval(self.order, {"x": x, "a": a, "m": m})


ORDERS = (
    "x + a + m", "a + x + m", "a + m + x", "x + (a + m)", "(x + m) + a", "0.5 * x + a + m",
    "(a + m).add_(x)",
)  # fmt: skip


def sums(order="x + a + m", blocks=6):
    net = nn.Sequential(nn.Linear(16, 32), *(Three(order) for _ in range(blocks)))
    return classify(nn.Sequential(*net, nn.LayerNorm(32), nn.Linear(32, CLASSES)), *draw_vectors())


@pytest.mark.parametrize("order", ORDERS)
def test_sums_of_many_terms_are_residual_in_any_order(order):
    torch.manual_seed(0)
    flow = inspect(*sums(order))
    assert len(flow.residuals) == 6
    assert {each.stream for each in flow.residuals} == {0}
    for number, each in enumerate(flow.residuals):
        names = {flow.parameters[position].name for position in each.parameters}
        assert {f"{number + 1}.left.weight", f"{number + 1}.right.weight"} <= names


def test_terms_that_are_not_made_from_each_other_are_no_residual():
    model = Lambda(
        lambda m, x: m.head(m.a(x) + m.b(x) + m.c(x)),
        a=nn.Linear(16, 8), b=nn.Linear(16, 8), c=nn.Linear(16, 8), head=nn.Linear(8, CLASSES),
    )  # fmt: skip
    assert inspect(*classify(model, *draw_vectors())).residuals == ()


class ZeroScale(nn.Module):
    """x + act(norm(conv(…))) with the last scale at zero."""

    def __init__(self, width, *, dead=False):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(width, width // 2, 1, bias=False), nn.BatchNorm2d(width // 2), nn.ReLU(),
            nn.Conv2d(width // 2, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        nn.init.zeros_(self.inner[-1].weight)
        self.dead = dead

    def forward(self, x):
        h = x + F.leaky_relu(self.inner(x), 0.01)
        return h * 1e-3 if self.dead else h


def zero_scales(*, dead=False):
    layers, width = [], 3
    for out in (16, 32, 32):
        layers += [nn.Conv2d(width, out, 3, 1 + (out > width), 1, bias=False), nn.BatchNorm2d(out)]
        layers += [nn.LeakyReLU(0.01), ZeroScale(out, dead=dead)]
        width = out
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, CLASSES))
    return classify(net, *draw_images(16, 16))


# --- Normalizations on branches ------------------------------------------------------------------


class Post(nn.Module):
    """x + norm(branch(x)), as OLMo 2 and Swin v2 have it."""

    def __init__(self, std):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(32, 32, bias=False), nn.GELU(), nn.Linear(32, 32))
        self.norm = nn.LayerNorm(32)
        for layer in (self.inner[0], self.inner[2]):
            nn.init.normal_(layer.weight, 0.0, std)
        nn.init.zeros_(self.inner[2].bias)

    def forward(self, x):
        return x + self.norm(self.inner(x))


def post_branches():
    blocks = [Post(1e-3) for _ in range(4)]
    net = nn.Sequential(nn.Linear(16, 32), *blocks, nn.LayerNorm(32), nn.Linear(32, CLASSES))
    return classify(net, *draw_vectors())


def starved_chain():
    """Everything has to pass a normalization of next to nothing."""
    net = nn.Sequential(nn.Linear(16, 32, bias=False), nn.LayerNorm(32), nn.Linear(32, CLASSES))
    with torch.no_grad():
        net[0].weight.mul_(1e-7)
        net[2].weight.mul_(0.1)
    net[0].weight.requires_grad_(False)
    return classify(net, *draw_vectors())


# --- Many runs, small ends, concatenations, uniform attention ------------------------------------


class Repeated(nn.Module):
    """z = tanh(W z + U x), or without U x after the start, so that the input is forgotten."""

    def __init__(self, steps, *, again=True):
        super().__init__()
        self.u, self.w, self.head = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, CLASSES)
        self.steps, self.again = steps, again

    def forward(self, x):
        z = self.u(x)
        for _ in range(self.steps):
            z = torch.tanh(self.w(z) + (self.u(x) if self.again else 0.0))
        return self.head(z)


def fixed_point(*, again=True):
    return classify(Repeated(30, again=again), *draw_vectors())


class Shared(nn.Module):
    """One pre-norm block for all layers, as ALBERT and universal transformers have it."""

    def __init__(self, steps=10):
        super().__init__()
        self.start, self.steps = nn.Linear(16, 32), steps
        self.block = nn.Sequential(
            nn.LayerNorm(32), nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32)
        )
        self.head = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, CLASSES))

    def forward(self, x):
        h = self.start(x)
        for _ in range(self.steps):
            h = h + self.block(h)
        return self.head(h)


def shared_block():
    return classify(Shared(), *draw_vectors())


def mlp(head=1.0, body=1.0, depth=3):
    layers = [nn.Linear(16, 48), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(48, 48), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(48, CLASSES))
    with torch.no_grad():
        for layer in net[:-1:2]:
            layer.weight.mul_(body)
            layer.bias.mul_(body)
        net[-1].weight.mul_(head)
        net[-1].bias.mul_(head)
    return classify(net, *draw_vectors())


def policy():
    net = nn.Sequential(
        nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, CLASSES)
    )
    for layer, gain in zip(net[::2], (2**0.5, 2**0.5, 0.01), strict=True):
        nn.init.orthogonal_(layer.weight, gain)
        nn.init.zeros_(layer.bias)
    return classify(net, *draw_vectors())


class Joined(nn.Module):
    """A U-Net without normalization: what is deep inside receives little."""

    def __init__(self, *, skips):
        super().__init__()
        self.skips = skips
        self.down = nn.ModuleList([self.pair(3, 12), self.pair(12, 24)])
        self.middle = self.pair(24, 48)
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(48, 24, 2, 2), nn.ConvTranspose2d(24, 12, 2, 2)]
        )
        self.join = nn.ModuleList([self.pair(48, 24), self.pair(24, 12)])
        self.out = nn.Conv2d(12, 1, 1)

    @staticmethod
    def pair(i, o):
        return nn.Sequential(
            nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.Conv2d(o, o, 3, padding=1), nn.ReLU()
        )

    def forward(self, x):
        kept = []
        for part in self.down:
            x = part(x)
            kept.append(x)
            x = F.max_pool2d(x, 2)
        x = self.middle(x)
        for up, join in zip(self.up, self.join, strict=True):
            skip = kept.pop()
            x = join(torch.cat([up(x), skip if self.skips else torch.zeros_like(skip)], 1))
        return self.out(x)


def unet(*, skips=True):
    images, _ = draw_images(8, 16)
    mask = (images.mean(1, keepdim=True) > 0).float()
    model = Joined(skips=skips)
    return model, lambda m: F.binary_cross_entropy_with_logits(m(images), mask)


class Tokens(nn.Module):
    """Attention only, on a residual stream, with queries and keys as small as GPT-2's."""

    def __init__(self, blocks=4, std=0.02):
        super().__init__()
        self.start = nn.Linear(16, 32)
        self.parts = nn.ModuleList()
        for _ in range(blocks):
            part = nn.ModuleDict({name: nn.Linear(32, 32) for name in ("q", "k", "v", "o")})
            part["norm"] = nn.LayerNorm(32)
            for name in ("q", "k"):
                nn.init.normal_(part[name].weight, 0.0, std)
                nn.init.zeros_(part[name].bias)
            self.parts.append(Attend(part))
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x):
        h = self.start(x)
        h = torch.cat([self.token.expand(len(h), -1, -1), h], 1)
        for part in self.parts:
            h = h + part(h)
        return self.head(h[:, 0])


class Attend(nn.Module):
    def __init__(self, part):
        super().__init__()
        self.part = part

    def forward(self, x):
        h = self.part["norm"](x)
        q, k, v = (self.part[name](h).unsqueeze(1) for name in "qkv")
        return self.part["o"](F.scaled_dot_product_attention(q, k, v).squeeze(1))


def attention():
    labels = torch.arange(16) % CLASSES
    x = torch.randn(CLASSES, 1, 16)[labels] + 0.3 * torch.randn(16, 8, 16)
    return classify(Tokens(), x, labels)


def class_token_and_zero_head():
    model, compute_loss = attention()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    return model, compute_loss


def masks():
    """A sigmoid at the end and a loss of probabilities: one half is no part of the answer."""
    images, _ = draw_images(8, 16, 1)
    mask = (images > 0.5).float()
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 3, padding=1), nn.Sigmoid()
    )
    with torch.no_grad():
        net[2].weight.mul_(0.05)
        net[2].bias.zero_()
    return net, lambda m: 1 - 2 * (m(images) * mask).sum() / (m(images) + mask).sum()


SOUND = {
    "masks": masks,
    "LeNet-5": lenet,
    "LeNet-5 of maxima": lambda: lenet(pool=nn.MaxPool2d),
    "LeNet-5 of tanh": lambda: lenet(nn.Tanh),
    "strides": strides,
    "convolutions along time": series,
    "sums of three": sums,
    "zero scales": zero_scales,
    "norms behind branches": post_branches,
    "fixed point": fixed_point,
    "one block for all layers": shared_block,
    "small last layer": lambda: mlp(head=1e-3),
    "tiny last layer": lambda: mlp(head=1e-6),
    "policy": policy,
    "U-Net": unet,
    "uniform attention": attention,
    "class token, zero head": class_token_and_zero_head,
}

SICK = {
    "sigmoid maps": sigmoid_maps,
    "zero scales, stream shrinks": lambda: zero_scales(dead=True),
    "starved chain": starved_chain,
    "fixed point without input": lambda: fixed_point(again=False),
    "small body and head": lambda: mlp(head=1e-3, body=0.05, depth=5),
    "U-Net without skips": lambda: unet(skips=False),
}


@pytest.mark.parametrize("name", SOUND)
def test_sound_models_are_healthy_and_train(name):
    diagnosis = judge(SOUND[name])
    assert diagnosis.verdict is Verdict.HEALTHY, diagnosis.findings
    slow = {"rates": (0.5,), "steps": 200} if name == "U-Net" else {}
    assert train(SOUND[name], **slow) < LEARNED


@pytest.mark.parametrize("name", SICK)
def test_sick_twins_are_not_and_do_not(name):
    assert judge(SICK[name]).verdict is not Verdict.HEALTHY
    assert train(SICK[name]) > STUCK


# --- What is behind it ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_the_mean_of_positions_loses_nothing(size):
    """However many positions share a weight: ‖Σ_p δ_p‖ stays the same, ‖δ‖ shrinks by √P."""
    net = nn.Sequential(
        nn.Conv2d(1, 4, 1, bias=False), nn.AvgPool2d(size), nn.Flatten(), nn.Linear(4, 2)
    ).double()
    x = torch.randn(8, 1, 1, 1, dtype=torch.float64).expand(-1, -1, size, size)
    y = torch.randn(8, 2, dtype=torch.float64)
    flow = inspect(net, lambda m: F.mse_loss(m(x), y))
    maps = torch.nn.functional.conv2d(x, net[0].weight).detach().requires_grad_()
    F.mse_loss(net[1:](maps), y).backward()
    summed = maps.grad.sum((2, 3)).norm().item()
    last = flow.weight_layers[-1].delta_norm
    assert compare_deltas(flow, flow.weight_layers) == pytest.approx(summed / last, rel=1e-6)


def test_vectors_are_compared_as_they_are():
    flow = inspect(*mlp())
    assert compare_deltas(flow, flow.weight_layers) == flow.delta_ratio


def test_what_was_found_is_named():
    torch.manual_seed(0)
    assert find_small_head(inspect(*mlp(head=1e-3)))[0] == 4
    assert find_small_head(inspect(*mlp(head=1e-3, body=1e-3))) is None
    assert len(list_bypassed(inspect(*unet()))) >= 4
    assert not list_bypassed(inspect(*mlp()))
    flow = inspect(*attention())
    assert list_composites(flow) == {flow.weight_layers[-1].layer}


# --- Weights that are not reached ----------------------------------------------------------------


def heads(*, detached=False, spare=1):
    """A body and two heads; the loss reads the first."""

    def run(m, x):
        h = m.body(x)
        for number in range(spare):
            getattr(m, f"spare{number}")(h)
        return m.head(h.detach() if detached else h)

    body = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
    parts = {f"spare{number}": nn.Linear(32, 3) for number in range(spare)}
    model = Lambda(run, body=body, **parts, never=nn.Linear(7, 7), head=nn.Linear(32, CLASSES))
    return classify(model, *draw_vectors())


@pytest.mark.parametrize("spare", [0, 1, 2])
def test_parts_that_are_not_used_are_a_note(spare):
    diagnosis = judge(lambda: heads(spare=spare))
    assert diagnosis.verdict is Verdict.HEALTHY
    (note,) = (each for each in diagnosis.notes if each.name == "unused_weights")
    assert set(note.modules) == {"never.weight"} | {f"spare{i}.weight" for i in range(spare)}
    assert train(lambda: heads(spare=spare)) < LEARNED


def test_a_body_without_gradient_is_no_note():
    diagnosis = judge(lambda: heads(detached=True))
    assert diagnosis.verdict is Verdict.NO_GRADIENT
    assert "body.0.weight" in diagnosis.findings[0].modules
    assert not any(each.name == "unused_weights" for each in diagnosis.notes)


def test_a_body_that_never_runs_is_no_note():
    model = Lambda(
        lambda m, x: m.head(x),
        body=nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16)),
        head=nn.Linear(16, CLASSES),
    )
    assert judge(lambda: classify(model, *draw_vectors())).verdict is Verdict.NO_GRADIENT


def test_experts_that_nothing_chose_are_a_note():
    def run(m, x):
        return m.head(x + m.experts[3](x))

    experts = nn.ModuleList(nn.Linear(16, 16) for _ in range(16))
    model = Lambda(run, experts=experts, head=nn.Linear(16, CLASSES))
    flow = inspect(*classify(model, *draw_vectors()))
    assert len(read_unreached(flow).names) == 15
    assert diagnose(flow).verdict is Verdict.HEALTHY


def test_one_number_has_no_spread_to_fade():
    """One example and one output: a single number, whose spread is zero whatever the model."""
    model, x = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 1)), torch.randn(1, 8)
    diagnosis = diagnose(inspect(model, lambda m: (m(x) - 1.0).square().mean()))
    assert diagnosis.verdict is Verdict.HEALTHY
