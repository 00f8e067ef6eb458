"""Ready checkpoints: searched as they are, with their own vocabulary, tokeniser and prompt."""

from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from genret_dask.cube.open import open_cube
from genret_dask.datasets import BeirDataset
from genret_dask.datasets.collection import Qrels
from genret_dask.errors import GenretError, SpecError
from genret_dask.kinds import CodesIdentifiers, FileIdentifiers, NgramsIdentifiers
from genret_dask.kinds.titles import TitlesIdentifiers
from genret_dask.specs import InferenceSpec, ModelSpec, SweepSpec, TrainingSpec
from genret_dask.specs.validation import validate
from genret_dask.storage.layout import RunLayout
from genret_dask.study.sweep import Study, sweep
from tests.conftest import make_collection, write_beir
from tests.judge import torch_scores
from tests.runs import TINY, make_spec

TITLES = TitlesIdentifiers(empty="allow")
OF_TRAINING = ["n_train", "train_flops", "origin", "checkpoint", "train_fraction"]
PROMPT = "query: {query} title:"


def study(root: Path, *models: ModelSpec, identifiers=(TITLES,), **changes):
    return make_spec(
        root,
        identifiers=identifiers,
        models=models,
        training=TrainingSpec(examples=160, batch_size=16, evaluations=1),
        inference=InferenceSpec(beams=(1, 30), negatives=8, batch_queries=8),
        **changes,
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A collection, and a study that trained a T5 and a LLaMA to give its titles."""
    root = tmp_path_factory.mktemp("ready")
    collection = make_collection(16)
    titles = [f"title {row // 2} of {row % 2}" for row in range(len(collection))]
    write_beir(replace(collection, titles=titles), root / "beir")
    models = (ModelSpec(family=name, config=TINY[name], name=name) for name in TINY)
    sweep(study(root, *models), runs=root / "trained")
    return root


def checkpoint(root: Path, family: str) -> Path:
    return RunLayout(root / "trained" / "toy").checkpoint("titles", family)


@pytest.fixture(scope="module")
def cube(root) -> xr.DataTree:
    """Of both as ready checkpoints; a LLaMA opens an identifier with the last token of a prompt."""
    write_beir(without_train(root), root / "untrained" / "beir")
    spec = study(
        root / "untrained",
        ModelSpec.model_validate(
            {"name": "t5", "checkpoint": str(checkpoint(root, "t5")), "n_train": 500}
        ),
        ModelSpec.model_validate(
            {"name": "llama", "checkpoint": str(checkpoint(root, "llama")), "prompt": PROMPT}
        ),
        identifiers=(TITLES, NgramsIdentifiers(min_tokens=2, max_tokens=4, spans=2)),
    )
    return open_cube(sweep(spec, runs=root / "ready"))


def without_train(root: Path):
    collection = BeirDataset(path=root / "beir").load(root / "columns")
    none = Qrels.from_rows(np.zeros(0, int), np.zeros(0, int), np.zeros(0, int))
    return replace(collection, qrels={**collection.qrels, "train": none, "dev": none}, known=None)


def test_a_trained_t5_that_is_brought_again_gives_the_same_search(root, cube):
    """Its configuration names the row that opens an identifier, and its tokeniser the end."""
    trained = open_cube(root / "trained" / "toy")["titles/search"].to_dataset().sel(model="t5")
    brought = cube["titles/search"].to_dataset().sel(model="t5")
    for name in ("doc", "token", "logit", "log_partition", "score"):
        xr.testing.assert_equal(trained[name].drop_vars(OF_TRAINING, errors="ignore"),
                                brought[name].drop_vars(OF_TRAINING, errors="ignore"))  # fmt: skip


@pytest.mark.parametrize("model", ["t5", "llama"])
def test_a_ready_model_ranks_as_torch_does(root, cube, model):
    layout = RunLayout(root / "ready" / "toy")
    search = cube["titles/search"].sel(model=model)
    tokenizer = json.loads((layout.model("titles", model) / "manifest.json").read_text())
    digest = tokenizer["files"]["tokenizer.json"]
    listing = TITLES.open(layout.identifiers("titles", digest))
    for query in range(2):
        text = str(search["text"][query].values)
        scores = torch_scores(
            layout, "titles", model, listing.paths(np.arange(16)), listing.block_starts, text
        )
        widest = search.isel(query=query, beam=-1)
        assert sorted(widest["doc"].values) == list(range(16))
        np.testing.assert_allclose(widest["score"].values, scores[widest["doc"].values], atol=1e-4)


def test_what_is_not_known_of_a_training_is_left_out(root, cube):
    search = cube["titles/search"]
    assert search["n_train"].values.tolist()[0] == 500
    assert np.isnan(search["n_train"].values[1]) and np.isnan(search["train_flops"].values).all()
    assert search["origin"].values.tolist() == ["ready", "ready"]
    results = Study(SweepSpec.model_validate(cube.attrs["spec"]), runs=root / "ready").analyse()
    assert {one["n_train"] for one in results["metrics"]} == {500, None}
    assert not any("D" in one["law"] for one in results["fits"])
    assert any(one["law"] == "L(C)" for one in results["fits"])


def test_it_trains_nothing_and_no_tokeniser(root, cube):
    run = root / "ready" / "toy"
    assert not (run / "tokenizer").exists()
    assert sorted(path.name for path in (run / "tokenizers").iterdir()) == ["llama", "t5"]


# --- bad input ------------------------------------------------------------------------------------


def refused(root: Path, tmp_path: Path, content: dict, identifiers=(TITLES,)) -> str:
    with pytest.raises(GenretError) as caught:
        spec = study(root, ModelSpec.model_validate(content), identifiers=identifiers)
        Study(spec, runs=tmp_path / "runs").check()
    assert not (tmp_path / "runs").exists()
    return str(caught.value)


def test_identifiers_that_need_new_rows_are_refused(root, tmp_path):
    model = {"name": "mine", "checkpoint": str(checkpoint(root, "t5"))}
    said = refused(root, tmp_path, model, (CodesIdentifiers(levels=1, codes=4),))
    assert "codes are new rows of the vocabulary, which a ready checkpoint lacks" in said


def test_a_decoder_without_a_prompt_is_refused(root, tmp_path):
    model = {"name": "mine", "checkpoint": str(checkpoint(root, "llama"))}
    assert "goes on behind the query" in refused(root, tmp_path, model)
    assert "goes on behind the query" in refused(root, tmp_path, {**model, "prompt": "q: {query}"})


def test_a_prompt_that_leaves_no_room_is_refused(root, tmp_path):
    model = {"name": "mine", "checkpoint": str(checkpoint(root, "llama"))}
    said = refused(root, tmp_path, {**model, "prompt": "a " * 40 + "{query} b"})
    assert "of the 32 tokens that max_tokens allows" in said


def test_a_prompt_whose_pieces_grow_together_is_refused(root, tmp_path):
    model = {"name": "mine", "checkpoint": str(checkpoint(root, "llama"))}
    said = refused(root, tmp_path, {**model, "prompt": "re{query}ing it"})
    assert "otherwise than in one piece" in said


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"prompt": "no query"}, "holds {query} once"),
        ({"fractions": [0.5]}, "a checkpoint is not trained"),
        ({"training": {"examples": 1}}, "a checkpoint is not trained"),
        ({"size": "nano"}, "exactly one of"),
        ({"checkpoint": "nowhere"}, "checkpoint nowhere is no folder"),
    ],
)
def test_wrong_settings_of_a_checkpoint_are_named(root, change, said):
    content = {"name": "mine", "checkpoint": str(checkpoint(root, "t5")), **change}
    with pytest.raises(SpecError, match=re.escape(said)):
        validate(SweepSpec, {"models": [content]}, source="x")


def test_facts_of_a_checkpoint_are_refused_of_a_model_that_is_trained():
    with pytest.raises(ValueError, match="are of a checkpoint"):
        ModelSpec(family="t5", size="nano", n_train=3)


def test_tokens_that_its_tokeniser_lacks_are_named(root, tmp_path):
    lines = (json.dumps({"_id": f"d{row}", "identifier": ["a", f"<b_{row}>"]}) for row in range(16))
    (tmp_path / "tokens.jsonl").write_text("\n".join(lines))
    model = {"name": "mine", "checkpoint": str(checkpoint(root, "t5"))}
    said = refused(root, tmp_path, model, (FileIdentifiers(path=tmp_path / "tokens.jsonl"),))
    assert "its tokeniser lacks 16 tokens of the identifiers" in said and "<b_0>, <b_10>" in said


def test_weights_that_lack_a_tensor_are_refused(root, tmp_path):
    folder = tmp_path / "broken"
    shutil.copytree(checkpoint(root, "t5"), folder)
    (folder / "model.safetensors").unlink()
    model = {"name": "mine", "checkpoint": str(folder)}
    assert "model.safetensors" in refused(root, tmp_path, model)
