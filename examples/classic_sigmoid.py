"""The classic vanishing-gradient script: ten sigmoid layers with PyTorch's default weights.

chainrule inspect examples/classic_sigmoid.py:build
"""

import torch
from torch import nn
from torch.nn import functional as F


def build():
    torch.manual_seed(0)
    layers = []
    for _ in range(10):
        layers += [nn.Linear(64, 64), nn.Sigmoid()]
    model = nn.Sequential(*layers)
    inputs = torch.randn(32, 64)
    targets = torch.rand(32, 64)  # as a sigmoid gives: between 0 and 1
    return model, lambda m: F.mse_loss(m(inputs), targets)
