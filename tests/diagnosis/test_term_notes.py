"""Notes on named terms, and on what of a loss was cut off: said where it matters, else silent."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis.diagnosis import diagnose
from chainrule.measure.inspection import inspect
from faults import stack

OURS = {"idle_term", "separate_terms", "faint_term", "detached_constant"}


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


def list_ours(model, compute):
    return [n for n in diagnose(inspect(model, compute)).notes if n.name in OURS]


def auxiliary_head():
    model = nn.ModuleDict({"body": stack(8, 24, 24), "a": nn.Linear(24, 3), "b": nn.Linear(24, 2)})
    x = torch.randn(48, 8)

    def compute(m):
        h = m["body"](x).relu()
        first = F.cross_entropy(m["a"](h), x[:, :3].argmax(1))
        return {"main": first, "aux": 0.1 * F.cross_entropy(m["b"](h), x[:, :2].argmax(1))}

    return model, compute


def both_players():
    """A generator and its critic, added up: each has targets of its own."""
    model = nn.ModuleDict({"generator": stack(4, 24, 6), "critic": stack(6, 24, 1)})
    x, one = torch.randn(48, 6), torch.ones(48, 1)

    def compute(m):
        made = m["generator"](torch.randn(48, 4))
        loss = F.binary_cross_entropy_with_logits
        critic = loss(m["critic"](x), one) + loss(m["critic"](made.detach()), 0 * one)
        m["critic"].requires_grad_(False)
        generator = loss(m["critic"](made), one)
        m["critic"].requires_grad_(True)
        return {"generator": generator, "critic": critic}

    return model, compute


def small_penalty():
    model, x = stack(8, 24, 3), torch.randn(48, 8)

    def compute(m):
        penalty = 1e-7 * sum(p.square().sum() for p in m.parameters())
        return {"error": F.cross_entropy(m(x), x[:, :3].argmax(1)), "penalty": penalty}

    return model, compute


def not_yet():
    """A divergence whose weight is still 0."""
    model, x = nn.ModuleDict({"e": stack(8, 24, 4), "d": stack(4, 24, 8)}), torch.randn(48, 8)

    def compute(m):
        code = m["e"](x)
        return {"error": F.mse_loss(m["d"](code), x), "kl": 0.0 * code.square().mean()}

    return model, compute


def several_members():
    model = nn.ModuleList(stack(6, 16, 1) for _ in range(3))
    xs = [torch.randn(32, 6) for _ in range(3)]
    pairs = list(zip(model, xs, strict=True))
    return model, lambda m: {
        f"member {at}": F.mse_loss(each(x), x[:, :1]) for at, (each, x) in enumerate(pairs)
    }


def trained_towards_a_target_network():
    model, x = stack(6, 24, 3), torch.randn(32, 6)

    def compute(m):
        with torch.no_grad():
            target = m(x.roll(1, 0)).amax(1)
        return F.mse_loss(m(x)[:, 0], target) + 0.01 * m(x).square().mean()

    return model, compute


@pytest.mark.parametrize(
    "build",
    [
        auxiliary_head,
        both_players,
        small_penalty,
        not_yet,
        several_members,
        trained_towards_a_target_network,
    ],
)
def test_terms_as_they_should_be_are_left_alone(build):
    assert not list_ours(*build())


def test_a_term_that_is_zero_and_reaches_nothing_is_named():
    model, x = stack(6, 24, 3), torch.randn(32, 6)
    (note,) = list_ours(model, lambda m: {"error": m(x).square().mean(), "later": torch.zeros(())})
    assert (note.name, note.value) == ("idle_term", 0.0)
    assert "'later'" in note.evidence


@pytest.mark.parametrize("joined", [False, True])
def test_both_parts_of_a_model_are_named_if_no_gradient_comes_from_one_to_the_other(joined):
    x, c = torch.randn(48, 6), torch.randint(3, (48,))
    parts = {"encoder": stack(6, 24, 8), "decoder": stack(8 + 2 * joined, 24, 6)}
    model = nn.ModuleDict({**parts, "label": nn.Embedding(3, 2)})

    def compute(m):
        code = m["encoder"](x)
        read = code.detach()
        read = torch.cat([read, m["label"](c)], 1) if joined else read
        error = F.mse_loss(m["decoder"](read), x)
        return {"error": error, "size": code.square().mean()}

    (note,) = list_ours(model, compute)
    assert (note.name, note.value, note.modules) == ("separate_terms", 2.0, ("decoder.0",))
    for words in ("'error' reaches", "'size' reaches 'encoder.0', 'encoder.2'"):
        assert words in note.evidence
