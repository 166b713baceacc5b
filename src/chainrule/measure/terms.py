"""Named terms of a loss: which parameters each reaches, and where they pull against each other."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from chainrule.errors import LossError
from chainrule.flow.loss import LossTerm, TermGradient
from chainrule.flow.quantity import Quantity
from chainrule.measure.statistics import Table, summarize_gradients, summarize_sparse_gradient

MAX_TERMS = 16
"""Most terms of a loss: each takes a backward pass of its own."""


MAX_NAME = 200
"""Most characters of the name of a term."""


@dataclass(slots=True, eq=False)
class Term:
    """A term: its value, and what was measured of its gradients.

    Attributes:
        name: Its name.
        value: One number.
        reached: Positions of the parameters that it reaches; `None` if it was not measured.
        table: Its norms and products with the gradient of the whole loss, [1, parameters].
        parts: Positions of the parts of the loss that it consists of; empty if there is more to it.
        is_penalty: Whether it is computed from parameters alone.
    """

    name: str
    value: Tensor
    reached: tuple[int, ...] | None = None
    table: Table | None = None
    parts: tuple[int, ...] = ()
    is_penalty: bool = False


def read_terms(returned: Mapping[Any, Any]) -> list[Term]:
    """Return the terms that `compute_loss` returned.

    Raises:
        LossError: If they are no real numbers in tensors, none, or too many.
    """
    if not returned or len(returned) > MAX_TERMS:
        raise LossError(
            f"compute_loss must return one loss, or from 1 to {MAX_TERMS} named terms, each of "
            f"which takes a backward pass; got {len(returned)} terms. "
            + ("Add some of them up." if returned else "Return at least one.")
        )
    terms = []
    for name, value in returned.items():
        came = None
        if not isinstance(value, Tensor):
            came = f"a value of type {type(value).__name__}"
        elif value.numel() != 1:
            came = f"a tensor of shape {list(value.shape)}"
        elif value.is_complex():
            came = "a complex number"
        if came is not None:
            raise LossError(
                f"compute_loss must return terms that are real scalar tensors; the term {name!r} "
                f"is {came}. Reduce it, for example with .mean(), and leave out what is no part of "
                "the loss."
            )
        terms.append(Term(_check_name(name), value))
    if len({term.name for term in terms}) < len(terms):
        raise LossError("compute_loss must return terms with different names. Rename some.")
    return terms


def _check_name(name: object) -> str:
    """Return the name of a term in words that a file can hold."""
    words = str(name)
    if len(words) > MAX_NAME or not words.isprintable():
        raise LossError(
            f"compute_loss must return terms whose names are printable, with at most {MAX_NAME} "
            f"characters; got {words!a:.60}. Give it a short name."
        )
    return words


def add_up(terms: Sequence[Term]) -> Tensor:
    """Return the loss that terms amount to."""
    total = terms[0].value.reshape(())
    for term in terms[1:]:
        total = total + term.value.reshape(())
    return total


def measure_terms(
    terms: Sequence[Term], parameters: Mapping[int, Tensor], gradients: Mapping[int, Tensor]
) -> None:
    """Differentiate every term by itself, one after another; the graph must still be there.

    Args:
        terms: The terms.
        parameters: Those that require a gradient, by position.
        gradients: Those of the whole loss.
    """
    for term in terms:
        term.reached, term.table = (), None
        if not term.value.requires_grad or not parameters:
            continue
        found = torch.autograd.grad(
            term.value.sum(), list(parameters.values()), retain_graph=True, allow_unused=True
        )
        rows = []
        reached = []
        with torch.no_grad():
            for position, gradient in zip(parameters, found, strict=True):
                if gradient is not None:
                    reached.append(position)
                    rows.append(_compare(gradient, gradients.get(position)))
        if rows:
            term.reached = tuple(reached)
            term.table = {"term": torch.stack(rows).unsqueeze(0)}


def _compare(gradient: Tensor, whole: Tensor | None) -> Tensor:
    """Return the norm of a gradient, and its cosine with another one."""
    summarize = summarize_sparse_gradient if gradient.is_sparse else _summarize
    norm = summarize(gradient)["norm"].flatten()[0]
    nothing = norm.new_full((), math.nan)
    if whole is None:
        return torch.stack([norm, nothing])
    mine, all_of_it = (_normalize(each) for each in (gradient, whole))
    return torch.stack([norm, (mine * all_of_it).sum().to(norm)])


def _summarize(gradient: Tensor) -> Table:
    return summarize_gradients([gradient.unsqueeze(0)])


def _normalize(gradient: Tensor) -> Tensor:
    """Return a gradient with norm 1, in a precision that squares do not leave."""
    if gradient.is_sparse:
        gradient = gradient.to_dense()
    if gradient.is_complex():
        gradient = torch.view_as_real(gradient.resolve_conj())
    wide = torch.float32 if gradient.device.type == "mps" else torch.float64
    gradient = gradient.flatten().to(wide)
    gradient = gradient / gradient.abs().max() if gradient.numel() else gradient
    return gradient / torch.linalg.vector_norm(gradient)


def assemble_terms(
    terms: Sequence[tuple[str, tuple[int, ...] | None]],
    values: Sequence[float],
    rows: Sequence[Any],
) -> Iterator[LossTerm]:
    """Yield the terms in numbers.

    Args:
        terms: Names, and positions of the parameters they reach.
        values: Their values.
        rows: For those that reach some, [norm, cosine] of every one of them.
    """
    tables = iter(rows)
    for (name, reached), value in zip(terms, values, strict=True):
        found: tuple[TermGradient, ...] | None = None if reached is None else ()
        if reached:
            found = tuple(
                TermGradient(parameter=position, norm=Quantity([norm]), cosine=Quantity([cosine]))
                for position, (norm, cosine) in zip(reached, next(tables), strict=True)
            )
        yield LossTerm(name=name, value=Quantity([value]), gradients=found)
