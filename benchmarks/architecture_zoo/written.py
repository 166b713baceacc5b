"""Standard architectures written by hand, each with its paper's start or PyTorch's default."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from architecture_zoo.tasks import (
    CLASSES,
    VOCABULARY,
    Case,
    classify,
    draw_images,
    draw_series,
    draw_tokens,
)

WRITTEN: dict[str, Callable[[], Case]] = {}
"""What builds every model, by name."""

Build = Callable[[], Case]


def entry(name: str) -> Callable[[Build], Build]:
    """Return a decorator that enters a model under a name."""

    def enter(build: Build) -> Build:
        WRITTEN[name] = build
        return build

    return enter


# --- Images --------------------------------------------------------------------------------------


def _convolve(i: int, o: int, size: int = 3, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(i, o, size, stride, size // 2, bias=False, groups=groups)


def _unit(
    i: int, o: int, size: int = 3, stride: int = 1, act: type[nn.Module] = nn.ReLU, **options: int
) -> list[nn.Module]:
    return [_convolve(i, o, size, stride, **options), nn.BatchNorm2d(o), act()]


def _end(width: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, CLASSES)]


@entry("LeNet-5")
def lenet() -> Case:
    return classify(
        nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
            nn.AvgPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84),
            nn.ReLU(), nn.Linear(84, CLASSES),
        ),
        *draw_images(16, 32, 1),
    )  # fmt: skip


@entry("LeNet-5, tanh and maxima")
def lenet_tanh() -> Case:
    return classify(
        nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.Tanh(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.Tanh(), nn.Linear(120, 84),
            nn.Tanh(), nn.Linear(84, CLASSES),
        ),
        *draw_images(16, 32, 1),
    )  # fmt: skip


@entry("PyTorch's CIFAR-10 tutorial")
def tutorial() -> Case:
    return classify(
        nn.Sequential(
            nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84),
            nn.ReLU(), nn.Linear(84, CLASSES),
        ),
        *draw_images(16, 32),
    )  # fmt: skip


@entry("plain CNN, average of the positions")
def plain_average() -> Case:
    layers = [nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()]
    for _ in range(3):
        layers += [nn.Conv2d(16, 16, 3, padding=1), nn.ReLU()]
    return classify(nn.Sequential(*layers, *_end(16)), *draw_images(16, 24))


@entry("all-convolutional net, strides")
def all_convolutional() -> Case:
    layers = []
    for i, o, stride in ((3, 16, 1), (16, 16, 2), (16, 32, 1), (32, 32, 2), (32, CLASSES, 1)):
        layers += [nn.Conv2d(i, o, 3, stride, 1), nn.ReLU()]
    net = nn.Sequential(*layers[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return classify(net, *draw_images(16, 24))


@entry("VGG-11 with BatchNorm")
def vgg() -> Case:
    layers: list[nn.Module] = []
    width = 3
    for o in (16, 0, 32, 0, 48, 48, 0, 64, 64, 0):
        layers += _unit(width, o) if o else [nn.MaxPool2d(2)]
        width = o or width
    return classify(nn.Sequential(*layers, *_end(width)), *draw_images(16, 32))


@entry("VGG-11, He start")
def vgg_he() -> Case:
    layers: list[nn.Module] = []
    width = 3
    for o in (16, 0, 32, 0, 48, 48, 0, 64, 64, 0):
        if o:
            conv = nn.Conv2d(width, o, 3, padding=1)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            layers += [conv, nn.ReLU()]
        else:
            layers.append(nn.MaxPool2d(2))
        width = o or width
    return classify(nn.Sequential(*layers, *_end(width)), *draw_images(16, 32))


class _Sum(nn.Module):
    """x + branch(x), with a projection where the shape changes."""

    def __init__(self, branch: nn.Module, short: nn.Module | None = None, *, act: bool = False):
        super().__init__()
        self.branch, self.short = branch, short or nn.Identity()
        self.act = nn.ReLU() if act else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.short(x) + self.branch(x))


def _basic(i: int, o: int, stride: int = 1, *, zero: bool = False) -> nn.Module:
    last = nn.BatchNorm2d(o)
    branch = nn.Sequential(*_unit(i, o, 3, stride), _convolve(o, o), last)
    if zero:
        nn.init.zeros_(last.weight)
    short = (
        nn.Sequential(_convolve(i, o, 1, stride), nn.BatchNorm2d(o))
        if i != o or stride > 1
        else None
    )
    return _Sum(branch, short, act=True)


@entry("ResNet, basic blocks")
def resnet() -> Case:
    blocks = [_basic(16, 16), _basic(16, 32, 2), _basic(32, 32), _basic(32, 64, 2)]
    return classify(nn.Sequential(*_unit(3, 16), *blocks, *_end(64)), *draw_images(16, 32))


@entry("ResNet, last scales zero")
def resnet_zero() -> Case:
    blocks = [_basic(i, o, s, zero=True) for i, o, s in ((16, 16, 1), (16, 32, 2), (32, 64, 2))]
    return classify(nn.Sequential(*_unit(3, 16), *blocks, *_end(64)), *draw_images(16, 32))


@entry("pre-activation ResNet")
def preactivation() -> Case:
    blocks = [
        _Sum(
            nn.Sequential(
                nn.BatchNorm2d(24), nn.ReLU(), _convolve(24, 24),
                nn.BatchNorm2d(24), nn.ReLU(), _convolve(24, 24),
            )
        )
        for _ in range(8)
    ]  # fmt: skip
    return classify(
        nn.Sequential(_convolve(3, 24), *blocks, nn.BatchNorm2d(24), nn.ReLU(), *_end(24)),
        *draw_images(16, 16),
    )


class _Dense(nn.Module):
    def __init__(self, i: int, growth: int) -> None:
        super().__init__()
        self.make = nn.Sequential(nn.BatchNorm2d(i), nn.ReLU(), _convolve(i, growth))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.make(x)], 1)


@entry("DenseNet")
def densenet() -> Case:
    layers: list[nn.Module] = [_convolve(3, 16)]
    width = 16
    for _ in range(2):
        for _ in range(4):
            layers.append(_Dense(width, 8))
            width += 8
        layers += [nn.BatchNorm2d(width), nn.ReLU(), _convolve(width, width // 2, 1)]
        layers.append(nn.AvgPool2d(2))
        width //= 2
    return classify(nn.Sequential(*layers, *_end(width)), *draw_images(16, 24))


class _Excite(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1), nn.Conv2d(width, width // 4, 1), nn.SiLU(),
            nn.Conv2d(width // 4, width, 1), nn.Sigmoid(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


def _inverted(i: int, o: int, stride: int, act: type[nn.Module], *, excite: bool) -> nn.Module:
    wide = 4 * i
    branch = nn.Sequential(
        *_unit(i, wide, 1, act=act), *_unit(wide, wide, 3, stride, act, groups=wide),
        _Excite(wide) if excite else nn.Identity(), _convolve(wide, o, 1), nn.BatchNorm2d(o),
    )  # fmt: skip
    return _Sum(branch) if i == o and stride == 1 else branch


@entry("MobileNet v2")
def mobilenet() -> Case:
    plan = ((16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1))
    blocks = [_inverted(i, o, s, nn.ReLU6, excite=False) for i, o, s in plan]
    return classify(nn.Sequential(*_unit(3, 16), *blocks, *_end(32)), *draw_images(16, 32))


@entry("EfficientNet")
def efficientnet() -> Case:
    plan = ((16, 16, 1), (16, 24, 2), (24, 24, 1), (24, 32, 2), (32, 32, 1))
    blocks = [_inverted(i, o, s, nn.SiLU, excite=True) for i, o, s in plan]
    return classify(nn.Sequential(*_unit(3, 16), *blocks, *_end(32)), *draw_images(16, 32))


class _ChannelNorm(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.movedim(1, -1)).movedim(-1, 1)


class _NextBlock(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.deep = nn.Conv2d(width, width, 7, padding=3, groups=width)
        self.norm = nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 1e-6))

    def forward(self, x: Tensor) -> Tensor:
        h = self.down(F.gelu(self.up(self.norm(self.deep(x).movedim(1, -1)))))
        return x + (self.scale * h).movedim(-1, 1)


@entry("ConvNeXt")
def convnext() -> Case:
    layers = [nn.Conv2d(3, 24, 2, 2), _ChannelNorm(24), _NextBlock(24), _NextBlock(24)]
    layers += [_ChannelNorm(24), nn.Conv2d(24, 48, 2, 2), *(_NextBlock(48) for _ in range(4))]
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(48))
    net.append(nn.Linear(48, CLASSES))
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)
    return classify(net, *draw_images(16, 16))


class _Patches(nn.Module):
    """A transformer over patches, with a token of the class or the mean."""

    def __init__(self, depth: int, *, token: bool, parallel: bool = False) -> None:
        super().__init__()
        width = 48
        self.cut = nn.Conv2d(3, width, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, width)) if token else None
        self.places = nn.Parameter(0.02 * torch.randn(1, 16 + token, width))
        kind = _Parallel if parallel else _PreNorm
        self.blocks = nn.Sequential(*(kind(width) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor) -> Tensor:
        h = self.cut(x).flatten(2).mT
        if self.token is not None:
            h = torch.cat([self.token.expand(len(h), -1, -1), h], 1)
        h = self.norm(self.blocks(h + self.places))
        return self.head(h.mean(1) if self.token is None else h[:, 0])


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int = 4, *, causal: bool = False) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in self.qkv(x).chunk(3, -1)
        )
        h = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(h.transpose(1, 2).flatten(2))


class _PreNorm(nn.Module):
    def __init__(self, width: int, *, causal: bool = False) -> None:
        super().__init__()
        self.a, self.m = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend = _Attention(width, causal=causal)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attend(self.a(x))
        return x + self.mlp(self.m(x))


class _Parallel(_PreNorm):
    """Attention and MLP side by side, as GPT-J and PaLM have them: a sum of three terms."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        return x + self.attend(h) + self.mlp(h)


@entry("ViT, class token")
def vit() -> Case:
    return classify(_Patches(6, token=True), *draw_images(16, 16))


@entry("ViT, mean")
def vit_mean() -> Case:
    return classify(_Patches(6, token=False), *draw_images(16, 16))


@entry("ViT, parallel blocks")
def vit_parallel() -> Case:
    return classify(_Patches(6, token=False, parallel=True), *draw_images(16, 16))


class _Mixer(nn.Module):
    def __init__(self, places: int, width: int) -> None:
        super().__init__()
        self.a, self.m = nn.LayerNorm(width), nn.LayerNorm(width)
        self.across = nn.Sequential(nn.Linear(places, 32), nn.GELU(), nn.Linear(32, places))
        self.within = nn.Sequential(nn.Linear(width, 128), nn.GELU(), nn.Linear(128, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.across(self.a(x).mT).mT
        return x + self.within(self.m(x))


class _Patched(nn.Module):
    def __init__(self, *blocks: nn.Module, width: int) -> None:
        super().__init__()
        self.cut, self.blocks = nn.Conv2d(3, width, 4, 4), nn.Sequential(*blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(self.cut(x).flatten(2).mT)).mean(1))


@entry("MLP-Mixer")
def mixer() -> Case:
    return classify(_Patched(*(_Mixer(16, 48) for _ in range(6)), width=48), *draw_images(16, 16))


class _UNet(nn.Module):
    def __init__(self, *, norm: bool) -> None:
        super().__init__()

        def pair(i: int, o: int) -> nn.Module:
            layers: list[nn.Module] = []
            for a in (i, o):
                layers += [nn.Conv2d(a, o, 3, padding=1)]
                layers += [nn.BatchNorm2d(o)] if norm else []
                layers += [nn.ReLU()]
            return nn.Sequential(*layers)

        self.down1, self.down2, self.mid = pair(3, 16), pair(16, 32), pair(32, 64)
        self.up2, self.up1 = nn.ConvTranspose2d(64, 32, 2, 2), nn.ConvTranspose2d(32, 16, 2, 2)
        self.join2, self.join1 = pair(64, 32), pair(32, 16)
        self.out = nn.Conv2d(16, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        a = self.down1(x)
        b = self.down2(F.max_pool2d(a, 2))
        h = self.mid(F.max_pool2d(b, 2))
        h = self.join2(torch.cat([self.up2(h), b], 1))
        return self.out(self.join1(torch.cat([self.up1(h), a], 1)))


def _segment(net: nn.Module) -> Case:
    images, _ = draw_images(8, 32)
    mask = (F.avg_pool2d(images, 5, 1, 2).mean(1, keepdim=True) > 0).float()
    return net, lambda m: F.binary_cross_entropy_with_logits(m(images), mask)


@entry("U-Net")
def unet() -> Case:
    return _segment(_UNet(norm=False))


@entry("U-Net with BatchNorm")
def unet_norm() -> Case:
    return _segment(_UNet(norm=True))


@entry("convolutional autoencoder")
def autoencoder() -> Case:
    images, _ = draw_images(16, 16, 1)
    net = nn.Sequential(
        nn.Conv2d(1, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU(),
        nn.Flatten(), nn.Linear(512, 16), nn.Linear(16, 512), nn.ReLU(),
        nn.Unflatten(1, (32, 4, 4)),
        nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 1, 4, 2, 1),
    )  # fmt: skip
    return net, lambda m: F.mse_loss(m(images), images)


@entry("dense autoencoder")
def dense_autoencoder() -> Case:
    images, _ = draw_images(32, 8, 1)
    x = images.flatten(1)
    sizes = (64, 48, 24, 8, 24, 48, 64)
    layers: list[nn.Module] = []
    for i, o in pairwise(sizes):
        layers += [nn.Linear(i, o), nn.ReLU()]
    return nn.Sequential(*layers[:-1]), lambda m: F.mse_loss(m(x), x)


class _VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        self.mean, self.spread = nn.Linear(64, 8), nn.Linear(64, 8)
        self.decoder = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(x)
        mean, spread = self.mean(h), self.spread(h)
        z = mean + torch.randn_like(mean) * (spread / 2).exp()
        return self.decoder(z), mean, spread


@entry("VAE")
def vae() -> Case:
    images, _ = draw_images(32, 8, 1)
    x = images.flatten(1)

    def compute_loss(m: nn.Module) -> Tensor:
        again, mean, spread = m(x)
        divergence = -0.5 * (1 + spread - mean**2 - spread.exp()).sum(1).mean()
        return F.mse_loss(again, x, reduction="sum") / len(x) + divergence

    return _VAE(), compute_loss


def _start_dcgan(net: nn.Module) -> nn.Module:
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return net


def _discriminator() -> nn.Module:
    return _start_dcgan(
        nn.Sequential(
            nn.Conv2d(3, 32, 4, 2, 1, bias=False), nn.LeakyReLU(0.2),
            nn.Conv2d(32, 64, 4, 2, 1, bias=False), nn.BatchNorm2d(64), nn.LeakyReLU(0.2),
            nn.Conv2d(64, 1, 4, bias=False), nn.Flatten(),
        )
    )  # fmt: skip


def _generator() -> nn.Module:
    return _start_dcgan(
        nn.Sequential(
            nn.ConvTranspose2d(16, 64, 4, bias=False), nn.BatchNorm2d(64), nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, 2, 1, bias=False), nn.BatchNorm2d(32), nn.ReLU(),
            nn.ConvTranspose2d(32, 3, 4, 2, 1, bias=False), nn.Tanh(),
        )
    )  # fmt: skip


@entry("DCGAN discriminator")
def discriminator() -> Case:
    images, _ = draw_images(16, 16)
    fake = torch.tanh(torch.randn(16, 3, 16, 16))
    truth = torch.cat([torch.ones(16, 1), torch.zeros(16, 1)])
    both = torch.cat([images, fake])
    return _discriminator(), lambda m: F.binary_cross_entropy_with_logits(m(both), truth)


@entry("DCGAN generator")
def generator() -> Case:
    judge, noise = _discriminator().requires_grad_(False), torch.randn(16, 16, 1, 1)
    return _generator(), lambda m: F.binary_cross_entropy_with_logits(
        judge(m(noise)), torch.ones(16, 1)
    )


class _Coupling(nn.Module):
    def __init__(self, *, zero: bool) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(2, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.last = nn.Linear(32, 4)
        if zero:
            nn.init.zeros_(self.last.weight)
            nn.init.zeros_(self.last.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = x.chunk(2, -1)
        scale, shift = self.last(self.net(a)).chunk(2, -1)
        scale = torch.tanh(scale)
        return torch.cat([b * scale.exp() + shift, a], -1), scale.sum(-1)


class _Flow(nn.Module):
    def __init__(self, *, zero: bool) -> None:
        super().__init__()
        self.steps = nn.ModuleList(_Coupling(zero=zero) for _ in range(6))

    def forward(self, x: Tensor) -> Tensor:
        total = torch.zeros(len(x))
        for step in self.steps:
            x, log_det = step(x)
            total = total + log_det
        return (0.5 * x.square().sum(-1) - total).mean()


def _flow_case(*, zero: bool) -> Case:
    x = torch.randn(64, 4)
    x = torch.cat([x[:, :2] * 2 + 1, x[:, :2].sin() + 0.3 * x[:, 2:]], -1)
    return _Flow(zero=zero), lambda m: m(x)


@entry("RealNVP")
def realnvp() -> Case:
    return _flow_case(zero=False)


@entry("RealNVP, last layers zero (Glow)")
def realnvp_zero() -> Case:
    return _flow_case(zero=True)


# --- Sequences -----------------------------------------------------------------------------------


class _GPT(nn.Module):
    def __init__(self, depth: int, *, tied: bool, std: float | None) -> None:
        super().__init__()
        width = 48
        self.tokens, self.places = nn.Embedding(VOCABULARY, width), nn.Embedding(32, width)
        self.blocks = nn.Sequential(*(_PreNorm(width, causal=True) for _ in range(depth)))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, VOCABULARY, bias=False)
        if std:
            for name, p in self.named_parameters():
                if p.dim() > 1:
                    out = name.endswith(("out.weight", "mlp.2.weight"))
                    nn.init.normal_(p, 0.0, std / (2 * depth) ** 0.5 if out else std)
        if tied:
            self.head.weight = self.tokens.weight

    def forward(self, ids: Tensor) -> Tensor:
        h = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.norm(self.blocks(h)))


def _continue(net: nn.Module) -> Case:
    ids = draw_tokens(8, 17)
    return net, lambda m: F.cross_entropy(m(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten())


@entry("nanoGPT (tied, 0.02)")
def nanogpt() -> Case:
    return _continue(_GPT(6, tied=True, std=0.02))


@entry("GPT, PyTorch's default start")
def gpt_default() -> Case:
    return _continue(_GPT(6, tied=False, std=None))


class _Translate(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, 48)
        self.core = nn.Transformer(48, 4, 3, 3, 96, dropout=0.0, batch_first=True)
        self.head = nn.Linear(48, VOCABULARY)

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(b.shape[1])
        return self.head(self.core(self.tokens(a), self.tokens(b), tgt_mask=mask))


@entry("nn.Transformer, encoder and decoder")
def translator() -> Case:
    a, b = draw_tokens(8, 10), draw_tokens(8, 11)
    return _Translate(), lambda m: F.cross_entropy(
        m(a, b[:, :-1]).flatten(0, 1), b[:, 1:].flatten()
    )


class _Encoder(nn.Module):
    def __init__(self, *, first: bool, depth: int) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(VOCABULARY, 48), nn.Embedding(32, 48)
        block = nn.TransformerEncoderLayer(48, 4, 96, 0.0, batch_first=True, norm_first=first)
        self.blocks = nn.TransformerEncoder(block, depth, enable_nested_tensor=False)
        self.head = nn.Linear(48, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.tokens(ids) + self.places(torch.arange(ids.shape[1]))
        return self.head(self.blocks(h).mean(1))


def _name_sequences(net: nn.Module) -> Case:
    ids, labels = draw_tokens(16, 12), torch.arange(16) % CLASSES
    ids[:, 0] = 3 + labels
    return classify(net, ids, labels)


@entry("nn.TransformerEncoder, post-norm")
def encoder_post() -> Case:
    return _name_sequences(_Encoder(first=False, depth=4))


@entry("nn.TransformerEncoder, pre-norm")
def encoder_pre() -> Case:
    return _name_sequences(_Encoder(first=True, depth=6))


class _Recurrent(nn.Module):
    def __init__(self, kind: Any, layers: int, *, last: bool) -> None:
        super().__init__()
        self.core = kind(4, 32, layers, batch_first=True)
        self.head, self.last = nn.Linear(32, CLASSES), last

    def forward(self, x: Tensor) -> Tensor:
        h, _ = self.core(x)
        return self.head(h[:, -1] if self.last else h.mean(1))


@entry("LSTM, read at its end")
def lstm() -> Case:
    return classify(_Recurrent(nn.LSTM, 1, last=True), *draw_series(32, 16, 4))


@entry("LSTM of two layers, mean")
def lstm_two() -> Case:
    return classify(_Recurrent(nn.LSTM, 2, last=False), *draw_series(32, 16, 4))


@entry("GRU, read at its end")
def gru() -> Case:
    return classify(_Recurrent(nn.GRU, 1, last=True), *draw_series(32, 16, 4))


@entry("GRU of two layers, mean")
def gru_two() -> Case:
    return classify(_Recurrent(nn.GRU, 2, last=False), *draw_series(32, 16, 4))


@entry("RNN, mean")
def rnn() -> Case:
    return classify(_Recurrent(nn.RNN, 1, last=False), *draw_series(32, 12, 4))


class _Causal(nn.Module):
    def __init__(self, i: int, o: int, dilation: int) -> None:
        super().__init__()
        self.pad = 2 * dilation
        self.a, self.b = (
            nn.Conv1d(i, o, 3, dilation=dilation),
            nn.Conv1d(o, o, 3, dilation=dilation),
        )
        self.short = nn.Conv1d(i, o, 1) if i != o else nn.Identity()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        h = self.act(self.a(F.pad(x, (self.pad, 0))))
        h = self.act(self.b(F.pad(h, (self.pad, 0))))
        return self.act(h + self.short(x))


class _Channels(nn.Module):
    """Reads series [batch, length, width] as [batch, width, length]."""

    def __init__(self, *layers: nn.Module, width: int) -> None:
        super().__init__()
        self.layers, self.head = nn.Sequential(*layers), nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.layers(x.mT).mean(-1))


@entry("TCN")
def tcn() -> Case:
    blocks = (_Causal(4, 24, 1), _Causal(24, 24, 2), _Causal(24, 24, 4))
    return classify(_Channels(*blocks, width=24), *draw_series(32, 24, 4))


class _Gated(nn.Module):
    def __init__(self, width: int, dilation: int) -> None:
        super().__init__()
        self.pad = dilation
        self.make = nn.Conv1d(width, 2 * width, 2, dilation=dilation)
        self.out, self.skip = nn.Conv1d(width, width, 1), nn.Conv1d(width, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        a, b = self.make(F.pad(x, (self.pad, 0))).chunk(2, 1)
        h = torch.tanh(a) * torch.sigmoid(b)
        return x + self.out(h), self.skip(h)


class _WaveNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.start = nn.Conv1d(4, 24, 1)
        self.blocks = nn.ModuleList(_Gated(24, 2**i) for i in range(5))
        self.middle, self.head = nn.Conv1d(24, 24, 1), nn.Conv1d(24, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        h, total = self.start(x.mT), torch.zeros(())
        for block in self.blocks:
            h, skip = block(h)
            total = total + skip
        return self.head(F.relu(self.middle(F.relu(total)))).mean(-1)


@entry("WaveNet")
def wavenet() -> Case:
    return classify(_WaveNet(), *draw_series(32, 24, 4))


# --- Modules that run many times -----------------------------------------------------------------


class _FixedPoint(nn.Module):
    """z = tanh(W z + U x), run to rest; the gradient goes through every step."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.u, self.w, self.head = nn.Linear(16, 32), nn.Linear(32, 32), nn.Linear(32, CLASSES)
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        z = torch.zeros(len(x), 32)
        for _ in range(self.steps):
            z = torch.tanh(self.w(z) + self.u(x))
        return self.head(z)


def _vectors(count: int = 32, width: int = 16) -> tuple[Tensor, Tensor]:
    labels = torch.arange(count) % CLASSES
    return torch.randn(CLASSES, width)[labels] + 0.5 * torch.randn(count, width), labels


@entry("fixed point, 30 steps")
def fixed_point() -> Case:
    return classify(_FixedPoint(30), *_vectors())


class _Implicit(_FixedPoint):
    """The same, with the last step alone in the graph, as deep equilibrium models do it."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            z = torch.zeros(len(x), 32)
            for _ in range(self.steps):
                z = torch.tanh(self.w(z) + self.u(x))
        return self.head(torch.tanh(self.w(z) + self.u(x)))


@entry("fixed point, last step in the graph")
def implicit() -> Case:
    return classify(_Implicit(30), *_vectors())


class _Unrolled(nn.Module):
    """LISTA: z = shrink(S z + B x), with one S for all steps."""

    def __init__(self) -> None:
        super().__init__()
        self.b, self.s = nn.Linear(16, 32, bias=False), nn.Linear(32, 32, bias=False)
        self.limit, self.back = nn.Parameter(torch.tensor(0.1)), nn.Linear(32, 16, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        start = self.b(x)
        z = F.relu(start - self.limit)
        for _ in range(12):
            z = F.relu(start + self.s(z) - self.limit)
        return self.back(z)


@entry("unrolled solver (LISTA)")
def unrolled() -> Case:
    x = torch.randn(64, 4) @ torch.randn(4, 16)
    return _Unrolled(), lambda m: F.mse_loss(m(x), x)


class _Universal(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.tokens, self.block, self.steps = nn.Embedding(VOCABULARY, 48), _PreNorm(48), steps
        self.norm, self.head = nn.LayerNorm(48), nn.Linear(48, CLASSES)

    def forward(self, ids: Tensor) -> Tensor:
        h = self.tokens(ids)
        for _ in range(self.steps):
            h = self.block(h)
        return self.head(self.norm(h).mean(1))


@entry("transformer with one block for all layers")
def universal() -> Case:
    return _name_sequences(_Universal(8))


class _ODE(nn.Module):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.start, self.head = nn.Linear(16, 32), nn.Linear(32, CLASSES)
        self.field = nn.Sequential(nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 32))
        self.steps = steps

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        for _ in range(self.steps):
            h = h + self.field(h) / self.steps
        return self.head(h)


@entry("neural ODE, Euler")
def ode() -> Case:
    return classify(_ODE(20), *_vectors())


# --- Small on purpose ----------------------------------------------------------------------------


def _mlp(depth: int, width: int = 48, outputs: int = CLASSES) -> Any:
    layers: list[nn.Module] = [nn.Linear(16, width), nn.ReLU()]
    for _ in range(depth - 1):
        layers += [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width, outputs))


@entry("MLP, PyTorch's default start")
def mlp() -> Case:
    return classify(_mlp(3), *_vectors())


@entry("policy with a last layer of gain 0.01")
def policy() -> Case:
    net: Any = nn.Sequential(
        nn.Linear(16, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, CLASSES)
    )
    for module, gain in zip(net[::2], (2**0.5, 2**0.5, 0.01), strict=True):
        nn.init.orthogonal_(module.weight, gain)
        nn.init.zeros_(module.bias)
    return classify(net, *_vectors())


@entry("MLP with a last layer of 1e-3")
def small_head() -> Case:
    net = _mlp(3)
    nn.init.normal_(net[-1].weight, 0.0, 1e-3)
    nn.init.zeros_(net[-1].bias)
    return classify(net, *_vectors())


@entry("CNN with a last layer of zeros")
def zero_head() -> Case:
    net, compute_loss = lenet()
    for parameter in list(net.parameters())[-2:]:
        nn.init.zeros_(parameter)
    return net, compute_loss


class _Lora(nn.Module):
    def __init__(self, inner: nn.Linear, rank: int = 4) -> None:
        super().__init__()
        self.inner = inner.requires_grad_(False)
        self.a = nn.Linear(inner.in_features, rank, bias=False)
        self.b = nn.Linear(rank, inner.out_features, bias=False)
        nn.init.zeros_(self.b.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.b(self.a(x))


@entry("LoRA on an MLP")
def lora() -> Case:
    net = _mlp(3)
    for at in (0, 2, 4):
        net[at] = _Lora(net[at])
    return classify(net, *_vectors())


@entry("SIREN")
def siren() -> Case:
    x = torch.linspace(-1, 1, 64).unsqueeze(1)
    y = torch.sin(8 * x) * x

    class Sine(nn.Module):
        def forward(self, h: Tensor) -> Tensor:
            return torch.sin(30 * h)

    net: Any = nn.Sequential(nn.Linear(1, 32), Sine(), nn.Linear(32, 32), Sine(), nn.Linear(32, 1))
    nn.init.uniform_(net[0].weight, -1, 1)
    for at in (2, 4):
        nn.init.uniform_(net[at].weight, -((6 / 32) ** 0.5) / 30, (6 / 32) ** 0.5 / 30)
    return net, lambda m: F.mse_loss(m(x), y)


# --- Parts that are not used ---------------------------------------------------------------------


class _Auxiliary(nn.Module):
    """Two heads, of which the loss reads one, as torchvision's Inception in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.more = nn.Sequential(*_unit(3, 16, 3, 2)), nn.Sequential(*_unit(16, 32))
        self.helper = nn.Sequential(*_unit(16, 16), *_end(16))
        self.head = nn.Sequential(*_end(32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.body(x)
        helper = self.helper(h)
        return self.head(self.more(h)), helper


@entry("CNN with an auxiliary head that is not read")
def auxiliary() -> Case:
    images, labels = draw_images(16, 16)
    return _Auxiliary(), lambda m: F.cross_entropy(m(images)[0], labels)


class _Experts(nn.Module):
    """A mixture of eight experts, of which every input takes one."""

    def __init__(self) -> None:
        super().__init__()
        self.start, self.gate = nn.Linear(16, 32), nn.Linear(32, 8)
        self.experts = nn.ModuleList(_expert() for _ in range(8))
        self.head = nn.Linear(32, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = self.start(x)
        odds = self.gate(h).softmax(-1)
        chosen = odds.argmax(-1)
        out = h
        for number in chosen.unique().tolist():
            mask = (chosen == number).unsqueeze(-1)
            out = out + mask * odds[:, number : number + 1] * self.experts[number](h)
        return self.head(out)


def _expert() -> nn.Module:
    return nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))


@entry("mixture of experts, one each")
def experts() -> Case:
    return classify(_Experts(), *_vectors(8))
