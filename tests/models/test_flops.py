"""Analytic FLOPs against PyTorch's counter, and the published sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from transformers import LlamaConfig, LlamaForCausalLM, T5Config, T5ForConditionalGeneration

from genret_dask.models.architectures import count_parameters
from genret_dask.models.flops import (
    Architecture,
    prefill_flops,
    step_flops,
    training_flops_per_example,
)

PROMPT, STEPS, VOCAB = 11, 4, 50


def t5(gated: bool) -> tuple[T5ForConditionalGeneration, Architecture]:
    config = T5Config(
        vocab_size=VOCAB,
        d_model=24,
        d_kv=10,
        d_ff=40,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=3,
        feed_forward_proj="gated-gelu" if gated else "relu",
    )
    config._attn_implementation = "eager"
    shape = Architecture(
        kind="encoder-decoder",
        d_model=24,
        heads=3,
        kv_heads=3,
        d_head=10,
        d_ff=40,
        gated=gated,
        encoder_layers=2,
        decoder_layers=3,
        vocab_size=VOCAB,
    )
    return T5ForConditionalGeneration(config).eval(), shape


def llama(kv_heads: int) -> tuple[LlamaForCausalLM, Architecture]:
    config = LlamaConfig(
        vocab_size=VOCAB,
        hidden_size=24,
        intermediate_size=40,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=kv_heads,
    )
    config._attn_implementation = "eager"
    shape = Architecture(
        kind="decoder",
        d_model=24,
        heads=4,
        kv_heads=kv_heads,
        d_head=6,
        d_ff=40,
        gated=True,
        encoder_layers=0,
        decoder_layers=3,
        vocab_size=VOCAB,
    )
    return LlamaForCausalLM(config).eval(), shape


def counted(call) -> float:
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def close(ours, theirs) -> bool:
    return abs(float(ours) - theirs) <= 0.02 * theirs


@pytest.mark.parametrize("gated", [False, True])
def test_t5_steps_cost_what_the_profiler_counts(gated):
    model, shape = t5(gated)
    tokens, one = torch.zeros(1, PROMPT, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long)
    encoded = model.encoder(tokens)
    encoder = counted(lambda: model.encoder(tokens))
    past = model(encoder_outputs=encoded, decoder_input_ids=one).past_key_values
    first = counted(lambda: model(encoder_outputs=encoded, decoder_input_ids=one))
    assert close(prefill_flops(shape, PROMPT) + step_flops(shape, PROMPT, 0), encoder + first)
    for t in range(1, STEPS):
        found = counted(
            lambda past=past: model(
                encoder_outputs=encoded, decoder_input_ids=one, past_key_values=past
            )
        )
        assert close(step_flops(shape, PROMPT, t), found)


@pytest.mark.parametrize("kv_heads", [4, 2])
def test_llama_steps_cost_what_the_profiler_counts(kv_heads):
    model, shape = llama(kv_heads)
    tokens, one = torch.zeros(1, PROMPT, dtype=torch.long), torch.zeros(1, 1, dtype=torch.long)
    past = model.model(tokens, use_cache=True).past_key_values
    for t in range(STEPS):
        found = counted(lambda: model(one, past_key_values=past))
        assert close(step_flops(shape, PROMPT, t), found)
    # All but the last layer, whose keys and values are all that later steps read.
    last = model.model.layers[-1].self_attn
    model.model.layers = model.model.layers[:-1]
    rest = counted(lambda: model.model(tokens, use_cache=False))
    states = torch.zeros(1, PROMPT, 24)
    pair = counted(lambda: (last.k_proj(states), last.v_proj(states)))
    assert close(prefill_flops(shape, PROMPT), rest + pair)


def test_training_costs_three_forward_passes():
    model, shape = t5(True)
    source, target = (torch.zeros(1, n, dtype=torch.long) for n in (PROMPT, STEPS))
    found = counted(lambda: model(input_ids=source, decoder_input_ids=target, use_cache=False))
    assert close(training_flops_per_example(shape, PROMPT, STEPS), 3 * found)

    decoder, shape = llama(2)
    both = torch.zeros(1, PROMPT + STEPS, dtype=torch.long)
    found = counted(lambda: decoder.lm_head(decoder.model(both, use_cache=False)[0][:, -STEPS:]))
    assert close(training_flops_per_example(shape, PROMPT, STEPS), 3 * found)


def test_counts_are_vectorised():
    for _, shape in (t5(False), llama(2)):
        lengths, times = np.array([[3], [9]]), np.arange(4)
        steps = step_flops(shape, lengths, times)
        assert steps.shape == (2, 4)
        assert steps[1, 2] == step_flops(shape, 9, 2)
        np.testing.assert_array_equal(
            prefill_flops(shape, np.array([3, 9])),
            [prefill_flops(shape, 3), prefill_flops(shape, 9)],
        )


def test_state_bytes_follow_the_cached_widths():
    _, shape = llama(2)
    assert shape.state_bytes(5, 2) == (5 * 2 * 12 * 4 * 3, 2 * 2 * 12 * 4 * 3)


def test_parameters_are_counted_as_published():
    with torch.device("meta"):
        small = T5ForConditionalGeneration(
            T5Config(d_model=512, d_ff=2048, d_kv=64, num_layers=6, num_heads=8, vocab_size=32128)
        )
        seven = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=32000,
                hidden_size=4096,
                intermediate_size=11008,
                num_hidden_layers=32,
                num_attention_heads=32,
            )
        )
    assert count_parameters(small) == 44057088
    assert count_parameters(seven) == 6607343616
