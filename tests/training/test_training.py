"""Training: nested subsets, addressable batches, bitwise repeats, resumption, honest counts."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from genret_dask.datasets import BeirDataset
from genret_dask.datasets.collection import Collection
from genret_dask.datasets.order import in_random_order, sample_rows
from genret_dask.datasets.pairs import Pairs, TrainingPairs
from genret_dask.errors import ModelError, SpecError, TrainingError
from genret_dask.kinds import CodesIdentifiers
from genret_dask.models.architectures import count_parameters
from genret_dask.models.configs import config_of
from genret_dask.models.families import family_of
from genret_dask.models.reader import Reader, plain
from genret_dask.specs import (
    ModelSpec,
    PairsSpec,
    PretrainedSpec,
    SweepSpec,
    TokenizerSpec,
    TrainingSpec,
)
from genret_dask.storage.fingerprint import Origin
from genret_dask.study.sweep import Study
from genret_dask.training.batches import Batches
from genret_dask.training.build import build_model
from genret_dask.training.loop import _Run, train, training_flops
from genret_dask.training.loss import identifier_loss
from genret_dask.training.task import TrainTask, finished
from genret_dask.training.tokenizer import train_tokenizer
from tests.conftest import SMALL, make_collection, write_beir
from tests.runs import TINY


@pytest.fixture(scope="module")
def tasks(tmp_path_factory) -> dict[str, TrainTask]:
    root = tmp_path_factory.mktemp("training")
    write_beir(make_collection(), root / "beir")
    spec = SweepSpec(
        name="toy",
        dataset=BeirDataset(kind="beir", path=root / "beir"),
        identifiers=CodesIdentifiers(levels=2, codes=6),
        tokenizer=TokenizerSpec(vocab_size=400),
        training=TrainingSpec(examples=512, batch_size=16, evaluations=4, patience=9, dropout=0.1),
        models=tuple(
            ModelSpec(family=family, config=config, name=family, fractions=(0.5, 1.0))
            for family, config in TINY.items()
        ),
    )
    return {
        task.name.removeprefix("codes/"): task
        for task in Study(spec, runs=root / "runs").training_tasks()
    }


def elsewhere(task: TrainTask, folder: Path, **changes) -> TrainTask:
    return replace(task, folder=folder / "checkpoint", **changes)


# --- pairs and batches --------------------------------------------------------------------------


def all_pairs(collection: Collection, spec: PairsSpec, **options) -> tuple[TrainingPairs, Pairs]:
    pairs = TrainingPairs(collection, spec, 0, **options)
    return pairs, pairs.take(np.arange(len(pairs)))


def test_pairs_are_of_queries_and_of_every_document_alike():
    collection = make_collection()
    pairs, drawn = all_pairs(collection, PairsSpec(sentences=3, spans=4))
    train = len(collection.qrels["train"].relevant())
    assert (pairs.queries, pairs.others) == (train, len(collection) * (1 + 3 + 4))
    assert set(drawn.texts[:train]) <= set(collection.queries)
    for text, document in zip(drawn.texts[train:], drawn.document[train:], strict=True):
        assert text in " ".join(collection.document(int(document)).split())
    assert set(np.bincount(drawn.document[train:])) == {8}
    lines = {" ".join(text.split()) for text in collection.documents()}
    assert lines <= set(drawn.texts[train:])


@settings(max_examples=20, deadline=None)
@given(order=st.permutations(range(30)))
def test_a_pair_is_what_it_is_in_any_order(order):
    pairs, drawn = all_pairs(make_collection(12), PairsSpec(sentences=2, spans=3))
    numbers = np.array(order)
    again = pairs.take(numbers)
    assert again.texts == [drawn.texts[number] for number in order]
    assert again.document.tolist() == drawn.document[numbers].tolist()


def test_equal_train_queries_of_a_document_are_one_pair():
    collection = make_collection()
    rows = collection.qrels["train"].query[:2]
    texts = list(collection.queries)
    texts[rows[1]] = f" {texts[rows[0]]}  "
    train = replace(
        collection.qrels["train"], document=np.zeros_like(collection.qrels["train"].document)
    )
    same = replace(collection, queries=texts, qrels={**collection.qrels, "train": train})
    assert TrainingPairs(same, PairsSpec(), 0).queries == len(train) - 1


def test_documents_without_a_text_or_an_identifier_have_no_pairs():
    collection = make_collection()
    texts = list(collection.texts)
    texts[3] = " \n"
    bare = replace(collection, texts=texts)
    _, drawn = all_pairs(bare, PairsSpec(queries=False), excluded=[0, 7, 39])
    assert {*range(40)} - {*drawn.document.tolist()} == {0, 3, 7, 39}
    asked = bare.qrels["train"].document
    pairs = TrainingPairs(bare, PairsSpec(), 0, excluded=[int(asked[0])])
    assert pairs.queries == (asked != asked[0]).sum() - ((asked == 3) & (asked[0] != 3)).sum()


def test_pseudo_queries_come_from_all_of_a_long_document():
    collection = make_collection(2)
    body = [f"Sentence {number} has some words." for number in range(20_000)]
    long = replace(collection, texts=[" ".join(body), collection.texts[1]])
    spec = PairsSpec(queries=False, documents=False, sentences=20, spans=20)
    _, drawn = all_pairs(long, spec)
    texts = [text for text, row in zip(drawn.texts, drawn.document, strict=True) if row == 0]
    assert all(text in long.texts[0] for text in texts)
    numbers = {int(number) for text in texts for number in re.findall(r"Sentence (\d+)", text)}
    assert min(numbers) < 5000 < 15_000 < max(numbers)


def test_test_queries_are_not_trained_on():
    collection = make_collection()
    held_out = {collection.queries[row] for row in collection.qrels["test"].query}
    pairs, drawn = all_pairs(collection, PairsSpec(spans=0))
    queries = set(drawn.texts[: pairs.queries])
    assert queries and not queries & held_out


@settings(max_examples=20, deadline=None)
@given(st.floats(0.01, 1), st.floats(0.01, 1), st.integers(0, 9))
def test_fractions_are_nested(first, second, seed):
    collection, spec = make_collection(30), PairsSpec(sentences=0, spans=2)
    sides = []
    for part in sorted((first, second)):
        pairs = TrainingPairs(collection, spec, seed, part)
        assert pairs.queries == round(part * 30) and pairs.others == round(part * 90)
        drawn = pairs.take(np.arange(len(pairs)))
        sides.append({*zip(drawn.texts, drawn.document.tolist(), strict=True)})
    assert sides[0] <= sides[1]


def test_the_smallest_fraction_is_a_pair():
    pairs, drawn = all_pairs(make_collection(5), PairsSpec(), fraction=1e-6)
    assert len(pairs) == len(drawn.texts) == 1


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(0, 5))
def test_a_random_order_holds_every_number_once(size, seed):
    found = in_random_order(np.arange(size), size, (seed, 1))
    assert sorted(found.tolist()) == list(range(size))


@settings(deadline=None)
@given(st.integers(1, 400), st.integers(1, 400), st.integers(0, 5))
def test_a_sample_is_of_distinct_rows_in_order(size, most, seed):
    rows = sample_rows(size, most, (seed,))
    assert len(rows) == min(size, most) and 0 <= rows[0] <= rows[-1] < size
    assert (np.diff(rows) > 0).all()


def test_a_tokeniser_of_many_documents_is_that_of_its_sample(monkeypatch):
    collection, spec = make_collection(), TokenizerSpec(vocab_size=300)
    monkeypatch.setattr("genret_dask.training.tokenizer.SAMPLED", 10)
    rows = set(sample_rows(40, 10, (0,)).tolist())
    others = [text if row in rows else "zebra " * 50 for row, text in enumerate(collection.texts)]
    found, expected = (
        train_tokenizer(one, spec).backend_tokenizer.to_str()
        for one in (replace(collection, texts=others), collection)
    )
    assert found == expected


def test_a_random_order_is_even():
    """The place of number 0, and the next number's, over many orders."""
    orders = np.stack([in_random_order(np.arange(8), 8, (seed,)) for seed in range(4000)])
    for place in range(8):
        counts = np.bincount(orders[:, place], minlength=8)
        assert abs(counts - 500).max() < 6 * np.sqrt(500)
    steps = np.bincount((orders[:, 1] - orders[:, 0]) % 8, minlength=8)[1:]
    assert abs(steps - 4000 / 7).max() < 6 * np.sqrt(4000 / 7)


@pytest.mark.parametrize("queries", [0, 1, 7])
@pytest.mark.parametrize("others", [False, True])
@pytest.mark.parametrize(("batch_size", "share"), [(1, 1.0), (3, 0.25), (8, 1.0)])
def test_batches_are_full_and_addressable(reader, queries, others, batch_size, share):
    collection = make_collection(max(queries, 1))
    spec = PairsSpec(queries=bool(queries), documents=others or not queries, sentences=0, spans=0)
    pairs = TrainingPairs(collection, spec, 0)
    batches, fresh = (Batches(pairs, reader, batch_size, share, seed=1) for _ in range(2))
    drawn = [batches.at(step) for step in range(33)]
    assert all(len(batch.pairs) == len(batch.lengths) == batch_size for batch in drawn)
    for step in (17, 3, 32):
        assert fresh.at(step).pairs.texts == drawn[step].pairs.texts
        np.testing.assert_array_equal(fresh.at(step).tokens, drawn[step].tokens)
    if share == 1 and queries:
        asked = set(collection.queries)
        assert all(text in asked for batch in drawn for text in batch.pairs.texts)
    row = drawn[0]
    again = reader.read(row.pairs.texts)
    assert again.lengths.tolist() == row.lengths.tolist()


def test_every_pair_is_visited_before_any_twice(reader):
    pairs = TrainingPairs(make_collection(64), PairsSpec(queries=False, sentences=0, spans=0), 0)
    batches = Batches(pairs, reader, 4, 0.5, seed=0)
    seen = np.concatenate([batches.at(step).pairs.document for step in range(16)])
    assert sorted(seen.tolist()) == list(range(64))


@pytest.fixture(scope="module")
def reader() -> Reader:
    tokenizer = train_tokenizer(make_collection(), TokenizerSpec(vocab_size=300))
    return Reader(plain(tokenizer.backend_tokenizer), max_tokens=8)


# --- models -------------------------------------------------------------------------------------


@pytest.mark.parametrize("family", list(TINY))
def test_presets_span_a_factor_of_thirty(family):
    tokenizer = train_tokenizer(make_collection(), TokenizerSpec(vocab_size=300))
    sizes = [
        count_parameters(
            build_model(ModelSpec(family=family, size=size), tokenizer, 10, dropout=0, seed=0)[0]
        )
        for size in ("femto", "pico", "nano", "micro")
    ]
    assert sizes == sorted(sizes) and sizes[-1] >= 30 * sizes[0]
    assert set(family_of(family).presets) >= {
        "femto",
        "pico",
        "nano",
        "micro",
        "mini",
        "small",
        "base",
    }


@pytest.mark.parametrize("family", list(TINY))
def test_teacher_forcing_ignores_padding_and_batch_mates(tasks, family):
    assert_padding_is_ignored(_Run(tasks[family]))


@pytest.mark.parametrize("family", sorted({*SMALL} - {*TINY}))
def test_every_other_family_trains(tasks, family, tmp_path):
    task = elsewhere(
        tasks["t5"],
        tmp_path,
        model=ModelSpec(family=family, config=SMALL[family], name=family),
        training=tasks["t5"].training.model_copy(update={"examples": 256, "evaluations": 2}),
        made_from=Origin("checkpoint", {"of": family}),
    )
    assert_padding_is_ignored(_Run(task))
    record = train(task)
    assert record["history"][-1]["loss"] < record["history"][0]["loss"]
    assert record["train_flops"] < training_flops(task) < 4 * record["train_flops"]
    assert _Run(replace(task, model=pretrained(family, task.folder))).start == record["start_token"]


def pretrained(family: str, folder: Path) -> ModelSpec:
    return ModelSpec(family=family, pretrained=PretrainedSpec(path=folder), name="again")


def assert_padding_is_ignored(run: _Run) -> None:
    run.model.eval()
    pairs = run.pairs.take(np.arange(len(run.pairs)))
    read = run.reader.read(pairs.texts)
    rows = np.argsort(read.lengths)[[0, 5, -1]]
    labels = torch.from_numpy(run.targets.labels(pairs.take(rows), np.random.default_rng(0)))

    def losses(rows, labels):
        tokens, lengths = read.padded(rows)
        with torch.inference_mode():
            logits = run.family.logits(
                run.model, torch.from_numpy(tokens), torch.from_numpy(lengths), labels
            )
        return identifier_loss(logits, labels)

    together = losses(rows, labels)
    alone = torch.cat([losses(rows[i : i + 1], labels[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=0)


def test_unknown_models_are_named(tasks):
    tokenizer = train_tokenizer(make_collection(), TokenizerSpec(vocab_size=300))

    def build(**fields):
        return build_model(ModelSpec(**fields), tokenizer, 10, dropout=0, seed=0)

    with pytest.raises(SpecError, match="no size 'giant'") as error:
        build(family="t5", size="giant")
    assert "micro" in error.value.expected
    with pytest.raises(SpecError, match="unknown key d_modle"):
        build(family="t5", config={"d_modle": 3}, name="x")
    with pytest.raises(SpecError, match="'bert' cannot be trained"):
        config_of(ModelSpec(family="bert", size="base"))
    with pytest.raises(ModelError, match="no weights at"):
        build(family="t5", pretrained=PretrainedSpec(path=Path("nowhere")), name="x")


@pytest.mark.parametrize("family", list(TINY))
def test_pretrained_weights_go_on_training(tasks, family, tmp_path):
    first = elsewhere(tasks[family], tmp_path / "a")
    train(first)
    again = elsewhere(
        tasks[family],
        tmp_path / "b",
        model=pretrained(family, first.folder),
        made_from=Origin("checkpoint", {"of": "again"}),
    )
    run = _Run(again)
    weights = load_file(first.folder / "model.safetensors")
    name = next(name for name in weights if "layers" in name or "block" in name)
    torch.testing.assert_close(dict(run.model.named_parameters())[name].detach(), weights[name])
    assert train(again)["n_params"] == finished(first)["n_params"]
    other = "llama" if family == "t5" else "t5"
    with pytest.raises(ModelError, match=f"holds a {family}"):
        _Run(replace(again, model=again.model.model_copy(update={"family": other})))


# --- the loop -----------------------------------------------------------------------------------


@pytest.mark.parametrize("family", list(TINY))
def test_training_learns_and_repeats_bitwise(tasks, family, tmp_path):
    first, second = (elsewhere(tasks[family], tmp_path / name) for name in "ab")
    record = train(first)
    assert record["history"][-1]["loss"] < record["history"][0]["loss"]
    assert record["n_train"] == len(_Run(first).pairs)
    assert record["examples"] == 512 and record["train_flops"] > 0
    train(second)
    assert (first.folder / "model.safetensors").read_bytes() == (
        second.folder / "model.safetensors"
    ).read_bytes()
    assert not first.folder.with_name("checkpoint.training").exists()


@pytest.mark.parametrize("family", list(TINY))
def test_an_interrupted_training_goes_on_to_the_same_weights(tasks, family, tmp_path):
    whole, broken = (elsewhere(tasks[family], tmp_path / name) for name in "ab")
    train(whole)

    class Stop(Exception):
        pass

    def stop_at(done, total):
        if done >= 20:
            raise Stop

    with pytest.raises(Stop):
        train(broken, progress=stop_at)
    assert not broken.folder.exists()
    state = json.loads((broken.folder.with_name("checkpoint.training") / "state.json").read_text())
    assert 0 < state["step"] < 32
    steps = []
    train(broken, progress=lambda done, total: steps.append(done))
    assert min(steps) == state["step"]
    assert (whole.folder / "model.safetensors").read_bytes() == (
        broken.folder / "model.safetensors"
    ).read_bytes()


@pytest.mark.parametrize("family", list(TINY))
def test_the_planned_cost_bounds_the_recorded_one(tasks, family, tmp_path):
    task = elsewhere(tasks[family], tmp_path)
    record = train(task)  # whose inputs are shorter than the longest allowed
    assert record["train_flops"] < training_flops(task) < 4 * record["train_flops"]


def test_a_finished_training_is_not_repeated(tasks, tmp_path):
    task = elsewhere(tasks["t5"], tmp_path)
    record = train(task)
    steps = []
    assert train(task, progress=lambda done, total: steps.append(done)) == record
    assert not steps


def test_state_of_other_settings_is_thrown_away(tasks, tmp_path):
    task = elsewhere(tasks["t5"], tmp_path)
    run = _Run(task)
    run.train_until_evaluation(None)
    other = _Run(replace(task, made_from=Origin("checkpoint", {})))
    other.resume()
    assert other.step == 0


def test_patience_stops_early_and_the_best_weights_are_kept(tasks, tmp_path, monkeypatch):
    losses = iter([3.0, 2.0, 2.5, 2.4, 1.0])
    at_best = {}

    def dev_loss(run):
        loss = next(losses)
        if loss == 2.0:
            at_best.update({name: value.clone() for name, value in run._weights().items()})
        return loss

    monkeypatch.setattr(_Run, "_dev_loss", dev_loss)
    training = tasks["t5"].training.model_copy(update={"patience": 2, "evaluations": 8})
    task = elsewhere(tasks["t5"], tmp_path, training=training)
    record = train(task)
    assert [entry["dev_loss"] for entry in record["history"]] == [3.0, 2.0, 2.5, 2.4]
    assert (record["step"], record["dev_loss"]) == (8, 2.0)
    weights = load_file(task.folder / "model.safetensors")
    assert all(torch.equal(weights[name], at_best[name]) for name in weights)


def test_divergence_is_an_error(tasks, tmp_path, monkeypatch):
    monkeypatch.setattr(
        "genret_dask.training.loop.identifier_loss",
        lambda logits, labels: identifier_loss(logits, labels) * float("nan"),
    )
    with pytest.raises(TrainingError, match="loss became nan"):
        train(elsewhere(tasks["t5"], tmp_path))


def test_a_latent_start_of_many_documents_is_that_of_its_sample(tasks, monkeypatch):
    monkeypatch.setattr("genret_dask.training.loop.SAMPLED", 12)
    first, second = (_Run(tasks["t5"]).model.shared.weight.detach() for _ in range(2))
    monkeypatch.undo()
    everything = _Run(tasks["t5"]).model.shared.weight.detach()
    assert torch.equal(first, second) and not torch.equal(first, everything)
    assert torch.isfinite(first).all() and (first.abs().sum(1) > 0).all()


def test_a_latent_start_points_documents_at_their_codes(tasks):
    """Nearest first code by the sum of a document's token rows: far better than by chance."""
    task, texts = tasks["t5"], make_collection().texts
    right = {}
    for init in ("lsa", "random"):
        training = task.training.model_copy(update={"init": init})
        run = _Run(replace(task, training=training))
        rows = run.model.shared.weight.detach()
        tokens = [torch.tensor(run.tokenizer(text)["input_ids"]) for text in texts]
        documents = torch.stack([rows[ids].sum(0) for ids in tokens])
        everyone = Pairs(list(texts), np.arange(len(texts)))
        labels = run.targets.labels(everyone, np.random.default_rng(0))
        first = torch.from_numpy(labels[:, 0])
        cells = torch.arange(run.start + 1, int(first.max()) + 1)
        nearest = cells[(documents - documents.mean(0)).matmul(rows[cells].T).argmax(-1)]
        right[init] = float((nearest == first).float().mean())
    assert right["lsa"] > 0.5 > 0.35 > right["random"]
