"""Models whose tokeniser, configuration, memory or time was known too late."""

from __future__ import annotations

from pathlib import Path

import pytest

from genret_dask.specs import ModelSpec, PretrainedSpec
from genret_dask.study import Study
from genret_dask.training.loop import _Run
from tests.findings.conftest import PLACES, tiny_spec

# --- the tokeniser of pretrained weights ------------------------------------------------------


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory) -> dict[str, Path]:
    """Small random weights of each family, each with a tokeniser of 13 words."""
    root = tmp_path_factory.mktemp("pretrained")
    return {family: write_weights(root / family, family) for family in ("t5", "llama")}


def write_weights(folder: Path, family: str, **fields: object) -> Path:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        LlamaConfig,
        LlamaForCausalLM,
        PreTrainedTokenizerFast,
        T5Config,
        T5ForConditionalGeneration,
    )

    words = ["</s>", "<unk>", *PLACES, "when", "was", "in"]
    if family == "t5":
        sizes = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
        model = T5ForConditionalGeneration(T5Config(vocab_size=20, **{**sizes, **fields}))
    else:
        sizes = {
            "hidden_size": 16,
            "intermediate_size": 32,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
        }
        model = LlamaForCausalLM(LlamaConfig(vocab_size=20, **{**sizes, **fields}))
    model.save_pretrained(folder)
    rows = {word: row for row, word in enumerate(words)}
    tokenizer = Tokenizer(models.WordLevel(rows, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    return folder


def model_of(family: str, folder: Path) -> ModelSpec:
    return ModelSpec(family=family, name=family, pretrained=PretrainedSpec(path=folder))


@pytest.mark.parametrize("family", ["t5", "llama"])
def test_pretrained_models_read_with_their_own_tokeniser(tiny, tmp_path, pretrained, family):
    """HOUSE-4.2: no tokeniser is trained for them, nor a part of their fingerprint."""
    model = model_of(family, pretrained[family])
    study = Study(tiny_spec(tiny, models=[model]), runs=tmp_path)
    (task,) = study.tasks
    assert task.tokenizer == study.folder / "tokenizers" / family
    assert not (study.folder / "tokenizer").exists()
    run = _Run(task)
    assert run.start == len(run.tokenizer) == 13
    other = tiny_spec(tiny, name="b", models=[model], tokenizer={"vocab_size": 300})
    (twin,) = Study(other, runs=tmp_path).tasks
    assert twin.made_from.fingerprint == task.made_from.fingerprint
