"""Where gradients are lost, and what is no loss: small values and forgetful streams."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from chainrule.diagnosis import Verdict, diagnose
from chainrule.diagnosis.structure import measure_stream_gradient
from chainrule.measure import inspect
from made_flows import call, make_flow, parameter, residual


class Euler(nn.Module):
    """A state that steps on with the same weights, and reads its input at every step or once."""

    def __init__(self, *, injects, decay=0.2, steps=40):
        super().__init__()
        self.lift, self.f, self.head = nn.Linear(6, 24), nn.Linear(24, 24), nn.Linear(24, 3)
        self.injects, self.decay, self.steps = injects, decay, steps

    def forward(self, x):
        start = h = self.lift(x)
        for _ in range(self.steps):
            add = torch.tanh(self.f(h) + (start if self.injects else 0.0))
            h = h + self.decay * (add * (1.0 if self.injects else 0.1) - h)
        return self.head(h)


class Mixing(nn.Module):
    """A mean over all nodes at every layer, and of the answers."""

    def __init__(self, mix=True):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 32), *(nn.Linear(32, 32) for _ in range(3))])
        self.head, self.mix = nn.Linear(32, 1), mix
        for layer in self.layers:
            nn.init.xavier_normal_(layer.weight)

    def forward(self, x):
        for layer in self.layers:
            spread = 0.9 * x.mean(1, keepdim=True) + 0.1 * x if self.mix else x
            x = torch.tanh(layer(spread))
        return self.head(x).mean(1)


class LastStep(nn.Module):
    def __init__(self, kind=nn.LSTM, width=1):
        super().__init__()
        self.rnn, self.out = kind(width, 32, 2, batch_first=True), nn.Linear(32, 1)

    def forward(self, x):
        return self.out(self.rnn(x)[0][:, -1])


class Pooled(nn.Module):
    """A normalization before an average over the same axes."""

    def __init__(self, norm, between=None):
        super().__init__()
        self.conv, self.norm = nn.Conv1d(1, 16, 5, padding=2), norm
        self.between, self.head = between or nn.Identity(), nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.between(self.norm(self.conv(x))).mean(-1))


class Gated(nn.Module):
    """Residual blocks behind gates."""

    def __init__(self, bias):
        super().__init__()
        self.lift, self.head = nn.Linear(6, 24), nn.Linear(24, 3)
        self.norms = nn.ModuleList(nn.LayerNorm(24) for _ in range(3))
        self.gates = nn.ModuleList(nn.Linear(24, 24) for _ in range(3))
        self.layers = nn.ModuleList(nn.Linear(24, 24) for _ in range(3))
        for gate in self.gates:
            nn.init.constant_(gate.bias, bias)

    def forward(self, x):
        x = self.lift(x)
        for norm, gate, layer in zip(self.norms, self.gates, self.layers, strict=True):
            h = norm(x)
            x = x + torch.sigmoid(gate(h)) * torch.tanh(layer(h))
        return self.head(x)


def classify(model, shape=(6,), classes=3):
    torch.manual_seed(5)
    x, y = torch.randn(32, *shape), torch.randint(classes, (32,))
    return inspect(model, lambda m: F.cross_entropy(m(x), y))


def fit(model, *shape):
    torch.manual_seed(5)
    x, y = torch.randn(32, *shape), torch.randn(32, 1)
    return inspect(model, lambda m: F.mse_loss(m(x), y))


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


class TestSmallIsNotLost:
    @pytest.mark.parametrize("mix", [True, False])
    def test_an_average_makes_answers_small_and_keeps_gradients(self, mix):
        assert diagnose(fit(Mixing(mix), 50, 4)).verdict is Verdict.HEALTHY

    def test_gates_that_start_half_open(self):
        flow = fit(LastStep(), 15, 1)
        assert flow.weight_layers[-1].std < 0.03 * flow.weight_layers[0].std
        assert diagnose(flow).verdict is Verdict.HEALTHY

    @pytest.mark.parametrize(("injects", "rule"), [(True, None), (False, "fading_stream")])
    def test_a_stream_that_forgets_its_start(self, injects, rule):
        diagnosis = diagnose(classify(Euler(injects=injects)))
        assert (diagnosis.findings[0].rule if diagnosis.findings else None) == rule

    def test_streams_of_other_weights_count_as_they_are(self):
        calls = [
            call("a", layer=1, gradient=1.0),
            call("b", layer=2, gradient=1.0),
            call("c", layer=3, gradient=1.0),
        ]
        weights = [parameter(f"{x}.weight", at + 1) for at, x in enumerate("abc")]
        first, last = residual(gradient=0.5), residual(gradient=2.0)

        def measure(one, two):
            stream = [
                residual(gradient=float(each.gradient), parameters=inside)
                for each, inside in ((first, one), (last, two))
            ]
            flow = make_flow(calls, weights, residuals=stream)
            return measure_stream_gradient(flow)

        assert measure((1,), (2,)) == 0.25
        assert measure((1, 2), (1, 2)) == 0.5  # what arrives at the layer before


class TestSpelling:
    """A function does what a module does."""

    class Block(nn.Module):
        def __init__(self, end, branch_norm=None):
            super().__init__()
            self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
            self.end, self.before = end, branch_norm or (lambda x: x)

        def forward(self, x):
            return self.end(x + self.second(torch.tanh(self.first(self.before(x)))))

    @pytest.mark.parametrize(
        ("function", "module"),
        [
            (F.relu, nn.ReLU()),
            (torch.relu, nn.ReLU()),
            (F.silu, nn.SiLU()),
            (lambda x: F.layer_norm(x, (8,)), nn.LayerNorm(8, elementwise_affine=False)),
        ],
    )
    @pytest.mark.parametrize("before", [False, True])
    def test_residual_sums(self, function, module, before):
        def list_found(each):
            torch.manual_seed(0)
            given = ((lambda x: x), each) if before else (each, None)
            blocks = [self.Block(*given) for _ in range(3)]
            flow = classify(nn.Sequential(nn.Linear(6, 8), *blocks, nn.Linear(8, 3)))
            return [
                (r.stream, r.normalization, float(r.after), float(r.gradient or 0.0))
                for r in flow.residuals
            ]

        found = list_found(function)
        assert len(found) == 3
        for one, two in zip(found, list_found(module), strict=True):
            assert one == pytest.approx(two)


class TestTheCauseLeads:
    @pytest.mark.parametrize(
        "norm",
        [
            nn.InstanceNorm1d(16),
            nn.InstanceNorm1d(16, affine=True),
            nn.GroupNorm(16, 16),
        ],
    )
    def test_an_average_of_what_has_the_mean_zero(self, norm):
        diagnosis = diagnose(classify(Pooled(norm), (1, 32), 4))
        assert diagnosis.findings[0].rule == "averaged_away"
        assert diagnosis.findings[0].modules == ("norm", "head")
        assert diagnosis.verdict is Verdict.SIGNAL_COLLAPSE

    @pytest.mark.parametrize(
        ("norm", "between"),
        [
            (nn.InstanceNorm1d(16), nn.ReLU()),
            (nn.BatchNorm1d(16), None),
            (nn.GroupNorm(1, 16), None),
        ],
    )
    def test_an_average_that_still_differs(self, norm, between):
        found = diagnose(classify(Pooled(norm, between), (1, 32), 4)).findings
        assert "averaged_away" not in {each.rule for each in found}

    def test_a_last_layer_that_starts_small_is_no_average(self):
        model = nn.Sequential(nn.Linear(6, 8), nn.LayerNorm(8), nn.Flatten(), nn.Linear(8, 3))
        nn.init.normal_(model[-1].weight, std=1e-7)
        nn.init.constant_(model[-1].bias, 1.0)
        assert diagnose(classify(model)).verdict is Verdict.HEALTHY

    @pytest.mark.parametrize(
        ("kind", "there", "not_there"),
        [
            (nn.GRU, "update gates", "forget"),
            (nn.LSTM, "forget gates", "update"),
            (nn.RNN, "nn.LSTM", "forget"),
        ],
    )
    def test_padding_that_is_read(self, kind, there, not_there):
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.emb = nn.Embedding(20, 16, padding_idx=0)
                self.rnn, self.fc = kind(16, 32, batch_first=True), nn.Linear(32, 4)

            def forward(self, t):
                return self.fc(self.rnn(self.emb(t))[0][:, -1])

        t = torch.randint(1, 20, (64, 120))
        t[torch.arange(120)[None] >= torch.randint(4, 10, (64, 1))] = 0
        y = t[:, 0] % 4
        diagnosis = diagnose(inspect(Net(), lambda m: F.cross_entropy(m(t), y)))
        assert diagnosis.findings[0].rule in ("unheard_steps", "vanishing_time")
        assert "padded" in diagnosis.action
        assert there in diagnosis.action
        assert not_there not in diagnosis.action


class TestActions:
    """What a model has is not advised."""

    def test_closed_gates(self):
        diagnosis = diagnose(classify(Gated(-25.0)))
        assert diagnosis.findings[0].rule == "vanishing_typical"
        assert "gates" in diagnosis.action
        assert diagnose(classify(Gated(0.0))).verdict is Verdict.HEALTHY

    @pytest.mark.parametrize(
        ("residuals", "role", "there"),
        [
            ((), "activation", {"residual connections", "normalization"}),
            ((), "normalization", {"residual connections"}),
            ((residual(normalization="before"),), "activation", set()),
            ((residual(),), "activation", {"normalization"}),
        ],
    )
    def test_only_what_is_missing(self, residuals, role, there):
        weights = [parameter(f"{x}.weight", at, grad_norm=1e-9) for at, x in ((1, "a"), (2, "b"))]
        calls = [
            call("a", layer=1),
            call("n", "Some", role),
            call("b", layer=2),
            call("out", "Loss", "other", gradient=1.0, shape=(1, 4)),
        ]
        diagnosis = diagnose(make_flow(calls, weights, residuals=residuals))
        assert diagnosis.verdict is Verdict.VANISHING
        named = {x for x in ("residual connections", "normalization") if x in diagnosis.action}
        assert named == there

    def test_a_decay_is_named_where_nothing_normalizes(self):
        diagnosis = diagnose(classify(Euler(injects=False)))
        assert "normalization" not in f"{diagnosis.findings[0].reason} {diagnosis.action}"
        assert "decay" in diagnosis.action
