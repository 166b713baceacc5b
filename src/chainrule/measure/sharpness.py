"""`measure_sharpness`: the largest eigenvalue of the Hessian of a loss, by a few products with it.

Lanczos' iteration needs one product of the Hessian with a vector per step, keeps three vectors, and
bounds its own error: after k steps it knows the largest eigenvalue of the Hessian within the space
of v, H·v, … Hᵏ⁻¹·v, which power iteration only comes near to.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from chainrule.errors import InspectionError
from chainrule.flow.sharpness import Sharpness
from chainrule.measure.copying import copy_model
from chainrule.measure.inspection import (
    call_loss,
    check_arguments,
    describe_error,
    take_checked_inventory,
)
from chainrule.measure.optimizers import check_optimizer
from chainrule.measure.preservation import preserve

PRODUCTS = 10
"""Most products with the Hessian by default."""

CLOSE = 1e-3
"""Relative error at which the iteration ends."""

_DIFFERENCE = 1e-4
"""Step of finite differences, relative to the norm of the weights."""

Vector = list[Tensor]


def measure_sharpness(
    model: nn.Module,
    compute_loss: Callable[[Any], Any],
    optimizer: torch.optim.Optimizer | None = None,
    *,
    products: int = PRODUCTS,
) -> Sharpness:
    """Measure how strongly the loss of one batch is curved.

    Plain gradient descent with a learning rate above 2 ÷ λ moves away from a minimum instead of
    towards it, for λ the largest eigenvalue of the Hessian. Afterwards everything is as before, as
    after `inspect`. Where an operation cannot be differentiated twice, differences of gradients are
    taken on a copy of the model instead, with half as many products.

    Args:
        model: The model.
        compute_loss: As for `inspect`. With differences, it is called many times, always with the
            same random state.
        optimizer: If given, its learning rate is part of the answer, and `diagnose(flow,
            sharpness=...)` compares it with the limit. For Adam, the curvature is measured after
            its rescaling, too: with its own averages, or with this gradient as its first step has.
        products: Most products of the Hessian with a vector, at least 2. Each takes about as long
            as two forward and backward passes.

    Returns:
        The largest eigenvalue, with its error.

    Raises:
        InspectionError: If the arguments are not legal, or the loss cannot be computed or
            differentiated.
        LossError: If `compute_loss` does not return a scalar with a gradient.

    Example:
        >>> model, x = nn.Linear(1, 1, bias=False), torch.tensor([[2.0]])
        >>> measure_sharpness(model, lambda m: m(x).square().mean())
        Sharpness(8 ± 0, SGD below 0.25)
    """
    check_arguments(model, compute_loss)
    if not isinstance(products, int) or isinstance(products, bool) or products < 2:
        raise InspectionError(f"products must be a whole number, at least 2; got {products!r:.40}.")
    check_optimizer(optimizer)
    inventory = take_checked_inventory(model)
    model = inventory.modules[0][1]
    with preserve(inventory), torch.inference_mode(False), torch.enable_grad():
        return _measure(model, compute_loss, optimizer, products)


def _measure(
    model: nn.Module,
    compute_loss: Callable[[Any], Any],
    optimizer: torch.optim.Optimizer | None,
    products: int,
) -> Sharpness:
    parameters = [p for p in model.parameters() if p.requires_grad]
    _check_parameters(parameters)
    state = torch.get_rng_state()
    loss = _compute(compute_loss, model)
    gradients = _differentiate(loss, parameters)
    used = [at for at, gradient in enumerate(gradients) if gradient is not None]
    parameters = [parameters[at] for at in used]
    gradient = [g for g in gradients if g is not None]
    facts = _read_optimizer(optimizer)
    if not all(bool(g.isfinite().all()) for g in gradient) or not bool(loss.isfinite().all()):
        return Sharpness(eigenvalue=math.nan, tolerance=math.nan, passes=1.0, **facts)
    scales = _list_scales(optimizer, parameters, [g.detach() for g in gradient])
    method = "hessian"
    share = 1 if scales is None else 2
    try:
        _check_differentiable(gradient)
        multiply = _build_exact(gradient, parameters)
        value, error, count = _find_largest(multiply, parameters, products // share)
    except Exception as raised:
        if not _is_only_once(raised):
            raise InspectionError(
                "The backward pass must run without errors when it is differentiated again, but "
                f"it raised {describe_error(raised)}."
            ) from raised
        method = "differences"
        products = max(2, products // 2)
        multiply = _build_differences(model, compute_loss, used, state)
        value, error, count = _find_largest(multiply, parameters, max(2, products // share))
    preconditioned = None
    if scales is not None:
        preconditioned, _, more = _find_largest(
            _rescale(multiply, scales), parameters, max(2, products // share)
        )
        count += more
    return Sharpness(
        eigenvalue=value,
        tolerance=error,
        preconditioned=preconditioned,
        method="hessian" if method == "hessian" else "differences",
        passes=1.0 + 2.0 * count,
        **facts,
    )


def _check_parameters(parameters: Sequence[Tensor]) -> None:
    if not parameters:
        raise InspectionError(
            "The model must have parameters that are trained, but it has none. The curvature is "
            "measured along them."
        )
    if any(p.is_complex() for p in parameters):
        raise InspectionError(
            "The parameters must be real numbers, but some are complex. Store their real and "
            "imaginary parts as real numbers (torch.view_as_real)."
        )


def _differentiate(loss: Tensor, parameters: Sequence[Tensor]) -> list[Tensor | None]:
    try:
        gradients = torch.autograd.grad(loss, parameters, create_graph=True, allow_unused=True)
    except Exception as error:
        raise InspectionError(
            f"The backward pass must run without errors, but it raised {describe_error(error)}."
        ) from error
    return [g.to_dense() if g is not None and g.is_sparse else g for g in gradients]


def _compute(compute_loss: Callable[[Any], Any], model: nn.Module) -> Tensor:
    loss, _ = call_loss(compute_loss, model, lambda: None)
    return loss.sum()


class _OnceError(RuntimeError):
    """A gradient passed something that can be differentiated only once."""


def _is_only_once(error: Exception) -> bool:
    """Whether PyTorch says that an operation has no second derivative; all else is a mistake."""
    if isinstance(error, (_OnceError, NotImplementedError)):
        return True
    words = str(error)
    return isinstance(error, RuntimeError) and (
        ("derivative" in words and "not implemented" in words)
        or "differentiate twice" in words
        or ("sparse" in words and "not supported" in words)
    )


def _check_differentiable(gradient: Vector) -> None:
    """Raise if a gradient passed a function that can be differentiated only once.

    Such a function raises when its own gradient is differentiated; but no path leads from there to
    the parameters, so `torch.autograd.grad` would leave it out silently.
    """
    nodes: list[Any] = [g.grad_fn for g in gradient]
    seen: set[Any] = set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        name = node.name()
        if "Error" in name or "NotImplemented" in name:
            raise _OnceError(f"{name} cannot be differentiated twice")
        nodes += [following for following, _ in node.next_functions]


def _build_exact(gradient: Vector, parameters: Sequence[Tensor]) -> Callable[[Vector], Vector]:
    def multiply(vector: Vector) -> Vector:
        attached = [(g, v) for g, v in zip(gradient, vector, strict=True) if g.requires_grad]
        if not attached:  # a gradient that does not depend on the weights: a linear loss
            if any(g.grad_fn is not None for g in gradient):
                raise _OnceError("the gradient is not attached")
            return [torch.zeros_like(v) for v in vector]
        found = torch.autograd.grad(
            [g for g, _ in attached],
            parameters,
            [v for _, v in attached],
            retain_graph=True,
            allow_unused=True,
        )
        return [
            torch.zeros_like(v) if product is None else product.detach()
            for v, product in zip(vector, found, strict=True)
        ]

    return multiply


def _build_differences(
    model: nn.Module,
    compute_loss: Callable[[Any], Any],
    used: Sequence[int],
    state: Tensor,
) -> Callable[[Vector], Vector]:
    copied = copy_model(model)
    trained = [p for p in copied.parameters() if p.requires_grad]
    trained = [trained[at] for at in used]
    start = [p.detach().clone() for p in trained]
    size = max(1.0, math.sqrt(sum(float(p.square().sum()) for p in start)))

    def differentiate(vector: Vector, step: float) -> Vector:
        with torch.no_grad():
            for parameter, origin, v in zip(trained, start, vector, strict=True):
                parameter.copy_(origin + step * v)
        torch.set_rng_state(state)
        found = torch.autograd.grad(_compute(compute_loss, copied), trained, allow_unused=True)
        return [
            torch.zeros_like(p) if g is None else g.detach().to_dense()
            for p, g in zip(trained, found, strict=True)
        ]

    def multiply(vector: Vector) -> Vector:
        step = _DIFFERENCE * size
        ahead, behind = differentiate(vector, step), differentiate(vector, -step)
        return [(a - b) / (2.0 * step) for a, b in zip(ahead, behind, strict=True)]

    return multiply


def _find_largest(
    multiply: Callable[[Vector], Vector], parameters: Sequence[Tensor], products: int
) -> tuple[float, float, int]:
    """Return the largest eigenvalue by Lanczos' iteration, its error, and the products it took."""
    generator = torch.Generator().manual_seed(0)
    vector = [torch.randn(p.shape, generator=generator).to(p.device, p.dtype) for p in parameters]
    norm = _measure_norm(vector)
    vector = [v / norm for v in vector]
    before = [torch.zeros_like(v) for v in vector]
    diagonal: list[float] = []
    beside: list[float] = []
    value = error = math.nan
    for count in range(1, products + 1):
        product = multiply(vector)
        along = _dot(vector, product)
        diagonal.append(along)
        last = beside[-1] if beside else 0.0
        rest = [h - along * v - last * b for h, v, b in zip(product, vector, before, strict=True)]
        size = _measure_norm(rest)
        if not math.isfinite(along) or not math.isfinite(size):
            return math.nan, math.nan, count
        matrix = np.diag(diagonal) + np.diag(beside, 1) + np.diag(beside, -1)
        values, vectors = np.linalg.eigh(matrix)
        value, error = float(values[-1]), float(abs(size * vectors[-1, -1]))
        largest = float(np.abs(values).max())
        if size <= 1e-6 * largest or (count > 2 and error <= CLOSE * abs(value)):
            return value, 0.0 if size <= 1e-6 * largest else error, count
        beside.append(size)
        before, vector = vector, [r / size for r in rest]
    return value, error, products


def _dot(one: Vector, other: Vector) -> float:
    return math.fsum(
        float((a.double() * b.double()).sum()) for a, b in zip(one, other, strict=True)
    )


def _measure_norm(vector: Vector) -> float:
    return math.sqrt(_dot(vector, vector))


def _rescale(multiply: Callable[[Vector], Vector], scales: Vector) -> Callable[[Vector], Vector]:
    """Return products with D^(−½)·H·D^(−½), given the entries of D^(−½)."""

    def product(vector: Vector) -> Vector:
        found = multiply([s * v for s, v in zip(scales, vector, strict=True)])
        return [s * h for s, h in zip(scales, found, strict=True)]

    return product


def _list_scales(
    optimizer: torch.optim.Optimizer | None, parameters: Sequence[Tensor], gradient: Vector
) -> Vector | None:
    """Return D^(−½), D = √v̂ + ε as Adam has it; `None` for other optimizers.

    Entries whose gradient is exactly zero are not moved by its first step.
    """
    if optimizer is None or not type(optimizer).__name__.startswith("Adam"):
        return None
    settings = {
        id(p): (float(group.get("eps", 1e-8)), float(group.get("betas", (0.9, 0.999))[1]))
        for group in optimizer.param_groups
        for p in group["params"]
    }
    scales = []
    for parameter, g in zip(parameters, gradient, strict=True):
        eps, beta = settings.get(id(parameter), (1e-8, 0.999))
        held = optimizer.state.get(parameter, {})
        size = g.abs()
        if "exp_avg_sq" in held:
            steps = float(held["step"])
            size = (held["exp_avg_sq"] / (1.0 - beta**steps)).sqrt()
        scales.append(torch.where(size > 0, (size + eps).rsqrt(), torch.zeros_like(size)))
    return scales


def _read_optimizer(optimizer: torch.optim.Optimizer | None) -> dict[str, Any]:
    if optimizer is None:
        return {}
    group = max(optimizer.param_groups, key=lambda each: float(each.get("lr", 0.0)))
    momentum = group.get("momentum", group.get("betas", (0.0, 0.0))[0])
    return {
        "rate": float(group["lr"]) if "lr" in group else None,
        "momentum": float(momentum),
        "optimizer": type(optimizer).__name__,
    }
