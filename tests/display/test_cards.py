"""Status cards: what is judged of a measurement, against plain autograd."""

import pytest
import torch
from torch import nn

from chainrule._utils.numbers import format_number
from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rules import RULES
from chainrule.display.cards import BAD, GOOD, PLAIN, WARN, build_cards
from chainrule.measure.inspection import inspect

UNITS = 4


def measure(factor, scale, *, middle=False):
    """Return the cards of linear layers, and ‖∂loss/∂W‖ at both ends by plain autograd.

    Args:
        factor: What the last layer multiplies the gradient of the first by.
        scale: What the loss is multiplied by.
        middle: Whether it is a layer in the middle that does so.
    """
    torch.manual_seed(0)
    layers = [nn.Linear(UNITS, UNITS, bias=False, dtype=torch.float64) for _ in range(2 + middle)]
    first, second = layers[0], layers[-1]
    with torch.no_grad():
        for layer in layers[1:]:
            layer.weight.copy_(torch.eye(UNITS))
        layers[1].weight.mul_(factor)
    inputs = torch.randn(16, UNITS, dtype=torch.float64)
    model = nn.Sequential(*layers)

    def compute_loss(m):
        return scale * m(inputs).mean()

    gradients = torch.autograd.grad(compute_loss(model), [first.weight, second.weight])
    flow = inspect(model, compute_loss)
    return build_cards(flow, diagnose(flow)), [float(each.norm()) for each in gradients]


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
@pytest.mark.parametrize(("factor", "state"), [(1e-4, WARN), (1.0, GOOD), (1e5, BAD)])
def test_a_gradient_is_judged_relative_to_the_error_at_the_output(factor, state, scale):
    """Each of `UNITS` outputs asks for scale ÷ UNITS per example: an error of scale ÷ √UNITS."""
    cards, norms = measure(factor, scale, middle=True)
    error = scale / UNITS**0.5
    small = RULES["vanishing_gradient"].threshold * error
    large = RULES["exploding_gradient"].threshold * error
    assert (norms[0] < small, norms[0] > large) == (state is WARN, state is BAD)
    assert cards[0].state == state
    if state is WARN:
        assert format_number(small) in cards[0].word
    if state is BAD:
        assert format_number(large) in cards[0].word


@pytest.mark.parametrize(
    ("factor", "state"), [(1e-3, PLAIN), (0.5, GOOD), (1e3, PLAIN)], ids=["small", "even", "large"]
)
def test_the_ratio_is_the_first_layers_gradient_over_the_last_ones(factor, state):
    """A ratio alone is no fault: a last layer may be small, or large, on purpose."""
    cards, (first, last) = measure(factor, 1.0)
    shown = (
        cards[2].digits if cards[2].exponent is None else f"{cards[2].digits}e{cards[2].exponent}"
    )
    assert float(shown.replace(",", "")) == pytest.approx(first / last, rel=0.05)
    assert cards[2].state == state
