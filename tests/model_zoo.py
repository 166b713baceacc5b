"""Models as people have them, tiny and randomly initialised, each with a task it can learn.

Each function returns (model, compute_loss). The architectures of `transformers` are built from
configurations, so nothing is downloaded. Everything is seeded; `TRAINS` tells the learning rate of
Adam at which a short training was seen to work (see `test_model_zoo`).
"""

import math
import os
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

os.environ["HF_HUB_OFFLINE"] = "1"

Case = tuple[nn.Module, Callable[[nn.Module], Tensor]]
MODELS: dict[str, Callable[[], Case]] = {}


def model(build: Callable[[], Case]) -> Callable[[], Case]:
    """Add a function to the zoo; it is seeded whenever it is called."""

    def build_seeded() -> Case:
        torch.manual_seed(3)
        return build()

    MODELS[build.__name__] = build_seeded
    return build_seeded


def tokens(*shape: int, high: int = 40) -> Tensor:
    return torch.randint(2, high, shape)


def silence(net: nn.Module) -> nn.Module:
    """Turn dropout off, so that a loss is the same whenever it is computed."""
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


# --- Architectures of transformers ---------------------------------------------------------------


@model
def gpt2() -> Case:
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=40, n_positions=16, n_embd=32, n_layer=4, n_head=4, use_cache=False
    )
    ids = tokens(8, 12)
    return silence(GPT2LMHeadModel(config)), lambda m: m(input_ids=ids, labels=ids).loss


@model
def llama() -> Case:
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=40, hidden_size=32, intermediate_size=64, num_hidden_layers=4,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=16, use_cache=False,
    )  # fmt: skip
    ids = tokens(8, 12)
    return LlamaForCausalLM(config), lambda m: m(input_ids=ids, labels=ids).loss


@model
def mixtral() -> Case:
    from transformers import MixtralConfig, MixtralForCausalLM

    config = MixtralConfig(
        vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, num_local_experts=4, num_experts_per_tok=2,
        max_position_embeddings=16, use_cache=False, experts_implementation="eager",
    )  # fmt: skip
    ids = tokens(8, 12)
    return MixtralForCausalLM(config), lambda m: m(input_ids=ids, labels=ids).loss


@model
def bert() -> Case:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=4, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=16, num_labels=3,
    )  # fmt: skip
    ids, labels = tokens(12, 10), torch.randint(0, 3, (12,))
    net = silence(BertForSequenceClassification(config))
    return net, lambda m: m(input_ids=ids, labels=labels).loss


@model
def t5() -> Case:
    from transformers import T5Config, T5ForConditionalGeneration

    config = T5Config(
        vocab_size=40, d_model=32, d_kv=8, d_ff=64, num_layers=3, num_heads=4,
        decoder_start_token_id=0, use_cache=False,
    )  # fmt: skip
    ids, labels = tokens(8, 10), tokens(8, 7)
    net = silence(T5ForConditionalGeneration(config))
    return net, lambda m: m(input_ids=ids, labels=labels).loss


@model
def vit() -> Case:
    from transformers import ViTConfig, ViTForImageClassification

    config = ViTConfig(
        hidden_size=32, num_hidden_layers=4, num_attention_heads=4, intermediate_size=64,
        image_size=16, patch_size=4, num_channels=3, num_labels=4,
    )  # fmt: skip
    images, labels = torch.randn(12, 3, 16, 16), torch.randint(0, 4, (12,))
    net = silence(ViTForImageClassification(config))
    return net, lambda m: m(pixel_values=images.to(m.dtype), labels=labels).loss


@model
def mamba() -> Case:
    from transformers import MambaConfig, MambaForCausalLM

    config = MambaConfig(
        vocab_size=40, hidden_size=32, state_size=8, num_hidden_layers=3, use_cache=False
    )
    ids = tokens(8, 12)
    return MambaForCausalLM(config), lambda m: m(input_ids=ids, labels=ids).loss


@model
def whisper() -> Case:
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    config = WhisperConfig(
        vocab_size=40, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
        decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64, num_mel_bins=8,
        max_source_positions=16, max_target_positions=16, decoder_start_token_id=1,
        pad_token_id=0, bos_token_id=1, eos_token_id=1, use_cache=False, suppress_tokens=[],
        begin_suppress_tokens=[],
    )  # fmt: skip
    sound, labels = torch.randn(4, 8, 32), tokens(4, 7)
    net = silence(WhisperForConditionalGeneration(config))
    return net, lambda m: m(input_features=sound.to(m.dtype), labels=labels).loss


@model
def wav2vec2() -> Case:
    from transformers import Wav2Vec2Config, Wav2Vec2ForCTC

    config = Wav2Vec2Config(
        vocab_size=12, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, conv_dim=(16, 16), conv_stride=(4, 2), conv_kernel=(8, 4),
        num_feat_extract_layers=2, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4,
        mask_time_prob=0.0, layerdrop=0.0, ctc_loss_reduction="mean", feat_proj_dropout=0.0,
        hidden_dropout=0.0, attention_dropout=0.0, activation_dropout=0.0, final_dropout=0.0,
    )  # fmt: skip
    sound, labels = torch.randn(4, 160), torch.randint(1, 12, (4, 4))
    net = Wav2Vec2ForCTC(config)
    return net, lambda m: m(input_values=sound.to(m.dtype), labels=labels).loss


# --- Architectures of torch.nn -------------------------------------------------------------------


class Sequences(nn.Module):
    """A recurrent network that reads a sequence of tokens and names one of three classes."""

    def __init__(self, kind: type[nn.RNNBase], layers: int = 2) -> None:
        super().__init__()
        self.embedding = nn.Embedding(40, 16)
        self.rnn = kind(16, 24, num_layers=layers, batch_first=True)
        self.head = nn.Linear(24, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.rnn(self.embedding(ids))[0][:, -1])


def _recurrent(kind: type[nn.RNNBase]) -> Case:
    ids, labels = tokens(16, 8), torch.randint(0, 3, (16,))
    return Sequences(kind), lambda m: F.cross_entropy(m(ids), labels)


@model
def rnn() -> Case:
    return _recurrent(nn.RNN)


@model
def lstm() -> Case:
    return _recurrent(nn.LSTM)


@model
def gru() -> Case:
    return _recurrent(nn.GRU)


class Translator(nn.Module):
    """`nn.Transformer`, which is post-norm unless told otherwise."""

    def __init__(self, *, norm_first: bool, layers: int = 2) -> None:
        super().__init__()
        self.source, self.target = nn.Embedding(40, 32), nn.Embedding(40, 32)
        options = {"dropout": 0.0, "batch_first": True, "norm_first": norm_first}
        norms = [nn.LayerNorm(32) if norm_first else None for _ in range(2)]
        encoder, decoder = (
            kind(32, 4, 64, **options)
            for kind in (nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
        )
        self.body = nn.Transformer(
            32, 4, batch_first=True,
            custom_encoder=nn.TransformerEncoder(
                encoder, layers, norms[0], enable_nested_tensor=False
            ),
            custom_decoder=nn.TransformerDecoder(decoder, layers, norms[1]),
        )  # fmt: skip
        self.head = nn.Linear(32, 40)

    def forward(self, ids: Tensor, out: Tensor) -> Tensor:
        mask = self.body.generate_square_subsequent_mask(out.shape[1]).to(self.head.weight.dtype)
        return self.head(self.body(self.source(ids), self.target(out), tgt_mask=mask))


def _translate(norm_first: bool) -> Case:
    ids, out = tokens(8, 10), tokens(8, 9)

    def compute_loss(m: nn.Module) -> Tensor:
        return F.cross_entropy(m(ids, out[:, :-1]).flatten(0, 1), out[:, 1:].flatten())

    return Translator(norm_first=norm_first), compute_loss


@model
def transformer_post_norm() -> Case:
    return _translate(norm_first=False)


@model
def transformer_pre_norm() -> Case:
    return _translate(norm_first=True)


class BasicBlock(nn.Module):
    """A block of He et al. 2016: its sum goes through a ReLU that works in place."""

    def __init__(self, before: int, after: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.downsample: nn.Module | None = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        identity = x if self.downsample is None else self.downsample(x)
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += identity
        return self.relu(out)


@model
def resnet() -> Case:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 1, 1, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(inplace=True),
        BasicBlock(8, 8),
        BasicBlock(8, 16, 2),
        BasicBlock(16, 16),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    )
    images, labels = torch.randn(16, 3, 8, 8), torch.randint(0, 4, (16,))
    return net, lambda m: F.cross_entropy(m(images.to(m[0].weight.dtype)), labels)


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = self._double(1, 8), self._double(8, 16)
        self.pool = nn.MaxPool2d(2)
        self.bottom = self._double(16, 32)
        self.lift2, self.up2 = nn.ConvTranspose2d(32, 16, 2, 2), self._double(32, 16)
        self.lift1, self.up1 = nn.ConvTranspose2d(16, 8, 2, 2), self._double(16, 8)
        self.head = nn.Conv2d(8, 1, 1)

    @staticmethod
    def _double(before: int, after: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1), nn.BatchNorm2d(after), nn.ReLU(inplace=True),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        first = self.down1(x)
        second = self.down2(self.pool(first))
        out = self.lift2(self.bottom(self.pool(second)))
        out = self.lift1(self.up2(torch.cat([out, second], dim=1)))
        return self.head(self.up1(torch.cat([out, first], dim=1)))


@model
def unet() -> Case:
    images = torch.randn(4, 1, 16, 16)
    masks = (images > 0.5).float()

    def compute_loss(m: nn.Module) -> Tensor:
        dtype = m.head.weight.dtype
        return F.binary_cross_entropy_with_logits(m(images.to(dtype)), masks.to(dtype))

    return UNet(), compute_loss


class Adversaries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.generator = nn.Sequential(
            nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16), nn.Tanh()
        )
        self.discriminator = nn.Sequential(nn.Linear(16, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))


@model
def gan_discriminator_step() -> Case:
    """The generator only supplies examples: it runs without gradients and is frozen."""
    noise, real = torch.randn(16, 8), torch.randn(16, 16).tanh()
    net = Adversaries()
    net.generator.requires_grad_(False)

    def compute_loss(m: nn.Module) -> Tensor:
        with torch.no_grad():
            fake = m.generator(noise.to(m.discriminator[0].weight.dtype))
        judged, judged_fake = m.discriminator(real.to(fake.dtype)), m.discriminator(fake)
        return F.softplus(-judged).mean() + F.softplus(judged_fake).mean()

    return net, compute_loss


@model
def gan_generator_step() -> Case:
    """The gradient passes through the discriminator, which is frozen, to the generator."""
    noise = torch.randn(16, 8)
    net = Adversaries()
    net.discriminator.requires_grad_(False)

    def compute_loss(m: nn.Module) -> Tensor:
        fake = m.generator(noise.to(m.discriminator[0].weight.dtype))
        return F.softplus(-m.discriminator(fake)).mean()

    return net, compute_loss


class TiedAutoencoder(nn.Module):
    """The decoder uses the encoder's weights, transposed, in functions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(24, 16), nn.Linear(16, 6)
        self.act = nn.Tanh()
        self.bias1, self.bias2 = nn.Parameter(torch.zeros(16)), nn.Parameter(torch.zeros(24))

    def forward(self, x: Tensor) -> Tensor:
        code = self.second(self.act(self.first(x)))
        hidden = F.linear(code, self.second.weight.t(), self.bias1).tanh()
        return F.linear(hidden, self.first.weight.t(), self.bias2)


@model
def tied_autoencoder() -> Case:
    x = torch.randn(32, 4) @ torch.randn(4, 24)
    return TiedAutoencoder(), lambda m: F.mse_loss(m(x.to(m.bias1.dtype)), x.to(m.bias1.dtype))


class Experts(nn.Module):
    """Every example goes to the one expert that its gate prefers."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = nn.Linear(12, 4)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(12, 24), nn.GELU(), nn.Linear(24, 3)) for _ in range(4)
        )

    def forward(self, x: Tensor) -> Tensor:
        weight, choice = self.gate(x).softmax(-1).max(-1)
        out = x.new_zeros(len(x), 3)
        for index, expert in enumerate(self.experts):
            (rows,) = torch.where(choice == index)
            out = out.index_add(0, rows, expert(x[rows]) * weight[rows, None])
        return out


@model
def mixture_of_experts() -> Case:
    x, labels = torch.randn(32, 12), torch.randint(0, 3, (32,))
    return Experts(), lambda m: F.cross_entropy(m(x.to(m.gate.weight.dtype)), labels)


class GraphConvolution(nn.Module):
    """A layer of Kipf & Welling 2017 over a fixed sparse graph."""

    def __init__(self, edges: Tensor, before: int, after: int) -> None:
        super().__init__()
        self.linear = nn.Linear(before, after)
        self.register_buffer("edges", edges)

    def forward(self, h: Tensor) -> Tensor:
        return torch.sparse.mm(self.edges, self.linear(h))


@model
def graph_network() -> Case:
    links = (torch.rand(20, 20) < 0.15).float()
    links = ((links + links.T + torch.eye(20)) > 0).float()
    degree = links.sum(1).rsqrt()
    edges = (degree[:, None] * links * degree).to_sparse()
    net = nn.Sequential(GraphConvolution(edges, 10, 16), nn.ReLU(), GraphConvolution(edges, 16, 3))
    x, labels = torch.randn(20, 10), torch.randint(0, 3, (20,))
    return net, lambda m: F.cross_entropy(m(x.to(m[0].linear.weight.dtype)), labels)


class FakeQuantize(nn.Module):
    """What quantization-aware training puts behind a layer: rounding that gradients pass."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("largest", torch.tensor(0.0))

    def forward(self, x: Tensor) -> Tensor:
        self.largest.copy_(torch.maximum(self.largest, x.detach().abs().max()))
        step = self.largest / 127
        return x + ((x / step).round().clamp(-128, 127) * step - x).detach()


@model
def quantization_aware() -> Case:
    net = nn.Sequential(
        FakeQuantize(), nn.Linear(12, 24), nn.ReLU(), FakeQuantize(), nn.Linear(24, 3),
        FakeQuantize(),
    )  # fmt: skip
    x, labels = torch.randn(32, 12), torch.randint(0, 3, (32,))
    return net, lambda m: F.cross_entropy(m(x.to(m[1].weight.dtype)), labels)


@model
def variational_autoencoder() -> Case:
    """The loss draws random numbers, and one layer has two heads."""

    class Variational(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.encoder = nn.Sequential(nn.Linear(24, 16), nn.SiLU())
            self.mean, self.log_variance = nn.Linear(16, 4), nn.Linear(16, 4)
            self.decoder = nn.Sequential(nn.Linear(4, 16), nn.SiLU(), nn.Linear(16, 24))

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            hidden = self.encoder(x)
            mean, spread = self.mean(hidden), self.log_variance(hidden)
            code = mean + torch.randn_like(mean) * (spread / 2).exp()
            return self.decoder(code), mean, spread

    data = torch.randn(32, 4) @ torch.randn(4, 24) / math.sqrt(4)

    def compute_loss(m: nn.Module) -> Tensor:
        x = data.to(m.mean.weight.dtype)
        out, mean, spread = m(x)
        distance = (mean.square() + spread.exp() - 1 - spread).sum(1).mean() / 2
        return F.mse_loss(out, x) + 0.01 * distance

    return Variational(), compute_loss
