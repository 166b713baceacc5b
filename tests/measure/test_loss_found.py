"""What is known of the loss equals what plain autograd and PyTorch's own losses say."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.errors import LossError
from chainrule.measure import loss as module
from chainrule.measure.inspection import inspect
from chainrule.measure.terms import MAX_TERMS

N, C = 24, 5


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(3)


def make(**further):
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, C)).double()
    return model, torch.randn(N, 6, dtype=torch.float64)


LABELS = torch.arange(N) % 4 % C
IGNORED = torch.where(torch.arange(N) % 6 == 0, -100, LABELS)
WEIGHT = torch.arange(1.0, C + 1, dtype=torch.float64)
SOFT = torch.softmax(torch.sin(torch.arange(N * C, dtype=torch.float64)).view(N, C), 1)
TARGETS = torch.sin(torch.arange(N * C, dtype=torch.float64) ** 1.3).view(N, C) + 0.5
ONES = (TARGETS > 0.4).double()
EACH = torch.arange(N, dtype=torch.float64) / N

CROSS_ENTROPIES = {
    "mean": lambda z: F.cross_entropy(z, LABELS),
    "sum": lambda z: F.cross_entropy(z, LABELS, reduction="sum"),
    "weights": lambda z: F.cross_entropy(z, LABELS, weight=WEIGHT),
    "light_weights": lambda z: F.cross_entropy(z, LABELS, weight=1e-4 * WEIGHT, reduction="sum"),
    "ignored": lambda z: F.cross_entropy(z, IGNORED),
    "per_example": lambda z: (EACH * F.cross_entropy(z, LABELS, reduction="none")).sum() / 3,
    "scaled": lambda z: 2.5 * F.cross_entropy(z, LABELS) / 7,
    "smoothed": lambda z: F.cross_entropy(z, LABELS, label_smoothing=0.2),
    "probabilities": lambda z: F.cross_entropy(z, SOFT),
    "by_hand": lambda z: -F.log_softmax(z, 1).gather(1, LABELS[:, None]).mean(),
    "by_hand_soft": lambda z: -(SOFT * F.log_softmax(z, 1)).sum(1).mean(),
    "nll": lambda z: F.nll_loss(F.log_softmax(z, 1), LABELS),
    "log_of_softmax": lambda z: F.nll_loss(F.softmax(z, 1).log(), LABELS),
    "images": lambda z: F.cross_entropy(
        z.view(4, 6, C).movedim(2, 1).reshape(4, C, 2, 3), LABELS.view(4, 2, 3)
    ),
}


@pytest.mark.parametrize("name", CROSS_ENTROPIES)
def test_guessing_of_a_cross_entropy_is_that_of_equal_logits(name):
    model, x = make()
    compute = CROSS_ENTROPIES[name]
    flow = inspect(model, lambda m: compute(m(x)))
    (part,) = flow.loss_facts.parts
    assert (part.kind, flow.loss_facts.kind) == ("cross_entropy", "cross_entropy")
    assert part.value == pytest.approx(flow.loss)
    guessing = compute(torch.zeros(N, C, dtype=torch.float64)).item()
    assert part.guessing == pytest.approx(guessing)
    assert flow.loss_facts.guessing == pytest.approx(guessing)
    best = nn.Parameter(torch.zeros(C, dtype=torch.float64))  # the best constant answer, by search
    search = torch.optim.LBFGS([best], max_iter=60, line_search_fn="strong_wolfe")

    def step():
        search.zero_grad()
        loss = compute(best.expand(N, C).clone())
        loss.backward()
        return loss

    for _ in range(4):
        search.step(step)
    assert part.constant == pytest.approx(step().item(), rel=1e-4)
    assert part.floor <= part.constant <= part.guessing + 1e-9
    assert [flow.layers[at].name for at in part.outputs] == ["2"]
    assert part.is_direct


@pytest.mark.parametrize(
    ("compute", "best"),
    [
        (lambda z: F.cross_entropy(z, SOFT), SOFT),
        (
            lambda z: F.cross_entropy(z, LABELS, label_smoothing=0.2),
            0.8 * F.one_hot(LABELS, C) + 0.2 / C,
        ),
    ],
)
def test_floor_of_soft_targets_is_their_entropy(compute, best):
    model, x = make()
    facts = inspect(model, lambda m: compute(m(x))).loss_facts
    assert facts.floor == pytest.approx(compute(best.log()).item())


def test_kl_divergence_has_the_floor_zero():
    model, x = make()
    flow = inspect(model, lambda m: F.kl_div(F.log_softmax(m(x), 1), SOFT, reduction="batchmean"))
    (part,) = flow.loss_facts.parts
    zeros = F.log_softmax(torch.zeros(N, C, dtype=torch.float64), 1)
    assert part.kind == "kl"
    assert (part.value, part.floor) == (pytest.approx(flow.loss), 0.0)
    assert part.guessing == pytest.approx(F.kl_div(zeros, SOFT, reduction="batchmean").item())


@pytest.mark.parametrize(
    ("compute", "kind"),
    [
        (lambda z: F.binary_cross_entropy_with_logits(z, ONES), "with_logits"),
        (lambda z: F.binary_cross_entropy_with_logits(z, SOFT, reduction="sum"), "with_logits"),
        (lambda z: F.binary_cross_entropy_with_logits(z, ONES, pos_weight=WEIGHT), "with_logits"),
        (lambda z: F.binary_cross_entropy_with_logits(z, ONES, weight=WEIGHT), "with_logits"),
        (
            lambda z: (
                F.binary_cross_entropy_with_logits(z, ONES, reduction="none") * EACH[:, None]
            ).mean(),
            "with_logits",
        ),
        (lambda z: F.binary_cross_entropy(torch.sigmoid(z), ONES), ""),
    ],
)
def test_guessing_of_a_binary_cross_entropy_is_that_of_one_half(compute, kind):
    model, x = make()
    flow = inspect(model, lambda m: compute(m(x)))
    (part,) = flow.loss_facts.parts
    assert part.kind == "binary_cross_entropy" + (f"_{kind}" if kind else "")
    assert part.activation == (None if kind else "sigmoid")
    zeros = torch.zeros(N, C, dtype=torch.float64)
    assert part.guessing == pytest.approx(compute(zeros).item())
    assert part.floor <= part.constant <= part.guessing + 1e-9


REGRESSIONS = {
    "mse": ("mse", F.mse_loss),
    "mse_sum": ("mse", lambda z, t: F.mse_loss(z, t, reduction="sum")),
    "by_hand": ("mse", lambda z, t: ((z - t) ** 2).mean()),
    "turned": ("mse", lambda z, t: 3 * (t - z).square().sum(1).mean()),
    "product": ("mse", lambda z, t: ((d := z - t) * d).mean()),
    "weighted": ("mse", lambda z, t: (F.mse_loss(z, t, reduction="none") * EACH[:, None]).sum()),
    "l1": ("l1", F.l1_loss),
    "smooth_l1": ("smooth_l1", lambda z, t: F.smooth_l1_loss(z, t, beta=0.5)),
    "huber": ("huber", lambda z, t: F.huber_loss(z, t, delta=0.3)),
}


@pytest.mark.parametrize("name", REGRESSIONS)
def test_guessing_of_a_regression_is_the_mean_or_median_of_the_targets(name):
    model, x = make()
    kind, compute = REGRESSIONS[name]
    flow = inspect(model, lambda m: compute(m(x), TARGETS))
    (part,) = flow.loss_facts.parts
    centre = TARGETS.mean(0) if kind == "mse" else TARGETS.median(0).values
    if name == "weighted":
        centre = (TARGETS * EACH[:, None]).sum(0) / EACH.sum()
    assert part.kind == kind
    assert part.floor == 0.0
    assert part.value == pytest.approx(flow.loss)
    assert part.guessing == pytest.approx(compute(centre.expand(N, C), TARGETS).item())


@pytest.mark.parametrize(
    ("weights", "centre"),
    [
        ([1.0, 1.0, 1.0, 0.0, 0.0], 2.0),  # targets that are masked out do not count
        ([1.0, 1.0, 1.0, 1.0, 9.0], 50.0),
        ([2.0, 1.0, 1.0, 1.0, 1.0], 2.0),
        ([3.0, 1.0, 1.0, 1.0, 0.0], 1.0),  # half on either side of it and the next: the lower one
    ],
)
def test_guessing_of_a_weighted_l1_loss_is_the_weighted_median(weights, centre):
    targets = torch.tensor([[2.0], [1.0], [3.0], [40.0], [50.0]], dtype=torch.float64)
    order = torch.tensor([1, 0, 2, 3, 4])
    mass = torch.tensor(weights, dtype=torch.float64)[order, None]
    model, x = nn.Linear(3, 1).double(), torch.randn(5, 3, dtype=torch.float64)

    def compute(output):
        return (F.l1_loss(output, targets, reduction="none") * mass).sum() / mass.sum()

    (part,) = inspect(model, lambda m: compute(m(x))).loss_facts.parts
    assert part.kind == "l1"
    guess = compute(torch.full_like(targets, centre)).item()
    assert part.guessing == pytest.approx(guess)
    assert guess <= min(compute(each.expand(5, 1)).item() for each in targets) + 1e-12


def test_a_view_of_the_output_is_seen_through():
    model, x = make()
    y = TARGETS.reshape(-1)
    facts = inspect(model, lambda m: (m(x).view(-1) - y).pow(2).mean()).loss_facts
    assert facts.guessing == pytest.approx(y.var(correction=0).item())


TWICE = {
    "mean": lambda z: F.mse_loss(z, TARGETS),
    "sum": lambda z: F.mse_loss(z, TARGETS, reduction="sum"),
    "entries": lambda z: F.mse_loss(z, TARGETS, reduction="none").mean(),
    "by hand": lambda z: (z - TARGETS).square().mean(),
    "classes": lambda z: F.cross_entropy(z, LABELS, weight=WEIGHT),
}


@pytest.mark.parametrize("name", TWICE)
def test_a_part_that_is_added_twice_counts_twice(name):
    model, x = make()

    def compute(m):
        loss = TWICE[name](m(x))
        return loss + loss / 2

    (one,) = inspect(model, lambda m: TWICE[name](m(x))).loss_facts.parts
    flow = inspect(model, compute)
    (both,) = flow.loss_facts.parts
    assert both.value == pytest.approx(float(flow.loss))
    for field in ("value", "guessing", "constant"):
        assert getattr(both, field) == pytest.approx(1.5 * getattr(one, field))


def test_one_over_a_loss_is_no_part_of_it():
    model, x = make()
    facts = inspect(model, lambda m: 1 / F.mse_loss(m(x), TARGETS)).loss_facts
    assert [part.kind for part in facts.parts] == ["custom"]
    half = inspect(model, lambda m: F.mse_loss(m(x), TARGETS) / 2).loss_facts
    assert [part.kind for part in half.parts] == ["mse"]


@pytest.mark.parametrize(
    "compute",
    [
        lambda z: F.mse_loss(TARGETS, z),  # only the target has a gradient
        lambda z: ((z - TARGETS) * z).mean(),
        lambda z: ((z - TARGETS) ** 4).mean(),
        lambda z: (z.exp() - z).square().mean(),
    ],
)
def test_what_only_looks_like_a_squared_error_is_of_no_known_kind(compute):
    model, x = make()
    flow = inspect(model, lambda m: compute(m(x)))
    (part,) = flow.loss_facts.parts
    assert (part.kind, part.value, part.guessing) == ("custom", None, None)
    assert [flow.layers[at].name for at in part.outputs] == ["2"]


def test_parts_are_told_apart_and_add_up():
    model, x = make()

    def compute(m):
        penalty = sum(p.square().sum() for p in m.parameters())
        z = m(x)
        return F.mse_loss(z, TARGETS) + 0.5 * F.cross_entropy(z, LABELS) + 1e-3 * penalty

    flow = inspect(model, compute)
    facts = flow.loss_facts
    parts = {part.kind: part for part in facts.parts}
    assert parts.keys() == {"mse", "cross_entropy", "penalty"}
    assert facts.kind == "mixed"
    assert facts.guessing is None
    with torch.no_grad():
        assert parts["mse"].value == pytest.approx(F.mse_loss(model(x), TARGETS).item())
        value = 0.5 * F.cross_entropy(model(x), LABELS).item()
    assert parts["cross_entropy"].value == pytest.approx(value)
    assert parts["cross_entropy"].guessing == pytest.approx(0.5 * math.log(C))


@pytest.mark.parametrize("constant", [3.0, torch.tensor(3.0, dtype=torch.float64)])
def test_a_constant_is_an_offset_and_no_fault(constant):
    model, x = make()
    flow = inspect(model, lambda m: F.mse_loss(m(x), TARGETS) + constant)
    facts = flow.loss_facts
    assert facts.offset == pytest.approx(3.0)
    assert facts.guessing == pytest.approx(3.0 + facts.parts[0].guessing)
    assert (facts.cut, facts.detached) == (0.0, 0.0)


def test_a_multiple_that_is_added_to_a_constant_counts_as_often():
    model, x = make()
    three = torch.tensor(3.0, dtype=torch.float64)
    (one,) = inspect(model, lambda m: F.mse_loss(m(x), TARGETS)).loss_facts.parts
    facts = inspect(model, lambda m: torch.add(three, F.mse_loss(m(x), TARGETS), alpha=2.0))
    (twice,) = facts.loss_facts.parts
    for field in ("value", "guessing", "constant"):
        assert getattr(twice, field) == pytest.approx(2.0 * getattr(one, field))
    assert facts.loss_facts.offset == pytest.approx(3.0)


def test_a_constant_beside_soft_targets_makes_no_divergence_of_them():
    model, x = make()
    compute = CROSS_ENTROPIES["by_hand_soft"]
    flow = inspect(model, lambda m: 3.0 + compute(m(x)))
    (part,) = flow.loss_facts.parts
    assert part.kind == "cross_entropy"
    assert part.floor == pytest.approx(compute(SOFT.log()).item())
    assert flow.loss_facts.offset == pytest.approx(3.0)


# --- Step and reaction ---------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1.0, 1e-6, 1e5])
def test_step_and_reaction_are_those_of_autograd_at_any_scale(factor):
    model, x = make()
    z = model(x)
    loss = F.cross_entropy(z, SOFT)
    floor = F.cross_entropy(SOFT.log(), SOFT)
    names = list(model.parameters())
    *grads, output = torch.autograd.grad(loss, [*names, z])
    excess = (loss - floor).item()
    step = sum(0.01 * p.norm() * g.norm() for p, g in zip(names, grads, strict=True)).item()
    size = max(z.norm().item(), math.sqrt(z.numel()))
    facts = inspect(model, lambda m: factor * F.cross_entropy(m(x), SOFT)).loss_facts
    assert facts.step == pytest.approx(step / excess)
    assert facts.reaction == pytest.approx(0.01 * size * output.norm().item() / excess)


def test_a_constant_changes_neither_step_nor_reaction():
    model, x = make()
    plain, shifted = (
        inspect(model, lambda m, shift=shift: F.mse_loss(m(x), TARGETS) + shift).loss_facts
        for shift in (0.0, 5.0)
    )
    assert shifted.step == pytest.approx(float(plain.step))
    assert shifted.reaction == pytest.approx(float(plain.reaction))


def test_zero_parameters_move_by_what_they_could_be():
    model = nn.Linear(6, 3).double()
    nn.init.zeros_(model.weight), nn.init.zeros_(model.bias)
    x = torch.randn(N, 6, dtype=torch.float64)
    facts = inspect(model, lambda m: F.cross_entropy(m(x), LABELS % 3)).loss_facts
    loss = F.cross_entropy(model(x), LABELS % 3)
    w, b = torch.autograd.grad(loss, [model.weight, model.bias])
    assert facts.step == pytest.approx(
        (0.01 * (w.norm() * 1.0 + b.norm() * math.sqrt(3)) / loss).item()
    )


def test_the_share_of_examples_without_gradient_is_counted():
    model, x = make()
    mask = (torch.arange(N) % 3 == 0).double()
    flow = inspect(
        model, lambda m: (F.mse_loss(m(x), TARGETS, reduction="none").sum(1) * mask).sum()
    )
    assert flow.loss_facts.zero_examples == pytest.approx(1 - mask.mean().item())


def test_large_outputs_are_counted_as_they_pass():
    model = nn.Linear(4, 5_000)
    x = torch.randn(20, 4)
    flow = inspect(model, lambda m: m(x)[:5].square().mean())
    assert flow.loss_facts.zero_examples == pytest.approx(0.75)


def test_one_entry_of_a_large_output_is_enough_for_a_gradient():
    model = nn.Linear(4, 5_000)
    x, weight = torch.randn(20, 4), torch.zeros(20, 5_000)
    weight[:5] = 1.0
    weight[5:10, 1] = 1.0
    flow = inspect(model, lambda m: (m(x).square() * weight).sum())
    assert flow.loss_facts.zero_examples == pytest.approx(0.5)


# --- What the loss reads -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("end", "compute", "activation"),
    [
        (nn.Softmax(1), lambda z: F.cross_entropy(z, LABELS), "softmax"),
        (nn.LogSoftmax(1), lambda z: F.cross_entropy(z, LABELS), "log_softmax"),
        (nn.LogSoftmax(1), lambda z: F.nll_loss(z, LABELS), None),
        (nn.Softmax(1), lambda z: F.nll_loss(z, LABELS), "softmax"),
        (nn.Softmax(1), lambda z: F.cross_entropy((z + 1e-8).clamp(max=1.0), LABELS), "softmax"),
        (nn.Sigmoid(), lambda z: F.binary_cross_entropy_with_logits(z, ONES), "sigmoid"),
        (nn.Identity(), lambda z: F.cross_entropy(torch.sigmoid(z), LABELS), "sigmoid"),
        (nn.Identity(), lambda z: F.cross_entropy(z, LABELS), None),
        (nn.Softmax(1), lambda z: F.nll_loss(z.log(), LABELS), None),
    ],
)
def test_the_activation_before_the_loss_is_found(end, compute, activation):
    model, x = make()
    facts = inspect(nn.Sequential(*model, end), lambda m: compute(m(x))).loss_facts
    assert facts.parts[0].activation == activation


def test_a_critic_in_between_is_not_the_models_own_answer():
    model, x = make()
    critic = nn.Sequential(nn.Linear(C, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    one = torch.ones(N, 1, dtype=torch.float64)
    for requires_grad in (True, False):
        critic.requires_grad_(requires_grad)
        flow = inspect(model, lambda m: F.binary_cross_entropy_with_logits(critic(m(x)), one))
        (part,) = flow.loss_facts.parts
        assert not part.is_direct
        assert [flow.layers[at].name for at in part.outputs] == ["2"]


def test_a_loss_as_a_module_of_the_model_is_not_what_the_loss_reads():
    class WithLoss(nn.Module):
        def __init__(self, reduction):
            super().__init__()
            self.net, _ = make()
            self.criterion = nn.MSELoss(reduction=reduction)

        def forward(self, x):
            return self.criterion(self.net(x), TARGETS).mean()

    x = torch.randn(N, 6, dtype=torch.float64)
    for reduction in ("mean", "none"):
        flow = inspect(WithLoss(reduction), lambda m: m(x))
        assert [flow.layers[at].name for at in flow.loss_facts.outputs] == ["net.2"]
        assert flow.loss_facts.guessing == pytest.approx(TARGETS.var(0, correction=0).mean().item())


def test_the_error_does_not_turn_with_the_order_of_calls():
    model = nn.Sequential(nn.Linear(3, 16), nn.Softplus(), nn.Linear(16, 16), nn.Softplus())
    model = nn.Sequential(*model, nn.Linear(16, 1)).double()
    a, b = torch.randn(2, N, 3, dtype=torch.float64)

    def differentiate(m, x):
        x = x.clone().requires_grad_()
        y = m(x)
        return y, torch.autograd.grad(y.sum(), x, create_graph=True)[0]

    def value(m):
        return differentiate(m, a)

    def slope(m):
        return (differentiate(m, b)[1].norm(dim=1) - 1).square().mean()

    def first(m):
        y, g = value(m)
        return y.abs().mean() + g.norm(dim=1).mean() + slope(m)

    def last(m):
        s = slope(m)
        y, g = value(m)
        return s + g.norm(dim=1).mean() + y.abs().mean()

    errors = [inspect(model, each).output_error for each in (first, last)]
    assert errors[0] == pytest.approx(errors[1])
    assert errors[0] is not None


def test_calls_on_two_halves_count_as_one_call():
    model, x = make()
    whole = inspect(model, lambda m: F.mse_loss(m(x), TARGETS)).output_error
    half = N // 2

    def compute(m):
        parts = [m(x[:half]), m(x[half:])]
        return F.mse_loss(torch.cat(parts), TARGETS)

    assert inspect(model, compute).output_error == pytest.approx(whole)


def test_of_several_outputs_the_furthest_are_read():
    encoder, decoder = nn.Linear(6, 4).double(), nn.Linear(4, 6).double()
    model = nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    x = torch.randn(N, 6, dtype=torch.float64)

    def compute(m):
        code = m["encoder"](x)
        return F.mse_loss(m["decoder"](code), x) + code.square().mean()

    flow = inspect(model, compute)
    assert [flow.layers[at].name for at in flow.loss_facts.outputs] == ["decoder"]


# --- Constants that were cut off -----------------------------------------------------------------


def test_a_term_made_by_argmax_is_noticed():
    model, x = make()
    flow = inspect(
        model,
        lambda m: F.cross_entropy(m(x), LABELS) + 5 * (m(x).argmax(1) != LABELS).double().mean(),
    )
    with torch.no_grad():
        wrong = (model(x).argmax(1) != LABELS).double().mean().item()
    assert flow.loss_facts.cut == pytest.approx(5 * wrong)
    assert flow.loss_facts.detached == 0.0
    assert flow.loss_facts.cut_by == ("argmax",)


@pytest.mark.filterwarnings("ignore:Converting a tensor")
def test_a_term_made_by_copying_numbers_is_told_from_one_without_a_derivative():
    model, x = make()

    def compute(m, *, join):
        terms = [each.square().mean() for each in m(x)]
        return F.cross_entropy(m(x), LABELS) + join(terms).mean()

    cut = inspect(model, lambda m: compute(m, join=torch.tensor))
    assert cut.loss_facts.cut_by == ("tensor",)
    finding = next(each for each in diagnose(cut).findings if each.rule == "detached_term")
    assert "torch.tensor" in finding.evidence
    assert "argmax" not in finding.evidence
    assert "torch.stack" in diagnose(cut).action
    whole = inspect(model, lambda m: compute(m, join=torch.stack))
    assert (whole.loss_facts.cut, whole.loss_facts.cut_by) == (0.0, ())
    both = inspect(
        model,
        lambda m: compute(m, join=torch.tensor) + (m(x).argmax(1) != LABELS).double().mean(),
    )
    assert set(both.loss_facts.cut_by) == {"tensor", "argmax"}
    finding = next(each for each in diagnose(both).findings if each.rule == "detached_term")
    assert "torch.tensor" in finding.evidence
    assert "argmax" in finding.evidence


def test_what_is_taken_off_and_what_was_detached_on_purpose_is_told_apart():
    model, x = make()
    flow = inspect(model, lambda m: F.mse_loss(m(x), TARGETS) - m(x).square().mean().detach())
    with torch.no_grad():
        size = model(x).square().mean().item()
    assert flow.loss_facts.detached == pytest.approx(-size)
    assert flow.loss_facts.cut == 0.0


@pytest.mark.parametrize(
    "add",
    [
        lambda m, z: 1.5,
        lambda m, z: torch.tensor(1.5),
        lambda m, z: torch.zeros_like(z).sum() + 2.0,
        lambda m, z: 0.0 * z.argmax(1).double().mean(),
        lambda m, z: (SOFT * SOFT.log()).sum(),
    ],
)
def test_harmless_constants_are_quiet(add):
    model, x = make()

    def compute(m):
        z = m(x)
        return F.mse_loss(z, TARGETS) + add(m, z)

    facts = inspect(model, compute).loss_facts
    assert (facts.cut, facts.detached) == (0.0, 0.0)


def test_what_a_teacher_computes_without_gradients_is_quiet():
    model, x = make()

    def compute(m):
        with torch.no_grad():
            entropy = torch.special.entr(torch.softmax(m(x), 1)).sum()
        return F.mse_loss(m(x), TARGETS) - entropy

    assert inspect(model, compute).loss_facts.cut == 0.0


def test_a_constant_that_does_not_get_into_the_loss_is_quiet():
    model, x = make()

    def compute(m):
        z = m(x)
        loss = F.cross_entropy(z, LABELS)
        _ = loss + (z.argmax(1) != LABELS).double().mean()  # for a progress bar
        return loss

    assert inspect(model, compute).loss_facts.cut == 0.0


# --- Named terms ---------------------------------------------------------------------------------


def test_terms_equal_autograd_term_by_term():
    model, x = make()

    def terms(m):
        z = m(x)
        return {
            "error": F.mse_loss(z, TARGETS),
            "size": m[0].weight.square().sum(),
            "accuracy": (z.argmax(1) == LABELS).double().mean(),
        }

    flow = inspect(model, terms)
    values = terms(model)
    whole = inspect(model, lambda m: sum(terms(m).values()))
    assert flow.loss == pytest.approx(sum(v.item() for v in values.values()))
    for one, other in zip(flow.parameters, whole.parameters, strict=True):
        assert one.grad_norm == pytest.approx(other.grad_norm)
    parameters = list(model.parameters())
    total = torch.autograd.grad(sum(values.values()), parameters, retain_graph=True)
    by_name = {term.name: term for term in flow.loss_facts.terms}
    assert list(by_name) == list(values)
    for name in ("error", "size"):
        expected = torch.autograd.grad(
            values[name], parameters, retain_graph=True, allow_unused=True
        )
        reached = [at for at, g in enumerate(expected) if g is not None]
        found = by_name[name].gradients
        assert [each.parameter for each in found] == reached
        for each in found:
            g, t = expected[each.parameter], total[each.parameter]
            assert each.norm == pytest.approx(g.norm().item())
            assert each.cosine == pytest.approx(
                F.cosine_similarity(g.flatten(), t.flatten(), 0).item()
            )
    assert by_name["accuracy"].is_detached
    assert not by_name["size"].is_detached
    assert by_name["accuracy"].value == pytest.approx(values["accuracy"].item())


def test_guessing_of_a_term_is_known_where_it_is_nothing_else():
    model, x = make()

    def terms(m):
        penalty = 1e-3 * m[0].weight.square().sum()
        return {
            "error": F.mse_loss(m(x), TARGETS),
            "shifted": F.mse_loss(m(x), TARGETS) + 3.0,
            "both": F.mse_loss(m(x), TARGETS) + penalty,
            "penalty": 2 * penalty,
        }

    found = {term.name: term for term in inspect(model, terms).loss_facts.terms}
    assert found["error"].guessing == pytest.approx(TARGETS.var(0, correction=0).mean().item())
    assert found["shifted"].guessing is None
    assert {name for name, term in found.items() if term.is_penalty} == {"penalty"}


@pytest.mark.parametrize(
    ("returned", "fact"),
    [
        ({}, f"1 to {MAX_TERMS}"),
        ({str(at): torch.ones(()) for at in range(MAX_TERMS + 1)}, f"got {MAX_TERMS + 1}"),
        ({"a": 1.0}, "'a' is a value of type float"),
        ({"a": torch.ones(2)}, r"shape \[2\]"),
        ({"a": torch.ones(()), "b": torch.ones((), dtype=torch.complex64)}, "'b' is a complex"),
        ({1: torch.ones(()), "1": torch.ones(())}, "different names"),
        ({"a": torch.ones(())}, "attached to the graph"),
    ],
)
def test_bad_terms_are_refused(returned, fact):
    model, _ = make()
    with pytest.raises(LossError, match=fact):
        inspect(model, lambda m: returned)


def test_terms_leave_no_trace():
    model, x = make()
    inspect(model, lambda m: {"a": m(x).mean(), "b": m(x).square().mean()})
    assert all(parameter.grad is None for parameter in model.parameters())


def test_without_the_private_names_a_loss_is_measured_all_the_same(monkeypatch):
    model, x = make()
    expected = inspect(model, lambda m: F.mse_loss(m(x), TARGETS))
    monkeypatch.setattr(module, "read_saved", lambda node, name: None)
    flow = inspect(model, lambda m: F.mse_loss(m(x), TARGETS))
    assert flow.loss == expected.loss
    assert flow.loss_facts.kind == "mse"
    assert flow.loss_facts.guessing is None
    assert flow.loss_facts.reaction == expected.loss_facts.reaction


@pytest.mark.parametrize(
    ("lose", "target"),
    [
        (F.mse_loss, torch.linspace(-1, 1, N * C, dtype=torch.float64).reshape(N, C)),
        (F.cross_entropy, torch.arange(N) % C),
    ],
)
def test_a_loss_that_is_maximized_has_no_floor(lose, target):
    model, x = make()
    assert inspect(model, lambda m: lose(m(x), target)).loss_facts.floor == 0.0
    facts = inspect(model, lambda m: -lose(m(x), target)).loss_facts
    assert facts.floor is None
    assert facts.guessing is None
    both = inspect(model, lambda m: {"a": lose(m(x), target), "b": -lose(m(x), target)})
    assert both.loss == 0.0
    assert both.loss_facts.floor is None


@pytest.mark.parametrize("name", ["\ud800", "k" * 201, "a\nb"])
def test_names_that_a_file_cannot_hold_are_refused(name):
    model, x = make()
    with pytest.raises(LossError, match="200"):
        inspect(model, lambda m: {name: m(x).square().mean()})


@pytest.mark.parametrize("loss", [F.l1_loss, F.huber_loss, F.smooth_l1_loss])
def test_guessing_of_targets_that_were_expanded_is_that_of_copies(loss):
    """PyTorch takes a wrong median of such a tensor."""
    x, y = torch.randn(48, 6), torch.tensor([[0.5, -1.25]]).expand(48, 2)
    model = nn.Linear(6, 2)
    guessing = [
        float(inspect(model, lambda m, y=each: loss(m(x), y)).loss_facts.guessing)
        for each in (y, y.clone())
    ]
    assert guessing == pytest.approx([0.0, 0.0], abs=1e-6)


@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
def test_a_module_that_compares_keeps_its_own_gradient(reduction):
    """The weights of its entries are asked for at the same place of the graph."""

    class Compared(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer, self.compare = nn.Linear(3, 2), nn.MSELoss(reduction=reduction)

        def forward(self, x, y):
            return self.compare(self.layer(x), y)

    model, x, y = Compared(), torch.randn(5, 3), torch.randn(5, 2)
    weights = torch.rand(5, 2) if reduction == "none" else torch.tensor(3.0)
    flow = inspect(model, lambda m: (weights * m(x, y)).sum())
    layer, compare = flow.layers
    assert (compare.name, flow.loss_facts.parts[0].kind) == ("compare", "mse")
    assert compare.gradient.norm == pytest.approx(float(weights.norm()))
    assert compare.gain == pytest.approx(layer.gradient.norm / compare.gradient.norm)
