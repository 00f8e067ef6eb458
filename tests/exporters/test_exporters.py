"""Exported graphs against the PyTorch models that they come from."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MT5ForConditionalGeneration,
    T5ForConditionalGeneration,
)
from transformers.models.t5.modeling_t5 import T5Attention

from genret_dask.errors import ModelError, ParityError
from genret_dask.exporters import export_model, graph, head, t5
from genret_dask.exporters.parity import log_probabilities
from genret_dask.inference.session import open_session
from genret_dask.models.families import family_of
from genret_dask.models.manifest import Reading, read_manifest
from genret_dask.specs.registry import names_of

VOCAB, START = 61, 7


def tiny_t5(
    feed_forward: str, tied: bool, family: str = "t5"
) -> T5ForConditionalGeneration | MT5ForConditionalGeneration:
    made = family_of(family)
    return made.load_model_class()(
        made.load_config_class()(
            vocab_size=VOCAB,
            d_model=16,
            d_kv=6,
            d_ff=24,
            num_layers=2,
            num_decoder_layers=3,
            num_heads=3,
            relative_attention_num_buckets=8,
            relative_attention_max_distance=10,
            feed_forward_proj=feed_forward,
            tie_word_embeddings=tied,
        )
    )


def tiny_llama(kv_heads: int, tied: bool, **fields: object) -> LlamaForCausalLM:
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=kv_heads,
            tie_word_embeddings=tied,
            **fields,
        )
    )


def tiny_decoder(family: str, **fields: object) -> torch.nn.Module:
    """A small model of another family whose configuration is called like LLaMA's."""
    made = family_of(family)
    sizes = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = made.load_config_class()(vocab_size=VOCAB, **sizes, **fields)
    return made.load_model_class()(config)


def tiny_bart(family: str, *, bias: bool = False, **fields: object) -> torch.nn.Module:
    made = family_of(family)
    sizes = {"d_model": 16, "encoder_layers": 2, "decoder_layers": 3, "max_position_embeddings": 40}
    for stack in ("encoder", "decoder"):
        sizes |= {f"{stack}_attention_heads": 2, f"{stack}_ffn_dim": 24}
    config = made.load_config_class()(vocab_size=VOCAB, **sizes, **fields)
    model = made.load_model_class()(config)
    if bias:
        model.final_logits_bias.normal_(generator=torch.Generator().manual_seed(0))
    return model


def tiny_gpt2() -> GPT2LMHeadModel:
    return GPT2LMHeadModel(
        GPT2Config(vocab_size=VOCAB, n_embd=16, n_layer=2, n_head=2, n_positions=64)
    )


UNCAPPED = {"head_dim": 8, "query_pre_attn_scalar": 8, "attn_logit_softcapping": None}
BIASES = {"attention_bias": True, "mlp_bias": True}
ROTARY = {
    "llama3": {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "yarn": {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 512},
    "linear": {"rope_type": "linear", "factor": 2.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
}
MODELS = {
    "t5-relu-tied": ("t5", lambda: tiny_t5("relu", True)),
    "t5-gated-untied": ("t5", lambda: tiny_t5("gated-gelu", False)),
    "mt5-gated-untied": ("mt5", lambda: tiny_t5("gated-gelu", False, "mt5")),
    "mt5-gated-tied": ("mt5", lambda: tiny_t5("gated-gelu", True, "mt5")),
    "llama-tied": ("llama", lambda: tiny_llama(4, True)),
    "t5-silu-tied": ("t5", lambda: tiny_t5("silu", True)),
    "t5-gated-silu-tied": ("t5", lambda: tiny_t5("gated-silu", True)),
    "llama-gqa-untied": ("llama", lambda: tiny_llama(2, False, head_dim=8, rope_theta=500.0)),
    "llama-biases-gelu": ("llama", lambda: tiny_llama(2, True, **BIASES, hidden_act="gelu")),
    "llama-scaled-3": ("llama", lambda: tiny_llama(2, True, rope_scaling=ROTARY["llama3"])),
    "llama-scaled-yarn": ("llama", lambda: tiny_llama(2, True, rope_scaling=ROTARY["yarn"])),
    "llama-mqa-linear": (
        "llama",
        lambda: tiny_llama(1, True, rope_scaling=ROTARY["linear"]),
    ),
    "qwen2-tied": ("qwen2", lambda: tiny_decoder("qwen2", tie_word_embeddings=True)),
    "qwen3-untied": ("qwen3", lambda: tiny_decoder("qwen3", head_dim=10, attention_bias=True)),
    "mistral-head": ("mistral", lambda: tiny_decoder("mistral", head_dim=6)),
    "bart": ("bart", lambda: tiny_bart("bart")),
    "bart-biased": ("bart", lambda: tiny_bart("bart", bias=True, activation_function="relu")),
    "mbart-scaled": ("mbart", lambda: tiny_bart("mbart", scale_embedding=True)),
    "gpt2": ("optimum", tiny_gpt2),
    "gemma2": ("gemma2", lambda: tiny_decoder("gemma2", **UNCAPPED)),
}


def save(model: torch.nn.Module, folder: Path) -> Path:
    """Save with weights large enough that log-probabilities are far from uniform."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0, 0.3)
            else:
                parameter.uniform_(0.5, 1.5)
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module", params=MODELS)
def exported(request, tmp_path_factory):
    family, build = MODELS[request.param]
    root = tmp_path_factory.mktemp(request.param)
    model = build()
    manifest = export_model(family, save(model, root / "hf"), root / "onnx", start_token=START)
    model.set_attn_implementation("eager")
    return open_session(root / "onnx"), model.eval(), manifest


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_walk_equals_teacher_forcing(exported, data):
    session, model, manifest = exported
    lengths = np.array(data.draw(st.lists(st.integers(1, 14), min_size=1, max_size=3)))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    tokens = rng.integers(0, VOCAB, (len(lengths), lengths.max() + rng.integers(0, 3)))
    prefixes = np.zeros((len(lengths), 1, 0), dtype=np.int64)
    state = session.prefill(tokens, lengths)
    for step, beams in enumerate([1, *data.draw(st.lists(st.integers(1, 5), max_size=3))]):
        parents = rng.integers(0, prefixes.shape[1], (len(lengths), beams))
        new = rng.integers(0, VOCAB, (len(lengths), beams))
        if step == 0:
            new[:] = START
        prefixes = np.take_along_axis(prefixes, parents[..., None], axis=1)
        prefixes = np.concatenate([prefixes, new[..., None]], axis=-1)
        start, stop = np.sort(rng.choice(VOCAB + 1, 2, replace=False))
        logits, partition, state = session.step(state, new, parents, (int(start), int(stop)))
        assert logits.shape == (*new.shape, stop - start)
        assert logits.dtype == partition.dtype == np.float32
        for i, length in enumerate(lengths):
            expected = log_probabilities(
                model, manifest.architecture.kind, tokens[i, :length], prefixes[i]
            )[:, -1]
            np.testing.assert_allclose(
                logits[i] - partition[i][:, None], expected[:, start:stop], atol=1e-4, rtol=0
            )


def test_a_row_does_not_depend_on_its_batch_mates(exported):
    session, _, _ = exported
    rng = np.random.default_rng(0)
    tokens, lengths = rng.integers(0, VOCAB, (4, 9)), np.array([3, 9, 1, 6])
    new = rng.integers(0, VOCAB, (4, 3))
    parents = np.zeros((4, 3), dtype=np.int64)

    def walk(queries, beams, width):
        part = tokens[queries, :width]
        state = session.prefill(part, lengths[queries])
        one = np.full((len(queries), 1), START)
        _, _, state = session.step(state, one, one * 0, (0, 1))
        place = np.ix_(queries, beams)
        return session.step(state, new[place], parents[place], (0, VOCAB))[:2]

    whole = walk([0, 1, 2, 3], [0, 1, 2], 9)
    alone = walk([0], [1], 3)
    np.testing.assert_allclose(alone[0][0, 0], whole[0][0, 1], atol=1e-5)
    np.testing.assert_allclose(alone[1][0, 0], whole[1][0, 1], atol=1e-5)


def test_padding_is_exactly_invisible(exported):
    session, _, _ = exported
    rng = np.random.default_rng(0)
    tokens, one = rng.integers(0, VOCAB, (1, 8)), np.full((1, 1), START)
    other = tokens.copy()
    other[:, 5:] = (other[:, 5:] + 1) % VOCAB
    first, second = (
        session.step(session.prefill(t, np.array([5])), one, one * 0, (0, VOCAB))[0]
        for t in (tokens, other)
    )
    np.testing.assert_array_equal(first, second)


def test_a_state_can_be_stepped_from_twice(exported):
    session, _, _ = exported
    state = session.prefill(np.arange(6)[None], np.array([6]))
    one = np.full((1, 1), START)
    first, _, after = session.step(state, one, one * 0, (0, VOCAB))
    session.step(after, one + 1, one * 0, (0, VOCAB))
    again, _, _ = session.step(state, one, one * 0, (0, VOCAB))
    np.testing.assert_array_equal(first, again)


def test_a_first_step_takes_one_start_token(exported):
    session, _, manifest = exported
    if (manifest.architecture.kind, manifest.graph) != ("decoder", "beam"):
        return
    state = session.prefill(np.arange(6)[None], np.array([6]))
    for tokens in (np.full((1, 1), START + 1), np.full((1, 2), START)):
        with pytest.raises(ValueError, match="first step takes the start token"):
            session.step(state, tokens, tokens * 0, (0, VOCAB))


def test_the_log_partition_is_of_the_whole_vocabulary(exported):
    session, _, _ = exported
    one = np.full((1, 1), START)
    state = session.prefill(np.arange(6)[None], np.array([6]))
    logits, partition, _ = session.step(state, one, one * 0, (0, VOCAB))
    block, same, _ = session.step(state, one, one * 0, (10, 13))
    expected = np.log(np.exp(logits.astype(np.float64)).sum(axis=-1))
    np.testing.assert_allclose(partition, expected, atol=1e-5)
    np.testing.assert_allclose(block, logits[..., 10:13], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(same, partition, rtol=1e-6)


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_a_vocabulary_of_several_tiles_is_normalised_as_one(family, tmp_path, monkeypatch):
    monkeypatch.setattr(head, "_TILE", 7)
    model = tiny_t5("relu", True) if family == "t5" else tiny_llama(2, False)
    model.save_pretrained(tmp_path / "hf")
    manifest = export_model(family, tmp_path / "hf", tmp_path / "onnx", start_token=START)
    assert manifest.parity.max_difference < 1e-4
    name = "step.onnx" if family == "t5" else "head.onnx"
    graph = onnx.load(tmp_path / "onnx" / name, load_external_data=False).graph
    tiles = -(-VOCAB // 7)
    assert sum(node.op_type == "LogSoftmax" for node in graph.node) == tiles + 1


def test_the_manifest_says_what_was_made(exported):
    _, model, manifest = exported
    assert manifest.parity.max_difference < 1e-4
    assert manifest.parity.compared > 0
    assert manifest.start_token == START
    assert manifest.vocab_size == VOCAB
    unique = {p.data_ptr(): p.numel() for p in model.parameters()}
    unique.pop(model.get_input_embeddings().weight.data_ptr())
    for name, weight in model.named_parameters():
        if name.endswith(("embed_positions.weight", "wpe.weight")):
            unique.pop(weight.data_ptr())
    assert manifest.n_params == sum(unique.values())


@pytest.mark.parametrize("bidirectional", [True, False])
@pytest.mark.parametrize(("buckets", "max_distance"), [(32, 128), (8, 10), (8, 20)])
def test_relative_bias_equals_the_reference_at_every_distance(bidirectional, buckets, max_distance):
    weight = np.arange(buckets, dtype=np.float32)[:, None]
    table, offset = t5.relative_bias(weight, bidirectional=bidirectional, max_distance=max_distance)
    far = 3 * max_distance
    distance = torch.arange(-far, far + 1 if bidirectional else 1)
    expected = T5Attention._relative_position_bucket(
        distance, bidirectional=bidirectional, num_buckets=buckets, max_distance=max_distance
    )
    found = table[np.clip(distance.numpy() + offset, 0, len(table) - 1), 0]
    np.testing.assert_array_equal(found, expected.numpy())


def test_weights_lie_once_in_a_file_of_the_folder(tmp_path):
    checkpoint = save(tiny_llama(4, True), tmp_path / "hf")
    export_model("llama", checkpoint, tmp_path / "onnx", start_token=START)
    parameters = sum(p.numel() for p in tiny_llama(4, True).parameters())
    size = (tmp_path / "onnx" / graph.WEIGHTS_FILE).stat().st_size
    count = len(list(tiny_llama(4, True).parameters()))
    # The last layer's keys and values stand twice: alone for the prompt, joined for the step.
    assert parameters * 4 <= size <= parameters * 4 + 2 * 16 * 16 * 4 + (count + 1) * 4096
    for name in ("prefill", "step"):
        path = tmp_path / "onnx" / f"{name}.onnx"
        onnx.checker.check_model(str(path), full_check=True)
        loaded = onnx.load(path, load_external_data=False)
        places = {
            e.value
            for t in loaded.graph.initializer
            for e in t.external_data
            if e.key == "location"
        }
        assert places == {graph.WEIGHTS_FILE}


def test_a_graph_that_differs_is_not_published(tmp_path, monkeypatch):
    checkpoint = save(tiny_llama(4, True), tmp_path / "hf")
    export_model("llama", checkpoint, tmp_path / "onnx", start_token=START)
    before = (tmp_path / "onnx" / "manifest.json").read_bytes()
    place = graph.Weights.place

    def tampered(self, name, array):
        return place(self, name, array * 1.01 if name.endswith("down_proj") else array)

    monkeypatch.setattr(graph.Weights, "place", tampered)
    with pytest.raises(ParityError, match="differ from PyTorch"):
        export_model("llama", checkpoint, tmp_path / "onnx", start_token=START)
    with pytest.raises(ParityError):
        export_model("llama", checkpoint, tmp_path / "other", start_token=START)
    assert (tmp_path / "onnx" / "manifest.json").read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "onnx"]


def test_a_graph_that_gives_no_number_is_not_published(tmp_path, monkeypatch):
    checkpoint = save(tiny_llama(4, True), tmp_path / "hf")
    place = graph.Weights.place
    monkeypatch.setattr(
        graph.Weights, "place", lambda self, name, array: place(self, name, array * np.nan)
    )
    with pytest.raises(ParityError, match="nan"):
        export_model("llama", checkpoint, tmp_path / "onnx", start_token=START)
    assert not (tmp_path / "onnx").exists()


def test_an_export_takes_the_place_of_an_older_one(tmp_path):
    checkpoint = save(tiny_t5("relu", True), tmp_path / "hf")
    (checkpoint / "tokenizer.json").write_text("{}")
    target = tmp_path / "deep" / "onnx"
    export_model("t5", checkpoint, target, start_token=START)
    (target / "stray").touch()
    reading = Reading(begin_tokens=(), end_tokens=(1,), eos_token=1)
    made = export_model(
        "t5", checkpoint, target, start_token=START, tolerance=0.01, reading=reading
    )
    assert read_manifest(target) == made
    assert made.require_reading() == reading
    with pytest.raises(ModelError, match="exported without training"):
        made.require_training()
    assert made.parity.tolerance == 0.01
    graphs = {"prefill.onnx", "step.onnx", "select.onnx"}
    assert set(made.files) == {*graphs, "weights.bin", "tokenizer.json"}
    assert not (target / "stray").exists()
    assert [path.name for path in target.parent.iterdir()] == ["onnx"]


def test_an_unknown_family_lists_those_installed():
    assert {"t5", "llama", "optimum"} <= set(names_of("exporters"))
    with pytest.raises(ModelError, match=r"no exporter for family 'bert'[\s\S]*llama.*t5") as error:
        export_model("bert", Path("x"), Path("y"), start_token=0)
    assert "optimum" in error.value.fix


@pytest.mark.parametrize(
    ("family", "change", "message"),
    [
        ("llama", {"rope_scaling": ROTARY["dynamic"]}, "rotary"),
        ("llama", {"hidden_act": "mish"}, "hidden_act"),
        ("llama", {"num_key_value_heads": 3}, "divisor"),
        ("llama", {"num_hidden_layers": 3}, "lacks"),
        ("t5", {}, "holds a llama"),
        ("optimum", {"model_type": "no-such-family"}, "no-such-family"),
    ],
)
def test_a_checkpoint_that_does_not_fit_is_refused(tmp_path, family, change, message):
    checkpoint = save(tiny_llama(4, True), tmp_path / "hf")
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(ModelError, match=message):
        export_model(family, checkpoint, tmp_path / "onnx", start_token=START)
    assert not (tmp_path / "onnx").exists()


def test_a_missing_checkpoint_and_start_token_are_named(tmp_path):
    with pytest.raises(ModelError, match=r"config\.json"):
        export_model("t5", tmp_path, tmp_path / "onnx", start_token=START)
    checkpoint = save(tiny_t5("gated-mish", True), tmp_path / "mish")
    with pytest.raises(ModelError, match="feed_forward_proj is 'mish'"):
        export_model("t5", checkpoint, tmp_path / "onnx", start_token=START)
    checkpoint = save(tiny_t5("relu", True), tmp_path / "hf")
    with pytest.raises(ModelError, match="start token 61"):
        export_model("t5", checkpoint, tmp_path / "onnx", start_token=VOCAB)
    with pytest.raises(ModelError, match="encoder-decoder|Unrecognized"):
        export_model("optimum", checkpoint, tmp_path / "onnx", start_token=START)
