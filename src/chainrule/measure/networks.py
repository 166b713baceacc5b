"""From a `NetworkSpec` to plain PyTorch: the network, its batch, its loss.

Every random number comes from a generator of its own, so the global RNG is never touched and one
seed always gives one network. Weights and data are drawn in float32 also for float64 networks:
the two precisions measure the same network.

`build_network` gives one network as modules. `stack_networks` draws several of one architecture,
and `run_stack` computes them together; measuring and training both use it. A new activation is an
entry of the table in `chainrule.spec.activations`, a new normalization one of `_NORMALIZATIONS`,
a new residual connection a change of `ResidualBlock` and `run_stack`.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

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

    Example:
        >>> [type(module).__name__ for module in build_network(NetworkSpec(depth=1))]
        ['Linear', 'Sigmoid']
    """
    generator = torch.Generator().manual_seed(_pick_seed(spec, seed))
    modules: list[nn.Module] = []
    for _ in range(spec.depth):
        linear = nn.utils.skip_init(
            nn.Linear, spec.width, spec.width, dtype=torch.float32, device="cpu"
        )
        with torch.no_grad():
            initialize(linear.weight, linear.bias, spec, generator)
        modules += _arrange(spec, linear, _build_normalization(spec))
    return nn.Sequential(*modules).to(get_dtype(spec))


Stack = dict[tuple[str, str], list[Tensor]]
"""Parameters of several networks of one architecture, by the role of their module and their name,
such as ("weight", "bias"): one per layer, each [members, *shape]."""


def stack_networks(specs: Sequence[NetworkSpec], tick: Callable[[], None] = lambda: None) -> Stack:
    """Return the parameters of several networks; member m is `build_network(specs[m])`.

    Args:
        specs: At least one; they differ only in their seeds and in how they are initialized.
        tick: Called before each network is drawn.
    """
    spec, members = specs[0], len(specs)

    def allocate(*shape: int) -> Tensor:
        return torch.empty(spec.depth, members, *shape, dtype=torch.float32, device="cpu")

    weight, bias = allocate(spec.width, spec.width), allocate(spec.width)
    for member, each in enumerate(specs):
        tick()
        generator = torch.Generator().manual_seed(each.seed)
        for layer in range(spec.depth):
            initialize(weight[layer, member], bias[layer, member], each, generator)
    kinds = {("weight", "weight"): weight, ("weight", "bias"): bias}
    if spec.normalization != "none":
        kinds["normalization", "weight"] = allocate(spec.width).fill_(1.0)
        if _NORMALIZATIONS[spec.normalization].shifts:
            kinds["normalization", "bias"] = allocate(spec.width).zero_()
    return {key: list(tensor.to(get_dtype(spec)).unbind(0)) for key, tensor in kinds.items()}


def run_stack(spec: NetworkSpec, stack: Stack, inputs: Tensor) -> Iterator[tuple[Role, Tensor]]:
    """Compute several networks together; no operation mixes their values.

    Args:
        spec: Their architecture.
        stack: Their parameters.
        inputs: [members, batch, width].

    Yields:
        The role and the output of each module, [members, batch, width], in the order of
        `name_modules`. The last output is that of the networks.
    """
    activate = _build_activation(spec).forward
    normalization = _NORMALIZATIONS.get(spec.normalization)
    scale = _get_branch_scale(spec)
    shifts = stack.get(("normalization", "bias"))
    h = inputs
    for layer in range(spec.depth):
        z = apply_linear(stack["weight", "weight"][layer], stack["weight", "bias"][layer], h)
        yield "weight", z
        if normalization is not None:
            shift = shifts[layer] if shifts else None
            z = normalization.normalize(z, stack["normalization", "weight"][layer], shift)
            yield "normalization", z
        branch = activate(z)
        yield "activation", branch
        if scale is None:
            h = branch
        else:
            h = h + scale * branch
            yield "residual", h


def apply_linear(weight: Tensor, bias: Tensor, h: Tensor) -> Tensor:
    """Return W h + b of every member.

    Args:
        weight: [members, fan_out, fan_in].
        bias: [members, fan_out].
        h: [members, batch, fan_in].
    """
    return torch.baddbmm(bias.unsqueeze(1), h, weight.transpose(1, 2))


def _arrange(
    spec: NetworkSpec, linear: nn.Module, normalization: nn.Module | None
) -> list[nn.Module]:
    """Return one layer: the modules that a network goes through one after another."""
    activation, scale = _build_activation(spec), _get_branch_scale(spec)
    if scale is None:
        parts = (linear, normalization, activation)
        return [part for part in parts if part is not None]
    return [ResidualBlock(linear, normalization, activation, scale)]


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

    Example:
        >>> [list(tensor.shape) for tensor in draw_batch(NetworkSpec(width=8))]
        [[32, 8], [32, 8]]
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

    Example:
        >>> make_loss(NetworkSpec(depth=1))(build_network(NetworkSpec(depth=1))).dim()
        0
    """
    inputs, targets = draw_batch(spec, seed)
    inputs.requires_grad_()

    def compute_loss(model: nn.Module) -> Tensor:
        return F.mse_loss(model(inputs), targets)

    return compute_loss


def get_dtype(spec: NetworkSpec) -> torch.dtype:
    """Return the torch data type of a specification."""
    return torch.float64 if spec.dtype == "float64" else torch.float32


@dataclass(frozen=True, slots=True)
class NamedModule:
    """What is known of a module of a network without building it.

    Attributes:
        name: Qualified name.
        kind: Class name.
        role: What it does in the network.
        layer: Number of its weight layer, 1 … depth.
        parent: Position of the module that it is a part of, in the order of `name_modules`.
    """

    name: str
    kind: str
    role: Role
    layer: int
    parent: int | None


def name_modules(spec: NetworkSpec) -> Iterator[NamedModule]:
    """Yield the modules of a network in forward order.

    The same as building the network and asking it, but only one layer is built, without values. A
    residual block comes after the modules in it.
    """
    linear, normalization = nn.Linear(1, 1, device="meta"), _build_normalization(spec, "meta")
    roles: dict[nn.Module | None, Role] = {linear: "weight", normalization: "normalization"}
    blocks = _arrange(spec, linear, normalization)
    parts: list[tuple[int, str, str, Role, int | None]] = []
    for number, block in enumerate(blocks):
        children = list(block.named_children())
        whole = len(parts) + len(children)
        for name, child in children:
            role = roles.get(child, "activation")
            parts.append((number, f".{name}", type(child).__name__, role, whole))
        role = "residual" if children else roles.get(block, "activation")
        parts.append((number, "", type(block).__name__, role, None))
    for layer in range(spec.depth):
        for number, suffix, kind, role, parent in parts:
            yield NamedModule(
                name=f"{layer * len(blocks) + number}{suffix}",
                kind=kind,
                role=role,
                layer=layer + 1,
                parent=None if parent is None else layer * len(parts) + parent,
            )


def _pick_seed(spec: NetworkSpec, seed: int | None) -> int:
    return spec.seed if seed is None else spec.replace(seed=seed).seed


def _build_normalization(spec: NetworkSpec, device: str = "cpu") -> nn.Module | None:
    if spec.normalization == "none":
        return None
    return _NORMALIZATIONS[spec.normalization].build(spec.width, device=device)


def _build_activation(spec: NetworkSpec) -> nn.Module:
    return getattr(nn, get_activation(spec.activation).module)()


def _get_branch_scale(spec: NetworkSpec) -> float | None:
    """Return what multiplies the residual branch; `None` if there is no residual connection."""
    if spec.residual == "none":
        return None
    return 1.0 / math.sqrt(spec.depth) if spec.residual == "scaled" else 1.0


def _normalize_units(z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    z = F.layer_norm(z, z.shape[-1:]) * weight.unsqueeze(1)
    return z if bias is None else z + bias.unsqueeze(1)


def _divide_by_rms(z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    z = F.rms_norm(z, z.shape[-1:]) * weight.unsqueeze(1)
    return z if bias is None else z + bias.unsqueeze(1)


def _normalize_examples(z: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Normalize each unit of each member over the batch: all of them are channels of one call."""
    channels = z.transpose(0, 1).flatten(1)
    shift = None if bias is None else bias.flatten()
    channels = F.batch_norm(channels, None, None, weight.flatten(), shift, training=True)
    return channels.unflatten(1, weight.shape).transpose(0, 1).contiguous()


@dataclass(frozen=True, slots=True)
class _Normalization:
    """One normalization, for a network and for several at once.

    Attributes:
        build: Returns the module of one network, given its width and `device`.
        normalize: Normalizes [members, batch, width] with a weight and a shift, [members, width].
        shifts: Whether the module has a bias.
    """

    build: Callable[..., nn.Module]
    normalize: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    shifts: bool


_NORMALIZATIONS: Mapping[str, _Normalization] = MappingProxyType(
    {
        "layernorm": _Normalization(nn.LayerNorm, _normalize_units, shifts=True),
        "batchnorm": _Normalization(nn.BatchNorm1d, _normalize_examples, shifts=True),
        "rmsnorm": _Normalization(nn.RMSNorm, _divide_by_rms, shifts=False),
    }
)
