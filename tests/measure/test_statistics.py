"""Statistics as they are computed on an accelerator give what they give on a CPU."""

import itertools
import math

import pytest
import torch
from torch import Tensor, nn

import chainrule
from chainrule.measure import statistics
from chainrule.spec.activations import ACTIVATIONS
from zoo import ZOO

VALUES = {
    "ordinary": torch.linspace(-2, 3, 240).reshape(2, 8, 15),
    "with zeros": torch.linspace(-2, 3, 240).reshape(2, 8, 15).clamp(min=0),
    "all zero": torch.zeros(1, 4, 3),
    "constant": torch.full((1, 4, 3), 2.5),
    "huge": torch.linspace(-3e30, 3e38, 60).reshape(1, 4, 15),
    "tiny": torch.linspace(-3e-30, 3e-38, 60).reshape(1, 4, 15),
    "one member huge": torch.stack([torch.ones(4, 3), torch.full((4, 3), 1e30)]),
    "infinite": torch.tensor([[[1.0, torch.inf], [2.0, 3.0]]]),
    "undefined": torch.tensor([[[1.0, torch.nan], [2.0, -torch.inf]]]),
    "float64": torch.linspace(-1e200, 1e200, 60, dtype=torch.float64).reshape(1, 4, 15),
    "half": torch.linspace(-6e4, 6e4, 60).half().reshape(1, 4, 15),
    "large": torch.linspace(-1, 2, 2 * 70_000).reshape(1, 1000, 140),
    "large, far from zero": torch.linspace(5, 6, 2 * 70_000).reshape(1, 1000, 140),
    "large with zeros": torch.linspace(-1, 2, 2 * 70_000).reshape(1, 1000, 140).relu(),
    "single numbers": torch.tensor([3.0, -2.0]),
    "nothing": torch.zeros(1, 4, 0),
}


def compare(one: statistics.Table, other: statistics.Table) -> None:
    (row,), (expected,) = statistics.fetch_rows([one]), statistics.fetch_rows([other])
    assert row.keys() == expected.keys()
    ends = [*expected.get("min", [[0.0]]), *expected.get("max", [[0.0]])]
    size = max(map(abs, filter(math.isfinite, itertools.chain(*ends))), default=0.0)
    for name, value in row.items():
        torch.testing.assert_close(
            torch.tensor(value, dtype=torch.float64),
            torch.tensor(expected[name], dtype=torch.float64),
            rtol=3e-5 if name in ("std", "variation") else 2e-6,
            atol=1e-6 * size if name == "mean" else 0,  # a mean may cancel
            equal_nan=True,
            msg=lambda text, name=name: f"{name}: {text}",
        )


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize(
    "summarize",
    [
        statistics.summarize_values,
        statistics.summarize_gradients,
        statistics.summarize_parameters,
        lambda tensors: statistics.summarize_derivative(
            tensors, ACTIVATIONS["sigmoid"], nn.Sigmoid(), 1
        ),
    ],
    ids=["values", "gradients", "parameters", "derivative"],
)
def test_the_accelerators_way_gives_the_same(
    name: str, summarize, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = [VALUES[name], VALUES[name].flip(0)]
    if tensors[0].numel() == 0 and summarize not in (
        statistics.summarize_gradients,
        statistics.summarize_parameters,
    ):
        pytest.skip("values without entries are not summarized")
    expected = summarize(tensors)
    monkeypatch.setattr(statistics, "is_cheap_to_read", lambda device: False)
    compare(summarize(tensors), expected)


def test_nothing_is_asked_on_an_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a number there would wait for the device; only `fetch_rows` does."""
    asked = []
    as_bool = Tensor.__bool__
    monkeypatch.setattr(Tensor, "__bool__", lambda self: asked.append(1) or as_bool(self))
    tensors = [VALUES["ordinary"]]
    statistics.summarize_values(tensors)
    assert asked
    asked.clear()
    monkeypatch.setattr(statistics, "is_cheap_to_read", lambda device: False)
    for name in ("ordinary", "huge", "infinite", "large", "large with zeros"):
        statistics.summarize_values([VALUES[name]])
        statistics.summarize_gradients([VALUES[name]])
        statistics.summarize_parameters([VALUES[name]])
    assert not asked


@pytest.mark.parametrize("name", ["mlp", "conv_net", "huge_gradients", "bfloat16", "nan_weight"])
def test_flows_are_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = chainrule.inspect(*ZOO[name]())
    monkeypatch.setattr(statistics, "is_cheap_to_read", lambda device: False)
    flow = chainrule.inspect(*ZOO[name]())
    for one, other in zip(flow.parameters, expected.parameters, strict=True):
        assert one.grad_norm == pytest.approx(other.grad_norm, rel=1e-6, nan_ok=True)
        assert one.norm == pytest.approx(other.norm, rel=1e-6, nan_ok=True)
    for one, other in zip(flow.layers, expected.layers, strict=True):
        assert (one.statistics is None) == (other.statistics is None)
        if one.statistics is not None:
            cancelled = 1e-6 * abs(float(other.statistics.std))
            assert float(one.statistics.mean) == pytest.approx(
                float(other.statistics.mean), rel=1e-5, abs=cancelled, nan_ok=True
            )
            assert one.statistics.histogram == other.statistics.histogram
            assert one.statistics.std == pytest.approx(other.statistics.std, rel=1e-5, nan_ok=True)
            assert one.statistics.zero_share == other.statistics.zero_share
