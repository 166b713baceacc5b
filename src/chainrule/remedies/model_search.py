"""The search among changes of a model of yours: each is measured on a copy."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, islice
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter

from chainrule.diagnosis.rule import Verdict
from chainrule.errors import ChainruleError, InspectionError, RemedyError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.trial import Trial
from chainrule.measure._torch_internals import unwrap_compiled
from chainrule.measure.copying import copy_model, find_shared_memory
from chainrule.measure.inspection import inspect
from chainrule.measure.modules import take_inventory
from chainrule.measure.non_finite import add_origin
from chainrule.measure.preservation import preserve, preserve_random_state
from chainrule.measure.tensor_hooks import find_uncarried
from chainrule.remedies.advice import advise
from chainrule.remedies.data_driven import fit_biases, fit_scales
from chainrule.remedies.edits import Edit, apply_edits, apply_or_undo, check_edits
from chainrule.remedies.failures import (
    describe_failures,
    describe_no_budget,
    describe_nothing_listed,
    describe_repeat,
    describe_uncopied,
    describe_unreached,
    find_obstacle,
    quote_error,
)
from chainrule.remedies.model_changes import ModelChange, combine, list_model_changes
from chainrule.remedies.result import Outcome, Remedies, Remedy, confirm, find_curable
from chainrule.remedies.result import prove as prove_remedy
from chainrule.remedies.search import Pair, Progress, Search
from chainrule.training.batches import MOST_HELD
from chainrule.training.optimizers import NO_ROOM, OptimizerLike, rebuild_optimizer
from chainrule.training.trial import (
    confirm_training,
    describe_end,
    try_training,
)

MEASUREMENTS = 12
"""Most measurements by default. One costs at most 2.5 bare training steps, so these are 30."""

COPY_LIMIT = 2 * 2**30
"""Bytes of parameters and buffers up to which a model is copied by default."""

FAR = 2.0
"""A metric that keeps its bound by more powers of ten than this counts as no better for it."""

MANY_DEAD = 0.3
"""Share of dead units in a layer from which on waking them is tried."""

PROVED, PROOF_PASSES = 3, 120
"""Most changes that are tried by training, and the most passes of each training."""

MAX_PAIRS = 3
"""Most pairs of changes that are measured."""

Loss = Callable[[Any], Tensor]


def find_model_remedies(  # noqa: PLR0913  (one argument per setting)
    model: nn.Module,
    compute_loss: Loss,
    *,
    enough: int = 3,
    measurements: int = MEASUREMENTS,
    copy_limit: int = COPY_LIMIT,
    prove: bool = False,
    optimizer: OptimizerLike | None = None,
    batches: Iterable[Any] | None = None,
    progress: Progress | None = None,
) -> Remedies:
    """Return changes of a model's parameters that help, each of them measured on a copy.

    It tries initializations by what follows each layer, zero or smaller residual branches, unit
    variance on the data (LSUV), biases that wake dead units, and pairs of these. Each change is
    made on a copy of the model as it is. It is judged by the metric of the gravest finding, as
    `find_remedies` does for a specification. Weights that the loss does not reach, such as those of
    an unused head, are ignored if something else is wrong, too; the note lists them. Changes that
    cannot be tried on a copy (another architecture, clipping, the learning rate) are advice.

    Args:
        model: The model; it is not changed.
        compute_loss: As for `inspect`. It must use the model that it is given.
        enough: Stop when so many changes measure well.
        measurements: Most measurements, the first one included. One takes the time of `inspect`;
            two candidates need one more forward pass each.
        copy_limit: Most bytes of parameters and buffers; a larger model is not copied, and only
            advice is given. There is only one copy at a time.
        prove: Whether to train copies of the model as it is and of the best three changes for a
            short while each (`try_training`, at most 120 passes each, and 300 more for what looks
            like a cure, to see whether it stays one). Only a change that trains where the model as
            it is does not, or clearly better, and that reaches a lower loss is called a cure; one
            that does not train is refuted. Without it, changes are measured only.
        optimizer: With `prove`: as for `try_training`.
        batches: With `prove`: as for `try_training`; `compute_loss` takes the model and a batch.
        progress: Called with (measurements done, measurements planned). To cancel the search, raise
            an exception in it.

    Returns:
        The remedies, ranked; apply one with `apply_remedy`. The same for the same model, loss and
        random state.

    Raises:
        InspectionError: If the model cannot be measured, or `compute_loss` does not use the model
            that it is given.
        RemedyError: If the other arguments are not legal.

    Example:
        >>> import torch
        >>> layers = torch.nn.Linear(8, 8), torch.nn.ReLU(), torch.nn.Linear(8, 1)
        >>> model, x = torch.nn.Sequential(*layers), torch.eye(8)
        >>> _ = torch.nn.init.constant_(model[0].bias, -9.0)  # no unit is ever on
        >>> find_model_remedies(model, lambda m: (m(x) - 1).square().mean())[0].title
        'Initialization by what follows each layer'
    """
    for name, value in (("enough", enough), ("measurements", measurements)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RemedyError(f"{name}: must be a whole number above 0; got {value!r:.60}.")
    held = None if batches is None else _hold(batches)
    train, compute_loss = compute_loss, _fix_batch(compute_loss, held)
    held_by = optimizer if isinstance(optimizer, torch.optim.Optimizer) else None
    before = add_origin(inspect(model, compute_loss, held_by), model, compute_loss)
    model = unwrap_compiled(model)
    search: Search[ModelChange] = Search(before, enough, progress, measurements)
    diagnosis = search.diagnosis
    note = ""
    if diagnosis.verdict is not Verdict.HEALTHY:
        note = find_obstacle(model, before, diagnosis, copy_limit)
        if not note:
            with preserve(take_inventory(model)):
                reason = _search_changes(search, model, compute_loss)
            proof = _prove(search, model, train, optimizer, held) if prove else ""
            note = " ".join(filter(None, (reason, proof, describe_unreached(before, diagnosis))))
    search.finish()
    tried = search.rank(_measure_effect)
    cured = tried[0].after if tried and tried[0].is_good else None
    return Remedies(
        before=before,
        diagnosis=diagnosis,
        tried=tried,
        advice=advise(before, diagnosis, cured),
        note=note,
    )


def _hold(batches: Iterable[Any]) -> list[Any]:
    """Return the batches that are used.

    Raises:
        RemedyError: If there are none.
    """
    try:
        held = list(islice(batches, MOST_HELD))
    except TypeError as error:
        raise RemedyError(
            "batches: must be an iterable of what compute_loss(model, batch) takes; got "
            f"{type(batches).__name__}. Give a list of batches or a DataLoader."
        ) from error
    if not held:
        raise RemedyError(
            "batches: must hold at least one batch, but it is empty. An iterator can be read once "
            "only: give the DataLoader itself, or leave it out."
        )
    return held


def _fix_batch(compute_loss: Callable[..., Tensor], batches: Sequence[Any] | None) -> Loss:
    """Return a loss of the first batch, if there are batches."""
    if not batches:
        return compute_loss
    return lambda model: compute_loss(model, batches[0])


def _prove(
    search: Search[ModelChange],
    model: nn.Module,
    compute_loss: Callable[..., Tensor],
    optimizer: OptimizerLike | None,
    batches: Sequence[Any] | None,
) -> str:
    """Train copies with the best changes; return what that took, in a sentence."""
    promising = [Outcome.MEASURES, Outcome.HELPS]
    if search.diagnosis.verdict is Verdict.NON_FINITE:  # what is finite again may train
        promising.append(Outcome.TRADES)
    chosen = [each for each in search.rank(_measure_effect) if each.outcome in promising][:PROVED]
    if not chosen:
        return ""
    if hook := find_uncarried(model):
        return f"No change was tried by training: {hook}."

    def try_copy(edits: tuple[Edit, ...]) -> Trial:
        copied = copy_model(model)
        apply_edits(copied, edits)
        made = rebuild_optimizer(model, copied, optimizer) if optimizer is not None else None
        return try_training(copied, compute_loss, made, batches=batches, passes=PROOF_PASSES)

    def train_longer(edits: tuple[Edit, ...], trial: Trial) -> Trial:
        copied = copy_model(model)
        apply_edits(copied, edits)
        made = rebuild_optimizer(model, copied, optimizer) if optimizer is not None else None
        return confirm_training(copied, compute_loss, trial, made, batches=batches)

    proved: dict[int, Remedy] = {}
    try:
        untouched = try_copy(())
        if not untouched.tried:
            return f"No change was tried by training: {untouched.skipped}."
        passes = untouched.passes
        untouched_longer: Trial | None = None
        for remedy in chosen:
            trial = try_copy(remedy.edits)
            passes += trial.passes
            found = prove_remedy(remedy, untouched, trial)
            if found.is_cure:
                longer = train_longer(remedy.edits, trial)
                passes += longer.passes
                if untouched.trains and untouched_longer is None:
                    untouched_longer = train_longer((), untouched)
                    passes += untouched_longer.passes
                found = confirm(found, longer, untouched_longer or untouched)
            proved[id(remedy)] = found
    except InspectionError as error:  # what was measured stays true
        return describe_end(error).replace("The trial", "Training that tried the changes", 1)
    except NO_ROOM as error:
        return (
            "Training that tried the changes ended early: there is no room for copies of the model "
            f"({type(error).__name__})."
        )
    finally:
        search.replace_remedies(lambda each: proved.get(id(each), each))
    return (
        f"The model as it is and {len(chosen)} changed copies were trained for a short while, with "
        f"{passes:g} passes in all."
    )


def apply_remedy(
    remedy: Remedy, model: nn.Module, compute_loss: Loss | None = None
) -> GradientFlow:
    """Change a model in place as a remedy says, and nothing else; return the flow after.

    Parameters keep their identity, so an optimizer made before still holds them (its own state,
    such as momentum, is not reset). Random states stay as they were: a remedy draws from its own
    seeds, and applying it twice gives the same weights. If anything is raised, the model is as it
    was; for that, the parameters that change are kept twice while this runs.

    Args:
        remedy: One that `find_remedies(model, compute_loss)` found.
        model: The model that was measured, or one with the same parameters.
        compute_loss: If given, the changed model is measured again.

    Returns:
        The flow of the changed model: measured now if `compute_loss` is given, else `remedy.after`,
        as measured on the copy.

    Raises:
        RemedyError: If the remedy is for a specification, or the model is not the one that was
            measured: other parameters or shapes, or what the remedy changes is frozen, complex,
            without values or cannot be written.
        InspectionError: If the changed model cannot be measured.

    Example:
        >>> import torch
        >>> from chainrule import find_remedies
        >>> model = torch.nn.Sequential(
        ...     *(p for _ in range(8) for p in (torch.nn.Linear(8, 8), torch.nn.Sigmoid()))
        ... )
        >>> x = torch.ones(4, 8).cumsum(0)
        >>> def compute_loss(m):
        ...     return m(x).square().mean()
        >>> remedy = find_remedies(model, compute_loss, enough=1)[0]
        >>> flow = apply_remedy(remedy, model, compute_loss)
        >>> flow.parameters[0].norm == remedy.after.parameters[0].norm
        True
    """
    if not isinstance(remedy, Remedy):
        raise RemedyError(
            f"remedy must be one that find_remedies returned; got {type(remedy).__name__}. "
            "Take one of the list: apply_remedy(find_remedies(model, compute_loss)[0], model)."
        )
    if remedy.spec is not None:
        raise RemedyError(
            "The remedy must be for a model, but this one changes a specification. Build the "
            "changed network with chainrule.build_network(remedy.spec)."
        )
    if not remedy.edits:
        raise RemedyError(
            "The remedy must say which parameters to change, but this one holds no edits: it "
            "compares two flows that were measured by hand. Take one that find_remedies returned."
        )
    if not isinstance(model, nn.Module):
        raise RemedyError(f"model must be a torch.nn.Module; got {type(model).__name__}.")
    _check_same_model(remedy, model)
    with apply_or_undo(model, remedy.edits):
        return remedy.after if compute_loss is None else inspect(model, compute_loss)


def _check_same_model(remedy: Remedy, model: nn.Module) -> None:
    """Raise unless a remedy's edits do to this model what they did to the copy measured."""
    found = check_edits(model, remedy.edits)
    inventory = take_inventory(unwrap_compiled(model))
    there = {p.names[0]: _read_shape(p.tensor) for p in inventory.parameters}
    measured = {p.name: p.shape for p in remedy.before.parameters}
    if there != measured:
        other = next(
            name for name in {**measured, **there} if there.get(name, 0) != measured.get(name, 0)
        )
        raise RemedyError(
            f"The model must be the one that was measured, but they differ in {other!r}: shape "
            f"{_describe(there.get(other))} here, {_describe(measured.get(other))} there. Nothing "
            "was changed; look for remedies for this model."
        )
    frozen = next((e.parameter for e in remedy.edits if not found[e.parameter].requires_grad), None)
    if frozen is not None:
        raise RemedyError(
            f"The parameters that a remedy changes must be trained, as when it was measured, but "
            f"{frozen!r} is frozen. Nothing was changed; call requires_grad_(True) on it first, or "
            "look for remedies for this model."
        )
    shared = find_shared_memory(model)
    if shared is not None:
        raise RemedyError(
            "Every parameter must have its own memory, but {!r} and {!r} share theirs, so that a "
            "change of one changes the other. Nothing was changed; look for remedies for this "
            "model.".format(*shared)
        )


def _read_shape(tensor: nn.Parameter) -> tuple[int, ...] | None:
    return None if isinstance(tensor, UninitializedParameter) else tuple(tensor.shape)


def _describe(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))


def _search_changes(search: Search[ModelChange], model: nn.Module, compute_loss: Loss) -> str:
    """Measure changes on copies of a model; return why nothing or less was measured."""
    errors: list[str] = []  # as text: an error itself would keep the copy that it came from

    def inspect_copy(copied: nn.Module, edits: tuple[Edit, ...] = ()) -> GradientFlow | None:
        try:
            apply_edits(copied, edits)
            return inspect(copied, compute_loss)
        except ChainruleError as error:
            errors.append(quote_error(error.__cause__ or error))
            return None
        finally:
            search.advance()

    def measure(change: ModelChange) -> GradientFlow | None:
        """Measure on a fresh copy; `None` if that was not possible."""
        return inspect_copy(copy_model(model), change.edits)

    search.advance(0)
    try:
        copied = copy_model(model)
    except Exception as error:
        return describe_uncopied(model, error)
    flow = inspect_copy(copied)
    del copied  # one copy is there at a time
    if flow is None:
        return describe_repeat(errors[0])
    _check_loss(flow)
    pairs_wanted = min(MAX_PAIRS, search.left // 3)
    listed = _list_changes(search, model, compute_loss)
    first = next(listed, None)
    if first is None:
        return describe_nothing_listed(model, search.before)
    candidates = _choose(search, chain([first], listed), pairs_wanted)
    search.run(candidates, _list_pairs(search), measure)
    if not search.tried and not errors:
        return describe_no_budget()
    return describe_failures(errors, search.done - 2)


def _check_loss(flow: GradientFlow) -> None:
    """Raise if the loss does not depend on the copy that it was given."""
    if not any(parameter.status == "measured" for parameter in flow.parameters):
        raise InspectionError(
            "compute_loss must use the model that it is given, but its loss depends on none of "
            "the copy's parameters. Write lambda m: loss(m(x)) rather than lambda m: "
            "loss(model(x))."
        )


def _list_changes(
    search: Search[ModelChange], model: nn.Module, compute_loss: Loss
) -> Iterator[ModelChange]:
    """Yield what is worth measuring; a forward pass of a copy fits some of it."""
    before = search.before

    def fit(
        function: Callable[[nn.Module, GradientFlow, Loss], ModelChange | None],
    ) -> Iterator[ModelChange]:
        devices = {parameter.device for parameter in model.parameters()}
        try:
            with preserve_random_state(devices), torch.enable_grad():
                found = function(copy_model(model), before, compute_loss)
        except Exception:  # with replaced outputs, anything may go wrong in the loss
            return
        if found is not None:
            yield found

    if max((layer.dead_share or 0.0 for layer in before.weight_layers), default=0.0) > MANY_DEAD:
        yield from fit(fit_biases)
    listed = list(list_model_changes(model, before, find_curable(search.diagnosis, before)))
    yield from (change for change in listed if not change.is_variant)
    yield from fit(fit_scales)
    yield from (change for change in listed if change.is_variant)


def _choose(
    search: Search[ModelChange], listed: Iterable[ModelChange], pairs_wanted: float
) -> Iterator[ModelChange]:
    """Yield single changes, until enough measure well or only pairs' measurements are left."""
    for change in listed:
        if search.left <= pairs_wanted or search.is_done:
            return
        if not (change.is_variant and search.has_good()):
            yield change


def _list_pairs(search: Search[ModelChange]) -> Iterator[Pair[ModelChange]]:
    """Yield pairs of changes that did something, where none measures well alone."""
    if search.has_good():
        return
    singles = sorted(search.tried, key=lambda entry: -entry.remedy.comparison.closed)
    for pair in search.pair_up([entry.change for entry in singles], _combine)[:MAX_PAIRS]:
        if search.left < 1 or search.has_good():
            return
        yield pair


def _measure_effect(remedy: Remedy) -> float:
    """Return how far a change brings the metric to its bound, and beyond."""
    comparison = remedy.comparison
    effect = comparison.closed
    if (
        comparison.passes
        and comparison.after is not None
        and comparison.after > 0.0 < comparison.threshold
    ):
        effect += min(abs(math.log10(comparison.after / comparison.threshold)), FAR)
    return effect


def _combine(one: ModelChange, other: ModelChange) -> ModelChange | None:
    """Return two changes in an order in which neither undoes the other; `None` if there is none.

    A drawing comes before what fills or scales some of what was drawn.
    """
    for first, second in ((one, other), (other, one)):
        touched = {edit.parameter for edit in first.edits}
        drawn = {e.parameter for e in second.edits if e.action in ("normal", "orthogonal")}
        filled = {e.parameter for e in second.edits if e.action == "fill"}
        if (
            not touched & drawn
            and not touched <= filled
            and not set(second.edits) <= set(first.edits)
        ):
            return combine(first, second)
    return None
