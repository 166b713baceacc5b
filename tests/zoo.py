"""The zoo: small models that are awkward to measure. Each function returns (model, compute_loss).

Everything is float64 and seeded unless that is the point of the animal. Losses with random
numbers in them (dropout) draw them from the global generator: seed it before measuring.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Case = tuple[nn.Module, Callable[[nn.Module], Tensor]]
ZOO: dict[str, Callable[[], Case]] = {}


def animal(build: Callable[[], Case]) -> Callable[[], Case]:
    """Add a function to the zoo; it is seeded whenever it is called."""

    def build_seeded() -> Case:
        torch.manual_seed(11)
        return build()

    ZOO[build.__name__] = build_seeded
    return build_seeded


def draw(*shape: int, dtype: torch.dtype = torch.float64, grad: bool = False) -> Tensor:
    return torch.randn(*shape, dtype=dtype).requires_grad_(grad)


def on(model: nn.Module, *inputs: Tensor) -> Case:
    """Return the model in float64, with the mean square of its output as the loss."""
    return model.double(), lambda m: m(*inputs).square().mean()


class Lambda(nn.Module):
    """Contains modules, and calls them as a function says."""

    def __init__(self, function: Callable[..., object], **parts: nn.Module) -> None:
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs: object) -> object:
        return self.function(self, *inputs)


# --- Plain structures ----------------------------------------------------------------------------


@animal
def mlp() -> Case:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    return on(model, draw(8, 4, grad=True))


@animal
def single_layer() -> Case:
    return on(nn.Linear(4, 2), draw(8, 4))


@animal
def in_place_relu() -> Case:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    return on(model, draw(8, 4, grad=True))


@animal
def in_place_relu_on_sequences() -> Case:
    """`nn.Linear` returns a view when its input has three dimensions."""
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(inplace=True), nn.Linear(6, 2))
    return on(model, draw(5, 3, 4))


@animal
def in_place_relu_on_a_view() -> Case:
    model = nn.Sequential(nn.Conv1d(2, 3, 2), nn.Flatten(), nn.ReLU(inplace=True), nn.Linear(9, 2))
    return on(model, draw(5, 2, 4))


@animal
def in_place_unknown() -> Case:
    """A leaf module that works in place without saying so."""
    double = Lambda(lambda m, h: h.mul_(2.0))
    return on(nn.Sequential(nn.Linear(4, 6), double, nn.Linear(6, 2)), draw(8, 4))


def _residual(relu: nn.Module) -> nn.Module:
    def run(m, x):
        out = m.bn(m.lin(x))
        out += x
        return m.act(out)

    return Lambda(run, lin=nn.Linear(5, 5), bn=nn.BatchNorm1d(5), act=relu)


@animal
def residual_in_place_add() -> Case:
    return on(_residual(nn.ReLU()), draw(6, 5, grad=True) - 1.0)


@animal
def residual_in_place_add_and_relu() -> Case:
    return on(_residual(nn.ReLU(inplace=True)), draw(6, 5, grad=True) - 1.0)


@animal
def shared_module() -> Case:
    shared = nn.Linear(5, 5)
    return on(nn.Sequential(shared, nn.Tanh(), shared), draw(6, 5))


@animal
def tied_weights() -> Case:
    encoder, decoder = nn.Embedding(7, 4), nn.Linear(4, 7, bias=False)
    decoder.weight = encoder.weight
    return on(nn.Sequential(encoder, decoder), torch.tensor([[1, 2, 2], [0, 6, 3]]))


@animal
def rnn_cell_loop() -> Case:
    def run(m, x):
        h = x.new_zeros(x.shape[1], 6)
        for step in x:
            h = m.cell(step, h)
        return m.head(h)

    return on(Lambda(run, cell=nn.RNNCell(4, 6), head=nn.Linear(6, 1)), draw(5, 3, 4))


@animal
def conv_net() -> Case:
    model = nn.Sequential(
        nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(12, 3), nn.ReLU()
    )
    with torch.no_grad():
        model[0].bias[1] = -100.0  # channel 1 dies
    return on(model, draw(4, 2, 6, 6))


@animal
def large_tensors() -> Case:
    model = nn.Sequential(nn.Linear(300, 300), nn.ReLU(inplace=True), nn.Linear(300, 300))
    return on(model, draw(400, 300))


@animal
def large_tensors_with_huge_values() -> Case:
    model = nn.Sequential(nn.Linear(300, 300), nn.ReLU(inplace=True), nn.Linear(300, 300))
    x = draw(400, 300, dtype=torch.float32) * 1e30
    return model, lambda m: (m(x) * 1e-10).sum()


# --- Outputs -------------------------------------------------------------------------------------


@dataclass
class Named:
    logits: Tensor
    extra: object = None


class Pair(NamedTuple):
    left: Tensor
    right: Tensor


def _structured(shape_output: Callable[[Tensor], object], read: Callable) -> Case:
    class Head(nn.Module):  # a leaf, so that its structured output is measured
        def forward(self, h: Tensor) -> object:
            return shape_output(h)

    model = nn.Sequential(nn.Linear(4, 6), Head()).double()
    x = draw(5, 4)
    return model, lambda m: read(m(x))


@animal
def tuple_output() -> Case:
    return _structured(lambda h: (h.sin(), h.argmax(1), h.exp()), lambda out: out[0].sum())


@animal
def named_tuple_output() -> Case:
    return _structured(lambda h: Pair(h.sin(), h.exp()), lambda out: (out[0] * out.right).sum())


@animal
def dict_output() -> Case:
    return _structured(
        lambda h: {"a": h.sin(), "b": {"c": h.exp()}}, lambda out: (out["a"] * out["b"]["c"]).sum()
    )


@animal
def dataclass_output() -> Case:
    return _structured(
        lambda h: Named(h.sin(), [h.exp(), (h.cos(), None)]),
        lambda out: (out.logits * out.extra[1][0]).sum() + out.extra[0].mean(),
    )


@animal
def scalar_output() -> Case:
    return _structured(lambda h: h.square().sum(), lambda out: out.log())


@animal
def empty_batch() -> Case:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)).double()
    x = draw(0, 4)
    return model, lambda m: m(x).sum()


@animal
def scalar_parameter() -> Case:
    class Scale(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.factor = nn.Parameter(torch.tensor(1.5))

        def forward(self, x: Tensor) -> Tensor:
            return self.factor * x

    return on(nn.Sequential(nn.Linear(4, 3), Scale()), draw(5, 4))


# --- Gradients that do not exist, or exist in an unusual form ------------------------------------


@animal
def frozen() -> Case:
    model, compute_loss = mlp()
    model[0].requires_grad_(False)
    model[2].weight.requires_grad_(False)
    return model, compute_loss


@animal
def frozen_without_input_gradient() -> Case:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    model[0].requires_grad_(False)
    return on(model, draw(8, 4))


@animal
def unreached() -> Case:
    def run(m, x):
        m.ran(x)  # runs, but its output is not used
        return m.used(x) + m.detached(x).detach()

    parts = {name: nn.Linear(4, 2) for name in ("used", "unused", "ran", "detached")}
    return on(Lambda(run, **parts), draw(5, 4))


@animal
def called_without_gradient() -> Case:
    def run(m, x):
        with torch.no_grad():
            target = m.body(x)
        return m.body(x) - target * 2

    return on(Lambda(run, body=nn.Linear(4, 4)), draw(5, 4))


@animal
def zero_gradient() -> Case:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    nn.init.constant_(model[0].bias, -100.0)
    return on(model, draw(8, 4))


@animal
def gradient_penalty() -> Case:
    model = nn.Sequential(nn.Linear(4, 6), nn.Softplus(), nn.Linear(6, 1)).double()
    x = draw(8, 4, grad=True)

    def compute_loss(m: nn.Module) -> Tensor:
        (slope,) = torch.autograd.grad(m(x).sum(), x, create_graph=True)
        return (slope.norm(dim=1) - 1).square().mean()

    return model, compute_loss


@animal
def embedding() -> Case:
    model = nn.Sequential(nn.Embedding(9, 4), nn.Linear(4, 2))
    return on(model, torch.tensor([[1, 1, 2], [8, 1, 0]]))


@animal
def sparse_embedding() -> Case:
    model = nn.Sequential(nn.Embedding(9, 4, sparse=True), nn.Linear(4, 2))
    return on(model, torch.tensor([[1, 1, 2], [8, 1, 0]]))


@animal
def complex_parameters() -> Case:
    class Rotate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 3, dtype=torch.complex128))

        def forward(self, x: Tensor) -> Tensor:
            return x.to(torch.complex128) @ self.weight

    x = draw(5, 4)
    return nn.Sequential(Rotate()), lambda m: m(x).abs().square().mean()


class _Straight(torch.autograd.Function):
    """Rounds; its backward passes on three times the gradient."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, gradient):
        return 3 * gradient


@animal
def custom_function() -> Case:
    straight = Lambda(lambda m, h: _Straight.apply(h))
    return on(nn.Sequential(nn.Linear(4, 6), straight, nn.Linear(6, 2)), draw(5, 4))


@animal
def user_hooks() -> Case:
    """A hook that replaces an output, and one that scales a gradient."""
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    model[0].register_forward_hook(lambda module, args, out: 2 * out + 1)
    model[1].register_forward_pre_hook(lambda module, args: (args[0] * 0.5,))

    def scale_gradient(module, args, out):
        out.register_hook(lambda gradient: 10 * gradient)

    model[1].register_forward_hook(scale_gradient)
    return on(model, draw(5, 4))


# --- Who owns the weights ------------------------------------------------------------------------


@animal
def owner_with_children() -> Case:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cls = nn.Parameter(torch.randn(1, 4))
            self.body = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(torch.cat([self.cls, x]))

    return on(nn.Sequential(Tokens(), nn.Tanh()), draw(5, 4))


@animal
def functional_weight() -> Case:
    def run(m, x):
        return m.last(F.linear(m.first(x), m.lin.weight).tanh())

    parts = {"first": nn.Linear(4, 4), "lin": nn.Linear(4, 5), "last": nn.Linear(5, 1)}
    return on(Lambda(run, **parts), draw(6, 4))


@animal
def weight_norm() -> Case:
    lin = nn.utils.parametrizations.weight_norm(nn.Linear(4, 5))
    return on(nn.Sequential(lin, nn.Tanh(), nn.Linear(5, 1)), draw(6, 4))


@animal
def spectral_norm() -> Case:
    lin = nn.utils.parametrizations.spectral_norm(nn.Linear(4, 5, bias=False))
    return on(nn.Sequential(nn.Linear(4, 4), lin, nn.Tanh()), draw(6, 4))


# --- Layers with state, chance or kernels of their own -------------------------------------------


@animal
def batch_norm() -> Case:
    return on(nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.ReLU()), draw(8, 4))


@animal
def batch_norm_eval() -> Case:
    model, compute_loss = batch_norm()
    model(draw(8, 4))  # running statistics other than 0 and 1
    return model.eval(), compute_loss


@animal
def dropout() -> Case:
    model = nn.Sequential(
        nn.Linear(4, 20), nn.Dropout(0.5), nn.Linear(20, 2), nn.Dropout(0.1, True)
    )
    return on(model, draw(8, 4))


def _recurrent(cls: type[nn.RNNBase]) -> Case:
    rnn = cls(4, 5, num_layers=2, bidirectional=True, dropout=0.3, batch_first=True)

    def run(m, x):
        out, state = m.rnn(x)
        state = state[0] if isinstance(state, tuple) else state
        return m.head(out[:, -1]) + state.sum()

    return on(Lambda(run, rnn=rnn, head=nn.Linear(10, 1)), draw(3, 6, 4))


@animal
def lstm() -> Case:
    return _recurrent(nn.LSTM)


@animal
def gru() -> Case:
    return _recurrent(nn.GRU)


@animal
def packed_sequence() -> Case:
    def run(m, x):
        packed = nn.utils.rnn.pack_padded_sequence(x, torch.tensor([5, 3]))
        return m.rnn(packed)[0].data

    return on(Lambda(run, rnn=nn.GRU(3, 4)), draw(5, 2, 3))


@animal
def unusual_buffers() -> Case:
    """A sparse one (a graph), an expanded one (positions), NaN, and integers."""

    class Graph(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 4)
            self.register_buffer("edges", torch.eye(5).to_sparse())
            self.register_buffer("positions", torch.arange(4.0).expand(5, 4))
            self.register_buffer("unset", torch.full((2,), torch.nan))
            self.register_buffer("steps", torch.tensor(3))
            self.register_buffer("nothing", None)

        def forward(self, x: Tensor) -> Tensor:
            self.steps += 1
            return torch.sparse.mm(self.edges, self.lin(x)) + self.positions

    return on(Graph(), draw(5, 4))


@animal
def attention() -> Case:
    model = Lambda(lambda m, x: m.attn(x, x, x)[0], attn=nn.MultiheadAttention(8, 2, dropout=0.2))
    return on(model, draw(5, 3, 8, grad=True))


@animal
def transformer_layer() -> Case:
    return on(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), draw(3, 5, 8))


@animal
def transformer_layer_eval() -> Case:
    model, compute_loss = transformer_layer()
    return model.eval(), compute_loss


@animal
def frozen_transformer_eval() -> Case:
    """Nothing in the encoder needs a gradient: PyTorch takes its fused path."""
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2)
    encoder.requires_grad_(False).eval()
    padding = torch.tensor([[False] * 5, [False] * 3 + [True] * 2])

    def run(m, x):
        return m.head(m.encoder(x, src_key_padding_mask=padding)[:, 0])

    return on(Lambda(run, encoder=encoder, head=nn.Linear(8, 1)), draw(2, 5, 8))


# --- Numbers -------------------------------------------------------------------------------------


def _in_half(dtype: torch.dtype) -> Case:
    model = nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.LayerNorm(6), nn.Linear(6, 2)).to(dtype)
    x = draw(8, 4, dtype=dtype)
    return model, lambda m: m(x).float().square().mean()


@animal
def float16() -> Case:
    return _in_half(torch.float16)


@animal
def bfloat16() -> Case:
    return _in_half(torch.bfloat16)


@animal
def float16_beyond_its_squares() -> Case:
    """Gradients and values whose squares, and whose norm, are beyond float16."""
    model = nn.Sequential(nn.Linear(64, 64, bias=False)).half()
    nn.init.constant_(model[0].weight, 300.0)
    x = torch.ones(32, 64, dtype=torch.float16)
    return model, lambda m: (m(x).float() * 1000.0).sum()


@animal
def autocast() -> Case:
    model = nn.Sequential(nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, 2))
    x = draw(8, 4, dtype=torch.float32)

    def compute_loss(m: nn.Module) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out = m(x)
        return out.float().square().mean()

    return model, compute_loss


@animal
def nan_weight() -> Case:
    model, compute_loss = mlp()
    with torch.no_grad():
        model[2].weight[0, 0] = torch.nan
    return model, compute_loss


@animal
def infinite_activation() -> Case:
    model, compute_loss = mlp()
    with torch.no_grad():
        model[2].bias[0] = torch.inf
    return model, compute_loss


def _scaled(scale: float) -> Case:
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    x = draw(8, 4, dtype=torch.float32)
    return model, lambda m: (m(x) * scale).sum()


@animal
def tiny_gradients() -> Case:
    return _scaled(1e-30)


@animal
def huge_gradients() -> Case:
    return _scaled(1e30)


@animal
def huge_values() -> Case:
    model, _ = _scaled(1.0)
    x = draw(8, 4, dtype=torch.float32) * 1e30
    return model, lambda m: (m(x) * 1e-30).sum()


# --- Activation checkpointing: with `use_reentrant = None` the model runs without ----------------


class Checkpointed(nn.Module):
    """Three checkpointed segments, two of them parallel; `block` is called in all, `head` outside.

    A reentrant checkpoint first runs without gradients and again in the backward pass.
    """

    def __init__(self, use_reentrant: bool | None) -> None:
        super().__init__()
        self.use_reentrant = use_reentrant
        self.block = nn.Sequential(
            nn.Linear(5, 5), nn.ReLU(inplace=True), nn.Linear(5, 5), nn.Dropout(0.2)
        )
        self.head = nn.Linear(5, 1)

    def segment(self, x: Tensor) -> Tensor:
        if self.use_reentrant is None:
            return self.block(x)
        return checkpoint(self.block, x, use_reentrant=self.use_reentrant)

    def forward(self, x: Tensor) -> Tensor:
        h = self.segment(x)
        return self.head(self.segment(h.tanh()) + self.segment(h.sin()))


@animal
def checkpoint_reentrant() -> Case:
    return on(Checkpointed(use_reentrant=True), draw(6, 5, grad=True))


@animal
def checkpoint_non_reentrant() -> Case:
    return on(Checkpointed(use_reentrant=False), draw(6, 5))
