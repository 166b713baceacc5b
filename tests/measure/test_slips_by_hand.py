"""Which calls may be slips, by their shapes and arguments alone."""

import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.flow.slips import HEAVY, STEP_FUNCTIONS
from chainrule.measure.slip_proofs import (
    _count_answers,
    _is_over,
    _list_timed_examples,
    conclude_slips,
)
from chainrule.measure.slips import Place, Slip, Slips


def draw(*shape, grad=True):
    return torch.rand(*shape).requires_grad_(grad)


def note(slips, name, function, *args, **kwargs):
    """Call a function as a program does, and let it be looked at; return what was found."""
    before = len(slips.found)
    slips.note(name, args, kwargs, function(*args, **kwargs), lambda: Place("net", "net.py", 3))
    return slips.found[before:]


def look(name, function, *args, **kwargs):
    """What a single call may be, and its value; `None` if it is in order."""
    found = note(Slips(), name, function, *args, **kwargs)
    return (found[0].kind, found[0].value) if found else None


FLAT = ("flat", None)


@pytest.mark.parametrize("name", sorted(STEP_FUNCTIONS & {"sign", "round", "floor", "ceil"}))
def test_steps_are_flat(name):
    function = getattr(torch, name)
    (found,) = note(Slips(), name, function, draw(4, 3))
    assert (found.kind, found.operation, found.shape, found.place.line) == ("flat", name, (4, 3), 3)
    assert [tuple(each.shape) for each in found.tensors] == [(4, 3), (4, 3)]
    assert look(name, function, draw(4, 3, grad=False)) is None
    assert look(name, function, draw(0, 3)) is None


@pytest.mark.parametrize(
    ("shape", "dim", "found"),
    [
        ((8, 1), 1, FLAT),
        ((8, 1), -1, FLAT),
        ((1, 8), 0, FLAT),
        ((8, 2, 1, 1), -1, None),  # attention of one query to one key
        ((8, 2, 3, 1), -1, FLAT),
        ((8, 5), 1, None),
        ((8, 5), 0, ("over_examples", 0.0)),
        ((8, 5), -2, ("over_examples", 0.0)),
        ((5, 5), 0, None),  # similarities of all pairs
        ((8,), 0, None),
        ((8, 5, 3), 0, ("over_examples", 0.0)),
        ((8, 5, 3), 1, ("over_examples", 1.0)),  # time may come first
        ((8, 5, 3), -2, ("over_examples", 1.0)),
        ((5, 5, 3), 1, None),
        ((8, 5, 3), 2, None),
        ((8, 5, 3, 3), 2, None),
    ],
)
@pytest.mark.parametrize("by_name", [False, True])
def test_a_softmax_goes_over_a_dimension(shape, dim, found, by_name):
    arguments = ((), {"dim": dim}) if by_name else ((dim,), {})
    for name, function in {"softmax": torch.softmax, "log_softmax": torch.log_softmax}.items():
        assert look(name, function, draw(*shape), *arguments[0], **arguments[1]) == found


@pytest.mark.parametrize(
    ("shape", "arguments", "found"),
    [
        ((8, 5), {}, None),  # over dimension 1
        ((8, 1), {}, FLAT),
        ((8, 2, 1, 1), {"dim": -1}, FLAT),
        ((8, 5), {"dim": 0}, ("over_examples", 0.0)),
        ((8, 5, 3), {}, ("over_examples", 1.0)),
        ((5, 5, 3), {}, None),
        ((8, 5, 3), {"dim": -1}, None),
    ],
)
def test_lengths_are_made_1_over_a_dimension(shape, arguments, found):
    assert look("normalize", F.normalize, draw(*shape), **arguments) == found


def test_the_dimension_of_lengths_may_be_the_third_argument():
    assert look("normalize", F.normalize, draw(8, 5), 2.0, 0) == ("over_examples", 0.0)
    assert look("normalize", F.normalize, draw(8, 5), 2.0, 1) is None


def test_a_normalization_of_single_values_is_flat():
    assert look("layer_norm", F.layer_norm, draw(8, 5, 1), (1,)) == FLAT
    assert look("layer_norm", F.layer_norm, draw(8, 1, 1), normalized_shape=[1, 1]) == FLAT
    assert look("layer_norm", F.layer_norm, draw(8, 5), (5,)) is None
    assert look("layer_norm", F.layer_norm, draw(8, 5, 1), (5, 1)) is None
    assert look("group_norm", F.group_norm, draw(8, 4), 4) == FLAT
    assert look("group_norm", F.group_norm, draw(8, 4), num_groups=4) == FLAT
    assert look("group_norm", F.group_norm, draw(8, 4), 2) is None
    assert look("group_norm", F.group_norm, draw(8, 4, 2), 4) is None


@pytest.mark.parametrize(
    ("arguments", "named", "share"),
    [
        ((0.9,), {}, 0.9),
        ((HEAVY,), {}, None),
        ((0.81, True), {}, 0.81),
        ((0.9, False), {}, None),
        ((), {}, None),
        ((), {"p": 0.95}, 0.95),
        ((), {"p": 0.95, "training": False}, None),
        ((), {"p": 0.95, "training": True}, 0.95),
    ],
)
def test_dropout_of_most_values(arguments, named, share):
    found = look("dropout", F.dropout, draw(8, 5), *arguments, **named)
    assert found == (None if share is None else ("dropout", share))


def test_losses_that_expect_logarithms_are_looked_at():
    labels = torch.tensor([0, 1, 2, 0])
    x = draw(4, 3)
    (found,) = note(Slips(), "nll_loss_nd", F.nll_loss, x, labels)
    assert (found.kind, found.operation, found.tensors) == ("not_logarithms", "nll_loss", (x,))
    kinds = {
        grad: look(
            *("kl_div", F.kl_div, draw(4, 3, grad=grad), draw(4, 3, grad=not grad)),
            reduction="batchmean",
        )
        for grad in (True, False)
    }
    assert kinds[True] == ("not_logarithms", None)
    assert kinds[False] is None


@pytest.mark.parametrize(
    ("before", "after", "scrambled"),
    [
        ((8, 5, 3), (5, 8, 3), True),
        ((8, 5, 3), (8, 3, 5), True),
        ((8, 5, 3), (8, 15), False),
        ((8, 5, 3), (40, 3), False),
        ((8, 5, 3), (8, 5, 1, 3), False),
        ((8, 1, 5), (5, 8), True),
        ((8, 8), (8, 8), False),
        ((2, 3, 5, 6), (2, 3, 6, 5), False),  # relative positions
        ((2, 3, 6, 5), (2, 3, 5, 6), False),
        ((2, 3, 5, 7), (2, 3, 7, 5), True),
        ((2, 3, 5, 6), (3, 2, 6, 5), True),
        ((3, 5, 6), (3, 6, 5), True),
    ],
)
def test_sizes_in_another_order_are_scrambled(before, after, scrambled):
    for name in ("view", "reshape"):
        found = look(name, lambda x, *sizes: x.view(*sizes), draw(*before), *after)
        assert found == (("scrambled", None) if scrambled else None)
    plain = look("view", lambda x, *sizes: x.view(*sizes), draw(*before, grad=False), *after)
    assert (plain is not None) is scrambled


def test_the_first_eight_of_each_kind_are_kept():
    slips = Slips()
    for _ in range(10):
        note(slips, "sign", torch.sign, draw(3))
        note(slips, "softmax", torch.softmax, draw(8, 5), 0)
    kinds = [each.kind for each in slips.found]
    assert (kinds.count("flat"), kinds.count("over_examples"), len(kinds)) == (8, 8, 16)


def test_what_is_no_floating_point_tensor_is_in_order():
    assert look("view", lambda x, *sizes: x.view(*sizes), torch.ones(8, 5).int(), 5, 8) is None
    slips = Slips()
    slips.note("sign", (3.0,), {}, torch.ones(3, requires_grad=True), lambda: Place("", "", None))
    slips.note("sign", (draw(3),), {}, None, lambda: Place("", "", None))
    slips.note("exp", (draw(3),), {}, draw(3), lambda: Place("", "", None))
    slips.note("sign", (), {"input": draw(3)}, draw(3), lambda: Place("", "", None))
    assert [each.kind for each in slips.found] == ["flat"]


def slip(kind, **fields):
    values = {"operation": "f", "shape": (8, 5), "result": (8, 5)} | fields
    return Slip(kind, place=Place("net", "", None), **values)


class TestProofs:
    """What the gradients, and the targets of the loss, say of such calls."""

    @pytest.mark.parametrize(
        ("inward", "outward", "proved"),
        [(0.0, 1.0, True), (1e-3, 1.0, True), (1.1e-3, 1.0, False), (0.02, 30.0, True)],
    )
    @pytest.mark.parametrize("is_table", [False, True])
    def test_flat_ones_let_a_thousandth_through_at_most(self, inward, outward, proved, is_table):
        norms = torch.tensor([[inward]]), torch.tensor([[outward]])
        gradients = {at: {"norm": norm} if is_table else norm for at, norm in enumerate(norms)}
        flat = slip("flat", edges=(0, 1))
        assert len(conclude_slips([flat, flat], gradients)) == proved  # once, however often
        for edges in ((None, 1), (0, None), (0, 7)):
            assert conclude_slips([slip("flat", edges=edges)], gradients) == ()

    def test_norms_are_of_all_entries(self):
        gradients = {0: torch.full((4, 4), 9e-4), 1: torch.full((2, 2), 1.0)}  # 0.0036 and 2
        assert conclude_slips([slip("flat", edges=(0, 1))], gradients) == ()
        gradients[1] *= 2.0
        assert len(conclude_slips([slip("flat", edges=(0, 1))], gradients)) == 1

    @pytest.mark.parametrize(
        ("largest", "proved"),
        [(0.0, False), (1e-3, False), (2e-3, True), (-5.0, False), (math.nan, False)],
    )
    def test_logarithms_are_at_most_rounding_above_0(self, largest, proved):
        found = conclude_slips(
            [slip("not_logarithms", value=torch.tensor(largest, dtype=torch.float64))], {}
        )
        assert [float(each.value) for each in found] == [largest] * proved

    @pytest.mark.parametrize(
        ("shape", "dim", "examples", "over"),
        [
            ((8, 5), 0, {8}, True),
            ((8, 5), 0, {5}, False),
            ((3, 8, 5), 1, {8}, True),
            ((8, 8, 5), 1, {8}, False),
            ((6, 8, 5), 1, {6, 8}, False),
            ((8, 5), 0, set(), False),
        ],
    )
    def test_examples_are_the_first_dimension_as_long_as_the_answers(
        self, shape, dim, examples, over
    ):
        each = slip("over_examples", shape=shape, value=float(dim))
        assert _is_over(each, examples) is over

    def test_answers_are_counted_by_the_targets(self):
        targets = {
            "classes": torch.zeros(4, 3, dtype=torch.long),
            "numbers": torch.zeros(8, 1),
            "one number": torch.tensor(1.0),
            "images": torch.zeros(9, 2, 2),
            "none": None,
        }
        parts = [SimpleNamespace(saved={"target": each}) for each in targets.values()]
        found = _count_answers(SimpleNamespace(parts=parts))
        assert found == {12: (4, 3), 8: (8, 1)}

    @pytest.mark.parametrize(
        ("shape", "answers", "found"),
        [
            ((8, 5, 16), {8: (8,)}, True),
            ((8, 5, 16), {8: (8, 3)}, True),
            ((8, 5, 16), {5: (5,)}, False),
            ((8, 5, 16), {8: (8, 5)}, False),  # an answer for every step of every example
            ((8, 8, 16), {8: (8,)}, False),
            ((8, 1, 16), {8: (8,)}, False),
            ((8, 16), {8: (8,)}, False),
        ],
    )
    def test_steps_with_an_answer_each_are_examples(self, shape, answers, found):
        modules = [nn.GRU(4, 16), nn.MultiheadAttention(16, 2), nn.GRU(4, 16, batch_first=True)]
        calls = [
            SimpleNamespace(
                subject=SimpleNamespace(module=module, name=str(at), kind=type(module).__name__),
                outputs=[SimpleNamespace(shape=shape)],
            )
            for at, module in enumerate([*modules, nn.Linear(4, 16)])
        ]
        slips = list(_list_timed_examples(SimpleNamespace(calls=calls), answers))
        assert [(each.place.module, each.operation) for each in slips] == (
            [("0", "GRU"), ("1", "MultiheadAttention")] if found else []
        )
