"""Models whose tokeniser, configuration, memory or time was known too late."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from distributed.system import MEMORY_LIMIT

from genret_dask.cli import main
from genret_dask.clusters import ClusterSpec
from genret_dask.clusters.keywords import memory_limit
from genret_dask.errors import BudgetError, SpecError
from genret_dask.kinds import CodesIdentifiers, NgramsIdentifiers
from genret_dask.models.families import family_of, generic
from genret_dask.specs import ExportSpec, InferenceSpec, ModelSpec, PretrainedSpec, SweepSpec
from genret_dask.specs.grid import cells_of
from genret_dask.specs.registry import names_of
from genret_dask.study.estimate import START_SECONDS, duration, estimate, memory_needs
from genret_dask.study.model_checks import check_models, model_problems
from genret_dask.study.survey import Step
from genret_dask.study.sweep import Study
from genret_dask.training.loop import _Run
from genret_dask.training.memory import Texts, check_memory, summary
from tests.conftest import SMALL
from tests.findings.conftest import FEMTO, PLACES, tiny_spec

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
    (task,) = study.training_tasks()
    assert task.tokenizer == study.folder / "tokenizers" / family
    assert not (study.folder / "tokenizer").exists()
    run = _Run(task)
    assert run.start == len(run.tokenizer) == 13
    other = tiny_spec(tiny, name="b", models=[model], tokenizer={"vocab_size": 300})
    (twin,) = Study(other, runs=tmp_path).training_tasks()
    assert twin.made_from.fingerprint == task.made_from.fingerprint


# --- what is known of a model before any work -------------------------------------------------

T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
}
WINDOW = {"num_key_value_heads": 2, "use_sliding_window": True, "sliding_window": 64}
GPT2 = {"n_embd": 16, "n_layer": 1, "n_head": 2}
BART = SMALL["bart"]
MISTRAL = {"num_key_value_heads": 2, "sliding_window": 64}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 1024,
}


def problems_of(family: str, **source: Any) -> list[str]:
    if "size" not in source:
        source["name"] = "mine"
    model = ModelSpec(family=family, **source)
    return model_problems(SweepSpec(models=(model,)))


REFUSED: dict[str, tuple[str, dict[str, Any], str]] = {
    "family": (
        "bert",
        {"size": "giant"},
        "family 'bert' cannot be trained: optimum does not export it as a causal language model; "
        "expected one of bart, llama, m",
    ),
    "exporter": ("optimum", {"size": "nano"}, "has an exporter, and cannot be trained"),
    "size": ("t5", {"size": "giant"}, "no size 'giant'; expected one of femto, pico"),
    "unknown-field": (
        "t5",
        {"config": {**T5, "d_modle": 3}},
        "key d_modle; did you mean d_model?",
    ),
    "vocabulary": ("t5", {"config": {**T5, "vocab_size": 99}}, "unknown key vocab_size"),
    "type": ("t5", {"config": {**T5, "d_ff": "wide"}}, "d_ff: Input should be a valid integer"),
    "zero": ("llama", {"config": {**LLAMA, "hidden_size": 0}}, "hidden_size: Input should be gr"),
    "dropout": ("llama", {"config": {**LLAMA, "attention_dropout": 3}}, "attention_dropout: "),
    "kv-heads": (
        "llama",
        {"config": {**LLAMA, "num_key_value_heads": 3}},
        "num_key_value_heads is",
    ),
    "heads": ("llama", {"config": {**LLAMA, "hidden_size": 25}}, "hidden_size is 25; expected a m"),
    "scaled-by-0": (
        "llama",
        {"config": {**LLAMA, "rope_scaling": {**LLAMA3, "factor": 0.0}}},
        "the factor of its rotary positions is 0.0; expected a number of 1 or more",
    ),
    "equal-frequencies": (
        "llama",
        {"config": {**LLAMA, "rope_scaling": {**LLAMA3, "low_freq_factor": 4.0}}},
        "low_freq_factor is 4.0 and high_freq_factor 4.0; expected 0 < low < high",
    ),
    "no-kv-heads": (
        "llama",
        {"config": {**LLAMA, "num_key_value_heads": 0}},
        "num_key_value_heads: Input should be greater than 0 (found 0)",
    ),
    "odd-head": ("llama", {"config": {**LLAMA, "head_dim": 7}}, "a head has 7 dimensions; expec"),
    "activation": ("llama", {"config": {**LLAMA, "hidden_act": "mish"}}, "hidden_act is 'mish'; e"),
    "t5-activation": (
        "t5",
        {"config": {**T5, "feed_forward_proj": "gated-mish"}},
        "is 'mish'; exp",
    ),
    "t5-class": ("t5", {"config": {**T5, "feed_forward_proj": "a-b-c"}}, "ValueError: `feed_forw"),
    "t5-buckets": (
        "t5",
        {"config": {**T5, "relative_attention_max_distance": 8}},
        "_max_distance 8",
    ),
    "rotary": (
        "llama",
        {"config": {**LLAMA, "rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}},
        "rotary positions are scaled as 'dynamic'",
    ),
    "window": ("mistral", {"config": {**LLAMA, **MISTRAL}}, "sliding_window is 64; exp"),
    "window-of-a-layer": (
        "qwen2",
        {"config": {**LLAMA, **WINDOW, "max_window_layers": 0}},
        "sliding_window is 64; expected none, or 1024 or more",
    ),
    "no-type": ("giant", {"config": {}}, "cannot be trained: transformers does not know it"),
    "other-kind": ("vit", {"config": {}}, "transformers has no causal language model of it"),
    "two-stacks": ("marian", {"config": {}}, "it is an encoder-decoder, which needs an exporter"),
    "several-parts": ("gemma3", {"config": {}}, "it has parts beside its language model"),
    "experts": ("qwen3_moe", {"config": {}}, "it is a mixture of experts, whose cost"),
    "unfit": ("mpt", {"config": {}}, "its PyTorch code does not run in float64"),
    "no-sizes": ("gpt2", {"size": "small"}, "gpt2 has no size 'small'; expected config"),
    "gpt2-field": ("gpt2", {"config": {"n_ebmd": 3}}, "unknown key n_ebmd; did you mean n_embd?"),
    "gpt2-heads": ("gpt2", {"config": {**GPT2, "n_head": 3}}, "must be divisible by num_heads"),
    "gpt2-positions": (
        "gpt2",
        {"config": {**GPT2, "n_positions": 30}},
        "30 tokens together; expected 3",
    ),
    "caps": ("gemma2", {"config": {}}, "attn_logit_softcapping is 50.0; expected none: optimum"),
    "bart-stacks": (
        "bart",
        {"config": {**BART, "encoder_ffn_dim": 8}},
        "encoder_ffn_dim is 8 and decoder_ffn_dim 32; expected the same",
    ),
    "bart-heads": ("bart", {"config": {**BART, "d_model": 15}}, "d_model is 15; expected a mult"),
    "bart-positions": (
        "bart",
        {"config": {**BART, "max_position_embeddings": 33}},
        "33 tokens together; expected 3",
    ),
    "no-folder": ("t5", {"pretrained": {"path": "nowhere"}}, "no weights at nowhere; expected a"),
    "no-gguf": ("llama", {"pretrained": {"gguf": "no.gguf"}}, "no weights at no.gguf; expected a"),
}


@pytest.mark.parametrize(("family", "source", "line"), REFUSED.values(), ids=REFUSED)
def test_a_model_that_cannot_be_made_is_known_from_the_yaml(family, source, line):
    (found,) = problems_of(family, **source)
    assert found.startswith(("model mine: ", f"model {family}-")) and line in found
    assert "\n" not in found


TAKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "t5": ("t5", T5),
    "t5-gated-silu": ("t5", {**T5, "feed_forward_proj": "gated-silu"}),
    "t5-untied": ("t5", {**T5, "tie_word_embeddings": False}),
    "llama": ("llama", LLAMA),
    "llama-head": ("llama", {**LLAMA, "hidden_size": 25, "head_dim": 8}),
    "llama-3": ("llama", {**LLAMA, "rope_scaling": LLAMA3, "max_position_embeddings": 8192}),
    "bart": ("bart", BART),
    "mbart": ("mbart", {**BART, "activation_function": "relu"}),
    "gpt2": ("gpt2", GPT2),
    "mistral-window": ("mistral", {**LLAMA, "num_key_value_heads": 2, "sliding_window": 4096}),
    "qwen2-window-of-no-layer": ("qwen2", {**LLAMA, **WINDOW}),
    "qwen3": ("qwen3", {**LLAMA, "num_key_value_heads": 1, "head_dim": 12}),
    "llama-gelu": ("llama", {**LLAMA, "hidden_act": "gelu", "attention_bias": True}),
}


@pytest.mark.parametrize(("family", "config"), TAKEN.values(), ids=TAKEN)
def test_other_configurations_are_taken(family, config):
    assert problems_of(family, config=config) == []


def test_a_precision_that_an_exporter_lacks_is_known_from_the_yaml():
    model = ModelSpec(family="gpt2", name="mine", config=GPT2)
    export = ExportSpec(precision=("fp32", "bf16"))
    inference = InferenceSpec(provider="cuda")
    (found,) = model_problems(SweepSpec(models=(model,), export=export, inference=inference))
    assert found.startswith("model mine: family 'gpt2' is not exported in bf16; expected")
    assert "fp32, int8" in found


def test_without_optimum_a_model_without_a_family_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "optimum.exporters.onnx.model_configs", None)
    generic._exported.cache_clear()
    (found,) = problems_of("gpt2", config=GPT2)
    assert "cannot be trained: it is exported by the package optimum-onnx; pip install" in found
    generic._exported.cache_clear()


def test_texts_reach_no_further_than_a_model_reads():
    config = {**LLAMA, **MISTRAL, "sliding_window": 1100}
    model = ModelSpec(family="mistral", name="mine", config=config)
    for tokens, count in ((1000, 0), (1100, 1)):
        found = model_problems(SweepSpec(models=(model,), max_tokens=tokens))
        assert len(found) == count, found
    assert "model mine: it attends to 1,100 tokens together; expected 1,1" in found[0]
    assert "max_tokens is 1,100" in found[0]


def test_identifiers_that_a_model_does_not_generate_take_no_room():
    kinds = CodesIdentifiers(levels=3), NgramsIdentifiers(max_tokens=200)
    config = {**LLAMA, **MISTRAL, "sliding_window": 1100}
    for name, count in (("codes", 0), ("ngrams", 1)):
        model = ModelSpec(family="mistral", name="mine", config=config, identifiers=(name,))
        other = ModelSpec(family="t5", size="nano")
        spec = SweepSpec(models=(model, other), identifiers=kinds, max_tokens=1000)
        assert len(model_problems(spec)) == count


def test_every_preset_is_taken():
    """Presets are not looked at when a study starts; they are here."""
    from genret_dask.exporters import config_problems
    from genret_dask.models.configs import config_of

    assert model_problems(SweepSpec()) == []
    for family in names_of("families"):
        for size in family_of(family).presets:
            assert config_problems(family, config_of(ModelSpec(family=family, size=size))) == []


def edit(name: str, **fields: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))

    return change


def cut_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def drop_a_weight(folder: Path) -> None:
    from safetensors.numpy import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    weights.pop(max(weights, key=len))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def other_words(*words: str, **rows: int) -> Callable[[Path], None]:
    """Gives the tokeniser other words, and no token for others unless it is among them."""

    def change(folder: Path) -> None:
        path = folder / "tokenizer.json"
        record = json.loads(path.read_text())
        vocab = {word: row for row, word in enumerate(("</s>", *words))} | rows
        record["model"] |= {"vocab": vocab}
        record["added_tokens"] = [one for one in record["added_tokens"] if one["content"] in vocab]
        path.write_text(json.dumps(record))
        if "<unk>" not in vocab:
            edit("tokenizer_config.json", unk_token=None)(folder)
            edit("special_tokens_map.json", unk_token="</s>")(folder)

    return change


def drop_the_tokeniser(folder: Path) -> None:
    for path in folder.glob("*token*"):
        path.unlink()


FOLDERS: dict[str, tuple[Callable[[Path], Any], str]] = {
    "config-not-json": (lambda to: (to / "config.json").write_text("{"), "cannot load"),
    "no-config": (lambda to: (to / "config.json").unlink(), "no weights at"),
    "other-family": (edit("config.json", model_type="gpt2"), "holds a gpt2; expected a"),
    "no-weights": (lambda to: (to / "model.safetensors").unlink(), "has no model.safetensors"),
    "no-shard": (
        lambda to: (to / "model.safetensors.index.json").write_text(
            json.dumps({"weight_map": {"a": "model-1.safetensors"}})
        ),
        "has no model-1.safetensors",
    ),
    "cut-weights": (cut_weights, "model.safetensors: SafetensorError"),
    "lacks-a-weight": (drop_a_weight, "1 weights are missing: "),
    "other-shape": (edit("config.json", vocab_size=21), "in the weights, and [21, 16] by config"),
    "no-tokeniser": (drop_the_tokeniser, "has no tokeniser; expected one of token"),
    "no-end-token": (edit("tokenizer_config.json", eos_token=None), "has no end token"),
    "damaged-tokeniser": (
        lambda to: (to / "tokenizer.json").write_text("{"),
        "its tokeniser: cannot load",
    ),
    "quantised": (edit("config.json", quantization_config={"quant_method": "awq"}), "quantised"),
    "reads-no-letter": (other_words("Iceland", "Peru"), "does not read every text"),
    "ids-with-holes": (other_words("<unk>", Peru=17), "3 tokens, and ids up to 17"),
}


@pytest.mark.parametrize("family", ["t5", "llama"])
@pytest.mark.parametrize(("damage", "line"), FOLDERS.values(), ids=FOLDERS)
def test_weights_that_cannot_be_used_are_known_from_their_folder(
    tmp_path, pretrained, family, damage, line
):
    folder = tmp_path / "hf"
    shutil.copytree(pretrained[family], folder)
    assert problems_of(family, pretrained={"path": folder}) == []
    damage(folder)
    found = problems_of(family, pretrained={"path": folder})
    assert [one for one in found if one.startswith("model mine: ") and line in one], found


def write_gguf(path: Path, architecture: str, *, tokens: bool) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(path, architecture)
    writer.add_block_count(2)
    if tokens:
        writer.add_token_list([b"a", b"b"])
        writer.add_token_types([1, 1])
        writer.add_eos_token_id(1)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()


def cut(path: Path) -> None:
    write_gguf(path, "llama", tokens=True)
    path.write_bytes(path.read_bytes()[:-20])


@pytest.mark.parametrize(
    ("write", "line"),
    [
        (lambda path: write_gguf(path, "llama", tokens=True), None),
        (lambda path: write_gguf(path, "gpt2", tokens=True), "holds a gpt2; expected a llama"),
        (lambda path: write_gguf(path, "llama", tokens=False), "has no tokeniser"),
        (cut, "is not a GGUF file: it is cut off"),
        (lambda path: path.write_bytes(b"noise" * 9), "it does not begin with GGUF"),
        (lambda path: path.write_bytes(b"GGUF" + bytes(4)), "its version is 0"),
    ],
    ids=["good", "other-family", "no-tokeniser", "cut", "noise", "version"],
)
def test_a_gguf_file_is_known_from_its_header(tmp_path, write, line):
    write(tmp_path / "model.gguf")
    found = problems_of("llama", pretrained={"gguf": tmp_path / "model.gguf"})
    assert found == [] if line is None else len(found) == 1 and line in found[0]


@pytest.mark.parametrize(
    ("embedding", "line"),
    [
        ({"kind": "sentence", "path": "nowhere"}, "nowhere is not a Hugging Face model folder"),
        ({"kind": "encoder", "path": "nowhere"}, "nowhere is not a Hugging Face model folder"),
        ({"kind": "sentence", "package": "no-such-package"}, "is not installed; pip install no-"),
    ],
)
def test_embedders_that_are_not_there_are_known(embedding, line):
    (found,) = model_problems(SweepSpec(identifiers={"kind": "codes", "embedding": embedding}))
    assert line in found


def test_all_problems_come_at_once():
    models = [ModelSpec(family=family, size="giant") for family in ("t5", "llama", "bert")]
    with pytest.raises(SpecError) as caught:
        check_models(SweepSpec(models=tuple(models)))
    first, *lines = caught.value.found.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"  model {name}-giant" for name in ("t5", "llama", "bert")
    ]


@pytest.mark.parametrize("command", ["sweep", "train", "export", "sweep --dry-run"])
def test_every_command_refuses_with_the_same_words_and_writes_nothing(tmp_path, command):
    content = {
        "name": "x",
        "dataset": {"kind": "beir", "path": str(tmp_path / "no-collection")},
        "models": [{"family": "bert", "size": "giant"}, {"family": "t5", "size": "giant"}],
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(content))
    (tmp_path / "cluster.yaml").write_text(
        yaml.safe_dump({"version": 1, "module": "dask.distributed", "class": "LocalCluster"})
    )
    options = [
        "--cluster",
        str(tmp_path / "cluster.yaml"),
        "--config",
        str(tmp_path / "study.yaml"),
    ]
    result = CliRunner().invoke(
        main, [*command.split(), *options, "--runs", str(tmp_path / "runs")]
    )
    with pytest.raises(SpecError) as caught:
        check_models(SweepSpec.model_validate(content))
    assert result.exit_code == 2 and str(caught.value) in result.output
    assert "2 things are in the way" in result.output
    assert "no-collection is missing" in result.output
    assert not (tmp_path / "runs").exists()


# --- memory -----------------------------------------------------------------------------------

SMALL = Texts(documents=2000, nbytes=943_491)
LARGE = Texts(documents=20_000, nbytes=9_437_562)
PEAKS = {
    "t5-femto": ("t5", "femto", CodesIdentifiers(), SMALL, 653, 544),
    "t5-femto-ngrams": ("t5", "femto", NgramsIdentifiers(), SMALL, 690, 544),
    "t5-small": ("t5", "small", CodesIdentifiers(), SMALL, 2239, 1347),
    "llama-small": ("llama", "small", CodesIdentifiers(), SMALL, 3538, 1546),
    "llama-femto-20k": ("llama", "femto", CodesIdentifiers(), LARGE, 850, 550),
}
"""Largest resident MB of processes that trained and exported on 2,000 and 20,000 documents of 100
words: batches of 64, texts of at most 24 tokens, default pairs and vocabulary, on a CPU."""


def to_train(spec: SweepSpec, done: str = "") -> list[Step]:
    """Steps of a study of which nothing, or one model, is done."""
    return [
        Step(
            stage, "", Path(folder, cell.kind, cell.name), "done" if cell.name == done else "to do"
        )
        for cell in cells_of(spec)
        for stage, folder in (("train", "checkpoints"), ("export", "models"))
    ]


def test_what_is_done_needs_no_memory():
    """B10: neither a plan nor a refusal counts a large model that is there."""
    models = (ModelSpec(family="t5", size="large"), ModelSpec(family="t5", size="femto"))
    spec = SweepSpec(models=models)
    needs = memory_needs(spec, SMALL, to_train(spec, done="t5-large"))
    assert [need.task for need in needs] == ["codes/t5-femto"] * 2
    assert memory_needs(spec, SMALL, to_train(spec))[0].nbytes > 2 * max(n.nbytes for n in needs)


@pytest.mark.parametrize(
    ("family", "size", "kind", "texts", "trained", "exported"), PEAKS.values(), ids=PEAKS
)
def test_the_need_bounds_what_processes_held(family, size, kind, texts, trained, exported):
    """B10"""
    model = ModelSpec(family=family, size=size)
    spec = SweepSpec(models=(model,), identifiers=(kind,))
    training, export = memory_needs(spec, texts, to_train(spec))
    assert trained * 1e6 <= training.nbytes <= 1.5 * trained * 1e6
    assert exported * 1e6 <= export.nbytes <= 1.5 * exported * 1e6


def test_a_worker_too_small_for_a_training_is_refused_in_one_line(tiny):
    """B10"""
    texts = Texts(documents=50_000, nbytes=50_000_000)
    needs = memory_needs(SweepSpec(), texts, to_train(SweepSpec()))
    check_memory({"a": None, "b": 0}, needs)
    check_memory({"a": 8 * 10**9}, needs)
    check_memory({"a": 1}, [])
    with pytest.raises(BudgetError) as caught:
        check_memory({"a": 8 * 10**9, "tcp://b": 1_200_000_000}, needs)
    (line,) = caught.value.found.splitlines()
    assert line.startswith("a memory limit of 1.12 GiB (tcp://b), and about ")
    assert line.endswith(" for the training of codes/t5-micro")
    assert "training.batch_size" in caught.value.fix
    assert summary(needs).count("about") == 2 and "training of codes/t5-micro" in summary(needs)


@pytest.mark.parametrize("command", ["sweep", "sweep --dry-run"])
def test_a_memory_limit_of_the_clusters_file_is_held_against_the_need(tiny, tmp_path, command):
    """B8, B10: known before a cluster starts or anything is written, to the plan too."""
    (tmp_path / "study.yaml").write_text(tiny_spec(tiny).model_dump_json())
    kwargs = {"n_workers": 1, "memory_limit": "300MB"}
    cluster = {"version": 1, "module": "distributed", "class": "LocalCluster", "kwargs": kwargs}
    (tmp_path / "cluster.yaml").write_text(yaml.safe_dump(cluster))
    files = {"--cluster": "cluster.yaml", "--config": "study.yaml", "--runs": "runs"}
    words = [word for key, one in files.items() for word in (key, str(tmp_path / one))]
    result = CliRunner().invoke(main, [*command.split(), *words])
    assert result.exit_code == 1
    assert "Error: a memory limit of 286.10 MiB (" in result.stderr
    assert "for the training of codes/t5" in result.stderr
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        ({"class": "LocalCluster", "kwargs": {"n_workers": 4, "memory_limit": "2GB"}}, 2 * 10**9),
        ({"class": "LocalCluster", "kwargs": {"n_workers": 4}}, MEMORY_LIMIT // 4),
        ({"class": "LocalCluster", "scale": 2, "kwargs": {}}, MEMORY_LIMIT // 2),
        ({"class": "LocalCluster", "kwargs": {"memory_limit": 0}}, None),
        ({"class": "LocalCluster", "kwargs": {"n_workers": 0}}, MEMORY_LIMIT),
        (
            {
                "module": "dask_jobqueue",
                "class": "SLURMCluster",
                "scale": 2,
                "kwargs": {"cores": 4, "processes": 4, "memory": "8GB"},
            },
            2 * 10**9,
        ),
        ({"address": "tcp://127.0.0.1:8786"}, None),
    ],
)
def test_what_a_clusters_file_lets_a_worker_hold(content, limit):
    if "address" not in content:
        content = {"module": "distributed", **content}
    assert memory_limit(ClusterSpec.model_validate(content)) == limit


# --- time -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (82, "82 s"), (119, "119 s"), (840, "14 min"), (9e3, "2.5 h")],
)
def test_times_are_said_in_a_unit_that_fits(seconds, text):
    """B8"""
    assert duration(seconds) == text


def test_a_small_sweep_takes_its_imports_and_steps_not_its_flops(tiny):
    """B8: 26 s measured on two quiet cores, of which the FLOPs are a hundredth."""
    spec = tiny_spec(tiny, models=[FEMTO["t5"], FEMTO["llama"]])
    plan = estimate(spec, spec.dataset.load())
    assert 13 <= plan.seconds(2) <= 52
    longer = {"training": {"examples": 64_000, "batch_size": 16}}
    more = estimate(tiny_spec(tiny, models=[FEMTO["t5"]], **longer), spec.dataset.load())
    assert more.train_steps == 4000 and more.seconds(1) > 60
    nothing = dict.fromkeys(("train", "export", "search"), 0.0)
    assert more.seconds(1, nothing) == START_SECONDS  # a finished run
    assert more.seconds(1, {"train": 0.0}) < more.seconds(1, {"train": 0.5}) < more.seconds(1)


def test_an_embedder_that_is_missing_is_told_with_all_else(tiny, tmp_path):
    kind = {"kind": "codes", "embedding": {"kind": "sentence", "path": str(tmp_path / "none")}}
    wrong = {"family": "t5", "size": "giant"}
    study = Study(tiny_spec(tiny, identifiers=[kind], models=[wrong]), runs=tmp_path / "runs")
    with pytest.raises(SpecError) as caught:
        study.check()
    assert "giant" in str(caught.value) and "none is not a Hugging Face" in str(caught.value)
