"""The loss itself: what kind it is, what guessing would give, and which outputs it reads.

All is read from the graph of the forward pass, between the loss and the outputs of modules. There
a loss is a sum of parts, and each part is known by the operation that PyTorch's own functions end
in (`NllLossBackward0` for a cross-entropy), or by what people write by hand: the mean of a squared
or absolute difference, a product of log-probabilities and targets. Everything between the loss and
such an operation is linear: means, sums, weights, masks, scalings. So the gradient at its output is
the weight that every entry has in the loss, and what another answer would give follows from it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor, nn

from chainrule.flow.loss import (
    AlignmentFlow,
    BroadcastFlow,
    LossFlow,
    LossKind,
    LossPart,
    LossTerm,
    OutputActivation,
    Rectifier,
)
from chainrule.flow.quantity import Quantity
from chainrule.flow.records import GradientStatistics, LayerFlow, ParameterFlow
from chainrule.measure._torch_internals import read_saved, read_sequence_number
from chainrule.measure.autograd_graph import Edge, is_leaf, list_views
from chainrule.measure.broadcasts import Broadcasts
from chainrule.measure.constants import Constants
from chainrule.measure.output_functions import (
    ACTIVATIONS,
    BOUNDS,
    find_activation,
    find_bounds,
    find_rectifier,
    read_passed,
)
from chainrule.measure.recording import Call, Output, Recorder
from chainrule.measure.terms import Term

STEP = 0.01
"""Part of its norm by which a tensor moves where the fall of the loss is estimated."""

_ROUNDING = 2.0**-23
"""Relative precision of float32."""

_DENSE = 2**22
"""Most entries of a loss for which the weight of every entry is looked at."""

_MOST_NODES = 100_000
"""Most nodes of the graph that are looked at."""

_MOST_PARTS = 1_000
"""Most parts of a loss that are reported."""

_KERNELS: Mapping[str, LossKind] = {
    "NllLossBackward0": "nll",
    "NllLoss2DBackward0": "nll",
    "BinaryCrossEntropyBackward0": "binary_cross_entropy",
    "BinaryCrossEntropyWithLogitsBackward0": "binary_cross_entropy_with_logits",
    "MseLossBackward0": "mse",
    "SmoothL1LossBackward0": "smooth_l1",
    "HuberLossBackward0": "huber",
}
_TAKE_LOGITS = frozenset(("cross_entropy", "binary_cross_entropy_with_logits"))
"""Kinds of losses that expect numbers of any sign."""
_SAME_BY = (
    "View0 UnsafeView0 ReshapeAlias0 Alias0 Transpose0 T0 Permute0 Unsqueeze0 Squeeze0 Squeeze1 "
    "Squeeze2 Clone0 ToCopy0"
)
_SAME = frozenset(f"{each[:-1]}Backward{each[-1]}" for each in _SAME_BY.split())
"""Nodes that pass every value on once, unchanged."""
_RESHAPED = _SAME - {"TransposeBackward0", "TBackward0", "PermuteBackward0"}
"""Those that leave the order of the values as it is."""

_REDUCTIONS = {"MeanBackward0": "mean", "SumBackward0": "sum"}
_SUMS = frozenset(("AddBackward0", "SubBackward0", "RsubBackward1", "StackBackward0"))
_LINEAR_BY = (
    "Mean0 Mean1 Sum0 Sum1 Neg0 Mul0 Mul1 Div0 Div1 Expand0 Index0 Select0 Slice0 Gather0 "
    "MaskedSelect0 MaskedFill0 Where0 Cat0 Trace0 Diagonal0 Nansum0 AsStrided0 Dot0"
)
_LINEAR = frozenset(f"{each[:-1]}Backward{each[-1]}" for each in _LINEAR_BY.split())
"""Nodes that are linear in the only one of their inputs that requires a gradient."""
_NUMBERS = 6
"""How many numbers `summarize_loss` gives of each part."""

_PRODUCTS = frozenset(("MmBackward0", "AddmmBackward0", "BmmBackward0"))


@dataclass(slots=True, eq=False)
class Part:
    """A summand of the loss.

    Attributes:
        kind: What it is.
        node: The operation.
        reduction: "mean", "sum", or "" if the weight of every entry has to be looked at.
        is_whole: Whether nothing but that reduction stands between it and the loss.
        weights: Edge at whose gradient these weights will be found; `None` if they are all 1.
        is_shifted: Whether a constant is added to its entries, as in a KL divergence.
        starts: Edges from which what it reads is looked for.
        outputs: Recorded edges that it reads.
        activation: The activation that made the values it reads.
        width: Number of classes.
        rectifier: The function that made these values, if they are logits and none is below 0.
        bounds: Between which values what it reads lies, whatever the weights are; or `None`.
        is_direct: Whether no further network stands between the outputs and it.
        saved: What is needed of the forward pass.
    """

    kind: LossKind
    node: Any
    reduction: str = ""
    is_whole: bool = False
    weights: int | None = None
    is_shifted: bool = False
    starts: tuple[Edge, ...] = ()
    outputs: tuple[int, ...] = ()
    activation: OutputActivation | None = None
    width: int | None = None
    rectifier: Rectifier | None = None
    bounds: tuple[float, float] | None = None
    is_direct: bool = False
    saved: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True, eq=False)
class Loss:
    """What is found before the backward pass.

    Attributes:
        parts: Its summands.
        outputs: Recorded edges of the outputs that it reads.
        is_shifted: Whether a constant is added to the loss.
        terms: Its named terms.
        cut: What of it is constant because a function without a derivative made it.
        detached: What of it is constant because it was detached.
        broadcasts: Comparisons of all answers with all targets.
        alignment: Of a CTC loss, whether its sequences are long enough.
        cut_readers: Names of modules that read what was cut off the graph.
        cut_by: Names of the functions that cut off what `cut` is the sum of.
    """

    parts: list[Part]
    outputs: list[int]
    is_shifted: bool
    terms: Sequence[Term] = ()
    cut: float = 0.0
    detached: float = 0.0
    broadcasts: tuple[BroadcastFlow, ...] = ()
    alignment: AlignmentFlow | None = None
    cut_readers: tuple[str, ...] = ()
    cut_by: tuple[str, ...] = ()


# --- Before the backward pass --------------------------------------------------------------------


def find_loss(
    loss: Tensor,
    recorder: Recorder,
    constants: Constants,
    terms: Sequence[Term] = (),
    broadcasts: Broadcasts | None = None,
    alignment: AlignmentFlow | None = None,
) -> Loss:
    """Return the parts of a loss, which is the sum of some terms; the graph must still be there."""
    if loss.grad_fn is None:  # a parameter is the loss
        return Loss([], [], is_shifted=False, terms=terms, alignment=alignment)
    known = _list_outputs(recorder)
    parts, sums, is_shifted = _list_parts(loss, known, recorder)
    outputs = _find_outputs(parts, known, recorder)
    values = {edge: known[edge][1].values for edge in outputs}
    several = len(parts) > 1 or is_shifted
    for part in parts:
        _prepare(part, recorder, values, needs_value=several)
    recorder.by_example |= set(outputs)
    cut, detached, cut_by = constants.sum_up(sums)
    for term in terms:
        _find_term(term, parts, known, recorder)
    read = sum(part.kind != "penalty" for part in parts)
    crossed = () if broadcasts is None else broadcasts.conclude(loss, several=read > 1)
    readers = tuple(dict.fromkeys(recorder.readers))
    return Loss(
        parts, outputs, is_shifted, terms, cut, detached, crossed, alignment, readers, cut_by
    )


def _find_term(
    term: Term,
    parts: Sequence[Part],
    known: Mapping[int | None, tuple[Call, Output]],
    recorder: Recorder,
) -> None:
    """Note which parts of the loss a term consists of, if it consists of nothing else."""
    if term.value.grad_fn is None:
        return
    own, _, is_shifted = _list_parts(term.value, known, recorder)
    _find_outputs(own, known, recorder)
    term.is_penalty = bool(own) and all(part.kind == "penalty" for part in own)
    places = {part.node: at for at, part in enumerate(parts) if part.node is not None}
    if own and not is_shifted and all(part.node in places for part in own):
        term.parts = tuple(places[part.node] for part in own)


def _list_parts(
    loss: Tensor, known: Mapping[int | None, tuple[Call, Output]], recorder: Recorder
) -> tuple[list[Part], set[Any], bool]:
    """Return the parts of a loss, the nodes that add them up, whether a constant is added."""
    parts: dict[Any, Part] = {}
    rest = Part("custom", None)  # all summands of no known kind, together
    sums: set[Any] = set()
    is_shifted = False
    seen = 0
    pending: list[tuple[Edge, tuple[str, ...], bool]] = [((loss.grad_fn, 0), (), False)]
    while pending:
        edge, path, moved = pending.pop()
        node = edge[0]
        name = node.name()
        inputs = [each for each in node.next_functions if each[0] is not None]
        seen += 1
        if node in parts:  # reached twice: the gradient there is the sum of both weights
            parts[node].is_whole = False
            if not _reduces(node):
                parts[node].reduction = ""
            continue
        part = _make_part(node, name, path)
        if part is not None:
            part.is_shifted = moved
            parts[node] = part
        elif seen > _MOST_NODES or _is_output(recorder.find_edge(*edge), known):
            rest.starts += (edge,)
        elif name in _SAME and len(inputs) == 1:
            pending.append((inputs[0], path, moved))
        elif name in _SUMS:
            sums.add(node)
            has_constant = len(inputs) < len(node.next_functions)
            inside = any(each.startswith(("Mean", "Sum")) for each in path)
            is_shifted = is_shifted or (has_constant and not inside)
            plain = has_constant and name == "AddBackward0" and read_saved(node, "alpha") == 1
            step = path if plain else (*path, name)
            pending += [(each, step, moved or (has_constant and inside)) for each in inputs]
        elif name in _LINEAR and len(inputs) == 1 and _is_linear(node, name):
            pending.append((inputs[0], (*path, name), moved))
        else:
            rest.starts += (edge,)
    # What a smoothed cross-entropy reads: its two halves are one part.
    whole = {part.node for part in parts.values() if _is_soft(part)}
    found = [p for p in parts.values() if p.saved.get("log_softmax") not in whole]
    found = found[:_MOST_PARTS]
    return [*found, rest] if rest.starts else found, sums, is_shifted


def adds_up(node: Any) -> bool:
    """Whether an operation gives its inputs, or a sum of them, each times a constant."""
    name = node.name()
    count = sum(each is not None for each, _ in node.next_functions)
    if name in _SUMS:
        return True
    return count == 1 and (name in _SAME or (name in _LINEAR and _is_linear(node, name)))


def _is_linear(node: Any, name: str) -> bool:
    """Whether a division divides by a constant: only what is divided may require a gradient."""
    return not name.startswith("Div") or node.next_functions[0][0] is not None


def _reduces(node: Any) -> bool:
    """Whether an operation takes the mean or the sum itself, so that one number comes out."""
    return read_saved(node, "reduction") in (1, 2)


def _make_part(node: Any, name: str, path: tuple[str, ...]) -> Part | None:
    """Return the part of the loss that an operation makes; `None` if it is of no known kind."""
    reduction = "none" if not path else _REDUCTIONS.get(path[0], "") if len(path) == 1 else ""
    if name in _KERNELS:
        return _make_kernel_part(node, name, path, reduction)
    if name == "LogSoftmaxBackward0":
        part = Part("cross_entropy", node, starts=tuple(node.next_functions[:1]))
        part.activation, part.width = find_activation(part.starts[0])
        _find_rectifier(part)
        return part
    difference = _find_squared(node, name)
    if difference is None or difference.name() != "SubBackward0":
        return None
    live = [edge for edge in difference.next_functions if edge[0] is not None]
    if len(live) != 1:
        return None
    reduction = reduction.replace("none", "sum")  # of a single number
    kind: LossKind = "l1" if name == "AbsBackward0" else "mse"
    part = Part(kind, node, reduction, bool(reduction), starts=tuple(live))
    part.activation, part.width = find_activation(live[0])
    part.bounds = find_bounds(live[0])
    part.saved["sign"] = 1.0 if difference.next_functions[0][0] is not None else -1.0
    return part


def _is_soft(part: Part) -> bool:
    """Whether targets are not numbers of classes, but the weights of log-probabilities."""
    return part.kind == "cross_entropy" and "log_softmax" not in part.saved


def _find_log_softmax(node: Any) -> Any:
    """Return the node that made log-probabilities, also if by hand: log(softmax(…))."""
    source = list_views(*node.next_functions[0])[-1][0]
    if source.name() == "LogSoftmaxBackward0":
        return source
    if source.name() == "LogBackward0":
        inner = list_views(*source.next_functions[0])[-1][0]
        return inner if inner.name() == "SoftmaxBackward0" else None
    return None


def _make_kernel_part(node: Any, name: str, path: tuple[str, ...], reduction: str) -> Part | None:
    own = {0: "none", 1: "mean", 2: "sum"}.get(read_saved(node, "reduction"), "")
    if own == "none":
        own = reduction.replace("none", "sum") if reduction else ""
        is_whole = bool(own)
    else:
        is_whole = path == ()
    part = Part(_KERNELS[name], node, own, is_whole, starts=(node.next_functions[0],))
    if part.starts[0][0] is None:  # the target alone requires a gradient
        return None
    source = _find_log_softmax(node) if part.kind == "nll" else None
    if source is not None:
        part.kind, part.starts = "cross_entropy", tuple(source.next_functions[:1])
        part.saved["log_softmax"] = source
    part.activation, part.width = find_activation(part.starts[0])
    part.bounds = find_bounds(part.starts[0])
    _find_rectifier(part)
    return part


def _find_squared(node: Any, name: str) -> Any:
    """Return the node of what is squared, or whose magnitude is taken."""
    inputs = node.next_functions
    if name == "MulBackward0":  # x · x
        return inputs[0][0] if inputs[0] == inputs[1] else None
    is_square = name == "PowBackward0" and read_saved(node, "exponent") == 2
    return inputs[0][0] if is_square or name == "AbsBackward0" else None


def _find_rectifier(part: Part) -> None:
    """Note the function that made logits of which none can be below 0."""
    edge = part.starts[0]
    if part.kind in _TAKE_LOGITS and part.activation is None:
        part.rectifier = find_rectifier(edge, find_bounds(edge))
        part.saved["passed"] = None if part.rectifier is None else read_passed(edge)


def _list_outputs(recorder: Recorder) -> dict[int | None, tuple[Call, Output]]:
    """Return what calls returned, by edge: tensors with at least one dimension."""
    return {
        output.edge: (call, output)
        for call in recorder.calls
        for output in call.outputs
        if output.shape
    }


def _is_output(edge: int | None, known: Mapping[int | None, tuple[Call, Output]]) -> bool:
    """Whether a module returned what is at an edge; what a loss as a module returns is none."""
    if edge is None or edge not in known:
        return False
    return type(known[edge][0].subject.module).__module__ != nn.MSELoss.__module__


def _find_outputs(
    parts: Sequence[Part], known: Mapping[int | None, tuple[Call, Output]], recorder: Recorder
) -> list[int]:
    """Note what every part reads; return the outputs from which no other of them is computed."""
    found: dict[int, Edge] = {}
    for part in parts:
        edges: dict[int, Edge] = {}
        seen: set[Any] = set()
        pending = list(part.starts)
        while pending and len(seen) < _MOST_NODES:
            edge = pending.pop()
            number = recorder.find_edge(*edge)
            if number is not None and _is_output(number, known):
                edges[number] = edge
            elif edge not in seen:
                seen.add(edge)
                pending += [each for each in edge[0].next_functions if each[0] is not None]
        part.outputs = tuple(edges)
        part.is_direct = bool(edges) and all(map(_is_head, seen))
        part.is_direct = part.is_direct and sum(n.name() in _PRODUCTS for n, _ in seen) <= 1
        if not edges and part.kind == "custom":
            part.kind = "penalty"
        found |= edges
    if len(found) > 1:
        below = _list_below(list(found.values()))
        found = {number: edge for number, edge in found.items() if edge not in below}
    for part in parts:
        part.outputs = tuple(edge for edge in part.outputs if edge in found)
    return list(found)


def _is_head(edge: Edge) -> bool:
    """Whether a step between an output and the loss keeps it the model's own answer."""
    node = edge[0]
    name = node.name()
    if name in _PRODUCTS:
        return sum(each is not None for each, _ in node.next_functions) > 1
    return (
        name in _SAME or name in _LINEAR or name in ACTIVATIONS or name in BOUNDS or is_leaf(node)
    )


def _list_below(edges: Sequence[Edge]) -> set[Edge]:
    """Return which places of the graph the tensors at some places are computed from.

    Nodes count up as they are made, so nothing older than the oldest of the places leads to one.
    """
    numbers = [read_sequence_number(node) for node, _ in edges if not is_leaf(node)]
    oldest = min((n for n in numbers if n is not None), default=0) if None not in numbers else 0
    below: set[Edge] = set()
    pending = [each for node, _ in edges for each in node.next_functions]
    while pending:
        edge = pending.pop()
        node = edge[0]
        if node is None or edge in below:
            continue
        below.add(edge)
        if not is_leaf(node) and (read_sequence_number(node) or oldest) >= oldest:
            pending += node.next_functions
    return below


def _prepare(
    part: Part, recorder: Recorder, values: Mapping[Any, Tensor | None], *, needs_value: bool
) -> None:
    """Keep what a part needs of the forward pass, and ask for the weights of its entries."""
    if part.kind in ("custom", "penalty"):
        return
    node, saved = part.node, part.saved
    if _is_soft(part):
        result = read_saved(node, "result")
        if result is None or result.numel() > _DENSE:
            return
        saved["log_probabilities"], saved["dim"] = result.detach(), read_saved(node, "dim")
        part.weights, part.reduction, part.is_whole = recorder.keep_edge(node, 0), "", False
        return
    if node.name() in _KERNELS:
        _keep_targets(part, needs_value=needs_value)
    else:
        _keep_difference(part, recorder, values)
    target = saved.get("target")
    if not isinstance(target, Tensor) or part.is_whole:
        return
    if part.reduction or target.numel() <= _DENSE:
        part.weights = recorder.keep_edge(node, 0)
    if part.weights is None:
        saved.clear()


def _keep_targets(part: Part, *, needs_value: bool) -> None:
    """Keep what one of PyTorch's own functions was given."""
    node, saved = part.node, part.saved
    for name in ("target", "weight", "pos_weight", "ignore_index", "delta", "beta"):
        saved[name] = read_saved(node, name)
    is_by_class = part.kind in ("cross_entropy", "nll")
    given = read_saved(node, "self") if needs_value or is_by_class else None
    if given is None:
        return
    if is_by_class:
        saved["classes"] = given.shape[1 if given.dim() > 1 else 0]
        part.width = part.width or saved["classes"]
    if needs_value and given.numel() <= _DENSE:
        saved["self"] = given.detach()


def _keep_difference(part: Part, recorder: Recorder, values: Mapping[Any, Tensor | None]) -> None:
    """Keep the targets of a difference that was written by hand: output − difference."""
    compared = list_views(*part.starts[0])
    read = values.get(part.outputs[0]) if len(part.outputs) == 1 else None
    at = [recorder.find_edge(*edge) for edge in compared]
    difference = read_saved(part.node, "self")
    if read is None or difference is None or part.outputs[0] not in at:
        return
    between = {node.name() for node, _ in compared[: at.index(part.outputs[0])]}
    if not between <= _RESHAPED or difference.numel() != read.numel():
        return
    part.saved["self"] = read.reshape(difference.shape)
    part.saved["target"] = part.saved["self"] - part.saved["sign"] * difference.detach()


# --- In numbers ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Description:
    """What of a loss needs no graph: kinds, and recorded edges."""

    parts: tuple[
        tuple[
            LossKind,
            OutputActivation | None,
            Rectifier | None,
            int | None,
            bool,
            tuple[int, ...],
        ],
        ...,
    ]
    outputs: tuple[int, ...]
    cut: float
    detached: float
    broadcasts: tuple[BroadcastFlow, ...]
    alignment: AlignmentFlow | None
    terms: tuple[tuple[tuple[int, ...], bool], ...]
    is_shifted: bool
    cut_readers: tuple[str, ...]
    cut_by: tuple[str, ...]


def describe_loss(loss: Loss) -> Description:
    """Return what of a loss needs no graph; after `summarize_loss`."""
    return Description(
        tuple(
            (
                part.kind,
                part.activation,
                part.rectifier,
                part.width,
                part.is_direct,
                part.outputs,
            )
            for part in loss.parts
        ),
        tuple(loss.outputs),
        loss.cut,
        loss.detached,
        loss.broadcasts,
        loss.alignment,
        tuple((term.parts, term.is_penalty) for term in loss.terms),
        loss.is_shifted,
        loss.cut_readers,
        loss.cut_by,
    )


def assemble_loss(
    description: Description,
    row: Mapping[str, Any],
    value: float,
    layers: Sequence[LayerFlow],
    places: Mapping[int, int],
    parameters: Sequence[ParameterFlow],
    gradients: Mapping[int, GradientStatistics],
    terms: Sequence[LossTerm],
) -> LossFlow:
    """Return what is known of a loss.

    Args:
        description: What of it needs no graph.
        row: The numbers of `summarize_loss`.
        value: The loss.
        layers: The flow's entries.
        places: Where among them the tensor on an edge is.
        parameters: The flow's parameters.
        gradients: By recorded edge.
        terms: Named terms.
    """

    def place(edges: Iterable[int]) -> tuple[int, ...]:
        return tuple(places[edge] for edge in edges if edge in places)

    known = bool(description.parts)
    total, floor = 0.0, 0.0
    parts = []
    *values, idle = row["numbers"][0]
    for at, (kind, activation, rectifier, width, is_direct, edges) in enumerate(description.parts):
        numbers = values[_NUMBERS * at : _NUMBERS * (at + 1)]
        known = known and not math.isnan(numbers[0])
        total += numbers[0]
        floor += numbers[3]
        numbers = [None if math.isnan(number) else Quantity([number]) for number in numbers]
        parts.append(
            LossPart(
                kind=kind,
                value=numbers[0],
                guessing=numbers[1],
                constant=numbers[2],
                floor=numbers[3],
                reach=numbers[4],
                activation=activation,
                rectifier=rectifier,
                off=numbers[5],
                width=width or None,
                is_direct=is_direct,
                outputs=place(edges),
            )
        )
    offset = value - total if known else math.nan
    _fill_penalty(parts, description, value)
    lowest = floor + offset
    excess = abs(value) if math.isnan(lowest) else max(value - lowest, 0.0)
    scale = math.fsum(abs(part.guessing) for part in parts if part.guessing is not None)
    if not math.isnan(lowest) and excess < _ROUNDING * scale:
        excess = scale  # what is left is rounding
    reaction = [
        (layers[places[edge]], gradients[edge].norm)
        for edge in description.outputs
        if edge in gradients and edge in places
    ]
    return LossFlow(
        parts=tuple(parts),
        outputs=place(description.outputs),
        offset=_find_offset(parts, offset),
        step=_relate(
            (_measure_size(p) * p.grad_norm for p in parameters if p.grad_norm is not None), excess
        ),
        reaction=_relate((_measure_output(call) * norm for call, norm in reaction), excess),
        zero_examples=None if math.isnan(idle) else Quantity([idle]),
        terms=tuple(
            replace(term, guessing=_guess(parts, places), is_penalty=is_penalty)
            for term, (places, is_penalty) in zip(terms, description.terms, strict=True)
        ),
        cut=Quantity([description.cut]),
        detached=Quantity([description.detached]),
        broadcasts=description.broadcasts,
        alignment=description.alignment,
        cut_readers=description.cut_readers,
        cut_by=description.cut_by,
    )


def _fill_penalty(parts: list[LossPart], description: Description, value: float) -> None:
    """Give a penalty what is left of the loss, if all else is known."""
    rest = [at for at, part in enumerate(parts) if part.value is None]
    if len(rest) != 1 or parts[rest[0]].kind != "penalty" or description.is_shifted:
        return
    left = Quantity([value - math.fsum(part.value for part in parts if part.value is not None)])
    parts[rest[0]] = replace(parts[rest[0]], value=left, guessing=left, constant=left)


def _find_offset(parts: Sequence[LossPart], offset: float) -> Quantity | None:
    if not math.isnan(offset):
        return Quantity([offset])
    filled = bool(parts) and all(part.value is not None for part in parts)
    return Quantity([0.0]) if filled else None


def _guess(parts: Sequence[LossPart], places: Sequence[int]) -> Quantity | None:
    """Return what guessing gives for some parts together; `None` unless it is known for all."""
    levels = [parts[at].guessing for at in places]
    known = [float(each) for each in levels if each is not None]
    return Quantity([math.fsum(known)]) if known and len(known) == len(levels) else None


def _relate(falls: Iterable[float], excess: float) -> Quantity | None:
    """Return 1 % of a sum relative to the loss above its floor; `None` if either is undefined."""
    known = list(falls)
    fall = STEP * math.fsum(known) if all(map(math.isfinite, known)) else math.nan
    if not known or not math.isfinite(fall) or not math.isfinite(excess):
        return None
    if fall == 0.0:
        return Quantity([0.0])
    return Quantity([fall / excess if excess > 0.0 else math.inf])


def _measure_size(parameter: ParameterFlow) -> float:
    """Return a parameter's norm; if that is zero, what it could be."""
    if parameter.norm != 0.0:
        return float(parameter.norm)
    if parameter.is_weight:
        return math.sqrt(parameter.shape[0] / 3.0)
    return math.sqrt(math.prod(map(float, parameter.shape)))


def _measure_output(call: LayerFlow) -> float:
    """Return the norm of an output, with entries of size 1 at least."""
    size = 0.0
    if call.statistics is not None:
        size = math.hypot(call.statistics.mean, call.statistics.std)
    return max(size, 1.0) * math.sqrt(math.prod(map(float, call.shape)))
