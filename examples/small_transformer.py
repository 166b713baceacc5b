"""A small transformer encoder that predicts the next token of random sequences.

chainrule inspect examples/small_transformer.py:build
"""

import torch
from torch import nn
from torch.nn import functional as F


class SmallTransformer(nn.Module):
    def __init__(self, vocabulary=50, width=32, heads=4, layers=3, length=16):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        block = nn.TransformerEncoderLayer(
            width, heads, dim_feedforward=4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, vocabulary)

    def forward(self, tokens):
        length = tokens.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        hidden = self.tokens(tokens) + self.positions(torch.arange(length))
        return self.head(self.norm(self.blocks(hidden, mask=mask, is_causal=True)))


def build():
    torch.manual_seed(0)
    model = SmallTransformer()
    tokens = torch.randint(0, 50, (8, 16))

    def compute_loss(m):
        logits = m(tokens[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())

    return model, compute_loss
