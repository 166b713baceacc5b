"""Rules about the loss: faults are found, sound twins are not, and training agrees."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.diagnosis.loss_rules import FAR, FAR_WHEN_TIED, MANY_CLASSES, NEARLY_ALL
from chainrule.diagnosis.rule import Verdict
from chainrule.diagnosis.structure import FLAT
from chainrule.diagnosis.viability.model import Outlook
from chainrule.flow.trial import OptimizerTrial, RateTrial, Trial, TrialOutcome
from chainrule.measure.inspection import inspect
from faults import (
    PARENT,
    clamped,
    consistency,
    empty_masks,
    masked_examples,
    reference_only,
    scaled_head,
    stack,
    sure_critic,
    tied,
    unscaled_targets,
)


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def train(model, compute_loss, *, adam=True, rate=1e-2, steps=150):
    """Return the loss before and after training."""
    kind = torch.optim.Adam if adam else torch.optim.SGD
    optimizer = kind(model.parameters(), rate)
    before = compute_loss(model).item()
    for _ in range(steps):
        optimizer.zero_grad()
        loss = compute_loss(model)
        loss.backward()
        optimizer.step()
    return before, compute_loss(model).item()


def find(model, compute_loss):
    """Return the diagnosis, and its findings by rule."""
    diagnosis = diagnose(inspect(model, compute_loss))
    return diagnosis, {each.rule: each for each in diagnosis.findings}


# --- A flat loss ---------------------------------------------------------------------------------


FLATS = {
    "sure_critic": sure_critic,
    "empty_masks": empty_masks,
    "clamped": clamped,
    "reference_only": reference_only,
}


@pytest.mark.parametrize("name", FLATS)
def test_a_flat_loss_is_named_and_does_not_train(name):
    model, compute = FLATS[name](True)
    diagnosis, found = find(model, compute)
    finding = found["flat_loss"]
    assert diagnosis.verdict is Verdict.FLAT_LOSS
    assert (finding.threshold, finding.beyond) == (FLAT, "<")
    assert finding.value < FLAT
    assert finding.worst in finding.modules
    assert diagnosis.viability.sgd.word is Outlook.NOT_VIABLE
    assert diagnosis.viability.adam.word is Outlook.NOT_VIABLE
    verdicts = {each.verdict for each in diagnosis.findings}
    assert not verdicts & {Verdict.VANISHING, Verdict.EXPLODING}
    assert "idle_examples" not in found
    before, after = train(model, compute)
    assert after == pytest.approx(before, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("name", FLATS)
def test_its_sound_twin_is_not_flat_and_trains(name):
    model, compute = FLATS[name](False)
    _, found = find(model, compute)
    assert "flat_loss" not in found
    before, after = train(model, compute)
    assert after < before - 0.05 * abs(before)


@pytest.mark.parametrize("factor", [1e-8, 1e6])
def test_the_scale_of_the_loss_does_not_count(factor):
    for broken in (True, False):
        model, compute = clamped(broken)
        flat = "flat_loss" in find(model, lambda m, f=compute: factor * f(m))[1]
        assert flat is broken


def test_a_network_that_loses_the_gradient_is_no_flat_loss():
    x, y = torch.randn(16, 4), torch.rand(16, 4)
    layers = [part for _ in range(25) for part in (nn.Linear(4, 4), nn.Sigmoid())]
    diagnosis, found = find(nn.Sequential(*layers), lambda m: F.mse_loss(m(x), y))
    assert "flat_loss" not in found
    assert diagnosis.verdict is Verdict.VANISHING


def test_a_loss_that_reacts_to_an_output_that_no_weight_moves_is_no_flat_loss():
    class Lost(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Linear(4, 4), nn.Identity()

        def forward(self, x):
            return self.last(x + 1e-12 * self.first(x))

    x, y = torch.randn(16, 4), torch.randn(16, 4)
    diagnosis, found = find(Lost().double(), lambda m: F.mse_loss(m(x.double()), y.double()))
    assert "flat_loss" not in found
    assert diagnosis.verdict is Verdict.VANISHING


@pytest.mark.parametrize("start", ["zero_output", "all_zero_linear", "tiny_output", "large_output"])
def test_unusual_but_sound_starts_are_not_flat(start):
    x = torch.randn(64, 6)
    y = (x[:, 0] > 0).long()
    model = nn.Sequential(nn.Linear(6, 2)) if start == "all_zero_linear" else stack(6, 16, 2)
    with torch.no_grad():
        scale = {"tiny_output": 1e-9, "large_output": 30.0}.get(start, 0.0)
        for parameter in model[-1].parameters():
            parameter.mul_(scale)
    _, found = find(model, lambda m: F.cross_entropy(m(x), y))
    assert not found.keys() & {"flat_loss", "idle_examples", "no_step"}
    before, after = train(model, lambda m: F.cross_entropy(m(x), y))
    assert after < 0.7 * before


# --- Examples without gradient -------------------------------------------------------------------


def test_nearly_all_examples_without_gradient_are_a_finding():
    model, compute = masked_examples(0.975)
    diagnosis, found = find(model, compute)
    assert diagnosis.verdict is Verdict.FLAT_LOSS
    assert found["idle_examples"].value > NEARLY_ALL
    assert not [note for note in diagnosis.notes if note.name == "idle_examples"]


def test_some_are_a_note_and_few_are_nothing():
    for share, expected in ((0.5, True), (0.1, False)):
        diagnosis, found = find(*masked_examples(share))
        assert "idle_examples" not in found
        assert bool([note for note in diagnosis.notes if note.name == "idle_examples"]) is expected


# --- A loss far above guessing -------------------------------------------------------------------


def large_weights(factor):
    """A single layer whose weights are large themselves: small steps do not undo that."""
    means = torch.randn(10, 20)
    model = nn.Sequential(nn.Linear(20, 10))
    with torch.no_grad():
        model[0].weight.mul_(factor)

    def compute(m):
        y = torch.randint(10, (128,))
        return F.cross_entropy(m(means[y] + torch.randn(128, 20)), y)

    return model, compute


def test_a_cross_entropy_far_above_guessing_that_a_few_steps_undo_is_a_note():
    model, compute = scaled_head(12.0)
    with torch.no_grad():
        model[0].weight.mul_(12.0)
        model[2].weight.mul_(12.0)
    flow = inspect(model, compute)
    diagnosis = diagnose(flow)
    (note,) = [note for note in diagnosis.notes if note.name == "large_start"]
    assert diagnosis.verdict is Verdict.HEALTHY
    assert note.value > FAR
    _, after = train(model, compute, adam=False, rate=0.1, steps=150)
    assert after < flow.loss_facts.guessing


@pytest.mark.parametrize(
    ("make", "wrong", "right", "rate", "rule", "bound"),
    [
        (tied, 5.0, 0.02, 3e-3, "large_tied_loss", FAR_WHEN_TIED),
        (scaled_head, 3000.0, 1.0, 3e-3, "large_loss", FAR),
        (large_weights, 3000.0, 1.0, 3e-3, "large_loss", FAR),
        (unscaled_targets, 30.0, 0.0, 1e-2, "large_loss", FAR),
    ],
)
def test_a_loss_far_above_guessing_takes_long_to_undo(make, wrong, right, rate, rule, bound):
    left = []
    for value, is_large in ((wrong, True), (right, False)):
        model, compute = make(value)
        flow = inspect(model, compute)
        diagnosis = diagnose(flow)
        found = {each.rule: each for each in diagnosis.findings}
        assert (rule in found) is is_large
        assert not [note for note in diagnosis.notes if note.name == "large_start"]
        if is_large:
            finding = found[rule]
            assert diagnosis.verdict is Verdict.LARGE_LOSS
            assert finding.value == pytest.approx(flow.loss / flow.loss_facts.guessing)
            assert finding.value > finding.threshold == bound
            assert finding.worst in finding.modules
        _, after = train(model, compute, rate=rate, steps=60)
        left.append(after / flow.loss_facts.guessing)
    assert left[0] > 4 * left[1]


def test_a_loss_above_guessing_that_is_soon_undone_is_a_note():
    model, compute = scaled_head(300.0)
    flow = inspect(model, compute)
    diagnosis = diagnose(flow)
    note = next(note for note in diagnosis.notes if note.name == "large_start")
    assert diagnosis.verdict is Verdict.HEALTHY
    assert 8 < note.value < FAR
    assert note.value == pytest.approx(flow.loss / flow.loss_facts.guessing)
    _, after = train(model, compute, rate=3e-3, steps=120)
    assert after < 0.2 * flow.loss_facts.guessing


def test_a_critic_that_judges_badly_is_no_large_output():
    model = stack(8, 16, 4)
    critic = nn.Linear(4, 1)
    with torch.no_grad():
        critic.bias.fill_(-90.0)
    z, one = torch.randn(32, 8), torch.ones(32, 1)
    deep = nn.Sequential(nn.Linear(4, 4), critic)
    for trained in (True, False):
        deep.requires_grad_(trained)
        _, found = find(model, lambda m: F.binary_cross_entropy_with_logits(deep(m(z)), one))
        assert "large_loss" not in found


@pytest.mark.parametrize("by_hand", [True, False])
def test_targets_that_are_all_the_same_are_no_measure(by_hand):
    model, x = nn.Linear(8, 2), torch.eye(8)
    ones = torch.ones(8, 2)
    _, found = find(
        model,
        lambda m: (m(x) - 1).square().mean() if by_hand else F.mse_loss(m(x), ones),
    )
    assert "large_loss" not in found


# --- Outputs that the loss does not expect -------------------------------------------------------


FEW, MANY = 10, 40
"""Numbers of classes, on both sides of the bound."""


def classes(end, compute, number=MANY):
    x = torch.randn(200, 16)
    y = (x @ torch.randn(16, number)).argmax(1)
    model = stack(16, 64, number, end=end)
    return model, lambda m: compute(m(x), y), lambda: (model(x).argmax(1) == y).float().mean()


def one_hot(z, y):
    return F.one_hot(y, z.shape[1]).float()


def clamp_softmax(z, y):
    return F.cross_entropy(torch.softmax(z, 1).clamp(1e-7, 1.0), y)


@pytest.mark.parametrize(
    ("end", "compute"),
    [(nn.Softmax(1), F.cross_entropy), (nn.Softmax(1), F.nll_loss), (None, clamp_softmax)],
)
def test_probabilities_of_many_classes_into_a_cross_entropy_train_badly(end, compute):
    model, loss, measure_accuracy = classes(end, compute)
    diagnosis, found = find(model, loss)
    assert diagnosis.verdict is Verdict.OUTPUT
    finding = found["unsuited_output"]
    assert finding.value == MANY > finding.threshold == MANY_CLASSES
    assert "logits" in finding.evidence or "logarithms" in finding.evidence
    assert "probabilities" not in [note.name for note in diagnosis.notes]
    train(model, loss, adam=False, rate=1.0)
    sound, sound_loss, measure_sound = classes(None, F.cross_entropy)
    assert diagnose(inspect(sound, sound_loss)).verdict is Verdict.HEALTHY
    train(sound, sound_loss, adam=False, rate=1.0)
    assert measure_accuracy() < 0.5
    assert measure_sound() > 0.95


@pytest.mark.parametrize(
    ("end", "compute", "number"),
    [
        (nn.Softmax(1), F.cross_entropy, FEW),
        (nn.Softmax(1), F.nll_loss, FEW),
        (None, clamp_softmax, FEW),
        (nn.Sigmoid(), F.cross_entropy, FEW),
        (nn.Sigmoid(), F.cross_entropy, MANY),
    ],
)
def test_where_they_train_all_the_same_it_is_a_note(end, compute, number):
    model, loss, measure_accuracy = classes(end, compute, number)
    diagnosis, found = find(model, loss)
    assert "unsuited_output" not in found
    assert diagnosis.verdict is Verdict.HEALTHY
    assert "probabilities" in [note.name for note in diagnosis.notes]
    train(model, loss, adam=False, rate=1.0)
    assert measure_accuracy() > 0.5


@pytest.mark.parametrize(("number", "is_wrong"), [(MANY_CLASSES, False), (MANY_CLASSES + 1, True)])
def test_the_bound_is_the_number_of_classes(number, is_wrong):
    model, loss, _ = classes(nn.Softmax(1), F.cross_entropy, number)
    diagnosis, found = find(model, loss)
    assert ("unsuited_output" in found) is is_wrong
    assert ("probabilities" in [note.name for note in diagnosis.notes]) is not is_wrong


@pytest.mark.parametrize("share", [0.02, 0.1, 0.2, 0.5, 0.98])
def test_a_sigmoid_taken_for_logits_fails_where_ones_or_zeros_are_rare(share):
    """Judged by whether even perfect answers cost more than a constant, and by training."""
    x = torch.randn(400, 16)
    score = x @ torch.randn(16, 4)
    y = (score > score.quantile(1 - share, dim=0)).float()

    def compute(m):
        return F.binary_cross_entropy_with_logits(m(x), y)

    left = []
    for end in (nn.Sigmoid(), None):
        torch.manual_seed(1)
        model = stack(16, 64, 4, end=end)
        diagnosis, found = find(model, compute)
        best = torch.special.entr(torch.stack((y.mean(0), 1 - y.mean(0)))).sum(0).mean()
        is_wrong = end is not None and F.binary_cross_entropy_with_logits(y, y) > best
        assert ("unsuited_output" in found) is bool(is_wrong)
        assert (diagnosis.verdict is Verdict.OUTPUT) is bool(is_wrong)
        train(model, compute, adam=False, rate=1.0, steps=300)
        answers = model(x) > (0.0 if end is None else 0.5)
        hits = [(answers == y)[y == kind].float().mean().item() for kind in (0.0, 1.0)]
        left.append(sum(hits) / 2)  # one half for an answer that is always the same
    assert left[1] > 0.9
    assert left[0] < 0.65 if share != 0.5 else left[0] > 0.9


def test_the_least_value_of_a_softmax_twice_is_that_of_perfect_answers():
    model, loss, _ = classes(nn.Softmax(1), F.cross_entropy)
    _, found = find(model, loss)
    perfect = F.cross_entropy(torch.eye(MANY), torch.arange(MANY)).item()
    assert f"{perfect:.3g}" in found["unsuited_output"].evidence


@pytest.mark.parametrize(
    ("end", "compute", "said"),
    [
        (nn.Softmax(1), F.nll_loss, "unsuited_output"),
        (nn.Softmax(1), F.cross_entropy, "unsuited_output"),
        (nn.LogSoftmax(1), F.nll_loss, None),
        (nn.LogSoftmax(1), F.cross_entropy, "log_softmax_twice"),
        (nn.Softmax(1), lambda z, y: F.nll_loss(z.log(), y), None),
        (nn.Sigmoid(), F.cross_entropy, "probabilities"),
        (nn.Sigmoid(), lambda z, y: F.binary_cross_entropy(z, one_hot(z, y)), None),
        (
            nn.Sigmoid(),
            lambda z, y: F.binary_cross_entropy_with_logits(z, one_hot(z, y)),
            "unsuited_output",
        ),
        (
            nn.Sigmoid(),
            lambda z, y: F.binary_cross_entropy_with_logits(z, (z > 0.5).float()),
            "probabilities",
        ),
        (nn.Softmax(1), lambda z, y: F.binary_cross_entropy(z, one_hot(z, y)), None),
        (nn.Softmax(1), lambda z, y: F.mse_loss(z, one_hot(z, y)), None),
    ],
)
def test_which_pairs_are_wrong(end, compute, said):
    model, loss, _ = classes(end, compute)
    diagnosis, found = find(model, loss)
    names = {*found, *(note.name for note in diagnosis.notes)}
    ours = {"unsuited_output", "probabilities", "log_softmax_twice"}
    assert names & ours == ({said} if said else set())


def test_a_softmax_over_one_value_is_named():
    x = torch.randn(40, 4)
    y = (x[:, :1] > 0).float()
    model = stack(4, 16, 1, end=nn.Softmax(1))
    diagnosis, found = find(model, lambda m: F.mse_loss(m(x), y))
    assert "unsuited_output" in found
    assert "single value" in found["unsuited_output"].evidence
    before, after = train(model, lambda m: F.mse_loss(m(x), y))
    assert after == before
    assert diagnosis.verdict is not Verdict.HEALTHY


# --- Terms that reach nothing --------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
def test_a_term_without_derivative_is_found(named):
    model, compute = consistency(True, named=named)
    diagnosis, found = find(model, compute)
    assert diagnosis.verdict is Verdict.NO_GRADIENT
    finding = found["detached_term"]
    if named:
        with torch.no_grad():
            terms = compute(model)
        share = terms["agreement"] / sum(terms.values())
        assert finding.value == pytest.approx(share.item(), rel=1e-4)
        assert "'agreement'" in finding.evidence
    assert finding.value > finding.threshold


@pytest.mark.parametrize("named", [True, False])
def test_its_twin_with_derivatives_is_not(named):
    model, compute = consistency(False, named=named)
    assert "detached_term" not in find(model, compute)[1]


def test_training_agrees():
    left = []
    for broken in (True, False):
        torch.manual_seed(1)
        model, compute = consistency(broken)
        train(model, compute, steps=120)
        with torch.no_grad():
            a, b = model(model.x)
            left.append((PARENT[b.argmax(1)] != a.argmax(1)).float().mean().item())
    assert left[1] < 0.5 * left[0]


# --- Logits of one sign --------------------------------------------------------------------------


def one_sided(end, compute, y, width):
    x = torch.randn(64, 6)
    return stack(6, 24, width, end=end), lambda m: compute(m(x), y(x))


def classes_of(x):
    return x[:, :4].argmax(1)


def odds_of(x):
    return (x[:, :1] > 0.5).float()


CE, BCE = F.cross_entropy, F.binary_cross_entropy_with_logits
ENTROPY, ODDS = (CE, classes_of, 4), (BCE, odds_of, 1)
ONE_SIDED = {
    "relu": (nn.ReLU(), *ENTROPY),
    "relu of six": (nn.ReLU6(), *ENTROPY),
    "clamp": (None, lambda z, y: CE(z.clamp_min(0), y), classes_of, 4),
    "relu by hand": (None, lambda z, y: F.nll_loss(F.log_softmax(F.relu(z), 1), y), classes_of, 4),
    "relu of odds": (nn.ReLU(), *ODDS),
    "softplus": (nn.Softplus(), *ODDS),
    "a column": (nn.ReLU(), lambda z, y: BCE(z[:, 0], y[:, 0]), odds_of, 1),
}
ANY_SIGN = {
    "none": (None, *ENTROPY),
    "softplus of classes": (nn.Softplus(), *ENTROPY),
    "tanh": (nn.Tanh(), *ENTROPY),
    "leaky": (nn.LeakyReLU(), *ENTROPY),
    "gelu": (nn.GELU(), *ENTROPY),
    "odds": (None, *ODDS),
    "relu of a regression": (nn.ReLU(), F.mse_loss, lambda x: x[:, :4].abs(), 4),
    "relu of counts": (nn.Softplus(), lambda z, y: F.poisson_nll_loss(z, y, False), odds_of, 1),
    "clamped probabilities": (
        nn.Sigmoid(), lambda z, y: F.binary_cross_entropy(z.clamp(1e-6, 1), y), odds_of, 1
    ),
    "only ones": (nn.ReLU(), BCE, lambda x: torch.ones(64, 1), 1),
}  # fmt: skip


@pytest.mark.parametrize("name", [*ONE_SIDED, *ANY_SIGN])
def test_logits_that_cannot_be_negative_are_noted(name):
    model, compute = one_sided(*(ONE_SIDED | ANY_SIGN)[name])
    diagnosis = diagnose(inspect(model, compute))
    found = [each for each in diagnosis.notes if each.name == "one_sided_logits"]
    assert diagnosis.verdict is Verdict.HEALTHY
    assert bool(found) is (name in ONE_SIDED)


@pytest.mark.parametrize("name", ["relu of odds", "odds", "softplus of classes"])
def test_a_loss_that_falls_does_not_refute_odds_of_one_sign(name):
    model, compute = one_sided(*(ONE_SIDED | ANY_SIGN)[name])
    rate = RateTrial(
        rate=0.01, steps=80, before=0.7, after=0.1, learned=0.85, outcome=TrialOutcome.TRAINED
    )
    adam = OptimizerTrial(name="Adam", rates=(rate,))
    trial = Trial(optimizers=(adam,), passes=90.0, limit=300, fresh=True, kept=3, guessing=0.69)
    diagnosis = diagnose(inspect(model, compute), trial=trial)
    assert ("none is below 0" in diagnosis.action) is (name == "relu of odds")


def test_what_is_off_is_the_share_of_right_classes_at_zero():
    model, compute = one_sided(*ONE_SIDED["relu"])
    (part,) = inspect(model, compute).loss_facts.parts
    x = torch.zeros(64, 6)
    model.register_forward_pre_hook(lambda _, args: x.copy_(args[0]))
    compute(model)
    logits = model(x)
    right = logits.gather(1, classes_of(x)[:, None])
    assert part.rectifier == "relu"
    assert part.off == pytest.approx((right == 0).double().mean().item())


def test_the_best_odds_of_one_sign_cost_log_two_for_every_zero():
    x = torch.randn(64, 6)
    y = (torch.arange(64) < 16).float()[:, None]
    model = stack(6, 24, 1, end=nn.ReLU())
    (part,) = inspect(model, lambda m: BCE(m(x), y)).loss_facts.parts
    assert part.reach == pytest.approx(0.75 * torch.tensor(2.0).log().item())
    soft = 0.5 + 0.4 * torch.rand(64, 1)
    (part,) = inspect(model, lambda m: BCE(m(x), soft)).loss_facts.parts
    assert part.reach == pytest.approx(float(part.floor))


def test_a_class_that_is_off_for_every_example_stays_unlearned():
    """Its logit is zero for all inputs, so it gets no gradient; without the rectifier it does."""
    x = torch.randn(128, 6)
    labels = classes_of(x)
    for end in (nn.ReLU(), None):
        for adam, rate in ((True, 1e-2), (False, 0.3)):
            torch.manual_seed(0)
            model = stack(6, 24, 4, end=end)
            model[2].bias.data[1] = -4.0
            train(model, lambda m: CE(m(x), labels), adam=adam, rate=rate)
            wrong = (model(x).argmax(1) != labels)[labels == 1].float().mean().item()
            assert (wrong == 1.0) if end else (wrong < 0.3)
