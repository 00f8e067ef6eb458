"""Folders as the field has them, made of raw files, through one sweep to its metrics."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from genret_dask.cli import main
from genret_dask.cube.open import open_cube
from genret_dask.datasets.stored import read_artefact
from tests.cli.test_sweep import CLUSTER
from tests.runs import TINY

WORDS = np.array([f"w{number}" for number in range(120)])
DOCUMENTS = 40
KINDS = ("codes", "atomic", "numbers", "ngrams")


def texts(seed: int, count: int, length: int) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, length)) for _ in range(count)]


def sweep(root: Path, dataset: dict, **changes) -> Path:
    """Run the command on a tiny model; returns the run directory."""
    content = {
        "name": "toy",
        "dataset": dataset,
        "identifiers": [
            {"kind": "codes", "levels": 2, "codes": 6},
            "atomic",
            "numbers",
            {"kind": "ngrams", "min_tokens": 2, "max_tokens": 4, "spans": 2},
        ],
        "tokenizer": {"vocab_size": 400},
        "models": [{"family": "llama", "config": TINY["llama"], "name": "m"}],
        "inference": {"beams": [1, 10], "negatives": 8, "shard_queries": 16},
        "fits": {"bootstrap": 5},
        **changes,
    }
    (root / "study.yaml").write_text(yaml.safe_dump(content))
    (root / "cluster.yaml").write_text(yaml.safe_dump(CLUSTER))
    options = ["--cluster", str(root / "cluster.yaml"), "--config", str(root / "study.yaml")]
    done = CliRunner().invoke(main, ["sweep", *options, "--runs", str(root / "runs")])
    assert done.exit_code == 0, done.output
    return root / "runs" / "toy"


def metrics(run: Path) -> dict[str, dict]:
    """The record of the widest beam by kind of identifier."""
    records = json.loads((run / "results" / "metrics.json").read_text())
    return {one["identifiers"]: one for one in records if one["beam"] == 10}


def rankings(run: Path, kind: str) -> dict[str, list[str]]:
    """The documents that the widest beam found for each query, by their ids."""
    found = open_cube(run)[f"{kind}/search"].isel(model=0, beam=-1)
    names = read_artefact(run / "collection").document_ids
    return {
        str(query): [names[row] for row in rows if row >= 0]
        for query, rows in zip(found["query"].values, found["doc"].values, strict=True)
    }


def reciprocal_rank(ranking: list[str], relevant: set[str]) -> float:
    ranks = [rank for rank, name in enumerate(ranking[:10], 1) if name in relevant]
    return 1 / min(ranks) if ranks else 0.0


@pytest.fixture(scope="module")
def marco(tmp_path_factory) -> Path:
    """MS MARCO's files and pseudo-queries of two files; thirty of the forty passages are kept."""
    root = tmp_path_factory.mktemp("marco")
    passages = texts(0, DOCUMENTS, 20)
    asked = {split: texts(seed, 16, 4) for seed, split in enumerate(("train", "dev.small"), 1)}
    lines = [f"{row}\t{text}\n" for row, text in enumerate(passages)]
    (root / "collection.tsv").write_text("".join(lines))
    for split, queries in asked.items():
        first = 100 if split == "train" else 200
        lines = [f"{first + row}\t{text}\n" for row, text in enumerate(queries)]
        (root / f"queries.{split}.tsv").write_text("".join(lines))
        lines = [f"{first + row}\t0\t{row + first // 25}\t1\n" for row in range(len(queries))]
        (root / f"qrels.{split}.tsv").write_text("".join(lines))
    (root / "pairs.tsv").write_text("".join(f"{row}\tof {row} a\n" for row in range(8, 24)))
    pairs = [json.dumps({"doc_id": str(row), "query": f"of {row} b"}) for row in range(4, 20)]
    (root / "pairs.jsonl").write_text("\n".join(pairs))
    sweep(
        root,
        {"kind": "msmarco", "path": str(root), "documents": 30},
        training={
            "examples": 64,
            "batch_size": 16,
            "evaluations": 1,
            "pairs": {
                "sentences": 0,
                "spans": 0,
                "file": [str(root / "pairs.tsv"), str(root / "pairs.jsonl")],
            },
        },
    )
    return root


def test_ms_marcos_files_and_a_users_pseudo_queries(marco):
    run = marco / "runs" / "toy"
    collection = read_artefact(run / "collection")
    relevant = {str(200 + row): {str(row + 8)} for row in range(16)}
    judged = {str(row) for row in range(4, 24)}
    assert len(collection) == 30 and judged <= {*collection.document_ids}
    assert open_cube(run).attrs["documents"] == 30
    found = metrics(run)
    assert {*found} == {*KINDS}
    for kind in KINDS:
        ranked = rankings(run, kind)
        ranks = [reciprocal_rank(ranked[query], relevant[query]) for query in relevant]
        assert found[kind]["mrr@10"]["mean"] == pytest.approx(np.mean(ranks))
        spans = 2 if kind == "ngrams" else 1
        assert found[kind]["n_train"] == spans * (16 + 30 + 16 + 16)


def test_fewer_documents_than_are_judged_end_a_sweep_before_it_starts(marco):
    content = yaml.safe_load((marco / "study.yaml").read_text())
    content["dataset"]["documents"] = 15
    (marco / "few.yaml").write_text(yaml.safe_dump(content))
    options = ["--cluster", str(marco / "cluster.yaml"), "--config", str(marco / "few.yaml")]
    done = CliRunner().invoke(main, ["sweep", *options, "--runs", str(marco / "few")])
    assert done.exit_code == 2 and "16 or more" in done.output
    assert not (marco / "few").exists()


def test_a_folder_as_arguana_has_it(tmp_path):
    """Queries that are documents too, judged under a heading of TREC's four columns."""
    (tmp_path / "qrels").mkdir()
    passages = texts(3, DOCUMENTS, 20)
    corpus = [{"id": f"d{row}", "title": "", "contents": text} for row, text in enumerate(passages)]
    queries = [{"qid": f"d{row}", "query": passages[row]} for row in range(12)]
    for name, records in (("corpus", corpus), ("queries", queries)):
        lines = "".join(json.dumps(record) + "\n" for record in records)
        (tmp_path / f"{name}.jsonl").write_text(lines)
    relevant = {f"d{row}": {f"d{row + 20}"} for row in range(12)}
    lines = [f"{query} 0 {name} 1\n" for query, (name,) in relevant.items()]
    (tmp_path / "qrels" / "test.tsv").write_text("topic iteration document relevance\n")
    with open(tmp_path / "qrels" / "test.tsv", "a") as file:
        file.writelines(lines)
    training = {"examples": 64, "batch_size": 16, "evaluations": 1}
    dataset = {"kind": "beir", "path": str(tmp_path)}
    run = sweep(tmp_path, dataset, identifiers=["atomic"], training=training)
    ranked = rankings(run, "atomic")
    recall = [
        math.fsum(name in relevant[query] for name in ranked[query][:10]) for query in relevant
    ]
    search = open_cube(run)["atomic/search"]
    assert [f"d{row}" for row in search["own"].values] == search["query"].values.tolist()
    assert not any(query in ranked[query] for query in relevant)
    found = metrics(run)["atomic"]["recall@10"]["mean"]
    assert found == pytest.approx(np.mean(recall))
