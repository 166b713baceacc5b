"""Large angles of a sine: nothing of them fades, and what is wrong with them is a note."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule import Verdict, diagnose, inspect


class Sines(nn.Module):
    """A sine network as Sitzmann et al. start it, its sines written as functions."""

    def __init__(self):
        super().__init__()
        sizes = ((2, 64), (64, 64), (64, 64), (64, 1))
        self.layers = nn.ModuleList(nn.Linear(*size) for size in sizes)
        for at, layer in enumerate(self.layers):
            bound = (6 / 64) ** 0.5 / 30 if at else 1 / 2
            nn.init.uniform_(layer.weight, -bound, bound)

    def forward(self, x):
        for layer in self.layers[:-1]:
            x = torch.sin(30 * layer(x))
        return self.layers[-1](x)


@pytest.mark.parametrize("size", [1.0, 124.0])
def test_unscaled_coordinates_of_a_sine_network_are_noted_and_no_collapse(size):
    torch.manual_seed(0)
    place = torch.rand(256, 2) * 2 - 1
    target = torch.sin(4 * place[:, :1]) * torch.cos(3 * place[:, 1:])
    diagnosis = diagnose(inspect(Sines(), lambda m: F.mse_loss(m(size * (place + 1)), target)))
    assert diagnosis.verdict is not Verdict.SIGNAL_COLLAPSE
    waves = [note for note in diagnosis.notes if note.name == "fast_waves"]
    assert bool(waves) is (size > 1.0)
    for note in waves:
        assert note.value > 500.0
        assert "sin" in note.evidence
        assert "times round" in note.evidence
