"""Export as code: a specification as a short PyTorch script, and what that script prints.

The script needs torch only. It draws the same numbers from the same generators in the same order as
`chainrule.build_network` does, so it prints the numbers that `simulate` measures. Every line in it
is one that this specification needs.
"""

from collections.abc import Iterator, Sequence

from chainrule.errors import SpecError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity
from chainrule.spec.activations import get_activation
from chainrule.spec.network_spec import MAX_SEED, NetworkSpec

_NORMALIZATIONS = {
    "layernorm": "nn.LayerNorm(WIDTH)",
    "batchnorm": "nn.BatchNorm1d(WIDTH)",
    "rmsnorm": "nn.RMSNorm(WIDTH)",
}

_NORMAL_DRAWS = {
    "xavier": "nn.init.xavier_normal_(linear.weight, generator=generator)",
    "he": 'nn.init.kaiming_normal_(linear.weight, nonlinearity="relu", generator=generator)',
    "lecun": 'nn.init.kaiming_normal_(linear.weight, nonlinearity="linear", generator=generator)',
    "random": "nn.init.normal_(linear.weight, std=WEIGHT_STD, generator=generator)",
    "orthogonal": "nn.init.orthogonal_(linear.weight, generator=generator)",
    "pytorch": "nn.init.normal_(linear.weight, std=(3 * WIDTH) ** -0.5, generator=generator)",
}

_UNIFORM_DRAWS = {
    "xavier": "nn.init.xavier_uniform_(linear.weight, generator=generator)",
    "he": 'nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu", generator=generator)',
    "lecun": 'nn.init.kaiming_uniform_(linear.weight, nonlinearity="linear", generator=generator)',
    "random": "nn.init.uniform_(linear.weight, -BOUND, BOUND, generator=generator)",
    "pytorch": "nn.init.kaiming_uniform_(linear.weight, a=5**0.5, generator=generator)",
}

_VARIANCES = {
    "xavier": "variance of a weight: 2 / (fan-in + fan-out)",
    "he": "variance of a weight: 2 / fan-in, twice LeCun's, as ReLU halves the mean square",
    "lecun": "variance of a weight: 1 / fan-in",
    "random": "the same standard deviation at any width",
    "orthogonal": "a random rotation, which keeps the length of every vector",
    "pytorch": "variance of a weight: 1 / (3 fan-in), as nn.Linear draws it",
}


def write_listing(spec: NetworkSpec, seeds: int = 16) -> str:
    """Return a PyTorch script that measures the gradients of a specification's networks.

    It prints what `format_listing_output(simulate(spec, seeds))` says.

    Args:
        spec: What to build and measure.
        seeds: How many networks, with seeds counted up from `spec.seed`.

    Returns:
        The text of a Python file that imports torch only.

    Raises:
        SpecError: If there are no such seeds.

    Example:
        >>> write_listing(NetworkSpec(depth=3), seeds=1).splitlines()[2]
        'Network: 3 layers of 64 units, Sigmoid, PyTorch default initialization'
    """
    if seeds < 1 or spec.seed + seeds - 1 > MAX_SEED:
        raise SpecError(
            f"seeds: must be at least 1, and the last one at most {MAX_SEED}; got {seeds} from "
            f"seed {spec.seed} on."
        )
    head = [*_write_docstring(spec, seeds), "", "import torch", "from torch import nn", ""]
    parts = [
        list(_write_constants(spec, seeds)),
        list(_write_block(spec)),
        list(_write_network(spec)),
        list(_write_measurement(spec)),
        list(_write_median()),
        list(_write_report(spec)),
    ]
    body = [line for part in parts[1:-1] if part for line in ("", "", *part)]
    return "\n".join([*head, *parts[0], *body, "", "", *parts[-1], ""])


def format_listing_output(flow: GradientFlow) -> str:
    """Return what the listing of a flow's specification prints.

    Numbers have three digits, so a last digit may differ by one where rounding decides: PyTorch
    adds up one network's products in another order than those of an ensemble. In networks whose
    values explode or whose ReLUs switch, more digits may differ.

    Args:
        flow: The measurement by `simulate`.

    Example:
        >>> from chainrule import simulate
        >>> format_listing_output(simulate(NetworkSpec(depth=3, width=4), 2)).splitlines()[0]
        'layer  gradient norm'
    """
    norms = [_require(norm) for norm in flow.weight_gradient_norms]
    lines = [f"{'layer':>5}  gradient norm"]
    lines += [f"{layer:5}  {norm:.3g}" for layer, norm in enumerate(norms, 1)]
    lines += [
        f"first layer: {norms[0]:.3g}",
        f"last layer:  {norms[-1]:.3g}",
        f"first / last: {_require(flow.gradient_ratio):.3g}",
    ]
    if flow.clip_factor is not None:
        lines.append(f"clipping multiplies every gradient by {flow.clip_factor:.3g}")
    return "\n".join([*lines, ""])


def _require(quantity: Quantity | None) -> float:
    assert quantity is not None, "every layer of a specification has a gradient"
    return float(quantity)


def _generates(spec: NetworkSpec) -> bool:
    """Return whether weights are drawn otherwise than by nn.Linear itself."""
    return (
        spec.init != "pytorch" or spec.drawn_distribution != "uniform" or spec.bias_std is not None
    )


def _write_docstring(spec: NetworkSpec, seeds: int) -> Iterator[str]:
    extras = [
        *([] if spec.normalization == "none" else [spec.normalization]),
        *([] if spec.residual == "none" else [f"{spec.residual} residual connections"]),
    ]
    activation = get_activation(spec.activation).label
    yield '"""How large is the gradient of every layer? Measured with plain PyTorch.'
    yield ""
    layers = f"{spec.depth} layer{'s' if spec.depth > 1 else ''} of {spec.width} units"
    yield f"Network: {layers}, {activation}, {spec.initializer.label} initialization"
    if extras:
        yield f"with {' and '.join(extras)}"
    several = f"the median of {seeds} networks" if seeds > 1 else "one network"
    yield f"on {spec.batch_size} random examples. Printed: {several}."
    yield '"""'


def _write_constants(spec: NetworkSpec, seeds: int) -> Iterator[str]:
    yield f"DEPTH = {spec.depth}"
    yield f"WIDTH = {spec.width}"
    yield f"BATCH_SIZE = {spec.batch_size}"
    yield f"SEEDS = range({spec.seed}, {spec.seed + seeds})"
    if spec.init == "random":
        yield f"WEIGHT_STD = {spec.weight_std!r}"
        if spec.drawn_distribution == "uniform":
            yield "BOUND = 3**0.5 * WEIGHT_STD  # numbers from ±BOUND have that deviation"
    if spec.bias_std is not None:
        yield f"BIAS_STD = {spec.bias_std!r}"
    if spec.input_scale != 1.0:
        yield f"INPUT_SCALE = {spec.input_scale!r}"
    if spec.clip_norm is not None:
        yield f"CLIP_NORM = {spec.clip_norm!r}"


def _write_block(spec: NetworkSpec) -> Iterator[str]:
    if spec.residual == "none":
        return
    scaled = spec.residual == "scaled"
    yield "class ResidualBlock(nn.Module):"
    yield '    """A layer with a path around it, on which the gradient passes unchanged."""'
    yield ""
    yield "    def __init__(self, *layers):"
    yield "        super().__init__()"
    yield "        self.branch = nn.Sequential(*layers)"
    yield ""
    yield "    def forward(self, h):"
    yield f"        return h + {'DEPTH**-0.5 * ' if scaled else ''}self.branch(h)"


def _write_network(spec: NetworkSpec) -> Iterator[str]:
    activation = f"nn.{get_activation(spec.activation).module}()"
    parts = ["linear", activation]
    if spec.normalization != "none":
        parts.insert(1, _NORMALIZATIONS[spec.normalization])
    yield "def build_network(seed):"
    if _generates(spec):
        yield "    generator = torch.Generator().manual_seed(seed)"
    else:
        yield "    torch.manual_seed(seed)  # nn.Linear draws its own weights and biases"
    yield "    layers = []"
    yield "    for _ in range(DEPTH):"
    if _generates(spec):
        yield "        linear = nn.Linear(WIDTH, WIDTH)"
        yield f"        # {_VARIANCES[spec.init]}"
        draws = _NORMAL_DRAWS if spec.drawn_distribution == "normal" else _UNIFORM_DRAWS
        yield f"        {draws[spec.init]}"
        yield f"        {_write_bias(spec)}"
    else:
        parts[0] = "nn.Linear(WIDTH, WIDTH)"
    if spec.residual == "none":
        yield f"        layers += [{', '.join(parts)}]"
    else:
        yield f"        layers.append(ResidualBlock({', '.join(parts)}))"
    double = ".double()" if spec.dtype == "float64" else ""
    yield f"    return nn.Sequential(*layers){double}"


def _write_bias(spec: NetworkSpec) -> str:
    if spec.bias_std is not None:
        return "nn.init.normal_(linear.bias, std=BIAS_STD, generator=generator)"
    if spec.initializer.bias_bound is not None:
        bound = "WIDTH**-0.5"
        return f"nn.init.uniform_(linear.bias, -({bound}), {bound}, generator=generator)"
    return "nn.init.zeros_(linear.bias)"


def _write_measurement(spec: NetworkSpec) -> Iterator[str]:
    clips = spec.clip_norm is not None
    double = ".double()" if spec.dtype == "float64" else ""
    scale = "INPUT_SCALE * " if spec.input_scale != 1.0 else ""
    draw = "torch.randn(BATCH_SIZE, WIDTH, generator=generator)"
    yield "def measure_gradients(seed):"
    yield "    model = build_network(seed)"
    yield "    generator = torch.Generator().manual_seed(seed + 2**31)  # the data's own"
    inputs = f"({scale}{draw})" if scale and double else f"{scale}{draw}"  # scaled, then doubled
    yield f"    inputs = {inputs}{double}"
    yield f"    targets = {draw}{double}"
    yield "    loss = nn.functional.mse_loss(model(inputs), targets)"
    yield "    loss.backward()  # the chain rule: fills in .grad of every parameter"
    exact = "" if double else ".double()"
    if exact:
        yield "    # In double precision, so that squares of tiny or huge values exist."
    if clips:
        yield f"    gradients = [p.grad{exact} for p in model.parameters()]"
        yield "    total = torch.cat([gradient.flatten() for gradient in gradients]).norm().item()"
        yield "    # As nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM) would multiply."
        yield "    factor = min(CLIP_NORM / (total + 1e-6), 1.0)"
    yield "    linears = [module for module in model.modules() if isinstance(module, nn.Linear)]"
    norms = f"[linear.weight.grad{exact}.norm().item() for linear in linears]"
    yield f"    return {norms}{', factor' if clips else ''}"


def _write_median() -> Sequence[str]:
    return (
        "def median(values):",
        "    ordered = values.sort(dim=0).values  # nan comes last: worse than every number",
        "    return (ordered[(len(SEEDS) - 1) // 2] + ordered[len(SEEDS) // 2]) / 2",
    )


def _write_report(spec: NetworkSpec) -> Iterator[str]:
    clips = spec.clip_norm is not None
    if clips:
        yield "norms, factors = zip(*map(measure_gradients, SEEDS))"
    else:
        yield "norms = [measure_gradients(seed) for seed in SEEDS]"
    yield "norms = torch.tensor(norms, dtype=torch.float64)  # [seeds, layers]"
    yield "medians = median(norms).tolist()"
    yield "ratio = median(norms[:, 0] / norms[:, -1]).item()"
    yield 'print("layer  gradient norm")'
    yield "for layer, norm in enumerate(medians, 1):"
    yield '    print(f"{layer:5}  {norm:.3g}")'
    yield 'print(f"first layer: {medians[0]:.3g}")'
    yield 'print(f"last layer:  {medians[-1]:.3g}")'
    yield 'print(f"first / last: {ratio:.3g}")'
    if clips:
        yield "factor = median(torch.tensor(factors, dtype=torch.float64)).item()"
        yield 'print(f"clipping multiplies every gradient by {factor:.3g}")'
