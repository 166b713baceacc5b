"""Large models for the tests of what shows them."""

import functools

import torch

from chainrule.measure.inspection import inspect


@functools.cache
def measure_gpt2(layers=12, std=0.02):
    """Return the flow of a narrow GPT-2; with a `std` of 1e-5 its gradients vanish."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        n_layer=layers,
        n_embd=32,
        n_head=4,
        vocab_size=100,
        n_positions=16,
        bos_token_id=0,
        eos_token_id=0,
        attn_pdrop=0.0,
        embd_pdrop=0.0,
        resid_pdrop=0.0,
        initializer_range=std,
    )
    model = GPT2LMHeadModel(config)
    ids = torch.randint(0, 100, (4, 12))
    return inspect(model, lambda m: m(input_ids=ids, labels=ids).loss)
