"""Adapters of peft: merged, they give the logits of their base with them, whatever they trained."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import (
    IA3Config,
    LoHaConfig,
    LoKrConfig,
    LoraConfig,
    PeftModel,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from genret_dask.clusters.preflight import Gate
from genret_dask.errors import ModelError
from genret_dask.models import adapters
from genret_dask.models.configs import config_of, load_source, pretrained_tokenizer
from genret_dask.models.families import family_of
from genret_dask.specs import ModelSpec, SweepSpec
from genret_dask.storage.sources import model_hash, weights_hash
from genret_dask.study.model_checks import model_problems
from genret_dask.study.origins import Origins
from genret_dask.training.build import build_model
from tests.runs import TINY

ROWS, GROWN = 40, 44
TARGETS = {"llama": ["q_proj", "v_proj"], "t5": ["q", "v"]}
EMBEDDINGS = {"llama": "embed_tokens", "t5": "shared"}


def write_tokenizer(folder: Path, tokens: int = ROWS) -> None:
    vocabulary = {"</s>": 0, "<unk>": 1, **{f"w{row}": row for row in range(2, tokens)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)


def make_base(family: str, **fields: Any) -> Any:
    made = family_of(family)
    settings = {**made.defaults, **TINY[family], "vocab_size": ROWS, **fields}
    torch.manual_seed(0)
    config = made.load_config_class()(decoder_start_token_id=0, **settings)
    return made.load_model_class()(config).eval()


@pytest.fixture(scope="module")
def bases(tmp_path_factory) -> Path:
    """A folder of tied bases, and of one that is not, each with a tokeniser."""
    root = tmp_path_factory.mktemp("bases")
    for name, family, fields in (
        ("llama", "llama", {}),
        ("t5", "t5", {}),
        ("untied", "llama", {"tie_word_embeddings": False}),
        ("wide", "llama", {"hidden_size": 32}),
        ("deep", "llama", {"num_hidden_layers": 2}),
    ):
        make_base(family, **fields).save_pretrained(root / name)
        write_tokenizer(root / name)
    return root


def load_base(folder: Path, rows: int | None = None) -> Any:
    family = family_of(json.loads((folder / "config.json").read_text())["model_type"])
    model = family.load_model_class().from_pretrained(folder)
    if rows is not None:
        torch.manual_seed(7)
        model.resize_token_embeddings(rows, mean_resizing=False)
    return model.eval()


def write_adapter(folder: Path, base: Path, config: Any, rows: int | None = None) -> Path:
    """An adapter whose every weight was trained, as far as random numbers are that."""
    adapted = get_peft_model(load_base(base, rows), config)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            if weight.requires_grad and "shared.modules_to_save" not in name:  # T5 uses no copy
                weight.add_(torch.randn_like(weight), alpha=0.1)
    adapted.save_pretrained(folder)
    return folder


def lora(family: str, *more: str, **fields: Any) -> LoraConfig:
    return LoraConfig(
        r=2, target_modules=[*TARGETS[family], *more], init_lora_weights=False, **fields
    )


def logits(model: Any) -> torch.Tensor:
    rows = model.config.vocab_size
    tokens = torch.arange(2 * rows).reshape(4, -1) % rows
    given = {"decoder_input_ids": tokens.flip(0)} if model.config.is_encoder_decoder else {}
    with torch.inference_mode():
        return model(input_ids=tokens, **given).logits


def spec_of(adapter: Path, **fields: Any) -> ModelSpec:
    content = {"name": "mine", "checkpoint": {"path": str(adapter), **fields}}
    return ModelSpec.model_validate({**content, "prompt": "w3 {query} w4"})


def published(spec: ModelSpec, folder: Path) -> Any:
    """The merged model, as it is read back from where it was written."""
    assert spec.checkpoint is not None
    load_source(spec, spec.checkpoint, config_of(spec), "auto").save_pretrained(folder)
    return family_of(spec.family).load_model_class().from_pretrained(folder).eval()


CASES = {
    "plain": ((), {}, None),
    "dora": ((), {"use_dora": True}, None),
    "bias": ((), {"bias": "lora_only"}, None),
    "some tokens": ((), {"trainable_token_indices": [3, 5]}, None),
    "saved head": ((), {"modules_to_save": ["lm_head"]}, None),
    "saved embeddings": ((), {"modules_to_save": ["EMBEDDINGS"]}, None),
    "saved both": ((), {"modules_to_save": ["EMBEDDINGS", "lm_head"]}, None),
    "saved as one": ((), {"modules_to_save": ["EMBEDDINGS"], "ensure_weight_tying": True}, None),
    "lora of the head": (("lm_head",), {}, None),
    "grown": ((), {}, GROWN),
    "grown and saved": ((), {"modules_to_save": ["EMBEDDINGS", "lm_head"]}, GROWN),
    "grown, lora of the head": (("lm_head",), {}, GROWN),
    "shrunk": ((), {}, ROWS - 4),
}


@pytest.mark.parametrize(
    ("base", "case"),
    [
        (base, case)
        for base in ("llama", "untied", "t5")
        for case in CASES
        # peft saves no new rows of embeddings beside a head of their own: that is refused.
        if (base, case) != ("untied", "grown, lora of the head")
    ],
)
def test_a_merged_adapter_gives_the_logits_of_its_base_with_it(bases, tmp_path, base, case):
    more, fields, rows = CASES[case]
    family = "t5" if base == "t5" else "llama"
    if "modules_to_save" in fields:
        saved = [
            name.replace("EMBEDDINGS", EMBEDDINGS[family]) for name in fields["modules_to_save"]
        ]
        fields = {**fields, "modules_to_save": saved}
    folder = write_adapter(tmp_path / "a", bases / base, lora(family, *more, **fields), rows)
    if rows is not None:
        write_tokenizer(folder, rows)
    spec = spec_of(folder, base=str(bases / base))
    assert not problems_of(spec)
    made = published(spec, tmp_path / "merged")
    judge = PeftModel.from_pretrained(load_base(bases / base, rows), folder).eval()
    torch.testing.assert_close(logits(made), logits(judge), atol=1e-4, rtol=1e-4)
    assert made.config.vocab_size == (rows or ROWS) == config_of(spec).vocab_size
    head, embeddings = made.get_output_embeddings().weight, made.get_input_embeddings().weight
    assert torch.equal(head, embeddings) or not made.config.tie_word_embeddings
    if case in ("plain", "dora", "bias", "some tokens", "saved as one", "grown", "shrunk"):
        assert made.config.tie_word_embeddings == (base != "untied")


@pytest.mark.parametrize(
    "config",
    [
        LoHaConfig(r=2, target_modules=TARGETS["llama"], init_weights=False),
        LoKrConfig(r=2, target_modules=TARGETS["llama"], init_weights=False),
        IA3Config(target_modules=["v_proj", "up_proj"], feedforward_modules=["up_proj"]),
        lora("llama", "embed_tokens"),
        LoraConfig(r=2, target_modules=TARGETS["llama"], init_lora_weights="pissa"),
        lora("llama", rank_pattern={"q_proj": 4}, use_rslora=True, task_type="CAUSAL_LM"),
    ],
    ids=["loha", "lokr", "ia3", "lora of tied embeddings", "pissa", "ranks"],
)
def test_other_adapters_are_merged_as_well(bases, tmp_path, config):
    folder = write_adapter(tmp_path / "a", bases / "llama", config)
    spec = spec_of(folder)
    assert not problems_of(spec)
    judge = PeftModel.from_pretrained(load_base(bases / "llama"), folder).eval()
    made = published(spec, tmp_path / "merged")
    torch.testing.assert_close(logits(made), logits(judge), atol=1e-4, rtol=1e-4)


def test_a_merge_that_would_change_the_logits_is_refused(bases, tmp_path):
    """An encoder of T5 looks tokens up in a module that peft does not replace."""
    folder = write_adapter(tmp_path / "a", bases / "t5", lora("t5", "shared"))
    spec = spec_of(folder)
    with pytest.raises(ModelError, match="logits differ by"):
        published(spec, tmp_path / "merged")


def test_a_base_of_16_bits_is_merged_in_32(bases, tmp_path):
    load_base(bases / "llama").to(torch.bfloat16).save_pretrained(tmp_path / "half")
    folder = write_adapter(tmp_path / "a", tmp_path / "half", lora("llama"))
    judge = PeftModel.from_pretrained(load_base(tmp_path / "half").float(), folder).eval()
    made = published(spec_of(folder), tmp_path / "merged")
    assert made.dtype == torch.float32
    torch.testing.assert_close(logits(made), logits(judge), atol=1e-4, rtol=1e-4)


def test_a_pretrained_adapter_is_merged_and_trained_on(bases, tmp_path):
    folder = write_adapter(tmp_path / "a", bases / "llama", lora("llama"))
    spec = ModelSpec.model_validate(
        {"family": "llama", "name": "mine", "pretrained": {"path": str(folder)}}
    )
    assert not problems_of(spec)
    tokenizer = pretrained_tokenizer(spec, spec.pretrained)
    model, start = build_model(spec, tokenizer, 3, dropout=0.0, seed=0)
    assert (start, model.config.vocab_size) == (ROWS, ROWS + 4)
    assert all(weight.requires_grad for weight in model.parameters())
    judge = PeftModel.from_pretrained(load_base(bases / "llama"), folder).eval()
    tokens = torch.arange(ROWS)[None]
    found = model(tokens).logits[..., :ROWS]
    torch.testing.assert_close(found, judge(tokens).logits, atol=1e-4, rtol=1e-4)


# --- where its parts come from --------------------------------------------------------------------


@pytest.fixture
def adapter(bases, tmp_path) -> Path:
    """An adapter, with a base of its own to be changed."""
    shutil.copytree(bases / "llama", tmp_path / "base")
    return write_adapter(tmp_path / "adapter", tmp_path / "base", lora("llama"))


def test_the_base_is_read_from_the_adapter_and_kept_in_the_spec(adapter):
    spec = ModelSpec.model_validate({"name": "mine", "checkpoint": str(adapter)})
    assert spec.family == "llama"
    assert spec.checkpoint.base == adapter.parent / "base"
    again = ModelSpec.model_validate(json.loads(spec.model_dump_json()))
    assert again == spec


def test_the_tokeniser_is_the_adapters_or_its_bases(adapter):
    def tokens() -> int:
        spec = spec_of(adapter)
        return len(pretrained_tokenizer(spec, spec.checkpoint))

    assert tokens() == ROWS
    write_tokenizer(adapter, 12)
    assert tokens() == 12


def test_the_fingerprint_covers_the_adapter_and_its_base(adapter, tmp_path):
    spec = SweepSpec(models=(spec_of(adapter),), identifiers=({"kind": "titles"},))

    def weights() -> str:
        found = Origins(spec, tmp_path / "run").weights(spec.models[0])
        source = spec.models[0].checkpoint
        assert found == weights_hash(source.path, source.base)
        return found

    known = [weights()]
    for path in (adapter / "adapter_model.safetensors", adapter.parent / "base/model.safetensors"):
        tensors = load_file(path)
        name = next(iter(tensors))
        save_file({**tensors, name: tensors[name] + 1}, path, metadata={"format": "pt"})
        known.append(weights())
    assert len(set(known)) == 3
    assert weights_hash(adapter.parent / "base", None) == model_hash(adapter.parent / "base")


def test_workers_are_asked_for_both_folders_and_for_peft(adapter):
    spec = SweepSpec(models=(spec_of(adapter),), identifiers=({"kind": "titles"},))
    gate = Gate(spec, Path("run"), "token")
    assert gate._weights == [str(adapter), str(adapter.parent / "base")]
    assert "peft" in gate.packages
    assert "peft" not in Gate(SweepSpec(), Path("run"), "token").packages


# --- bad input ------------------------------------------------------------------------------------


def problems_of(*specs: ModelSpec) -> list[str]:
    return model_problems(SweepSpec(models=specs, identifiers=({"kind": "titles"},)))


def refused(spec: ModelSpec) -> str:
    (line,) = problems_of(spec)
    return line


def change(folder: Path, **fields: Any) -> None:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.parametrize(
    ("base", "said"),
    [
        ("wide", r"lora_A\.weight is \[2, 16\], expected \[2, 32\]"),
        ("deep", "lacks 4 weights: base_model.model.model.layers.1"),
        ("t5", r"Target modules .* not found"),
    ],
)
def test_an_adapter_of_another_base_is_refused(bases, adapter, base, said):
    assert re.search(said, refused(spec_of(adapter, base=str(bases / base))))


def test_an_adapter_of_a_deeper_base_is_refused(bases, tmp_path):
    folder = write_adapter(tmp_path / "a", bases / "deep", lora("llama"))
    said = refused(spec_of(folder, base=str(bases / "llama")))
    assert "has 4 weights of which its base has no modules" in said


def test_new_rows_of_the_embeddings_alone_are_refused(bases, tmp_path):
    folder = write_adapter(tmp_path / "a", bases / "untied", lora("llama"), GROWN)
    path = folder / "adapter_model.safetensors"
    tensors = {name: one for name, one in load_file(path).items() if "lm_head" not in name}
    save_file(tensors, path, metadata={"format": "pt"})
    assert "weights of it for embed_tokens alone" in refused(spec_of(folder))


@pytest.mark.parametrize(
    "config",
    [
        PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
        PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2),
    ],
    ids=["prompt", "prefix"],
)
def test_a_learnt_prompt_is_refused(bases, tmp_path, config):
    folder = write_adapter(tmp_path / "a", bases / "llama", config)
    assert re.search(r"of kind P\w+_TUNING, which is not merged", refused(spec_of(folder)))


@pytest.mark.parametrize("setting", ["alora_invocation_tokens", "megatron_config"])
def test_settings_that_are_not_merged_are_refused(adapter, setting):
    change(adapter, **{setting: {"x": 1}})
    assert f"with {setting}, which is not merged" in refused(spec_of(adapter))


def test_a_pickled_adapter_is_refused(adapter):
    (adapter / "adapter_model.safetensors").rename(adapter / "adapter_model.bin")
    assert "adapter_model.bin is pickled, and not read" in refused(spec_of(adapter))


def test_an_adapter_whose_weights_are_cut_off_is_refused(adapter):
    path = adapter / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:100])
    assert "cannot load" in refused(spec_of(adapter))


def test_a_model_beside_an_adapter_is_refused(adapter):
    shutil.copy(adapter.parent / "base" / "model.safetensors", adapter)
    assert "holds model.safetensors beside adapter_config.json" in refused(spec_of(adapter))


def test_a_base_that_is_not_here_is_refused(adapter):
    change(adapter, base_model_name_or_path="someone/model")
    with pytest.raises(ValueError, match="an adapter of 'someone/model', which is no folder here"):
        ModelSpec.model_validate({"name": "mine", "checkpoint": str(adapter)})
    content = {"family": "llama", "name": "mine", "checkpoint": {"path": str(adapter)}}
    said = refused(ModelSpec.model_validate(content))
    assert "an adapter of 'someone/model', which is no folder of a whole model here" in said
    gone = {"path": str(adapter), "base": "gone"}
    assert "no folder" in refused(ModelSpec.model_validate({**content, "checkpoint": gone}))


def test_a_base_of_what_is_no_adapter_is_refused(bases):
    spec = spec_of(bases / "llama", base=str(bases / "untied"))
    assert "has no adapter_config.json" in refused(spec)
    with pytest.raises(ValueError, match="base is of an adapter"):
        spec_of(bases / "llama", path=None, gguf="x.gguf", base="y")


def test_a_missing_package_is_named(adapter, monkeypatch):
    monkeypatch.setattr(adapters, "find_spec", lambda name: None)
    assert "pip install 'genret-dask[lora]'" in refused(spec_of(adapter))
