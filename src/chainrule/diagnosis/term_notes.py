"""Notes on named terms of a loss: which parameters each reaches, and how hard each pulls there."""

import math
from collections.abc import Callable, Iterable, Iterator

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.note import Note, make_note
from chainrule.diagnosis.observations import OBSERVATIONS
from chainrule.diagnosis.rules import RULES
from chainrule.flow.gradient_flow import GradientFlow
from chainrule.flow.loss import LossTerm


def _list_terms(flow: GradientFlow) -> tuple[LossTerm, ...]:
    return flow.loss_facts.terms if flow.loss_facts else ()


def _find_idle_terms(flow: GradientFlow) -> Iterator[Note]:
    """Find terms that reach no parameter, and amount to nothing here."""
    if RULES["detached_term"].finds(flow):
        return
    for term in _list_terms(flow):
        if term.is_detached:
            yield make_note(
                "idle_term",
                abs(term.value),
                f"the term {term.name!r} reaches no parameter; its value is "
                f"{format_number(term.value)}",
                [],
            )


def _find_separate_terms(flow: GradientFlow) -> Iterator[Note]:
    """Find terms without a common parameter, where a module reads what was cut off the graph.

    Parts that all have targets of their own learn apart; so does one without, such as a codebook,
    that reads what another part gives. Which term has targets is not always known.
    """
    facts = flow.loss_facts
    reached = [
        (term.name, {each.parameter for each in term.gradients})
        for term in _list_terms(flow)
        if term.gradients and not term.is_penalty
    ]
    groups: list[tuple[list[str], set[int]]] = []
    for name, own in reached:
        joined = [group for group in groups if group[1] & own]
        groups = [group for group in groups if not group[1] & own]
        names = [each for group in joined for each in group[0]]
        groups.append(([*names, name], own.union(*(group[1] for group in joined))))
    if facts is None or len(groups) <= OBSERVATIONS["separate_terms"].threshold:
        return
    owners = [_list_owners(flow, places) for _, places in groups]
    targeted = {term.name for term in facts.terms if term.guessing is not None}
    told = [not targeted.isdisjoint(names) for names, _ in groups]
    readers = [
        name
        for name in facts.cut_readers
        for each, is_told in zip(owners, told, strict=True)
        if _owns(name, each) and (is_told or not any(told))
    ]
    reader = None if all(told) else next(iter(readers), None)
    if reader is None:
        return
    clauses = [
        f"{_enumerate(names)} reach{'' if len(names) > 1 else 'es'} {_shorten(each)}"
        for (names, _), each in zip(groups, owners, strict=True)
    ]
    yield make_note(
        "separate_terms",
        len(groups),
        f"the terms of the loss share no parameter: {', and '.join(clauses)}; {reader!r} reads "
        "what the model computed and what was cut off the graph",
        [reader],
    )


def _find_behind_lookup(flow: GradientFlow) -> Iterator[Note]:
    """Find modules that a term does not reach, for an index that the model computed lies between.

    Without a gradient past the lookup (straight-through), only other terms reach them, such as one
    that pulls codes to their codebook.
    """
    facts = flow.loss_facts
    first: dict[str, int] = {}
    for number, call in enumerate(flow.layers):
        first.setdefault(call.name, number)
    lookups = {call.name for call in flow.layers if call.kind == "Embedding"}
    readers = [name for name in (facts.cut_readers if facts else ()) if name in lookups]
    terms = [term for term in _list_terms(flow) if term.gradients and not term.is_penalty]

    def place(parameter: int) -> int | None:
        return first.get(flow.parameters[parameter].name.rpartition(".")[0])

    for reader, term in ((reader, term) for reader in readers[:1] for term in terms):
        own = {each.parameter for each in term.gradients or ()}
        places = [at for each in own if (at := place(each)) is not None]
        if not places or min(places) < first[reader] or max(places) <= first[reader]:
            continue
        others = {
            each.parameter: other.name
            for other in terms
            if other is not term
            for each in other.gradients or ()
            if (at := place(each.parameter)) is not None and at < first[reader]
        }
        if len(others) > OBSERVATIONS["behind_lookup"].threshold:
            names = list(dict.fromkeys(others.values()))
            owners = _list_owners(flow, others)
            yield make_note(
                "behind_lookup",
                len(others),
                f"the term {term.name!r} reaches what follows {reader!r}, and nothing before it: "
                f"{reader!r} reads indices that the model computed, and no gradient comes past "
                f"them. {_shorten(owners)} {'learn' if len(owners) > 1 else 'learns'} from "
                f"{_enumerate(names)} alone",
                [reader],
            )


def _list_owners(flow: GradientFlow, places: Iterable[int]) -> list[str]:
    names = (flow.parameters[place].name.rpartition(".")[0] for place in sorted(places))
    return list(dict.fromkeys(names))


def _owns(reader: str, owners: Iterable[str]) -> bool:
    return any(not reader or each == reader or each.startswith(f"{reader}.") for each in owners)


def _enumerate(names: list[str]) -> str:
    return " and ".join(map(repr, names))


def _shorten(names: list[str]) -> str:
    shown = ", ".join(repr(name or "(model)") for name in names[:_SHOWN])
    left = len(names) - _SHOWN
    return f"{shown} and {left} more" if left > 0 else shown


_SHOWN = 4
"""Names of modules that are given one by one."""


def _find_faint_terms(flow: GradientFlow) -> Iterator[Note]:
    """Find terms whose gradient is next to nothing beside another's wherever both reach.

    Where guessing is known for a term, a note of its own says so far earlier.
    """
    bound = OBSERVATIONS["faint_term"].threshold
    terms = [term for term in _list_terms(flow) if term.gradients]
    norms = [{each.parameter: float(each.norm) for each in term.gradients or ()} for term in terms]
    for small, own in zip(terms, norms, strict=True):
        if small.is_penalty or small.guessing is not None:
            continue
        shares = []
        for at in (at for at, norm in own.items() if norm > 0.0):
            others = [
                (its[at], large.name)
                for large, its in zip(terms, norms, strict=True)
                if large is not small and its.get(at, 0.0) > 0.0
            ]
            if others:
                most, name = max(others)
                shares.append((own[at] / most, name, at))
        share, name, at = max(shares, default=(math.inf, "", 0))
        if share < bound:
            parameter = flow.parameters[at].name
            yield make_note(
                "faint_term",
                share,
                f"the gradient of the term {small.name!r} is {format_number(share)} times that of "
                f"{name!r} at {parameter!r}, and less wherever else both reach",
                [parameter],
            )


TERM_NOTES: tuple[Callable[[GradientFlow], Iterator[Note]], ...] = (
    _find_idle_terms,
    _find_separate_terms,
    _find_behind_lookup,
    _find_faint_terms,
)
"""What finds them, in the order in which notes are given."""
