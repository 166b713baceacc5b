"""Thirty plain layers as PyTorch initializes them: too deep to learn. See docs/tutorial.md.

chainrule inspect examples/plain_network.py:build --remedies
"""

import torch
from torch import nn
from torch.nn import functional as F


def build():
    torch.manual_seed(0)
    layers = [part for _ in range(30) for part in (nn.Linear(32, 32), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(32, 4))
    inputs = torch.randn(64, 32)
    labels = (inputs @ torch.randn(32, 4)).argmax(dim=1)
    return model, lambda m: F.cross_entropy(m(inputs), labels)
