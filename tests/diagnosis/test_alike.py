"""Targets that are all the same, and views that are: notes, and silence where it only looks so."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.rule import Verdict
from chainrule.measure.inspection import inspect
from faults import stack


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def note(model, compute, name):
    """Return the note of a name, if there is one; there is no finding."""
    diagnosis = diagnose(inspect(model, compute))
    assert diagnosis.verdict is Verdict.HEALTHY
    return next((each for each in diagnosis.notes if each.name == name), None)


# --- The same target -----------------------------------------------------------------------------

X = torch.randn(48, 6, generator=torch.Generator().manual_seed(1))
SAME = torch.tensor([[0.4, -1.3]]).expand(48, 2)
LOSSES = {
    "square": F.mse_loss,
    "absolute": F.l1_loss,
    "huber": F.huber_loss,
    "smooth": F.smooth_l1_loss,
    "by hand": lambda out, y: (out - y).square().mean(),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_regression_on_one_number_is_noted(name):
    model = stack(6, 16, 2)
    assert note(model, lambda m: LOSSES[name](m(X), SAME), "same_targets")
    assert note(model, lambda m: LOSSES[name](m(X), torch.zeros(48, 2)), "same_targets")
    assert not note(model, lambda m: LOSSES[name](m(X), torch.tanh(X[:, :2])), "same_targets")
    assert not note(model, lambda m: LOSSES[name](m(X[:7]), SAME[:7]), "same_targets")


def test_a_boundary_beside_an_equation_is_no_batch_of_one_target():
    """Of a network that solves u'' = −sin t, the ends are to be 0."""
    t = torch.linspace(0, 3, 24)[:, None].requires_grad_()
    ends = torch.tensor([[0.0], [3.0]]).repeat(8, 1)

    def compute(m):
        u = m(t)
        (first,) = torch.autograd.grad(u.sum(), t, create_graph=True)
        (second,) = torch.autograd.grad(first.sum(), t, create_graph=True)
        return F.mse_loss(second, -t.sin()) + F.mse_loss(m(ends), torch.zeros(16, 1))

    assert not note(stack(1, 24, 24, 1, activation=nn.Tanh), compute, "same_targets")


def test_one_column_that_differs_is_enough():
    y = SAME.clone()
    y[:, 1] = X[:, 0]
    assert not note(stack(6, 16, 2), lambda m: F.mse_loss(m(X), y), "same_targets")


def test_targets_far_from_zero_that_differ_are_not_the_same():
    y = 100.0 + 0.1 * torch.tanh(X[:, :2])
    notes = {each.name for each in diagnose(
        inspect(stack(6, 16, 2), lambda m: F.mse_loss(m(X), y))
    ).notes}  # fmt: skip
    assert "same_targets" not in notes


# --- The same view -------------------------------------------------------------------------------

MEANS = torch.randn(48, 6, generator=torch.Generator().manual_seed(2))


def views(same):
    a, b = (MEANS + 0.4 * torch.randn(48, 6) for _ in range(2))
    return a, a if same else b


def contrast(z, w):
    z, w = F.normalize(z, dim=1), F.normalize(w, dim=1)
    return F.cross_entropy(z @ w.T / 0.2, torch.arange(len(z)))


def pull(z, w):
    """The two views of an example are to be closer than those of its neighbour."""
    return F.triplet_margin_loss(z, w, w.roll(1, 0))


def decorrelate(z, w):
    """Barlow Twins."""
    z, w = ((each - each.mean(0)) / each.std(0) for each in (z, w))
    return (z.T @ w / len(z) - torch.eye(z.shape[1])).square().sum()


@pytest.mark.parametrize("loss", [contrast, pull, decorrelate])
@pytest.mark.parametrize("same", [True, False])
def test_two_views_that_are_the_same_are_noted(loss, same):
    a, b = views(same)
    found = note(stack(6, 32, 8), lambda m: loss(m(a), m(b)), "same_views")
    assert bool(found) is same
    if same:
        assert found.modules == ("2",)
        assert "48" in found.evidence


@pytest.mark.parametrize("same", [True, False])
def test_in_one_batch_they_are_repeated_examples(same):
    both = torch.cat(views(same))
    found = note(stack(6, 32, 8), lambda m: contrast(*m(both).chunk(2)), "repeated_examples")
    assert bool(found) is same


def test_dropout_makes_two_views_of_one():
    """Gao et al. 2021, SimCSE."""
    a, _ = views(same=True)
    model = nn.Sequential(nn.Linear(6, 32), nn.Dropout(0.1), nn.ReLU(), nn.Linear(32, 8))
    assert not note(model, lambda m: contrast(m(a), m(a)), "same_views")


def test_an_answer_and_a_penalty_on_it_may_come_from_two_calls():
    a, y = MEANS, MEANS[:, 0]
    found = note(
        stack(6, 32, 1),
        lambda m: F.mse_loss(m(a)[:, 0], y) + 1e-3 * m(a).square().mean(),
        "same_views",
    )
    assert not found


def test_scores_that_are_read_twice_are_no_views():
    """Cox's likelihood and a ranking of random pairs."""
    order = torch.randperm(48)

    def likelihood(m):
        return (m(MEANS)[:, 0].logcumsumexp(0) - m(MEANS)[:, 0]).mean()

    def rank(m):
        is_higher = (MEANS[:, 0] > MEANS[order, 0]).float()
        return F.binary_cross_entropy_with_logits((m(MEANS) - m(MEANS[order]))[:, 0], is_higher)

    for compute in (likelihood, rank):
        assert not note(stack(6, 32, 1), compute, "same_views")


def test_two_networks_that_start_alike_are_no_view_twice():
    """A student and its teacher, which is a copy that moves on slowly."""
    student, teacher = stack(6, 32, 8), stack(6, 32, 8)
    teacher.load_state_dict(student.state_dict())
    model = nn.ModuleDict({"student": student, "teacher": teacher.requires_grad_(False)})
    a, b = views(same=False)
    found = note(model, lambda m: contrast(m["student"](a), m["teacher"](b)), "same_views")
    assert not found


@pytest.mark.parametrize(("kind", "rate"), [(torch.optim.SGD, 0.3), (torch.optim.Adam, 3e-3)])
def test_from_the_same_view_nothing_is_learned_of_what_two_have_in_common(kind, rate):
    """How often the other view is not the closest one, of views that share 2 of 6 columns."""

    def draw():
        own = torch.randn(48, 2)
        return tuple(torch.cat([own, torch.randn(48, 4)], 1) for _ in range(2))

    def train(same):
        torch.manual_seed(0)
        model = stack(6, 48, 8)
        optimizer = kind(model.parameters(), rate)
        for _ in range(200):
            a, b = draw()
            optimizer.zero_grad()
            contrast(model(a), model(a if same else b)).backward()
            optimizer.step()
        a, b = draw()
        return contrast(model(a), model(b)).item()

    assert train(same=True) > 0.9 * torch.tensor(48.0).log().item() > 1.1 * train(same=False)


# --- Over the examples ---------------------------------------------------------------------------


class Scored(nn.Module):
    """A head on what a function makes of [examples, steps, features]."""

    def __init__(self, function):
        super().__init__()
        self.enter, self.head, self.function = nn.Linear(6, 6), nn.Linear(6, 5), function

    def forward(self, x):
        return self.head(self.function(self.enter(x)))


def time_first(dim):
    def run(h):
        steps = h.transpose(0, 1)
        return (steps.softmax(dim) * steps).sum(0)

    return run


SEQUENCES = torch.randn(16, 9, 6, generator=torch.Generator().manual_seed(3))
SQUARE = torch.randn(16, 16, 6, generator=torch.Generator().manual_seed(4))
OVER = {
    "time first, over the examples": (time_first(1), SEQUENCES, True),
    "time first, over the steps": (time_first(0), SEQUENCES, False),
    "over the steps": (lambda h: (h.softmax(1) * h).sum(1), SEQUENCES, False),
    "as many steps as examples": (lambda h: (h.softmax(1) * h).sum(1), SQUARE, False),
    "over heads": (
        lambda h: h.unflatten(2, (2, 3)).transpose(1, 2).softmax(1).sum(2).flatten(1),
        SEQUENCES, False,
    ),
    "over slots": (lambda h: ((h @ h.mT).softmax(1) @ h).mean(1), SEQUENCES, False),
    "attention": (lambda h: ((h @ h.mT).softmax(-1) @ h).mean(1), SEQUENCES, False),
    "directions": (lambda h: F.normalize(h).mean(1), SEQUENCES, False),
}  # fmt: skip


@pytest.mark.parametrize("name", OVER)
def test_a_softmax_over_the_examples_is_noted_wherever_they_stand(name):
    function, x, noted = OVER[name]
    labels = torch.arange(16) % 5
    notes = diagnose(inspect(Scored(function), lambda m: F.cross_entropy(m(x), labels))).notes
    found = [each for each in notes if each.name == "over_examples"]
    assert bool(found) is noted
    if noted:
        assert found[0].value == 16
        assert "(9, 16, 6)" in found[0].evidence


# --- One number ----------------------------------------------------------------------------------


class Pooling(nn.Module):
    """A mean over steps, or over everything."""

    def __init__(self, *, everything):
        super().__init__()
        self.enter, self.everything = nn.Linear(6, 16), everything
        self.head = nn.Linear(1 if everything else 16, 4)

    def forward(self, x):
        h = torch.relu(self.enter(x))
        return self.head(h.mean((1, 2))[:, None] if self.everything else h.mean(1))


LINES = {
    "everything": (lambda: Pooling(everything=True), SEQUENCES, 4),
    "steps": (lambda: Pooling(everything=False), SEQUENCES, None),
    "one feature": (lambda: nn.Linear(1, 3), torch.randn(16, 1), None),
    "a narrow end": (lambda: stack(6, 8, 1, 3), torch.randn(16, 6), 3),
    "yes or no": (lambda: stack(6, 8, 1, 2), torch.randn(16, 6), None),
    "a narrow middle": (lambda: stack(6, 1, 8, 4), torch.randn(16, 6), None),
    "images": (lambda: nn.Conv2d(1, 4, 3), torch.randn(16, 1, 3, 3), None),
}


@pytest.mark.parametrize("name", LINES)
def test_logits_of_several_classes_from_one_number_are_noted(name):
    make, x, classes = LINES[name]

    def compute(m):
        out = m(x).flatten(1)
        return F.cross_entropy(out, torch.arange(16) % out.shape[1])

    notes = diagnose(inspect(make(), compute)).notes
    assert [each.value for each in notes if each.name == "one_number"] == [classes] * bool(classes)


def test_nodes_of_a_graph_that_look_at_each_other_are_meant():
    """Attention weights [heads, from, to] over the first of the nodes."""
    x = torch.randn(40, 6)

    def run(h):
        heads = h.unflatten(1, (2, 3)).transpose(0, 1)
        return (heads @ heads.mT).softmax(1).mT @ heads

    model = Scored(lambda h: run(h).transpose(0, 1).flatten(1))
    y = torch.arange(40) % 5
    assert not note(model, lambda m: F.cross_entropy(m(x), y), "over_examples")
