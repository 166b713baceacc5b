"""A deep post-norm transformer with too large an initial gain. See docs/tutorial.md.

chainrule inspect examples/post_norm_transformer.py:build --remedies
"""

import torch
from torch import nn
from torch.nn import functional as F


class Classifier(nn.Module):
    def __init__(self, layers=40, width=32, vocabulary=40, length=10, gain=3.0):
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, width)
        self.positions = nn.Embedding(length, width)
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 3)
        for parameter in self.blocks.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter, gain=gain)

    def forward(self, ids):
        hidden = self.tokens(ids) + self.positions(torch.arange(ids.shape[1]))
        return self.head(self.blocks(hidden)[:, 0])


def build():
    torch.manual_seed(3)
    model = Classifier()
    ids, labels = torch.randint(0, 40, (16, 10)), torch.randint(0, 3, (16,))
    return model, lambda m: F.cross_entropy(m(ids), labels)
