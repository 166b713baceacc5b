"""`simulate`: measure an ensemble of networks of one specification in one batched computation."""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from chainrule._utils.version import read_version
from chainrule.errors import SpecError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.quantity import Quantity, divide_members
from chainrule.flow.records import LayerFlow, ParameterFlow
from chainrule.measure.networks import (
    branch_scale,
    draw_batch,
    get_dtype,
    initialize,
    name_modules,
)
from chainrule.measure.statistics import (
    HISTOGRAM_ENTRIES,
    Table,
    choose_step,
    count_bins,
    read_activation,
    read_gradient,
    sample_entries,
    summarize_derivative,
    summarize_distribution,
    summarize_gradients,
    summarize_parameters,
)
from chainrule.spec.activations import get_activation
from chainrule.spec.network_spec import MAX_SEED, NetworkSpec

MAX_SEEDS = 1024
"""Largest ensemble."""

BUDGET = 2**29
"""Weights (depth · width² · seeds) that a simulation may have unless its caller allows more."""

CHUNK = 2**24
"""Weights and activations that are worked on at once: bounds the memory of a large ensemble."""

_NORM_EPS = 1e-5

Figures = dict[str, list[Any]]
Progress = Callable[[int, int], None]


def simulate(
    spec: NetworkSpec,
    seeds: int | Sequence[int] = 16,
    *,
    budget: int | None = BUDGET,
    progress: Progress | None = None,
) -> GradientFlow:
    """Measure several networks of one specification, each drawn with another seed.

    Every member is the network `build_network(spec, seed)` under the loss `make_loss(spec, seed)`,
    and its figures are those of `inspect` on it, but all members are computed together.

    Args:
        spec: What to measure.
        seeds: How many seeds, counted up from `spec.seed`, or the seeds themselves.
        budget: Most weights (depth · width² · seeds) that are allowed; `None` for any number.
        progress: Called with (members done, members in all) again and again as the work proceeds,
            at least once per layer. The simulation ends when it raises, which is the way to cancel
            it.

    Returns:
        The measurement; every figure holds all members' values.

    Raises:
        SpecError: If the seeds are not legal or the budget is exceeded.
    """
    members = _check_seeds(spec, seeds)
    weights = spec.depth * spec.width**2 * len(members)
    if budget is not None and weights > budget:
        raise SpecError(
            f"depth · width² · seeds must be at most {budget:,}; "
            f"{spec.depth} · {spec.width}² · {len(members)} is {weights:,}. Make the network "
            "smaller, use fewer seeds, or run it on the command line with --no-budget."
        )
    size = max(1, CHUNK // (spec.depth * spec.width * (spec.width + spec.batch_size)))
    step = choose_step(spec.batch_size * spec.width * len(members), HISTOGRAM_ENTRIES)
    parts = []
    for start in range(0, len(members), size):

        def tick(done: int = start) -> None:
            if progress is not None:
                progress(done, len(members))

        with _calculate_plainly():
            parts.append(_measure(spec, members[start : start + size], step, tick))
        if progress is not None:
            progress(min(start + size, len(members)), len(members))
    return _assemble(spec, members, parts)


@contextmanager
def _calculate_plainly() -> Iterator[None]:
    """Undo what a caller may have set: the default device, autocast, inference mode."""
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":  # it slows every operation down
            stack.enter_context(torch.device("cpu"))
        stack.enter_context(torch.autocast("cpu", enabled=False))
        stack.enter_context(torch.inference_mode(False))
        yield


def _check_seeds(spec: NetworkSpec, seeds: int | Sequence[int]) -> tuple[int, ...]:
    try:
        if isinstance(seeds, Iterable):
            members = tuple(operator.index(seed) for seed in seeds)
        else:
            members = tuple(range(spec.seed, spec.seed + max(operator.index(seeds), 0)))
    except TypeError:
        raise SpecError(
            f"seeds: must be how many networks, or a list of whole numbers; got {seeds!r:.60}."
        ) from None
    if not 1 <= len(members) <= MAX_SEEDS:
        raise SpecError(f"seeds: must be 1 to {MAX_SEEDS} networks; got {len(members)}.")
    wrong = next((seed for seed in members if not 0 <= seed <= MAX_SEED), None)
    if wrong is not None:
        raise SpecError(f"seeds: each must be from 0 to {MAX_SEED}; got {wrong}.")
    if len(set(members)) < len(members):
        raise SpecError("seeds: each must occur once; a repeated network would count twice.")
    return members


@dataclass(slots=True)
class _Part:
    """What was measured of some members.

    Attributes:
        figures: By kind of tensor and figure, lists over layers of lists over members.
        samples: By kind of output, entries for its histograms, [layers, sample].
    """

    figures: dict[str, Figures]
    samples: dict[str, Tensor]


@dataclass(slots=True)
class _Parameters:
    """The parameters of one kind, such as all weights: a leaf per layer, [members, *shape]."""

    name: str
    layers: list[Tensor]


def _draw(spec: NetworkSpec, seeds: Sequence[int], tick: Callable[[], None]) -> list[_Parameters]:
    depth, width, count = spec.depth, spec.width, len(seeds)
    single = torch.float32
    weight = torch.empty(depth, count, width, width, dtype=single)
    bias = torch.empty(depth, count, width, dtype=single)
    for member, seed in enumerate(seeds):
        generator = torch.Generator().manual_seed(seed)
        tick()
        for layer in range(depth):
            initialize(weight[layer, member], bias[layer, member], spec, generator)
    dtype = get_dtype(spec)
    kinds = {"linear.weight": weight, "linear.bias": bias}
    if spec.normalization != "none":
        kinds["normalization.weight"] = torch.ones(depth, count, width, dtype=single)
    if spec.normalization in ("layernorm", "batchnorm"):
        kinds["normalization.bias"] = torch.zeros(depth, count, width, dtype=single)
    return [
        _Parameters(name, [leaf.requires_grad_() for leaf in values.to(dtype).unbind(0)])
        for name, values in kinds.items()
    ]


def normalize_members(spec: NetworkSpec, z: Tensor, scale: Tensor, shift: Tensor | None) -> Tensor:
    """Return normalized pre-activations of stacked networks; z is [members, batch, width]."""
    if spec.normalization == "layernorm":
        z = F.layer_norm(z, z.shape[-1:], eps=_NORM_EPS)
    elif spec.normalization == "rmsnorm":
        z = F.rms_norm(z, z.shape[-1:])
    else:
        variance, mean = torch.var_mean(z, 1, correction=0, keepdim=True)
        z = (z - mean) / torch.sqrt(variance + _NORM_EPS)
    z = z * scale.unsqueeze(1)
    return z if shift is None else z + shift.unsqueeze(1)


def _measure(spec: NetworkSpec, seeds: Sequence[int], step: int, tick: Callable[[], None]) -> _Part:
    """Return the figures of some members, and every `step`-th entry for the histograms."""
    parameters = _draw(spec, seeds, tick)
    by_name = {kind.name: kind.layers for kind in parameters}
    batches = [draw_batch(spec, seed) for seed in seeds]
    inputs = torch.stack([x for x, _ in batches]).requires_grad_()
    targets = torch.stack([y for _, y in batches])
    function = FUNCTIONS[spec.activation]
    scale = branch_scale(spec)
    with torch.enable_grad():
        h = inputs
        outputs: dict[str, list[Tensor]] = {}
        for layer in range(spec.depth):
            tick()
            weight, bias = by_name["linear.weight"][layer], by_name["linear.bias"][layer]
            z = torch.baddbmm(bias.unsqueeze(1), h, weight.transpose(1, 2))
            outputs.setdefault("linear", []).append(z)
            if spec.normalization != "none":
                shifts = by_name.get("normalization.bias")
                shift = shifts[layer] if shifts else None
                z = normalize_members(spec, z, by_name["normalization.weight"][layer], shift)
                outputs.setdefault("normalization", []).append(z)
            branch = function(z)
            outputs.setdefault("activation", []).append(branch)
            h = branch if spec.residual == "none" else h + scale * branch
            if spec.residual != "none":
                outputs.setdefault("residual", []).append(h)
        loss = ((h - targets) ** 2).mean((1, 2))
        kept = [
            *(t for kind in parameters for t in kind.layers),
            *(t for kind in outputs.values() for t in kind),
        ]
        *gradients, input_gradient = torch.autograd.grad(loss.sum(), [*kept, inputs])
    with torch.no_grad():
        tick()
        return _summarize(spec, parameters, outputs, gradients, input_gradient, loss, step, tick)


def _summarize(
    spec: NetworkSpec,
    parameters: Sequence[_Parameters],
    outputs: dict[str, list[Tensor]],
    gradients: list[Tensor],
    input_gradient: Tensor,
    loss: Tensor,
    step: int,
    tick: Callable[[], None],
) -> _Part:
    tables: dict[str, Table] = {
        "loss": {"loss": loss.unsqueeze(0)},
        "input": summarize_gradients([input_gradient]),
    }
    samples: dict[str, Tensor] = {}
    remaining = iter(gradients)
    activation = get_activation(spec.activation)
    before = "normalization" if "normalization" in outputs else "linear"
    for kind in parameters:
        tick()
        tables[kind.name] = summarize_parameters(kind.layers)
        own = [next(remaining) for _ in kind.layers]
        tables[f"{kind.name}.gradient"] = summarize_gradients(own)
    for name, layers in outputs.items():
        tick()
        tables[name] = summarize_distribution(layers)
        samples[name] = sample_entries(layers, step)
        own = [next(remaining) for _ in layers]
        tables[f"{name}.gradient"] = summarize_gradients(own)
    tables["activation"] |= summarize_derivative(outputs[before], activation, None, -1)
    figures = {
        name: {figure: column.tolist() for figure, column in table.items()}
        for name, table in tables.items()
    }
    return _Part(figures, samples)


def _join(parts: Sequence[_Part]) -> dict[str, Figures]:
    """Return the figures of all members together, with histograms over all of them."""
    joined: dict[str, Figures] = {
        name: {
            figure: [
                [value for part in parts for value in part.figures[name][figure][layer]]
                for layer in range(len(column))
            ]
            for figure, column in figures.items()
        }
        for name, figures in parts[0].figures.items()
    }
    for name in parts[0].samples:
        samples = torch.cat([part.samples[name] for part in parts], 1)
        low, high = (samples.new_tensor(joined[name][figure]) for figure in ("min", "max"))
        bins = count_bins(samples, low, high)
        joined[name] |= {figure: column.tolist() for figure, column in bins.items()}
    return joined


def _assemble(spec: NetworkSpec, seeds: tuple[int, ...], parts: Sequence[_Part]) -> GradientFlow:
    figures = _join(parts)

    def build() -> GradientFlow:
        """Turn the fetched numbers into objects, when somebody first reads them."""
        return GradientFlow(
            layers=tuple(_assemble_layers(spec, figures)),
            parameters=tuple(_assemble_parameters(spec, figures)),
            loss=Quantity(figures["loss"]["loss"][0]),
            chain=True,
            seeds=seeds,
            spec=spec,
            device="cpu",
            torch_version=torch.__version__,
            chainrule_version=read_version(),
        )

    return GradientFlow.defer(build)


def _pick(figures: Figures, layer: int) -> dict[str, Any]:
    return {name: column[layer - 1] for name, column in figures.items()}


def _assemble_layers(spec: NetworkSpec, figures: dict[str, Figures]) -> Iterator[LayerFlow]:
    plain = spec.residual == "none"
    stream = "activation" if plain else "residual"
    source = read_gradient(_pick(figures["input"], 1)).norm  # gradient of h_{l−1}
    inward = source
    per_layer = 2 + (spec.normalization != "none")
    for name, kind, role, layer in name_modules(spec):
        table = "linear" if role == "weight" else role
        statistics = read_activation(_pick(figures[table], layer), spec.width)
        gradient = read_gradient(_pick(figures[f"{table}.gradient"], layer))
        is_child = not plain and role != "residual"
        yield LayerFlow(
            name=name,
            kind=kind,
            role=role,
            layer=layer,
            call=0,
            output="",
            shape=(spec.batch_size, spec.width),
            dtype=spec.dtype,
            parent=layer * (per_layer + 1) - 1 if is_child else None,
            statistics=statistics,
            gradient=gradient,
            gain=divide_members(source if role == "residual" else inward, gradient.norm),
        )
        inward = gradient.norm
        if table == stream:
            source = gradient.norm


def _assemble_parameters(spec: NetworkSpec, figures: dict[str, Figures]) -> Iterator[ParameterFlow]:
    shapes = {"linear.weight": (spec.width, spec.width)}
    for name, _, role, layer in name_modules(spec):
        table = "linear" if role == "weight" else role
        for field in ("weight", "bias"):
            kind = f"{table}.{field}"
            if kind not in figures:
                continue
            values = _pick(figures[kind], layer)
            gradient = read_gradient(_pick(figures[f"{kind}.gradient"], layer))
            yield ParameterFlow(
                name=f"{name}.{field}",
                aliases=(),
                shape=shapes.get(kind, (spec.width,)),
                dtype=spec.dtype,
                layer=layer if role == "weight" else None,
                status="measured",
                norm=Quantity(values["norm"]),
                non_finite=Quantity(values["non_finite"]),
                grad_norm=gradient.norm,
                grad_zero_share=gradient.zero_share,
                grad_non_finite=gradient.non_finite,
            )


FUNCTIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": F.relu,
    "leaky_relu": F.leaky_relu,
    "elu": F.elu,
    "selu": F.selu,
    "gelu": F.gelu,
    "silu": F.silu,
    "identity": lambda z: z,
}
"""What each activation computes, by name."""
