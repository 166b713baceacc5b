"""Attention in a measurement, against weights and entropies written out by hand in float64."""

import contextlib
import math

import pytest
import torch
import torch.utils.checkpoint
from torch import nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

import chainrule
from chainrule.errors import FlowFileError
from chainrule.flow.loading import Limits, decode_flow
from chainrule.measure.attention import AttentionWatch
from chainrule.measure.modules import take_inventory
from model_zoo import tokens
from zoo import Lambda, draw

CLOSE = {"rel": 1e-9, "abs": 1e-12}


def entropies(weights, allowed):
    """Return relative entropies by head, without any tensor operation: lists of rows with a choice.

    weights is [examples, heads, queries, keys]; allowed(example, head, query, key) says who may
    attend to what.
    """
    examples, heads, queries, keys = weights.shape
    rows = [[] for _ in range(heads)]
    for b in range(examples):
        for h in range(heads):
            for q in range(queries):
                chosen = [k for k in range(keys) if allowed(b, h, q, k)]
                if len(chosen) > 1:
                    p = [weights[b, h, q, k].item() for k in chosen]
                    total = -sum(each * math.log(each) for each in p if each > 0)
                    rows[h].append(total / math.log(len(chosen)))
    return rows


def softmax_by_hand(q, k, *, scale, bias=None, allowed):
    """Return softmax(scale · q kᵀ + bias) over the allowed keys, [examples, heads, queries, keys].

    q and k are [examples, heads, positions, features]; loops and `math.exp` only.
    """
    examples, heads, queries, _ = q.shape
    keys = k.shape[-2]
    weights = torch.zeros(examples, heads, queries, keys, dtype=torch.float64)
    for b in range(examples):
        for h in range(heads):
            shared = h // (heads // k.shape[1])  # grouped heads read the same keys
            for i in range(queries):
                scores = {
                    j: scale * sum((q[b, h, i] * k[b, shared, j]).tolist())
                    + (bias(b, h, i, j) if bias else 0.0)
                    for j in range(keys)
                    if allowed(b, h, i, j)
                }
                if scores:
                    most = max(scores.values())
                    total = sum(math.exp(each - most) for each in scores.values())
                    for j, each in scores.items():
                        weights[b, h, i, j] = math.exp(each - most) / total
    return weights


def assert_is(attention, rows, sizes=None):
    """Compare a measured computation of attention with rows of relative entropies by head."""
    every = [each for head in rows for each in head]
    means = [sum(head) / len(head) for head in rows if head]
    assert attention.entropy == pytest.approx(sum(every) / len(every), **CLOSE)
    assert attention.one_hot == pytest.approx(sum(m < 0.05 for m in means) / len(means))
    assert attention.uniform == pytest.approx(sum(m > 0.95 for m in means) / len(means))
    if sizes:
        assert (attention.heads, attention.queries, attention.keys) == sizes


def look(function, *parts):
    """Return what is measured when a module's forward pass is this function of its input."""
    names = {f"part{i}": part for i, part in enumerate(parts)}
    model = Lambda(lambda m, x: function(m, m.lin(x)), lin=nn.Linear(6, 6), **names).double()
    x = draw(4, 5, 6)
    flow = chainrule.inspect(model, lambda m: m(x).square().mean())
    return flow.attentions, model.lin(x)


# --- The fused function --------------------------------------------------------------------------

CAUSAL = {"is_causal": True}
BARS = torch.tensor([[0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 0, 1], [1, 0, 1, 0, 1], [0] * 5])


def heads_of(x, heads):
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


def ends(x):
    """The examples that are looked at: of more than two, the first and the last."""
    return x if len(x) < 3 else x[[0, -1]]


@pytest.mark.parametrize("scale", [None, 0.3, 20.0])
@pytest.mark.parametrize(
    ("options", "allowed", "bias"),
    [
        ({}, lambda b, h, i, j: True, None),
        (CAUSAL, lambda b, h, i, j: j <= i, None),
        ({"attn_mask": BARS.bool()}, lambda b, h, i, j: BARS[i, j] > 0, None),
        (
            {"attn_mask": torch.zeros(5, 5).double().masked_fill(BARS == 0, -torch.inf)},
            lambda b, h, i, j: BARS[i, j] > 0,
            None,
        ),
        (
            {"attn_mask": torch.where(BARS > 0, BARS / 3, -1e9).double()[None, None]},
            lambda b, h, i, j: BARS[i, j] > 0,
            lambda b, h, i, j: float(BARS[i, j]) / 3,
        ),
        (
            {"attn_mask": torch.arange(10.0).double().reshape(2, 1, 5)},  # a bias for each head
            lambda b, h, i, j: True,
            lambda b, h, i, j: 5.0 * h + j,
        ),
        (
            {"attn_mask": (torch.arange(5) < torch.tensor([[5], [3], [2], [1]]))[:, None, None]},
            lambda b, h, i, j: j < (5, 1)[b],  # padded examples, of which the last has one token
            None,
        ),
        ({"dropout_p": 0.5}, lambda b, h, i, j: True, None),
    ],
)
def test_fused(options, allowed, bias, scale):
    def run(m, x):
        q, k = heads_of(x, 2), heads_of(x.flip(-1), 2)
        return F.scaled_dot_product_attention(q, k, q, scale=scale, **options)

    torch.manual_seed(0)
    (attention,), x = look(run)
    q, k = ends(heads_of(x, 2)), ends(heads_of(x.flip(-1), 2))
    used = 3**-0.5 if scale is None else scale
    weights = softmax_by_hand(q, k, scale=used, bias=bias, allowed=allowed)
    assert_is(attention, entropies(weights, allowed), (2, 5, 5))
    assert (attention.name, attention.label) == ("", "(model)")


def test_fused_with_grouped_heads():
    def run(m, x):
        q, k = heads_of(x, 6), heads_of(x.flip(-1)[..., :2], 2)
        return F.scaled_dot_product_attention(q, k, k, enable_gqa=True, is_causal=True)

    (attention,), x = look(run)
    q, k = ends(heads_of(x, 6)), ends(heads_of(x.flip(-1)[..., :2], 2))

    def allowed(b, h, i, j):
        return j <= i

    weights = softmax_by_hand(q, k, scale=1.0, allowed=allowed)
    assert_is(attention, entropies(weights, allowed), (6, 5, 5))


def test_fused_in_other_shapes():
    def allowed(*_):
        return True

    (attention,), x = look(lambda m, x: F.scaled_dot_product_attention(x, x, x))
    weights = softmax_by_hand(x[:, None], x[:, None], scale=6**-0.5, allowed=allowed)
    assert_is(
        attention, [[each for rows in entropies(weights, allowed) for each in rows]], (1, 5, 5)
    )

    def run(m, x):  # windows: [examples, windows, heads, queries, features]
        q = heads_of(x, 2)[:, None].expand(4, 3, 2, 5, 3)
        return F.scaled_dot_product_attention(q, q, q)

    (attention,), x = look(run)
    q = ends(heads_of(x, 2))
    weights = softmax_by_hand(q, q, scale=3**-0.5, allowed=allowed)
    assert_is(attention, entropies(weights, allowed), (2, 5, 5))


def test_of_many_queries_and_examples_some_are_looked_at():
    torch.manual_seed(0)
    q, k = draw(5, 2, 50, 4), draw(5, 2, 70, 4)
    model = Lambda(lambda m, x: m.lin(F.scaled_dot_product_attention(x, k, k)), lin=nn.Linear(4, 1))
    flow = chainrule.inspect(model.double(), lambda m: m(q).sum())
    rows = [0, 3, 7, 10, 13, 16, 20, 23, 26, 29, 33, 36, 39, 42, 46, 49]  # 49 · i ÷ 15, rounded

    def allowed(*_):
        return True

    weights = softmax_by_hand(ends(q)[:, :, rows], ends(k), scale=0.5, allowed=allowed)
    assert_is(flow.attentions[0], entropies(weights, allowed), (2, 50, 70))


def test_a_query_without_a_choice_is_left_out():
    assert look(lambda m, x: F.scaled_dot_product_attention(x[:, :1], x[:, :1], x[:, :1]))[0] == ()
    one = torch.eye(5).bool()
    run = F.scaled_dot_product_attention
    assert look(lambda m, x: run(x, x, x, attn_mask=one))[0] == ()
    one[0, 1] = True
    (attention,), x = look(lambda m, x: run(x, x, x, attn_mask=one))
    p = (x[:, 0, None] @ x[:, :2].mT / 6**0.5).softmax(-1)
    assert attention.entropy == pytest.approx(
        (-(p * p.log()).sum(-1) / math.log(2)).mean().item(), **CLOSE
    )


# --- Softmax between two products ----------------------------------------------------------------


def everything(b, h, i, j):
    return True


def causal(b, h, i, j):
    return j <= i


LATER = torch.ones(5, 5).triu(1).bool()


def weigh_by_function(scores, m):
    return F.softmax(scores.masked_fill(LATER, -torch.inf), dim=-1)


def weigh_in_place(scores, m):
    scores *= 1.0
    scores += LATER * -1e9
    return torch.softmax(scores, 3)


def weigh_by_module(scores, m):
    return m.part0(torch.where(LATER, -1e4, scores))


def weigh_and_drop(scores, m):
    mask = LATER.float() * torch.finfo(torch.float32).min
    return F.dropout((scores + mask).softmax(dim=-1).type_as(scores), 0.5).contiguous()


@pytest.mark.parametrize("product", ["matmul", "einsum", "bmm"])
@pytest.mark.parametrize(
    "weigh", [weigh_by_function, weigh_in_place, weigh_by_module, weigh_and_drop]
)
def test_written_out(weigh, product):
    def run(m, x):
        q, k = heads_of(x, 2), heads_of(x.flip(-1), 2)
        if product == "matmul":
            return weigh(q @ k.transpose(-1, -2) * 0.5, m) @ q
        if product == "einsum":
            scores = torch.einsum("bhqd,bhkd->bhqk", q / 2, k)
            return torch.einsum("bhqk,bhkd->bqhd", weigh(scores, m), q)
        scores = torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT).view(4, 2, 5, 5) / 2.0
        return torch.bmm(weigh(scores, m).view(8, 5, 5), q.flatten(0, 1))

    torch.manual_seed(0)
    (attention,), x = look(run, nn.Softmax(dim=-1))
    q, k = ends(heads_of(x, 2)), ends(heads_of(x.flip(-1), 2))
    weights = softmax_by_hand(q, k, scale=0.5, allowed=causal)
    assert_is(attention, entropies(weights, causal), (2, 5, 5))


@pytest.mark.parametrize("factor", [1e2, 1e4, 1e6])
def test_large_scores_are_no_mask(factor):
    def run(m, x):
        return F.softmax(x @ x.mT * factor, -1) @ x

    (attention,), x = look(run)

    def allowed(*_):
        return True

    weights = softmax_by_hand(x[:, None], x[:, None], scale=factor, allowed=allowed)
    assert_is(attention, [[each for rows in entropies(weights, allowed) for each in rows]])
    assert attention.entropy < 0.2


def test_low_scores_beside_high_ones_are_no_mask():
    keys = torch.tensor([[15_000.0], [15_000.0], [-20_000.0]]).double()

    def run(m, x):
        return F.softmax((x[:, :, :1] * 0 + 1) @ keys.mT, -1) @ keys

    (attention,), _ = look(run)
    assert attention.entropy == pytest.approx(math.log(2) / math.log(3), **CLOSE)


def test_scores_that_are_overwritten_later():
    def run(m, x):
        scores = x @ x.mT
        weights = scores.softmax(-1)
        scores.detach().zero_()
        return weights @ x

    (attention,), x = look(run)
    weights = softmax_by_hand(x[:, None], x[:, None], scale=1.0, allowed=everything)
    assert_is(attention, [[each for rows in entropies(weights, everything) for each in rows]])


def test_many_products_hold_no_memory():
    watch = AttentionWatch(take_inventory(nn.Linear(1, 1)))
    kept = []
    with watch:
        for _ in range(100):
            kept.append(torch.ones(2, 2) @ torch.ones(2, 2))
            assert len(watch._tracked) <= 16
    assert not watch._tracked


def test_tensors_of_other_kinds_are_let_pass():
    class Odd(torch.Tensor):
        pass

    def run(m, x):
        out = F.scaled_dot_product_attention(x.as_subclass(Odd), x, x)
        return out.as_subclass(torch.Tensor)

    assert look(run)[0] == ()


def test_what_is_no_attention():
    """Gates, mixtures, classes and tied output layers have a softmax as well."""
    gate, codes = nn.Linear(6, 3), draw(3, 6)
    table = nn.Parameter(draw(7, 6))
    assert look(lambda m, x: F.softmax(m.part0(x), -1) @ codes, gate)[0] == ()
    assert look(lambda m, x: F.softmax(x @ table.t(), -1) @ table)[0] == ()
    assert look(lambda m, x: F.softmax(x @ x.mT, -1))[0] == ()
    assert look(lambda m, x: F.softmax(x @ x.mT, -1) * (x @ x.mT))[0] == ()
    assert look(lambda m, x: F.softmax(x @ x.mT, 1) @ x)[0] == ()
    assert look(lambda m, x: F.softmax(x @ x.mT, -1) @ torch.ones(5).double())[0] == ()
    assert look(lambda m, x: (x @ x.mT) @ x)[0] == ()


# --- torch.nn ------------------------------------------------------------------------------------


@pytest.mark.parametrize("reused", ["scores", "carried", "weights"])
def test_a_tensor_in_the_place_of_one_that_is_gone_is_another(reused):
    """Python gives a new object the number of one that was deleted; tensors are followed by it."""
    found = []

    def run(m, x):
        for _ in range(100):
            product = x @ x.mT
            gone = product.softmax(-1) if reused == "weights" else product
            number = id(gone)
            del product, gone
            made = [x.sin() for _ in range(10)]
            if same := [each for each in made if id(each) == number]:
                found.append(number)
                other = same[0]
                break
        else:
            pytest.skip("no new tensor was put in the place of the one that is gone")
        if reused == "weights":
            return other @ x.mT
        return (other / 2.0 if reused == "carried" else other).softmax(-1) @ x.mT

    attentions, _ = look(run)
    assert found
    assert attentions == ()


def attend_by_hand(mha, q, k, allowed):
    """Return the weights of `nn.MultiheadAttention` from its parameters."""
    width, heads = mha.embed_dim, mha.num_heads
    if mha.in_proj_weight is not None:
        wq, wk = mha.in_proj_weight[:width], mha.in_proj_weight[width : 2 * width]
    else:
        wq, wk = mha.q_proj_weight, mha.k_proj_weight
    bq, bk = mha.in_proj_bias[:width], mha.in_proj_bias[width : 2 * width]
    q, k = heads_of(q @ wq.T + bq, heads), heads_of(k @ wk.T + bk, heads)
    return softmax_by_hand(ends(q), ends(k), scale=(width / heads) ** -0.5, allowed=allowed)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("case", ["plain", "causal", "padded", "cross", "sequence first"])
def test_multihead_attention(case, need_weights):
    torch.manual_seed(0)
    cross = {"kdim": 3, "vdim": 3} if case == "cross" else {}
    mha = nn.MultiheadAttention(6, 2, dropout=0.2, batch_first=case != "sequence first", **cross)
    nn.init.normal_(mha.in_proj_bias)
    options = {
        "causal": {"attn_mask": LATER, "is_causal": not need_weights},
        "padded": {"key_padding_mask": torch.arange(5) >= torch.tensor([[5], [2], [3], [3]])},
    }.get(case, {})
    lengths = (5, 3) if case == "padded" else (5, 5)

    def allowed(b, h, i, j):
        return j < lengths[b] and (case != "causal" or j <= i)

    def run(m, x):
        keys = x[..., :3] if case == "cross" else x
        out, _ = m.part0(x, keys, keys, need_weights=need_weights, **options)
        return out

    (attention,), x = look(run, mha)
    x = x.transpose(0, 1) if case == "sequence first" else x
    weights = attend_by_hand(mha, x, x[..., :3] if case == "cross" else x, allowed)
    assert_is(attention, entropies(weights, allowed), (2, *x.shape[1:2] * 2))
    assert attention.name == "part0"


def test_transformer_encoder():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(6, 2, 12, dropout=0.0, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).double()
    x, padded = draw(4, 5, 6), torch.arange(5) >= torch.tensor([[5], [2], [3], [3]])
    flow = chainrule.inspect(encoder, lambda m: m(x, src_key_padding_mask=padded).square().mean())
    names = ["layers.0.self_attn", "layers.1.self_attn"]
    assert [each.name for each in flow.attentions] == names
    hidden = x
    for attention, block in zip(flow.attentions, encoder.layers, strict=True):

        def allowed(b, h, i, j):
            return j < (5, 3)[b]

        weights = attend_by_hand(block.self_attn, hidden, hidden, allowed)
        assert_is(attention, entropies(weights, allowed), (2, 5, 5))
        hidden = block(hidden, src_key_padding_mask=padded)


def test_a_module_called_twice():
    mha = nn.MultiheadAttention(6, 2, batch_first=True)
    (first, second), _ = look(lambda m, x: m.part0(m.part0(x, x, x)[0], x, x)[0], mha)
    assert (first.label, second.label) == ("part0", "part0 (call 2)")


# --- transformers --------------------------------------------------------------------------------


def widen(net):
    """Make weights large enough for attention that is neither uniform nor one-hot."""
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if parameter.dim() > 1 and "layer_norm" not in name:
                parameter.mul_(8.0 if "relative_attention_bias" not in name else 1.0)
    return net.double().eval()


def build_gpt2(kind):
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=40, n_positions=16, n_embd=16, n_layer=2, n_head=4, use_cache=False,
        bos_token_id=1, eos_token_id=1, attn_implementation=kind,
    )  # fmt: skip
    ids = tokens(3, 9)
    return GPT2LMHeadModel(config), {"input_ids": ids, "labels": ids}, {"attentions": causal}


def build_llama(kind):
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=40, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16, use_cache=False,
        attn_implementation=kind,
    )  # fmt: skip
    ids = tokens(3, 9)
    return LlamaForCausalLM(config), {"input_ids": ids, "labels": ids}, {"attentions": causal}


def build_bert(kind):
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=24, max_position_embeddings=16, num_labels=3, attn_implementation=kind,
    )  # fmt: skip
    mask = (torch.arange(9) < torch.tensor([[9], [4], [6]])).long()
    batch = {"input_ids": tokens(3, 9), "labels": torch.tensor([0, 1, 2]), "attention_mask": mask}
    allowed = {"attentions": lambda b, h, i, j: j < (9, 6)[b]}
    return BertForSequenceClassification(config), batch, allowed


def build_t5(kind):
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=40, d_model=16, d_kv=4, d_ff=24, num_layers=2, num_heads=4,
        decoder_start_token_id=0, use_cache=False, attn_implementation=kind,
    )  # fmt: skip
    mask = (torch.arange(9) < torch.tensor([[9], [4], [6]])).long()
    batch = {"input_ids": tokens(3, 9), "labels": tokens(3, 7), "attention_mask": mask}

    def padded(b, h, i, j):
        return j < (9, 6)[b]

    return (
        T5ForConditionalGeneration(config),
        batch,
        {"encoder_attentions": padded, "decoder_attentions": causal, "cross_attentions": padded},
    )


def build_vit(kind):
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=4, intermediate_size=24,
        image_size=12, patch_size=4, num_channels=3, num_labels=4, attn_implementation=kind,
    )  # fmt: skip
    batch = {"pixel_values": draw(3, 3, 12, 12), "labels": torch.tensor([0, 1, 2])}
    return ViTForImageClassification(config), batch, {"attentions": everything}


def build_whisper(kind):
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=40, d_model=16, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=24, decoder_ffn_dim=24, num_mel_bins=8,
        max_source_positions=8, max_target_positions=16, decoder_start_token_id=1,
        pad_token_id=0, bos_token_id=1, eos_token_id=1, use_cache=False, suppress_tokens=[],
        begin_suppress_tokens=[], attn_implementation=kind,
    )  # fmt: skip
    batch = {"input_features": draw(3, 8, 16), "labels": tokens(3, 7)}
    return (
        WhisperForConditionalGeneration(config),
        batch,
        {
            "encoder_attentions": everything,
            "decoder_attentions": causal,
            "cross_attentions": everything,
        },
    )


@pytest.mark.parametrize("kind", ["eager", "sdpa"])
@pytest.mark.parametrize(
    ("build", "names"),
    [
        (build_gpt2, {"attentions": "transformer.h.{}.attn"}),
        (build_llama, {"attentions": "model.layers.{}.self_attn"}),
        (build_bert, {"attentions": "bert.encoder.layer.{}.attention.self"}),
        (
            build_t5,
            {
                "encoder_attentions": "encoder.block.{}.layer.0.SelfAttention",
                "decoder_attentions": "decoder.block.{}.layer.0.SelfAttention",
                "cross_attentions": "decoder.block.{}.layer.1.EncDecAttention",
            },
        ),
        (build_vit, {"attentions": "vit.layers.{}.attention"}),
        (
            build_whisper,
            {
                "encoder_attentions": "model.encoder.layers.{}.self_attn",
                "decoder_attentions": "model.decoder.layers.{}.self_attn",
                "cross_attentions": "model.decoder.layers.{}.encoder_attn",
            },
        ),
    ],
)
def test_transformers(build, names, kind):
    """The models' own attention weights, which they hand out, against what is measured."""
    torch.manual_seed(0)
    model, batch, allowed = build(kind)
    model = widen(model)
    torch.manual_seed(0)
    plain = widen(build("eager")[0])
    with torch.no_grad():
        answer = plain(**batch, output_attentions=True)
    flow = chainrule.inspect(model, lambda m: m(**batch).loss)
    found = {each.name: each for each in flow.attentions}
    assert len(found) == len(flow.attentions) == 2 * len(names)
    for key, name in names.items():
        for number, weights in enumerate(answer[key]):
            rows = entropies(ends(weights), allowed[key])
            attention = found[name.format(number)]
            assert attention.entropy == pytest.approx(
                sum(map(sum, rows)) / sum(map(len, rows)), rel=1e-6
            )
            assert 0.02 < attention.entropy < 0.995  # so that a mistake would show
            sizes = attention.heads, attention.queries, attention.keys
            assert sizes == tuple(weights.shape[1:])


# --- Where and when it is seen -------------------------------------------------------------------


class Attention(nn.Module):
    def __init__(self):
        super().__init__()
        self.qkv = nn.Linear(6, 18)

    def forward(self, x):
        return F.scaled_dot_product_attention(*self.qkv(x).chunk(3, -1))


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_checkpoints_are_seen_once(use_reentrant):
    def run(m, x):
        return torch.utils.checkpoint.checkpoint(m.part0, x, use_reentrant=use_reentrant)

    torch.manual_seed(0)
    (attention,), _ = look(run, Attention())
    torch.manual_seed(0)
    (plain,), _ = look(lambda m, x: m.part0(x), Attention())
    assert attention == plain


def test_a_checkpoint_that_keeps_products_keeps_only_the_models():
    keep = [torch.ops.aten.bmm.default, torch.ops.aten._softmax.default]
    contexts = torch.utils.checkpoint.create_selective_checkpoint_contexts

    class Written(Attention):
        def forward(self, x):
            for _ in range(2):
                q, k, v = self.qkv(x).chunk(3, -1)
                x = torch.bmm(torch.bmm(q, k.mT).softmax(-1), v)
            return x

    def run(m, x):
        return torch.utils.checkpoint.checkpoint(
            m.part0, x, use_reentrant=False, context_fn=lambda: contexts(keep)
        )

    model = Lambda(run, part0=Written()).double()
    x = draw(3, 5, 6, grad=True)
    gradients = torch.autograd.grad(model(x).sum(), list(model.parameters()))
    flow = chainrule.inspect(model, lambda m: m(x).sum())
    assert len(flow.attentions) == 2
    for parameter, gradient in zip(flow.parameters, gradients, strict=True):
        assert parameter.grad_norm == pytest.approx(gradient.norm().item(), rel=1e-12)


def test_without_gradients():
    def run(m, x):
        with torch.no_grad():
            extra = m.part0(x)
        return x + extra

    (attention,), _ = look(run, Attention())
    assert attention.name == "part0"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("fused", [False, True])
def test_half_precision(dtype, fused):
    q = draw(2, 3, 5, 4).to(dtype)
    k = draw(2, 3, 5, 4).to(dtype)
    low = torch.finfo(dtype).min
    mask = torch.zeros(5, 5, dtype=dtype).masked_fill(LATER, low)

    def run(m, x):
        if fused:
            return F.scaled_dot_product_attention(q * m.one, k, k, attn_mask=mask)
        scores = (q * m.one) @ k.mT * 0.5 + mask
        return F.softmax(scores, dim=-1, dtype=torch.float32).to(dtype) @ k

    model = Lambda(run)
    model.one = nn.Parameter(torch.ones((), dtype=dtype))
    flow = chainrule.inspect(model, lambda m: m(q).float().sum())
    weights = softmax_by_hand(q.double(), k.double(), scale=0.5, allowed=causal)
    rows = entropies(weights, causal)
    expected = sum(map(sum, rows)) / sum(map(len, rows))
    # Scores written out are rounded before they are seen.
    assert flow.attentions[0].entropy == pytest.approx(expected, rel=1e-5 if fused else 2e-2)


def test_autocast_and_other_watchers_see_nothing_of_it():
    seen = []

    class Others(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            seen.append(getattr(func, "__name__", ""))
            return func(*args, **(kwargs or {}))

    model, x = Attention(), draw(2, 5, 6).float()
    with torch.autocast("cpu", torch.bfloat16), Others():
        flow = chainrule.inspect(model, lambda m: m(x).float().sum())
        count = len(seen)
    assert count
    assert "special_entr" not in seen
    assert "entr" not in seen
    assert seen.count("scaled_dot_product_attention") == 1
    q, k, _ = F.linear(x.bfloat16(), *(p.bfloat16() for p in model.parameters())).chunk(3, -1)
    weights = softmax_by_hand(
        q[:, None].double(), k[:, None].double(), scale=6**-0.5, allowed=everything
    )
    rows = [each for rows in entropies(weights, everything) for each in rows]
    assert flow.attentions[0].entropy == pytest.approx(sum(rows) / len(rows), rel=1e-6)


def fail(m, x):
    m.part0(x)
    raise RuntimeError("no")


def test_no_mode_and_no_hook_stays():
    model = Lambda(fail, part0=Attention())
    with pytest.raises(chainrule.errors.InspectionError, match="no"):
        chainrule.inspect(model, lambda m: m(torch.ones(2, 5, 6)))
    assert torch._C._len_torch_function_stack() == 0
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._forward_hooks_always_called


def test_a_mode_that_somebody_leaves_open_is_left_to_them():
    class Idle(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            return func(*args, **(kwargs or {}))

    mode, model, x = Idle(), Attention(), torch.ones(2, 5, 6)

    def compute_loss(m):
        mode.__enter__()
        return m(x).sum()

    chainrule.inspect(model, compute_loss)
    assert torch._C._len_torch_function_stack() == 1
    assert torch._C._pop_torch_function_stack() is mode


def test_a_block_that_fails_and_is_replaced_leaves_names_right():
    def run(m, x):
        with contextlib.suppress(RuntimeError):
            m.part0(x)
        return F.scaled_dot_product_attention(x, x, m.part1(x))

    (first, second), _ = look(run, Lambda(fail, part0=nn.Linear(6, 6)), Attention())
    assert (first.name, second.name) == ("part1", "")


def test_not_a_number_in_attention():
    (attention,), _ = look(lambda m, x: F.softmax(x * math.nan @ x.mT, -1) @ x)
    assert math.isnan(attention.entropy)
    (attention,), _ = look(lambda m, x: F.scaled_dot_product_attention(x * math.nan, x, x))
    assert math.isnan(attention.entropy)
    assert attention.one_hot == attention.uniform == 0.0


# --- Files ---------------------------------------------------------------------------------------


def test_files():
    flow = chainrule.inspect(Attention(), lambda m: m(torch.ones(2, 5, 6)).sum())
    text = flow.to_json()
    assert decode_flow(text) == flow
    with pytest.raises(FlowFileError, match="attentions"):
        decode_flow(text.replace('"entropy":', '"entropy":[1.0,2.0],"old":'))
    with pytest.raises(FlowFileError, match=r"attentions\.0\.uniform.*share from 0 to 1"):
        decode_flow(text.replace('"uniform":1.0', '"uniform":1.5'))
    entries = decode_flow(text, limits=Limits(entries=3))
    assert entries == flow
    many = text.replace('"attentions":[', '"attentions":[' + "{}," * 4)
    with pytest.raises(FlowFileError, match="at most 3 entries in attentions"):
        decode_flow(many, limits=Limits(entries=3))
