"""An LSTM that must remember the first of 100 steps: its gradient is lost on the way back in time.

chainrule inspect examples/samples/lost_over_time.py:build --try
"""

import torch
from torch import nn
from torch.nn import functional as F

STEPS = 100


class Recall(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.lstm = nn.LSTM(1, width, batch_first=True)
        self.head = nn.Linear(width, 1)

    def forward(self, series):
        states, _ = self.lstm(series)
        return self.head(states[:, -1])[:, 0]


def build():
    torch.manual_seed(0)

    def compute_loss(model):
        series = torch.randn(32, STEPS, 1)
        is_positive = (series[:, 0, 0] > 0).float()
        return F.binary_cross_entropy_with_logits(model(series), is_positive)

    return Recall(), compute_loss
