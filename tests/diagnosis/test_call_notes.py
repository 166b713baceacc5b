"""What is done with data and weights, where it is right: nothing is said of it."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule import diagnose, inspect
from faults import Scaled, stack


def look(model, compute_loss):
    """Return the kinds of calls that are kept of a measurement."""
    return [each.kind for each in inspect(model, compute_loss).slips]


class Tagger(nn.Module):
    """An answer for every token, time first; its rows are tokens."""

    def __init__(self):
        super().__init__()
        self.tokens, self.rnn, self.head = nn.Embedding(9, 8), nn.LSTM(8, 12), nn.Linear(12, 9)

    def forward(self, ids):
        return self.head(self.rnn(self.tokens(ids))[0].view(-1, 12))


class Stacked(nn.Module):
    """Parts the last states by layer and direction, and reads those of the last layer."""

    def __init__(self):
        super().__init__()
        self.rnn = nn.GRU(2, 8, num_layers=2, bidirectional=True, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        last = self.rnn(x)[1].view(2, 2, len(x), 8)[-1]
        return self.head(last.transpose(0, 1).reshape(len(x), -1))


def test_rows_that_keep_examples_apart():
    ids, x, labels = torch.randint(9, (6, 20)), torch.randn(20, 6, 2), torch.randint(3, (20,))
    assert look(Tagger(), lambda m: F.cross_entropy(m(ids), ids.roll(-1, 0).view(-1))) == []
    assert look(Stacked(), lambda m: F.cross_entropy(m(x), labels)) == []


@pytest.mark.parametrize("steps", [7, 11])
def test_attention_with_time_first(steps):
    x, labels = torch.randn(20, steps, 8), torch.randint(3, (20,))
    layer, head = nn.TransformerEncoderLayer(8, 2, 16), nn.Linear(8 * steps, 3)
    model = nn.ModuleDict({"layer": layer, "head": head})

    def compute(m, *, is_mixed):
        read = m["layer"](x.transpose(0, 1))
        return F.cross_entropy(
            m["head"]((read if is_mixed else read.transpose(0, 1)).reshape(20, -1)), labels
        )

    assert look(model, lambda m: compute(m, is_mixed=True)) == ["mixed"]
    assert look(model, lambda m: compute(m, is_mixed=False)) == []


def test_a_term_that_asks_for_equal_answers():
    x, labels = torch.randn(40, 6), torch.randint(3, (40,))
    model = stack(6, 16, 3)

    def compute(m):
        even = F.cross_entropy(m(x + 3.0), labels, label_smoothing=1.0)
        return F.cross_entropy(m(x), labels) + 0.5 * even

    assert look(model, compute) == []


def test_what_is_not_kept_may_be_overwritten():
    data, labels = torch.rand(64, 6) * 255.0, torch.randint(2, (32,))

    def draw(m):
        return F.cross_entropy(m(torch.rand(32, 6) * 255.0), labels)

    def pick(m):
        return F.cross_entropy(m(data[torch.arange(32)]), labels)

    assert look(Scaled(broken=True), draw) == []
    assert look(Scaled(broken=True), pick) == []
    assert look(Scaled(broken=True), lambda m: F.cross_entropy(m(data[:32]), labels)) == [
        "overwritten"
    ]


def test_a_change_in_place_that_changes_nothing():
    x, labels = torch.rand(32, 6), torch.randint(2, (32,))
    model = nn.Sequential(nn.ReLU(inplace=True), *stack(6, 16, 2))
    assert look(model, lambda m: F.cross_entropy(m(x), labels)) == []


def test_the_changed_share_and_the_line():
    x, labels = torch.rand(32, 6) + 1.0, torch.randint(2, (32,))
    model = Scaled(broken=True)
    (found,) = inspect(model, lambda m: F.cross_entropy(m(x), labels)).slips
    assert (found.kind, found.operation, found.value) == ("overwritten", "div_", 1.0)
    assert "x.div_(255.0)" in found.code


def test_a_part_that_is_called_by_itself():
    x, labels = torch.randn(32, 6), torch.randint(2, (32,))
    model = nn.ModuleDict({"body": nn.Sequential(nn.ReLU(inplace=True), *stack(6, 16, 2))})
    assert look(model, lambda m: F.cross_entropy(m["body"](x), labels)) == ["overwritten"]


class Placed(nn.Module):
    """Tokens and their places, from two tables."""

    def __init__(self, tokens, places):
        super().__init__()
        self.tokens, self.places = tokens, places
        self.mix, self.head = nn.Linear(8, 16), nn.Linear(16, 2)

    def forward(self, ids):
        places = self.places(torch.arange(ids.shape[1]).expand(ids.shape))
        return self.head((self.tokens(ids) + places).relu().sum(1) @ self.mix.weight.mT)


def frozen(values):
    return nn.Embedding.from_pretrained(values)


@pytest.mark.parametrize(
    ("tokens", "places", "kinds"),
    [
        (nn.Embedding(20, 8), frozen(torch.randn(7, 8)), []),
        (frozen(torch.zeros(20, 8)), nn.Embedding(7, 8), [1.0]),
        (frozen(torch.randn(20, 8)), frozen(torch.zeros(7, 8)), [0.0]),
        (nn.Embedding.from_pretrained(torch.zeros(20, 8), freeze=False), frozen(torch.zeros(7, 8)),
         [0.0]),
    ],
)  # fmt: skip
def test_tables_that_are_frozen(tokens, places, kinds):
    ids, labels = torch.randint(20, (16, 7)), torch.randint(2, (16,))
    flow = inspect(Placed(tokens, places), lambda m: F.cross_entropy(m(ids), labels))
    assert [each.value for each in flow.slips if each.kind == "alike"] == kinds
    assert any(each.rule == "frozen_alike" for each in diagnose(flow).findings) is (1.0 in kinds)


def test_an_adapter_is_not_little():
    x, labels = torch.randn(32, 64), torch.randint(2, (32,))
    model = stack(64, 256, 256, 2).requires_grad_(False)
    model[-1].weight.requires_grad_(True)
    flow = inspect(model, lambda m: F.cross_entropy(m(x), labels))
    assert not any(each.name == "little_trained" for each in diagnose(flow).notes)


class Odd(nn.Module):
    """A frozen module with the same for all examples in some odd form, beside one that learns."""

    def __init__(self, make):
        super().__init__()
        self.same, self.body = Same(make), stack(4, 16, 2)

    def forward(self, x):
        self.same(x)
        return self.body(x)


class Same(nn.Module):
    def __init__(self, make):
        super().__init__()
        self.weight, self.make = nn.Parameter(torch.ones(3), requires_grad=False), make

    def forward(self, x):
        return self.make(len(x))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize(
    ("make", "is_seen"),
    [
        (lambda n: torch.ones(n), True),
        (lambda n: torch.ones(n, 3), True),
        (lambda n: torch.ones(3, n), True),
        (lambda n: torch.ones(n, 0), None),
        (lambda n: torch.ones(n, 3, dtype=torch.bool), None),
        (lambda n: torch.ones(n, 3, dtype=torch.int64), None),
        (lambda n: torch.ones(n, 3, dtype=torch.complex64), None),
        (lambda n: torch.nested.nested_tensor([torch.ones(2)] * n), None),
        (lambda n: torch.eye(n).to_sparse(), None),
        (lambda n: torch.tensor(1.0), False),
        (lambda n: None, False),
    ],
)
def test_frozen_modules_of_any_output_are_measured(make, is_seen):
    x, labels = torch.randn(32, 4), torch.randint(2, (32,))
    kinds = look(Odd(make), lambda m: F.cross_entropy(m(x), labels))
    if is_seen is not None:
        assert ("alike" in kinds) is is_seen
