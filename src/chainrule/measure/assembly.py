"""From what was recorded to a `GradientFlow`: one summary per kind of tensor, one transfer."""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from functools import cache, partial
from itertools import accumulate, pairwise
from typing import Any

import torch
from torch import Tensor

from chainrule._utils.version import read_version
from chainrule.flow.gradient_flow import GradientFlow, select_path
from chainrule.flow.precision import PrecisionFlow
from chainrule.flow.quantity import Quantity, combine_norms, divide_members
from chainrule.flow.records import (
    ActivationStatistics,
    AttentionFlow,
    GradientStatistics,
    LayerFlow,
    ParameterFlow,
)
from chainrule.flow.slips import SlipFlow
from chainrule.flow.symmetry import SymmetryFlow
from chainrule.measure.attention import AttentionCall
from chainrule.measure.inputs import assemble_inputs, pack
from chainrule.measure.loss import Loss, assemble_loss, describe_loss
from chainrule.measure.loss_values import summarize_loss
from chainrule.measure.modules import Inventory, find_owner
from chainrule.measure.positions import take_positions
from chainrule.measure.precision import assemble_precisions, take_arriving, take_weights
from chainrule.measure.recording import Call, Output, Recorder, Subject, list_call_edges
from chainrule.measure.residuals import (
    Residual,
    assemble_residuals,
    describe_residuals,
    place_edges,
)
from chainrule.measure.scans import assemble_scans, take_scans
from chainrule.measure.sequences import assemble_times, take_stepwise, take_times
from chainrule.measure.stacks import (
    DELTAS,
    GRADIENTS,
    VALUES,
    WEIGHTS,
    Place,
    summarize_alike,
    summarize_kinds,
)
from chainrule.measure.statistics import (
    AnyTable,
    Row,
    Table,
    gather_rows,
    is_cheap_to_read,
    read_activation,
    read_gradient,
    summarize_derivative,
)
from chainrule.measure.symmetry import find_symmetries
from chainrule.measure.terms import assemble_terms
from chainrule.measure.ties import take_targets


def assemble_flow(  # noqa: PLR0913, PLR0915, PLR0917  (one table per kind of tensor)
    inventory: Inventory,
    loss: Tensor,
    recorder: Recorder,
    parameter_gradients: Mapping[int, Tensor],
    edge_gradients: Mapping[int, Tensor | Table],
    residuals: Sequence[Residual] = (),
    attentions: Sequence[AttentionCall] = (),
    facts: Loss | None = None,
    scale: float = 1.0,
    slips: tuple[SlipFlow, ...] = (),
) -> GradientFlow:
    """Return the flow of one model, and release the recorder's tensors.

    Args:
        inventory: The measured model's modules and parameters.
        loss: Its loss, one number.
        recorder: Its forward pass.
        parameter_gradients: Gradients by position in the inventory; those missing were not
            reached.
        edge_gradients: Gradients by edge, or what they were summarized to; those missing were not
            reached.
        residuals: Its residual connections.
        attentions: Its computations of attention weights.
        facts: What was found of the loss before the backward pass.
        scale: What the loss was multiplied with before the backward pass; norms of gradients at
            edges are divided by it. (Those of parameters are given without it.)
        slips: Calls whose effect is seldom meant.
    """
    parameters = inventory.parameters
    tables: list[AnyTable] = [{"loss": loss.reshape(1, 1)}]
    outputs, activated = _gather_outputs(recorder.calls)
    apart = recorder.kept - list_call_edges(recorder.calls)
    of_calls = {edge: each for edge, each in edge_gradients.items() if edge not in apart}
    output_places, edge_places, gradient_places, norm_places = summarize_kinds(
        (
            (VALUES, outputs),
            (DELTAS, of_calls),
            (GRADIENTS, parameter_gradients),
            (WEIGHTS, {position: p.tensor for position, p in enumerate(parameters)}),
        ),
        tables,
    )
    if scale != 1.0:
        for at in {at for at, _ in edge_places.values()}:
            for name in ("norm", "max_abs"):
                tables[at][name] = tables[at][name] / scale
    places = {key: [place] for key, place in output_places.items()}
    _summarize_activations(activated, places, tables)

    def has_zeros(edge: int) -> bool:
        table, entry = edge_places.get(edge, (0, 0))
        share = tables[table].get("zero_share")
        if share is None or (isinstance(share, Tensor) and not is_cheap_to_read(share.device)):
            return True
        return bool(share[entry] != 0)

    loss_table = len(tables)
    if facts is not None:
        tables.append(summarize_loss(facts, loss, edge_gradients, recorder, has_zeros))
    sums = {
        total.edge: total.size
        for each in residuals
        for total in (each.stream_sum, each.sum)
        if total is not None
    }
    size_tables = {edge: len(tables) + at for at, edge in enumerate(sums)}
    tables += [{"size": size.reshape(1, 1)} for size in sums.values()]
    connections = describe_residuals(residuals, recorder.calls, recorder.read)
    targets = take_targets(facts)
    timed = take_times(recorder, edge_gradients, targets)
    time_tables = len(tables)
    for each in timed:
        direct = each.gradients[:0] if each.read is None else each.read
        tables.append(
            {"gradients": each.gradients / scale, "read": direct / scale, "chances": each.chances}
        )
    stepwise = take_stepwise(recorder.calls, targets)
    step_tables = len(tables)
    tables += [{"chances": chances} for chances in stepwise.values()]
    scans = [
        *take_scans(recorder.scans, recorder, edge_gradients, targets),
        *take_positions(recorder, edge_gradients, targets),
    ]
    scan_tables = len(tables)
    tables += [
        {"gradients": each.gradients.unsqueeze(0) / scale, "chances": each.chances.unsqueeze(0)}
        for each in scans
    ]
    weights = take_weights(recorder, [p.names[0] for p in parameters], parameter_gradients)
    arriving = take_arriving(recorder, edge_gradients)
    half_tables = len(tables)
    tables += [{"subnormal": each.subnormal} for _, each in arriving]
    tables += [{"subnormal": each.subnormal} for each in weights]
    attention_tables = len(tables)
    tables += [{"attention": each.values} for each in attentions]
    computed = [(each.name, each.sizes) for each in attentions]
    terms = () if facts is None else facts.terms
    term_tables = len(tables)
    tables += [{"value": term.value.detach().reshape(1)} for term in terms]
    tables += [term.table for term in terms if term.table is not None]
    named = [(term.name, term.reached) for term in terms]
    described_loss = None if facts is None else describe_loss(facts)
    read_rows = gather_rows(tables)
    symmetries = [
        (each, parameters[each.position].names[0])
        for each in find_symmetries(
            inventory, parameter_gradients, list(_list_suspects(norm_places, tables, read_rows))
        )
    ]
    entering = [
        (each.reader, each.shape, each.dtype, pack(each.sample), each.is_part)
        for each in recorder.entering
    ]
    has_half = recorder.has_half
    reached = frozenset(parameter_gradients)
    calls = recorder.calls
    recorder.release()
    described = [
        (p.names, tuple(p.tensor.shape), p.tensor.dtype, p.tensor.requires_grad) for p in parameters
    ]
    identities = {id(p.tensor): position for position, p in enumerate(parameters)}
    device = str(loss.device)

    @cache
    def fetch() -> list[Row]:
        return read_rows()

    def read(*at: Place) -> dict[str, Any]:
        rows = fetch()
        return {name: column[entry] for table, entry in at for name, column in rows[table].items()}

    def read_statistics(output: Output) -> ActivationStatistics | None:
        if id(output) not in places:
            return None
        units = output.shape[output.unit_dim] if output.shape else 1
        return read_activation(read(*places[id(output)]), units)

    def build_precisions(
        layers: Sequence[LayerFlow],
        found: Sequence[ParameterFlow],
        gradients: Mapping[int, GradientStatistics],
        parameter_statistics: Mapping[int, GradientStatistics],
    ) -> Iterator[PrecisionFlow]:
        outputs = [output for call in calls for output in call.outputs]
        places = {id(output): position for position, output in enumerate(outputs)}
        subnormal = {
            position: row["subnormal_share"]
            for position, output in enumerate(outputs)
            if output.edge in edge_places
            and "subnormal_share" in (row := read(edge_places[output.edge]))
        }
        rows = fetch()
        shares = [row["subnormal"][0][0] for row in rows[half_tables:attention_tables]]
        return assemble_precisions(
            layers,
            found,
            {position: share[0] for position, share in subnormal.items()},
            [
                (places[id(output)], each.dtype, share, gradients[each.source])
                for (output, each), share in zip(arriving, shares, strict=False)
            ],
            {
                each.source: (each.dtype, share, parameter_statistics[each.source])
                for each, share in zip(weights, shares[len(arriving) :], strict=True)
            },
        )

    def build() -> GradientFlow:
        """Turn the fetched numbers into objects, when they are first read."""
        rows = fetch()
        numbers, module_layers = number_layers(
            calls, [(names[0], len(shape)) for names, shape, _, _ in described], reached
        )
        gradients = {edge: read_gradient(read(at)) for edge, at in edge_places.items()}
        parameter_statistics = {
            position: read_gradient(read(at)) for position, at in gradient_places.items()
        }
        layers, sources = _assemble_layers(calls, module_layers, read_statistics, gradients)
        parameters = tuple(
            _assemble_parameter(
                description,
                numbers.get(position),
                read(norm_places[position]),
                parameter_statistics.get(position),
            )
            for position, description in enumerate(described)
        )
        edge_positions = place_edges(calls)
        named_terms = assemble_terms(
            named,
            [row["value"][0] for row in rows[term_tables : term_tables + len(named)]],
            [row["term"][0] for row in rows[term_tables + len(named) :]],
        )
        return GradientFlow(
            layers=layers,
            parameters=parameters,
            loss=Quantity(rows[0]["loss"][0]),
            residuals=assemble_residuals(
                connections,
                layers,
                edge_positions,
                {edge: Quantity(rows[table]["size"][0]) for edge, table in size_tables.items()},
                gradients,
                identities,
            ),
            attentions=tuple(
                _assemble_attentions(
                    computed, [row["attention"] for row in rows[attention_tables:term_tables]]
                )
            ),
            inputs=tuple(assemble_inputs(entering)),
            times=(
                *assemble_times(
                    [
                        (each, row["gradients"], row["read"], row["chances"])
                        for each, row in zip(timed, rows[time_tables:], strict=False)
                    ],
                    {
                        name: row["chances"]
                        for name, row in zip(stepwise, rows[step_tables:], strict=False)
                    },
                    calls,
                    gradients,
                    layers,
                ),
                *assemble_scans(
                    (each, row["gradients"][0], row["chances"][0])
                    for each, row in zip(scans, rows[scan_tables:], strict=False)
                ),
            ),
            symmetries=tuple(
                SymmetryFlow(
                    parameter=name,
                    layer=numbers.get(each.position),
                    units=each.units,
                    copies=Quantity([each.copies]),
                    idle=Quantity([each.idle]),
                )
                for each, name in symmetries
            ),
            precisions=tuple(build_precisions(layers, parameters, gradients, parameter_statistics))
            if has_half
            else (),
            chain=_is_chain([sources[position] for position in select_path(layers)]),
            loss_facts=None
            if described_loss is None
            else assemble_loss(
                described_loss,
                rows[loss_table],
                rows[0]["loss"][0][0],
                layers,
                edge_positions,
                parameters,
                gradients,
                tuple(named_terms),
            ),
            slips=slips,
            seeds=(),
            spec=None,
            device=device,
            torch_version=torch.__version__,
            chainrule_version=read_version(),
        )

    return GradientFlow.defer(build)


def _list_suspects(
    places: Mapping[int, Place],
    tables: Sequence[AnyTable],
    read_rows: Callable[[], Sequence[Row]],
) -> Iterator[int]:
    """Yield the parameters of which some units may be the same."""
    found = {
        table: tables[table]["first"] for table, _ in places.values() if "first" in tables[table]
    }
    firsts: dict[int, list[Any]]
    if all(is_cheap_to_read(each.device) for each in found.values() if isinstance(each, Tensor)):
        firsts = {table: each.tolist() for table, each in found.items()}
    else:
        rows = read_rows()
        firsts = {table: rows[table]["first"] for table in found}
    for position, (table, entry) in places.items():
        if table in firsts:
            (first,) = firsts[table][entry]
            if len(set(first)) < len(first):
                yield position


_Activated = dict[tuple[object, ...], list[tuple[Subject, Output]]]
"""Outputs of activations of the same kind and settings."""


def _gather_outputs(calls: Sequence[Call]) -> tuple[dict[int, Tensor | AnyTable], _Activated]:
    """Return what is known of outputs by `id`: copies of small ones, tables of large ones."""
    values: dict[int, Tensor | AnyTable] = {}
    activated: _Activated = {}
    for call in calls:
        for output in call.outputs:
            if output.table is not None:
                values[id(output)] = output.table
            elif output.values is not None:
                values[id(output)] = output.values
                if output.pre_activation is not None:
                    subject = call.subject
                    settings = subject.module.extra_repr() if subject.module else ""
                    kind = (subject.kind, settings, output.unit_dim)
                    activated.setdefault(kind, []).append((subject, output))
    return values, activated


def _summarize_activations(
    activated: _Activated, places: Mapping[int, list[Place]], tables: list[AnyTable]
) -> None:
    """Add the places of what derivatives of activations say of their outputs."""
    for group in activated.values():
        subject, example = group[0]
        assert subject.activation is not None
        inputs = {id(output): z for _, output in group if (z := output.pre_activation) is not None}
        derive = partial(
            summarize_derivative,
            activation=subject.activation,
            module=subject.module,
            unit_dim=example.unit_dim,
        )
        for key, place in summarize_alike(inputs, tables, derive).items():
            places[key].append(place)


def number_layers(
    calls: Sequence[Call],
    parameters: Sequence[tuple[str, int]],
    reached: Collection[int],
) -> tuple[dict[int, int], dict[str, int]]:
    """Return the weight layers l = 1 … L, by position of a parameter and by name of a module.

    A weight layer is a module with a matrix or kernel that ran, or whose weights the loss reached
    though the module itself did not run (its weights are used in a function). Parameters of a
    submodule that never runs itself belong to the nearest measured module around it. Layers are
    numbered in the order of their first calls; those without a call follow the layer that is
    registered before them.

    Args:
        calls: All calls.
        parameters: Name and number of dimensions of each.
        reached: Positions of those that received a gradient.
    """
    first_call: dict[str, int] = {}
    has_children = {id(call.parent) for call in calls}
    atomic: set[str] = set()
    for position, call in enumerate(calls):
        first_call.setdefault(call.subject.name, position)
        if id(call) not in has_children:
            atomic.add(call.subject.name)

    def find_layer(name: str) -> str:
        owner = place = find_owner(name)
        while owner not in first_call and place:
            place = place.rpartition(".")[0]
            if place in atomic:
                return place
        return owner

    members: dict[str, list[int]] = {}
    for position, (name, _) in enumerate(parameters):
        members.setdefault(find_layer(name), []).append(position)
    order: list[tuple[int, int, str]] = []
    latest = -1
    for rank, (owner, owned) in enumerate(members.items()):
        latest = first_call.get(owner, latest)
        counts = owner in first_call or any(position in reached for position in owned)
        if counts and any(parameters[position][1] >= 2 for position in owned):
            order.append((latest, rank, owner))
    by_module = {owner: number for number, (_, _, owner) in enumerate(sorted(order), start=1)}
    return {
        position: number for owner, number in by_module.items() for position in members[owner]
    }, by_module


def _assemble_layers(
    calls: Sequence[Call],
    module_layers: Mapping[str, int],
    read_statistics: Callable[[Output], ActivationStatistics | None],
    gradients: Mapping[int, GradientStatistics],
) -> tuple[tuple[LayerFlow, ...], list[Call]]:
    """Return one entry per output tensor, and the call that each came from."""
    starts = dict(
        zip(map(id, calls), accumulate((len(c.outputs) for c in calls), initial=0), strict=False)
    )
    layers: list[LayerFlow] = []
    sources: list[Call] = []
    layer: int | None = None
    for call in calls:
        subject = call.subject
        if subject.role == "weight":
            layer = module_layers.get(subject.name, layer)
        has_parent = call.parent is not None and call.parent.outputs
        for index, output in enumerate(call.outputs):
            layers.append(
                LayerFlow(
                    name=subject.name,
                    kind=subject.kind,
                    role=subject.role,
                    layer=layer,
                    call=call.number,
                    output=output.path,
                    shape=output.shape,
                    dtype=str(output.dtype).removeprefix("torch."),
                    parent=starts[id(call.parent)] if has_parent else None,
                    statistics=read_statistics(output),
                    gradient=None if output.edge is None else gradients.get(output.edge),
                    gain=_compute_gain(call, gradients) if index == 0 else None,
                )
            )
            sources.append(call)
    return tuple(layers), sources


def _compute_gain(call: Call, gradients: Mapping[int, GradientStatistics]) -> Quantity | None:
    def measure(edges: Iterable[int | None]) -> Quantity | None:
        return combine_norms(
            gradients[edge].norm
            for edge in dict.fromkeys(edges)
            if edge is not None and edge in gradients
        )

    inward = measure(call.input_edges)
    outward = measure(output.edge for output in call.outputs)
    return None if inward is None or outward is None else divide_members(inward, outward)


def _assemble_parameter(
    description: tuple[tuple[str, ...], tuple[int, ...], torch.dtype, bool],
    layer: int | None,
    row: Mapping[str, Any],
    gradient: GradientStatistics | None,
) -> ParameterFlow:
    names, shape, dtype, requires_grad = description
    return ParameterFlow(
        name=names[0],
        aliases=names[1:],
        shape=shape,
        dtype=str(dtype).removeprefix("torch."),
        layer=layer,
        status="measured" if gradient else "unreached" if requires_grad else "frozen",
        norm=Quantity(row["norm"]),
        non_finite=Quantity(row["non_finite"]),
        grad_norm=gradient.norm if gradient else None,
        grad_zero_share=gradient.zero_share if gradient else None,
        grad_non_finite=gradient.non_finite if gradient else None,
    )


def _assemble_attentions(
    computed: Sequence[tuple[str, tuple[int, int, int]]], values: Sequence[Sequence[float]]
) -> Iterator[AttentionFlow]:
    """Yield those in which some query had a choice."""
    numbers: Counter[str] = Counter()
    for (name, (heads, queries, keys)), (entropy, rows, one_hot, uniform) in zip(
        computed, values, strict=True
    ):
        if rows:
            yield AttentionFlow(
                name=name,
                call=numbers[name],
                heads=heads,
                queries=queries,
                keys=keys,
                entropy=Quantity([entropy]),
                one_hot=Quantity([one_hot]),
                uniform=Quantity([uniform]),
            )
        numbers[name] += 1


def _is_chain(path: Sequence[Call]) -> bool:
    """Whether each call reads exactly the single output of the one before it."""
    return bool(path) and all(
        len(before.outputs) == 1
        and before.outputs[0].edge is not None
        and set(after.input_edges) == {before.outputs[0].edge}
        for before, after in pairwise(path)
    )
