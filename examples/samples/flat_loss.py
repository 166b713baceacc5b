"""Boxes that do not overlap: the loss 1 − overlap is flat there, so nothing is learned.

chainrule inspect examples/samples/flat_loss.py:build --try
"""

import torch
from torch import nn


class BoxFinder(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU())
        self.head = nn.Linear(32, 4)

    def forward(self, pictures):
        centre, size = self.head(self.body(pictures)).chunk(2, dim=1)
        return centre - size.exp() / 2, centre + size.exp() / 2  # two corners of each box


def measure_overlap(low, high, target_low, target_high):
    """Return intersection over union [boxes]."""
    sides = (torch.minimum(high, target_high) - torch.maximum(low, target_low)).clamp(min=0)
    shared = sides.prod(dim=1)
    area = (high - low).prod(dim=1) + (target_high - target_low).prod(dim=1)
    return shared / (area - shared)


def build():
    torch.manual_seed(0)

    def compute_loss(model):
        centre = 10 + 5 * torch.rand(32, 2)  # the model starts with boxes near 0
        pictures = torch.randn(32, 64) + centre.repeat(1, 32) / 10
        low, high = model(pictures)
        return (1 - measure_overlap(low, high, centre - 1, centre + 1)).mean()

    return BoxFinder(), compute_loss
