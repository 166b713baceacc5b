"""A small transformer that learns to continue sequences such as 3, 5, 7, 9: it trains.

chainrule inspect examples/samples/transformer_that_trains.py:build --try
"""

import torch
from torch import nn
from torch.nn import functional as F

NUMBERS, LENGTH = 12, 8


class Transformer(nn.Module):
    def __init__(self, width=16, heads=2, layers=2):
        super().__init__()
        self.tokens = nn.Embedding(NUMBERS, width)
        self.positions = nn.Embedding(LENGTH, width)
        block = nn.TransformerEncoderLayer(
            width, heads, dim_feedforward=2 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, NUMBERS)

    def forward(self, tokens):
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.tokens(tokens) + self.positions(torch.arange(length))
        return self.head(self.norm(self.blocks(hidden, mask=mask, is_causal=True)))


def build():
    torch.manual_seed(0)

    def compute_loss(model):
        start, step = torch.randint(0, NUMBERS, (2, 32, 1))
        tokens = (start + step * torch.arange(LENGTH + 1)) % NUMBERS
        return F.cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())

    return Transformer(), compute_loss
