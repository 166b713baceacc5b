"""From a `NetworkSpec` to plain PyTorch: the network, its batch, its loss.

Every random number comes from a generator of its own, so the global RNG is never touched and one
seed always gives one network. Weights and data are drawn in float32 also for float64 networks:
the two precisions measure the same network.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from chainrule.flow.records import Role
from chainrule.spec.activations import get_activation
from chainrule.spec.network_spec import MAX_SEED, NetworkSpec

DATA_SEED_OFFSET = MAX_SEED + 1
"""Added to the seed of a network to get the seed of its batch."""


class ResidualBlock(nn.Module):
    """h ↦ h + scale · φ(normalize(W h + b)): one weight layer with a path around it."""

    def __init__(
        self,
        linear: nn.Module,
        normalization: nn.Module | None,
        activation: nn.Module,
        scale: float,
    ) -> None:
        super().__init__()
        self.linear = linear
        if normalization is not None:
            self.normalization = normalization
        self.activation = activation
        self.scale = scale

    def forward(self, h: Tensor) -> Tensor:
        """Map activations of shape [batch, width] to the same shape."""
        z = self.linear(h)
        if hasattr(self, "normalization"):
            z = self.normalization(z)
        return h + self.scale * self.activation(z)

    def extra_repr(self) -> str:
        """Show the scale of the branch."""
        return f"scale={self.scale:.4g}"


def build_network(spec: NetworkSpec, seed: int | None = None) -> nn.Sequential:
    """Return the network that a specification describes.

    Plain specifications give a flat `nn.Sequential` of `nn.Linear`, normalization (if any) and
    activation modules; residual ones a sequence of `ResidualBlock`.

    Args:
        spec: What to build.
        seed: Seed of the weights; `spec.seed` by default. The same seed gives the same weights on
            every run.

    Raises:
        SpecError: If the specification has no such seed.
    """
    generator = torch.Generator().manual_seed(_pick_seed(spec, seed))
    blocks: list[nn.Module] = []
    for _ in range(spec.depth):
        linear = nn.utils.skip_init(
            nn.Linear, spec.width, spec.width, dtype=torch.float32, device="cpu"
        )
        with torch.no_grad():
            initialize(linear.weight, linear.bias, spec, generator)
        normalization = _build_normalization(spec)
        activation = getattr(nn, get_activation(spec.activation).module)()
        if spec.residual == "none":
            blocks += [linear, *([normalization] if normalization else []), activation]
        else:
            blocks.append(ResidualBlock(linear, normalization, activation, branch_scale(spec)))
    return nn.Sequential(*blocks).to(get_dtype(spec))


def initialize(weight: Tensor, bias: Tensor, spec: NetworkSpec, generator: torch.Generator) -> None:
    """Draw the weights and biases of one layer in place, as the table of initializations says.

    Args:
        weight: float32, [fan_out, fan_in].
        bias: float32, [fan_out].
        spec: Gives the initialization and its parameters.
        generator: Where the numbers come from; its state advances.
    """
    fan_out, fan_in = weight.shape
    entry = spec.initializer
    if entry.name == "orthogonal":
        nn.init.orthogonal_(weight, generator=generator)
    elif spec.drawn_distribution == "uniform":
        bound = entry.uniform_bound(fan_in, fan_out, spec.weight_std)
        weight.uniform_(-bound, bound, generator=generator)
    else:
        std = entry.standard_deviation(fan_in, fan_out, spec.weight_std)
        weight.normal_(0.0, std, generator=generator)
    if spec.bias_std is not None:
        bias.normal_(0.0, spec.bias_std, generator=generator)
    elif entry.bias_bound is not None:
        bound = entry.bias_bound(fan_in)
        bias.uniform_(-bound, bound, generator=generator)
    else:
        bias.zero_()


def draw_batch(spec: NetworkSpec, seed: int | None = None) -> tuple[Tensor, Tensor]:
    """Return inputs N(0, input_scale²) and targets N(0, 1), both of shape [batch_size, width].

    Args:
        spec: Gives the shape and precision.
        seed: Seed of the network they belong to; `spec.seed` by default.
    """
    generator = torch.Generator().manual_seed(_pick_seed(spec, seed) + DATA_SEED_OFFSET)
    shape = (spec.batch_size, spec.width)
    inputs = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    targets = torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")
    inputs.mul_(spec.input_scale)  # before the precision changes: both get the same inputs
    return inputs.to(get_dtype(spec)), targets.to(get_dtype(spec))


def make_loss(spec: NetworkSpec, seed: int | None = None) -> Callable[[nn.Module], Tensor]:
    """Return the loss of a specification as a `compute_loss` for `inspect`.

    The inputs require a gradient, so that ∂loss/∂x and the first weight factor are measured too.

    Args:
        spec: Gives the batch.
        seed: Seed of the network it belongs to; `spec.seed` by default.

    Returns:
        A function from a network to the mean squared error on its batch.
    """
    inputs, targets = draw_batch(spec, seed)
    inputs.requires_grad_()

    def compute_loss(model: nn.Module) -> Tensor:
        return F.mse_loss(model(inputs), targets)

    return compute_loss


def get_dtype(spec: NetworkSpec) -> torch.dtype:
    """Return the torch data type of a specification."""
    return torch.float64 if spec.dtype == "float64" else torch.float32


def branch_scale(spec: NetworkSpec) -> float:
    """Return what multiplies the residual branch: 1, or 1/√depth for "scaled"."""
    return 1.0 / math.sqrt(spec.depth) if spec.residual == "scaled" else 1.0


def name_modules(spec: NetworkSpec) -> Iterator[tuple[str, str, Role, int]]:
    """Yield (qualified name, class name, role, layer) of a network's modules in forward order.

    The same as building the network and asking it, but without building it. A residual block comes
    after the modules in it.
    """
    normalization = _build_normalization(spec)
    activation = get_activation(spec.activation).module
    parts: list[tuple[str, str, Role]] = [("linear", "Linear", "weight")]
    if normalization is not None:
        parts.append(("normalization", type(normalization).__name__, "normalization"))
    parts.append(("activation", activation, "activation"))
    position = 0
    for layer in range(1, spec.depth + 1):
        for field, kind, role in parts:
            if spec.residual == "none":
                yield str(position), kind, role, layer
                position += 1
            else:
                yield f"{layer - 1}.{field}", kind, role, layer
        if spec.residual != "none":
            yield str(layer - 1), ResidualBlock.__name__, "residual", layer


def _pick_seed(spec: NetworkSpec, seed: int | None) -> int:
    return spec.seed if seed is None else spec.replace(seed=seed).seed


def _build_normalization(spec: NetworkSpec) -> nn.Module | None:
    if spec.normalization == "layernorm":
        return nn.LayerNorm(spec.width, device="cpu")
    if spec.normalization == "batchnorm":
        return nn.BatchNorm1d(spec.width, device="cpu")
    if spec.normalization == "rmsnorm":
        return nn.RMSNorm(spec.width, device="cpu")
    return None
