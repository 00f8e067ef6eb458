"""A family is one file: what `Family` has by itself trains and exports another decoder."""

from __future__ import annotations

import re
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, processors
from transformers import AutoModelForCausalLM, BartTokenizerFast, BertConfig

from genret_dask.errors import ModelError, SpecError
from genret_dask.exporters import config_problems, export_model, exporter_of
from genret_dask.identifiers import Codes
from genret_dask.inference.session import open_session
from genret_dask.models.architectures import architecture_of, count_parameters
from genret_dask.models.configs import config_of
from genret_dask.models.families import Family, family_of
from genret_dask.models.families.llama import LlamaFields
from genret_dask.models.tokens import Tokens
from genret_dask.specs import ModelSpec, SweepSpec, TokenizerSpec, registry
from genret_dask.specs.registry import names_of
from genret_dask.study.model_checks import model_problems
from genret_dask.training.build import build_model
from genret_dask.training.loss import identifier_loss
from genret_dask.training.tokenizer import train_tokenizer
from genret_dask.training.warmstart import warm_start
from tests.conftest import make_collection

SIZES = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
LENGTHS = torch.tensor([7, 1, 4])
LABELS = torch.tensor([[301, 305, 309], [302, 304, -100], [303, -100, -100]])


class MistralFields(LlamaFields):
    sliding_window: int | None = None


class Mistral(Family):
    config_class = "MistralConfig"
    model_class = "MistralForCausalLM"
    fields = MistralFields
    defaults = {**Family.defaults, "sliding_window": None}
    presets = {"tiny": SIZES}


class Homeless(Mistral):
    exporter = "nowhere"


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """Entry points as an installed package would have them."""
    for name, made in (("mistral", "Mistral"), ("homeless", "Homeless"), ("broken", "Nothing")):
        point = EntryPoint(name, f"{__name__}:{made}", "genret_dask.families")
        monkeypatch.setitem(registry._entries("families"), name, [point])
    registry.entry.cache_clear()
    yield
    registry.entry.cache_clear()


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(make_collection(), TokenizerSpec(vocab_size=300))


def build(tokenizer, **fields):
    spec = ModelSpec(**{"family": "mistral", "config": SIZES, "name": "x", **fields})
    return build_model(spec, tokenizer, 12, dropout=0.0, seed=0)


def test_logits_are_those_of_teacher_forcing(tokenizer):
    model, start = build(tokenizer)
    assert type(model).__name__ == "MistralForCausalLM" and start == len(tokenizer)
    tokens = torch.randint(0, start, (3, 9), generator=torch.Generator().manual_seed(0))
    labels = torch.where(LABELS >= 0, LABELS + start - 300, LABELS)
    model.eval()
    with torch.inference_mode():
        found = family_of("mistral").logits(model, tokens, LENGTHS, labels)
        losses = identifier_loss(found, labels)
        for row, length in enumerate(LENGTHS.tolist()):
            label = labels[row][labels[row] >= 0]
            joined = torch.cat([tokens[row, :length], torch.tensor([start]), label])
            whole = torch.full_like(joined, -100)
            whole[length + 1 :] = label
            theirs = model(input_ids=joined[None], labels=whole[None])
            ours = found[row, : len(label)]
            torch.testing.assert_close(ours, theirs.logits[0, length:-1], atol=1e-5, rtol=0)
            torch.testing.assert_close(losses[row], theirs.loss, atol=1e-5, rtol=0)


GENERIC = {
    "gpt2": {"n_embd": 16, "n_layer": 2, "n_head": 4, "n_positions": 64},
    "gpt_neox": {name: size for name, size in SIZES.items() if name != "num_key_value_heads"},
    "gemma2": {**SIZES, "head_dim": 8, "final_logit_softcapping": 2.0},
    "cohere": {**SIZES, "logit_scale": 3.0},
}


@pytest.mark.parametrize("family", GENERIC)
def test_a_model_without_a_family_is_taught_what_it_computes_itself(tokenizer, family):
    model, start = build(tokenizer, family=family, config=GENERIC[family])
    assert model.config.model_type == family and model.config.tie_word_embeddings
    assert family_of(family).reading_attention(model) == []
    tokens = torch.randint(0, start, (3, 9), generator=torch.Generator().manual_seed(0))
    labels = torch.where(LABELS >= 0, LABELS + start - 300, LABELS)
    shape = architecture_of(model.config)
    assert (shape.d_model, shape.heads, shape.d_head) == (16, 4, 8 if family == "gemma2" else 4)
    assert (shape.decoder_layers, shape.vocab_size) == (2, model.config.vocab_size)
    assert shape.d_ff == (64 if family == "gpt2" else 32)
    assert shape.gated == (family in ("gemma2", "cohere"))
    with torch.inference_mode():
        for weight in model.parameters():
            weight += 0.3 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1))
        found = family_of(family).logits(model.eval(), tokens, LENGTHS, labels)
        for row, length in enumerate(LENGTHS.tolist()):
            label = labels[row][labels[row] >= 0]
            joined = torch.cat([tokens[row, :length], torch.tensor([start]), label])
            theirs = model(input_ids=joined[None]).logits[0, length:-1]
            torch.testing.assert_close(found[row, : len(label)], theirs, atol=1e-4, rtol=1e-5)
    assert found.std() > 0.1


def test_a_study_gives_a_model_without_a_family_its_dropout():
    def config(family):
        spec = ModelSpec(family=family, config=GENERIC[family], name="x")
        return config_of(spec, dropout=0.2)

    gpt2, neox = config("gpt2"), config("gpt_neox")
    assert (gpt2.attn_pdrop, gpt2.embd_pdrop, gpt2.resid_pdrop) == (0.2, 0.0, 0.0)
    assert (neox.attention_dropout, neox.hidden_dropout) == (0.2, 0.0)


def test_its_sizes_are_read_like_those_of_llama(tokenizer):
    model, _ = build(tokenizer)
    shape = architecture_of(model.config)
    assert (shape.kind, shape.kv_heads, shape.decoder_layers) == ("decoder", 2, 2)
    assert shape.gated and shape.vocab_size == model.config.vocab_size
    assert model.config.tie_word_embeddings


def test_a_warm_start_reads_with_a_plain_mean(tokenizer):
    model, start = build(tokenizer)
    rng = np.random.default_rng(0)
    flat = rng.integers(0, start, 60, dtype=np.int32)
    documents = Tokens(flat, np.arange(0, 61, 10), np.zeros(6, dtype=bool))
    codes = Codes(np.repeat(np.arange(6, dtype=np.int32)[:, None], 2, axis=1), (6, 6))
    config = {**SIZES, "num_key_value_heads": 4}
    square, _ = build(tokenizer, config=config)
    for one in (model, square):
        warm_start(family_of("mistral"), one, documents, codes, np.arange(6), start)
    (value, output), *_ = family_of("mistral").reading_attention(square)
    torch.testing.assert_close(output.weight, value.weight.T)
    torch.testing.assert_close(value.weight @ output.weight, torch.eye(16), atol=1e-5, rtol=0)
    assert torch.isfinite(model.get_input_embeddings().weight).all()


def test_its_checkpoint_is_exported_by_the_exporter_it_names(tokenizer, tmp_path):
    model, start = build(tokenizer)
    model.save_pretrained(tmp_path / "hf")
    assert type(exporter_of("mistral")).__name__ == "LlamaExporter"
    made = export_model("mistral", tmp_path / "hf", tmp_path / "onnx", start_token=start)
    assert made.family == "mistral" and made.n_params == count_parameters(model)
    assert made.parity.max_difference < 1e-4
    state = open_session(tmp_path / "onnx").prefill(np.array([[3, 4, 5]]), np.array([3]))
    session, one = open_session(tmp_path / "onnx"), np.array([[start]])
    logits, partition, _ = session.step(state, one, one * 0, (0, made.vocab_size))
    theirs = AutoModelForCausalLM.from_pretrained(tmp_path / "hf").eval()
    with torch.inference_mode():
        row = theirs(input_ids=torch.tensor([[3, 4, 5, start]])).logits[0, -1]
    expected = torch.log_softmax(row, -1).numpy()
    np.testing.assert_allclose(logits[0, 0] - partition[0], expected, atol=1e-4)
    with pytest.raises(ModelError, match="holds a mistral"):
        export_model("llama", tmp_path / "hf", tmp_path / "other", start_token=start)


def test_its_models_are_checked_like_ours():
    def problems(**fields):
        return model_problems(SweepSpec(models=(ModelSpec(**fields),)))

    assert problems(family="mistral", size="tiny") == []
    assert problems(family="mistral", config=SIZES, name="x") == []
    (line,) = problems(family="mistral", size="giant")
    assert "mistral has no size 'giant'; expected one of tiny" in line
    (line,) = problems(family="mistral", config={"hiden_size": 3}, name="x")
    assert "unknown key hiden_size" in line and "sliding_window" in line
    (line,) = problems(family="mistral", config={**SIZES, "hidden_act": "mish"}, name="x")
    assert "hidden_act" in line
    (line,) = problems(family="mistral", config={**SIZES, "sliding_window": 8}, name="x")
    assert "sliding_window is 8; expected none" in line
    (line,) = problems(family="homeless", size="tiny")
    assert "exporter 'nowhere' of family 'homeless' is not installed" in line
    (line,) = problems(family="broken", size="tiny")
    assert "cannot be imported: AttributeError" in line


def test_bart_reads_a_text_between_the_tokens_that_its_tokeniser_adds():
    rows = {piece: row for row, piece in enumerate(("<s>", "<pad>", "</s>", "<unk>", "a", "b"))}
    pieces = Tokenizer(models.BPE(rows, [], unk_token="<unk>"))
    pieces.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0))
    reader = family_of("bart").reader(BartTokenizerFast(tokenizer_object=pieces), max_tokens=4)
    assert reader.read(["ab"]).flat.tolist() == [0, 4, 5, 2]
    assert reader.read(["aab"]).flat.tolist() == [0, 4, 4, 2]
    pieces.post_processor = None
    reader = family_of("bart").reader(BartTokenizerFast(tokenizer_object=pieces), max_tokens=4)
    assert reader.read(["ab"]).flat.tolist() == [4, 5, 2]


def test_what_is_no_family_is_refused():
    with pytest.raises(SpecError, match="'bert' cannot be trained") as error:
        config_of(ModelSpec(family="bert", size="base"))
    assert {*names_of("families")} <= {*re.findall(r"\w+", error.value.expected)}
    with pytest.raises(
        SpecError, match="'optimum' has an exporter, and cannot be trained"
    ) as error:
        config_of(ModelSpec(family="optimum", size="base"))
    assert "export_model exports a checkpoint" in error.value.fix
    assert config_problems("mistral", config_of(ModelSpec(family="mistral", size="tiny"))) == []
    with pytest.raises(ModelError, match="a bert configuration"):
        architecture_of(BertConfig())
