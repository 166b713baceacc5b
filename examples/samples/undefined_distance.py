"""Pairs of pictures and their distance: two equal pictures make the gradient undefined (NaN).

chainrule inspect examples/samples/undefined_distance.py:build --try
"""

import torch
from torch import nn


class Siamese(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 8))

    def forward(self, left, right):
        difference = self.embed(left) - self.embed(right)
        return difference.square().sum(dim=1).sqrt()


def build():
    torch.manual_seed(0)
    left = torch.randn(32, 64)
    right = torch.cat([left[:4], torch.randn(28, 64)])  # the first four pairs are the same picture
    is_other = (torch.arange(32) >= 4).float()

    def compute_loss(model):
        distance = model(left, right)
        too_near = (2.0 - distance).clamp(min=0.0)
        return ((1 - is_other) * distance + is_other * too_near).mean()

    return Siamese(), compute_loss
