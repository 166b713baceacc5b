"""Looking for remedies for somebody's own model: changes of copies, measured before and after."""

import math
from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any

import torch
from torch import Tensor, nn

from chainrule.diagnosis.diagnosis import Diagnosis, diagnose
from chainrule.diagnosis.rules import Verdict
from chainrule.errors import ChainruleError, InspectionError, RemedyError
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.measure.inspection import inspect
from chainrule.measure.modules import take_inventory
from chainrule.measure.preservation import preserve, preserve_random_state
from chainrule.remedies.advice import advise
from chainrule.remedies.copying import copy_model, describe_uncopied
from chainrule.remedies.data_driven import fit_biases, fit_scales
from chainrule.remedies.edits import apply_edits, check_edits
from chainrule.remedies.failures import (
    describe_failures,
    describe_no_budget,
    describe_nothing_listed,
    describe_repeat,
    describe_unreached,
    find_obstacle,
)
from chainrule.remedies.model_changes import ModelTreatment, combine, list_model_treatments
from chainrule.remedies.result import Outcome, Remedies, Remedy, compare_flows, find_curable

MEASUREMENTS = 12
"""Most measurements by default. One costs at most 2.5 bare training steps, so these are 30."""

COPY_LIMIT = 2 * 2**30
"""Bytes of parameters and buffers up to which a model is copied by default."""

FAR = 2.0
"""Powers of ten beyond its bound from which on a metric counts as no better still."""

MANY_DEAD = 0.3
"""Share of dead units in a layer from which on waking them is tried."""

MAX_PAIRS = 3
"""Most pairs of changes that are measured."""

Progress = Callable[[int, int], None]
Loss = Callable[[Any], Tensor]


def find_model_remedies(
    model: nn.Module,
    compute_loss: Loss,
    *,
    enough: int = 3,
    measurements: int = MEASUREMENTS,
    copy_limit: int = COPY_LIMIT,
    progress: Progress | None = None,
) -> Remedies:
    """Return changes of a model's parameters that help, each of them measured on a copy.

    Tried are initializations by what follows each layer, zero or smaller residual branches, unit
    variance on the data (LSUV), biases that wake dead units, and pairs of these. Each starts from a
    copy of the model as it is, and is judged by the metric of the gravest finding, as
    `find_remedies` does for a specification. Weights that the loss does not reach, as an unused
    head has them, are passed over if more than these is wrong; the note lists them. What cannot be
    tried on a copy (another architecture, clipping, the learning rate) is advice.

    Args:
        model: The model; it is not changed.
        compute_loss: As for `inspect`. It must use the model that it is given.
        enough: Stop when so many cures are found.
        measurements: Most measurements, the first one included. One takes the time of `inspect`;
            two candidates need a forward pass besides.
        copy_limit: Most bytes of parameters and buffers; a larger model is not copied, and only
            advice is given. One copy is there at a time.
        progress: Called with (measurements done, measurements planned). The search ends when it
            raises, which is the way to cancel it.

    Returns:
        The remedies, ranked; apply one with `apply_remedy`. The same for the same model, loss and
        random state.

    Raises:
        InspectionError: If the model cannot be measured, or `compute_loss` does not use the model
            that it is given.
        RemedyError: If the other arguments are not legal.
    """
    for name, value in (("enough", enough), ("measurements", measurements)):
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise RemedyError(f"{name}: must be a whole number above 0; got {value!r:.60}.")
    before = inspect(model, compute_loss)
    model = getattr(model, "_orig_mod", model)
    diagnosis = diagnose(before)
    search = _Search(model, compute_loss, before, diagnosis, enough, measurements, progress)
    note = ""
    if diagnosis.verdict is not Verdict.HEALTHY:
        note = find_obstacle(model, before, diagnosis, copy_limit)
        if not note:
            with preserve(take_inventory(model)):
                search.run()
            note = " ".join(filter(None, (search.note, describe_unreached(before, diagnosis))))
    search.finish()
    tried = search.rank()
    cured = tried[0].after if tried and tried[0].is_cure else None
    return Remedies(
        before=before,
        diagnosis=diagnosis,
        tried=tried,
        advice=advise(before, diagnosis, cured),
        note=note,
    )


def apply_remedy(
    remedy: Remedy, model: nn.Module, compute_loss: Loss | None = None
) -> GradientFlow:
    """Change a model in place as a remedy says, and nothing else; return the flow after.

    Parameters keep their identity, so an optimizer made before still holds them (its own state,
    such as momentum, is not reset). Random states stay as they were: a remedy draws from its own
    seeds, and applying it twice gives the same weights.

    Args:
        remedy: One that `find_remedies(model, compute_loss)` found.
        model: The model that was measured, or one with the same parameters.
        compute_loss: If given, the changed model is measured again.

    Returns:
        The flow of the changed model: measured now if `compute_loss` is given, else `remedy.after`,
        as measured on the copy.

    Raises:
        RemedyError: If the remedy is for a specification, or the model has other parameters or
            shapes than the one that was measured; nothing was changed then.
        InspectionError: If the changed model cannot be measured.
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
    if not isinstance(model, nn.Module):
        raise RemedyError(f"model must be a torch.nn.Module; got {type(model).__name__}.")
    _check_same_model(remedy, model)
    apply_edits(model, remedy.edits)
    return remedy.after if compute_loss is None else inspect(model, compute_loss)


def _check_same_model(remedy: Remedy, model: nn.Module) -> None:
    check_edits(model, remedy.edits)
    inventory = take_inventory(getattr(model, "_orig_mod", model))
    there = {p.names[0]: tuple(p.tensor.shape) for p in inventory.parameters}
    measured = {p.name: p.shape for p in remedy.before.parameters}
    if there != measured:
        other = next(
            name for name in {**measured, **there} if there.get(name) != measured.get(name)
        )
        raise RemedyError(
            f"The model must be the one that was measured, but they differ in {other!r}: shape "
            f"{_describe(there.get(other))} here, {_describe(measured.get(other))} there. Nothing "
            "was changed; look for remedies for this model."
        )


def _describe(shape: tuple[int, ...] | None) -> str:
    return "none" if shape is None else str(list(shape))


class _Search:
    """The measurements of one call."""

    def __init__(
        self,
        model: nn.Module,
        compute_loss: Loss,
        before: GradientFlow,
        diagnosis: Diagnosis,
        enough: int,
        measurements: int,
        progress: Progress | None,
    ) -> None:
        self.model = model
        self.compute_loss = compute_loss
        self.before = before
        self.diagnosis = diagnosis
        self.curable = find_curable(diagnosis, before)
        self.enough = enough
        self.left = measurements - 1
        self.progress = progress
        self.tried: list[tuple[ModelTreatment, Remedy]] = []
        self.done = 1
        self.planned = measurements
        self.note = ""
        self.errors: list[ChainruleError] = []
        self.listed = 0

    def run(self) -> None:
        self._advance(0)
        try:
            copied = copy_model(self.model)
        except Exception as error:
            self.note = describe_uncopied(self.model, error)
            return
        self._check_loss(copied)
        del copied  # one copy is there at a time
        if self.errors:
            self.note = describe_repeat(self.errors[0])
            return
        pairs_wanted = min(MAX_PAIRS, self.left // 3)
        for treatment in self._list_candidates():
            self.listed += 1
            if self.left <= pairs_wanted or self._is_done():
                break
            if not (treatment.is_variant and self._has_cure()):
                self._measure(treatment)
        self._try_pairs()
        self.note = self._explain()

    def _explain(self) -> str:
        """Return why nothing or less was measured."""
        if not self.listed:
            return describe_nothing_listed(self.before)
        if not self.tried and not self.errors:
            return describe_no_budget()
        return describe_failures(self.errors, self.done - 2)

    def finish(self) -> None:
        self.planned = self.done
        self._advance(0)

    def rank(self) -> tuple[Remedy, ...]:
        return tuple(remedy for _, remedy in sorted(self.tried, key=_rank))

    def _check_loss(self, copied: nn.Module) -> None:
        """Raise if the loss does not depend on the model that it is given."""
        flow = self._inspect(copied)
        if flow is None or any(parameter.status == "measured" for parameter in flow.parameters):
            return
        raise InspectionError(
            "compute_loss must use the model that it is given, but its loss depends on none of "
            "the copy's parameters. Write lambda m: loss(m(x)) rather than lambda m: "
            "loss(model(x))."
        )

    def _list_candidates(self) -> Iterator[ModelTreatment]:
        """Yield what is worth measuring; a forward pass of a copy fits some of it."""
        shares = [layer.dead_share or 0.0 for layer in self.before.weight_layers]
        if max(shares, default=0.0) > MANY_DEAD and (woken := self._fit(fit_biases)):
            yield woken
        listed = list(list_model_treatments(self.model, self.before, self.curable))
        yield from (treatment for treatment in listed if not treatment.is_variant)
        scaled = self._fit(fit_scales)
        if scaled is not None:
            yield scaled
        yield from (treatment for treatment in listed if treatment.is_variant)

    def _fit(
        self, fit: Callable[[nn.Module, GradientFlow, Loss], ModelTreatment | None]
    ) -> ModelTreatment | None:
        """Return what a forward pass of a copy fits; `None` if the loss cannot run that way."""
        devices = {parameter.device for parameter in self.model.parameters()}
        try:
            with preserve_random_state(devices), torch.enable_grad():
                return fit(copy_model(self.model), self.before, self.compute_loss)
        except Exception:  # with replaced outputs anything may go wrong in it
            return None

    def _try_pairs(self) -> None:
        """Measure pairs of changes that did something, where none cures alone."""
        if self._has_cure():
            return
        singles = sorted(self.tried, key=lambda pair: -pair[1].comparison.closed)
        closed = {id(treatment): remedy.comparison.closed for treatment, remedy in singles}
        pairs = [
            pair
            for one, other in combinations([treatment for treatment, _ in singles], 2)
            if (pair := _order(one, other)) is not None
        ]
        for first, second in pairs[:MAX_PAIRS]:
            if self.left < 1 or self._has_cure():
                break
            alone = max(closed[id(first)], closed[id(second)])
            if self._measure(combine(first, second)):
                remedy = self.tried[-1][1]
                helps_more = remedy.outcome is Outcome.HELPS and remedy.comparison.closed > alone
                if not (remedy.is_cure or helps_more):
                    self.tried.pop()

    def _measure(self, treatment: ModelTreatment) -> bool:
        """Measure a change on a fresh copy and note it; `False` if that was not possible."""
        copied = copy_model(self.model)
        apply_edits(copied, treatment.edits)
        flow = self._inspect(copied)
        if flow is None:
            return False
        remedy = compare_flows(
            self.before,
            flow,
            diagnosis=self.diagnosis,
            title=treatment.title,
            reason=treatment.reason,
            kinds=treatment.kinds,
            edits=treatment.edits,
        )
        self.tried.append((treatment, remedy))
        return True

    def _inspect(self, copied: nn.Module) -> GradientFlow | None:
        self.left -= 1
        try:
            return inspect(copied, self.compute_loss)
        except ChainruleError as error:
            self.errors.append(error)
            return None
        finally:
            self._advance(1)

    def _is_done(self) -> bool:
        return sum(remedy.is_cure for _, remedy in self.tried) >= self.enough

    def _has_cure(self) -> bool:
        return any(remedy.is_cure for _, remedy in self.tried)

    def _advance(self, steps: int) -> None:
        self.done += steps
        self.planned = max(self.planned, self.done)
        if self.progress is not None:
            self.progress(self.done, self.planned)


def _rank(pair: tuple[ModelTreatment, Remedy]) -> tuple[int, tuple[int, ...], float]:
    """Rank by outcome, then by price; of one price, what passes its bound by most comes first."""
    treatment, remedy = pair
    comparison = remedy.comparison
    effect = comparison.closed
    if (
        comparison.passes
        and comparison.after is not None
        and comparison.after > 0.0 < comparison.threshold
    ):
        effect += min(abs(math.log10(comparison.after / comparison.threshold)), FAR)
    return list(Outcome).index(remedy.outcome), treatment.cost, -effect


def _order(
    one: ModelTreatment, other: ModelTreatment
) -> tuple[ModelTreatment, ModelTreatment] | None:
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
            return first, second
    return None
