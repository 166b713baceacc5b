"""`simulate`: measure an ensemble of networks of one specification in one batched computation."""

import operator
from collections.abc import Callable, Iterable, Iterator, Sequence
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
from chainrule.measure.networks import draw_batch, name_modules, run_stack, stack_networks
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

Key = tuple[str, ...]
"""What was measured: ("loss",), ("input", "gradient"), (role,) for outputs, (role, field) for
parameters, each of the last two also with "gradient" behind it."""

Columns = dict[str, list[Any]]
"""By statistic, lists over layers of lists over members."""

Progress = Callable[[int, int], None]


def simulate(
    spec: NetworkSpec,
    seeds: int | Sequence[int] = 16,
    *,
    budget: int | None = BUDGET,
    progress: Progress | None = None,
    histograms: bool = True,
) -> GradientFlow:
    """Measure several networks of one specification, each drawn with another seed.

    Every member is the network `build_network(spec, seed)` under the loss `make_loss(spec, seed)`,
    and is measured as by `inspect`, up to rounding. But all members are computed together. Members
    do not influence each other: if one overflows, the others do not.

    Args:
        spec: What to measure.
        seeds: How many seeds, counted up from `spec.seed`, or the seeds themselves.
        budget: Most weights (depth · width² · seeds) that are allowed; `None` for any number.
        progress: Called with (members done, members in all) at least once per layer. To cancel the
            simulation, raise an exception in it.
        histograms: Whether to count how activations are distributed. Everything else is measured
            as with them.

    Returns:
        The measurement; every value in it holds those of all members.

    Raises:
        SpecError: If the seeds are not legal or the budget is exceeded.

    Example:
        >>> simulate(NetworkSpec(depth=3, width=8), seeds=[4, 2]).seeds
        (4, 2)
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
    step = None
    if histograms:
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
            f"seeds: must be a number of networks or a list of whole numbers; got {seeds!r:.60}."
        ) from None
    if not 1 <= len(members) <= MAX_SEEDS:
        raise SpecError(f"seeds: must be 1 to {MAX_SEEDS} networks; got {len(members)}.")
    wrong = next((seed for seed in members if not 0 <= seed <= MAX_SEED), None)
    if wrong is not None:
        raise SpecError(f"seeds: each must be from 0 to {MAX_SEED}; got {wrong}.")
    if len(set(members)) < len(members):
        raise SpecError("seeds: each must be given once; the same network would count twice.")
    return members


@dataclass(slots=True)
class _Part:
    """What was measured of some members.

    Attributes:
        columns: Its statistics.
        samples: By role of a module, entries of its outputs for histograms, [layers, sample].
    """

    columns: dict[Key, Columns]
    samples: dict[Key, Tensor]


def _measure(
    spec: NetworkSpec, seeds: Sequence[int], step: int | None, tick: Callable[[], None]
) -> _Part:
    """Return the statistics of some members, and every `step`-th entry for the histograms."""
    specs = [spec.replace(seed=seed) for seed in seeds]
    stack = stack_networks(specs, tick)
    batches = [draw_batch(each) for each in specs]
    inputs = torch.stack([x for x, _ in batches]).requires_grad_()
    targets = torch.stack([y for _, y in batches])
    parameters: dict[Key, list[Tensor]] = {
        key: [leaf.requires_grad_() for leaf in leaves] for key, leaves in stack.items()
    }
    outputs: dict[Key, list[Tensor]] = {}
    with torch.enable_grad():
        for role, output in run_stack(spec, stack, inputs):
            tick()
            outputs.setdefault((role,), []).append(output)
        losses = list(map(F.mse_loss, output.unbind(), targets.unbind()))
        everything = parameters | outputs
        kept = [tensor for tensors in everything.values() for tensor in tensors]
        *gradients, input_gradient = torch.autograd.grad(losses, [*kept, inputs])
    with torch.no_grad():
        tick()
        remaining = iter(gradients)
        table = {key: [next(remaining) for _ in tensors] for key, tensors in everything.items()}
        loss = torch.stack(losses)
        return _summarize(spec, parameters, outputs, table, input_gradient, loss, step, tick)


def _summarize(
    spec: NetworkSpec,
    parameters: dict[Key, list[Tensor]],
    outputs: dict[Key, list[Tensor]],
    gradients: dict[Key, list[Tensor]],
    input_gradient: Tensor,
    loss: Tensor,
    step: int | None,
    tick: Callable[[], None],
) -> _Part:
    tables: dict[Key, Table] = {
        ("loss",): {"loss": loss.unsqueeze(0)},
        ("input", "gradient"): summarize_gradients([input_gradient]),
    }
    samples: dict[Key, Tensor] = {}
    for key, tensors in gradients.items():
        tick()
        tables[*key, "gradient"] = summarize_gradients(tensors)
    for key, tensors in parameters.items():
        tick()
        tables[key] = summarize_parameters(tensors)
    for key, tensors in outputs.items():
        tick()
        tables[key] = summarize_distribution(tensors)
        if step is not None:
            samples[key] = sample_entries(tensors, step)
    activation = get_activation(spec.activation)
    before = outputs.get(("normalization",), outputs["weight",])
    tables["activation",] |= summarize_derivative(before, activation, None, -1)
    columns = {
        key: {name: column.tolist() for name, column in table.items()}
        for key, table in tables.items()
    }
    return _Part(columns, samples)


def _join(parts: Sequence[_Part]) -> dict[Key, Columns]:
    """Return the statistics of all members together, with histograms over all of them."""
    joined: dict[Key, Columns] = (
        parts[0].columns
        if len(parts) == 1
        else {
            key: {
                name: [
                    [value for part in parts for value in part.columns[key][name][layer]]
                    for layer in range(len(column))
                ]
                for name, column in columns.items()
            }
            for key, columns in parts[0].columns.items()
        }
    )
    for key in parts[0].samples:
        samples = torch.cat([part.samples[key] for part in parts], 1)
        low, high = (samples.new_tensor(joined[key][name]) for name in ("min", "max"))
        bins = count_bins(samples, low, high)
        joined[key] |= {name: column.tolist() for name, column in bins.items()}
    return joined


def _assemble(spec: NetworkSpec, seeds: tuple[int, ...], parts: Sequence[_Part]) -> GradientFlow:
    columns = _join(parts)

    def build() -> GradientFlow:
        """Turn the fetched numbers into objects, when they are first read."""
        return GradientFlow(
            layers=tuple(_assemble_layers(spec, columns)),
            parameters=tuple(_assemble_parameters(spec, columns)),
            loss=Quantity(columns["loss",]["loss"][0]),
            chain=True,
            seeds=seeds,
            spec=spec,
            device="cpu",
            torch_version=torch.__version__,
            chainrule_version=read_version(),
        )

    return GradientFlow.defer(build)


def _pick(columns: Columns, layer: int) -> dict[str, Any]:
    return {name: column[layer - 1] for name, column in columns.items()}


def _assemble_layers(spec: NetworkSpec, columns: dict[Key, Columns]) -> Iterator[LayerFlow]:
    inward = read_gradient(_pick(columns["input", "gradient"], 1)).norm
    source = inward  # of what the whole block reads
    for module in name_modules(spec):
        gradient = read_gradient(_pick(columns[module.role, "gradient"], module.layer))
        yield LayerFlow(
            name=module.name,
            kind=module.kind,
            role=module.role,
            layer=module.layer,
            call=0,
            output="",
            shape=(spec.batch_size, spec.width),
            dtype=spec.dtype,
            parent=module.parent,
            statistics=read_activation(_pick(columns[module.role,], module.layer), spec.width),
            gradient=gradient,
            gain=divide_members(source if module.role == "residual" else inward, gradient.norm),
        )
        inward = gradient.norm
        if module.parent is None:
            source = inward


def _assemble_parameters(spec: NetworkSpec, columns: dict[Key, Columns]) -> Iterator[ParameterFlow]:
    for module in name_modules(spec):
        for field in ("weight", "bias"):
            if (module.role, field) not in columns:
                continue
            values = _pick(columns[module.role, field], module.layer)
            gradient = read_gradient(_pick(columns[module.role, field, "gradient"], module.layer))
            is_matrix = (module.role, field) == ("weight", "weight")
            yield ParameterFlow(
                name=f"{module.name}.{field}",
                aliases=(),
                shape=(spec.width, spec.width) if is_matrix else (spec.width,),
                dtype=spec.dtype,
                layer=module.layer if module.role == "weight" else None,
                status="measured",
                norm=Quantity(values["norm"]),
                non_finite=Quantity(values["non_finite"]),
                grad_norm=gradient.norm,
                grad_zero_share=gradient.zero_share,
                grad_non_finite=gradient.non_finite,
            )
