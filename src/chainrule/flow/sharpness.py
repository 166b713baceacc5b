"""`Sharpness`: how strongly a loss is curved, and which learning rates that allows."""

import math
from dataclasses import dataclass
from typing import Any, Literal

from chainrule._utils.numbers import encode_number, format_number


@dataclass(frozen=True, slots=True, kw_only=True)
class Sharpness:
    """The largest eigenvalue of the Hessian of a loss, measured on one batch.

    Attributes:
        eigenvalue: λ, the largest eigenvalue; infinite or undefined if the loss is not finite.
        tolerance: How far λ may be from an eigenvalue, as measured: the norm of the residual.
        preconditioned: The same of D^(−½)·H·D^(−½), where D holds the sizes that Adam divides the
            gradient by; `None` if it was not measured.
        method: "hessian" (products with the exact Hessian) or "differences" (of gradients).
        passes: Forward and backward passes that it took; a product with the Hessian counts as two.
        rate: The learning rate of your optimizer, its largest; `None` without one.
        momentum: Its momentum, or β₁ of Adam.
        optimizer: Its class; "" without one.

    Example:
        >>> Sharpness(eigenvalue=40.0, tolerance=0.1).limit
        0.05
    """

    eigenvalue: float
    tolerance: float
    preconditioned: float | None = None
    method: Literal["hessian", "differences"] = "hessian"
    passes: float = 0.0
    rate: float | None = None
    momentum: float = 0.0
    optimizer: str = ""

    def __repr__(self) -> str:
        return (
            f"Sharpness({format_number(self.eigenvalue)} ± {format_number(self.tolerance)}, "
            f"SGD below {format_number(self.limit)})"
        )

    @property
    def limit(self) -> float:
        """The learning rate above which gradient descent overshoots: 2·(1 + momentum) ÷ λ.

        Infinite where the loss is curved downward in every direction.
        """
        momentum = self.momentum if self.optimizer == "SGD" else 0.0
        return _divide(2.0 * (1.0 + momentum), self.eigenvalue)

    @property
    def adam_limit(self) -> float | None:
        """The same for Adam: 2·(1 + β₁) ÷ ((1 − β₁)·λ), λ preconditioned (Cohen et al. 2022)."""
        if self.preconditioned is None:
            return None
        beta = self.momentum if self.optimizer.startswith("Adam") else 0.9
        return _divide(2.0 * (1.0 + beta) / (1.0 - beta), self.preconditioned)

    @property
    def excess(self) -> float | None:
        """How many times SGD's learning rate is above the limit; `None` for other optimizers."""
        if self.rate is None or self.optimizer != "SGD" or not math.isfinite(self.eigenvalue):
            return None
        return self.rate / self.limit

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        return {
            "eigenvalue": encode_number(self.eigenvalue),
            "tolerance": encode_number(self.tolerance),
            "preconditioned": encode_number(self.preconditioned),
            "limit": encode_number(self.limit),
            "adam_limit": encode_number(self.adam_limit),
            "method": self.method,
            "passes": self.passes,
            "rate": self.rate,
            "momentum": self.momentum,
            "optimizer": self.optimizer,
        }


def _divide(number: float, eigenvalue: float) -> float:
    if math.isnan(eigenvalue):
        return math.nan
    return number / eigenvalue if eigenvalue > 0.0 else math.inf
