"""A model in the style of Hugging Face's: called with keywords, returning a dataclass with a loss.

chainrule inspect examples/dataclass_output.py:build
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass
class ClassifierOutput:
    logits: Tensor
    hidden_state: Tensor
    loss: Tensor | None = None


class Encoder(nn.Module):
    def __init__(self, vocabulary, width):
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width)
        self.dense = nn.Linear(width, width)
        self.activation = nn.GELU()

    def forward(self, input_ids):
        return {"last_hidden_state": self.activation(self.dense(self.embedding(input_ids)))}


class Classifier(nn.Module):
    def __init__(self, vocabulary=100, width=24, classes=4):
        super().__init__()
        self.encoder = Encoder(vocabulary, width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, input_ids, labels=None):
        hidden = self.encoder(input_ids)["last_hidden_state"].mean(1)
        logits = self.classifier(hidden)
        loss = None if labels is None else F.cross_entropy(logits, labels)
        return ClassifierOutput(logits=logits, hidden_state=hidden, loss=loss)


def build():
    torch.manual_seed(0)
    batch = {
        "input_ids": torch.randint(0, 100, (8, 12)),
        "labels": torch.randint(0, 4, (8,)),
    }
    return Classifier(), lambda model: model(**batch).loss
