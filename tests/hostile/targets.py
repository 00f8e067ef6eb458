"""What is read from outside: valid files of each kind, and the code that reads them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from genret_dask.clusters import load_cluster_spec
from genret_dask.datasets import BeirDataset, DprDataset, beir, dpr, stored, summary
from genret_dask.errors import GenretError
from genret_dask.fits import read_points
from genret_dask.identifiers import Codes, read_codes, write_codes
from genret_dask.identifiers.ngrams import read_index
from genret_dask.models.manifest import read_manifest
from genret_dask.specs import SweepSpec, load_spec
from genret_dask.specs.grid import cells_of
from genret_dask.storage.artefacts import record_of, verify
from genret_dask.storage.fingerprint import Origin
from genret_dask.study.estimate import estimate
from genret_dask.training.task import TrainTask, finished
from tests.conftest import make_collection, write_beir
from tests.hostile.mutations import COMMAS, JSON, LINES, RECORD, TABS, YAML, Source


@dataclass(frozen=True)
class Target:
    """A kind of input.

    Attributes
    ----------
    sources : dict of file name to Source
        Files that are damaged.
    load : callable
        Reads the folder that they are in.
    rest : callable
        Writes the files beside them.
    """

    sources: dict[str, Source]
    load: Callable[[Path], Any]
    rest: Callable[[Path], None] = field(default=lambda folder: None)


# --- YAML -------------------------------------------------------------------------------------

SWEEP = {
    "name": "study",
    "seed": 3,
    "dataset": {"kind": "beir", "path": "data/x", "allow_unknown_ids": False},
    "identifiers": [
        {"kind": "codes", "levels": 2, "codes": 8, "embedding": {"kind": "tfidf", "dim": 8}},
        {"kind": "ngrams", "max_tokens": 6, "views": ["body", "titles"], "scoring": {"alpha": 2.0}},
    ],
    "tokenizer": {"vocab_size": 400},
    "training": {"pairs": {"sentences": 2, "span_words": [3, 6]}, "examples": 500, "warmup": 0.1},
    "models": [
        {"family": "t5", "size": "femto", "fractions": [0.5, 1.0], "training": {"patience": 2}},
        {"family": "llama", "name": "mine", "config": {"hidden_size": 32, "num_hidden_layers": 2}},
        {"family": "llama", "name": "theirs", "pretrained": {"path": "nowhere"}},
    ],
    "export": {"tolerance": 0.01, "precision": ["fp32", "int8"]},
    "inference": {"beams": [1, 5], "negatives": 8, "memory": "1GB", "provider": "cpu"},
    "fits": {"bootstrap": 50},
}
LOCAL = {
    "version": 1,
    "module": "dask.distributed",
    "class": "LocalCluster",
    "kwargs": {"n_workers": 2, "memory_limit": "2GB", "scheduler_kwargs": {"port": 0}},
    "environment": {"HF_TOKEN": "hf_hunter2hunter2", "OMP_NUM_THREADS": 1},
    "timeout": 60,
}
QUEUE = {
    "module": "dask_jobqueue",
    "class": "SLURMCluster",
    "kwargs": {"cores": 1, "memory": "2GB", "job_extra_directives": ["--gres=gpu:1"]},
    "adapt": {"minimum": 1, "maximum": 4},
}
ADDRESS = {"address": "tls://host:8786", "timeout": 5}


@cache
def _collection() -> Any:
    return make_collection(12)


def _load_sweep(folder: Path) -> SweepSpec:
    spec = load_spec(folder / "sweep.yaml")
    assert SweepSpec.model_validate_json(spec.model_dump_json()) == spec
    for cell in cells_of(spec):
        cell.training(spec)
    with contextlib.suppress(GenretError):
        estimate(spec, _collection())
    return spec


def _load_clusters(folder: Path) -> list[Any]:
    return [load_cluster_spec(folder / name) for name in ("a.yaml", "b.yaml", "c.yaml")]


# --- collections ------------------------------------------------------------------------------

_CORPUS = [
    {"_id": f"d{row}", "title": f"T{row}", "text": f"the text of document {row}"}
    for row in range(6)
]
_QUERIES = [{"_id": f"q{row}", "text": f"query {row}"} for row in range(5)]
_ANSWERS = [{"_id": f"q{row}", "answers": ["text", f"document {row}"]} for row in range(3)]
_HEADING = ["query-id", "corpus-id", "score"]
_PASSAGES = [
    ["id", "text", "title"],
    *([str(row), f"Paris is in France {row}", "Paris"] for row in range(6)),
]
_QUESTIONS = [["where is Paris", "['France']"], ["who", '["x", "Paris"]'], ["why", "['in']"]]


def _beir(packed: bool) -> dict[str, Source]:
    end = ".gz" if packed else ""
    judged = {"train": [0, 1], "dev": [2], "test": [3, 4]}
    return {
        f"corpus.jsonl{end}": Source(_CORPUS, LINES, packed),
        f"queries.jsonl{end}": Source(_QUERIES, LINES, packed),
        f"answers.jsonl{end}": Source(_ANSWERS, LINES, packed),
    } | {
        f"qrels/{split}.tsv{end}": Source(
            [_HEADING, *([f"q{row}", f"d{row}", 1] for row in rows)], TABS, packed
        )
        for split, rows in judged.items()
    }


def _load_beir(folder: Path) -> None:
    for tolerant in (False, True):
        spec = BeirDataset(kind="beir", path=folder, allow_unknown_ids=tolerant)
        assert beir.source_fingerprint(spec)
        summary(beir.load(spec))


def _load_dpr(folder: Path) -> None:
    spec = DprDataset(
        kind="dpr",
        passages=folder / "passages.tsv",
        dev=folder / "dev.csv.gz",
        test=folder / "test.csv",
    )
    assert dpr.source_fingerprint(spec)
    summary(dpr.load(spec))


@cache
def _written() -> dict[str, bytes]:
    """The files of a collection in a run directory."""
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        folder = write_beir(_collection(), Path(temporary, "beir"))
        paths = [path for path in folder.rglob("*") if path.is_file()]
        return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def _collection_rest(folder: Path) -> None:
    for name, data in _written().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name != stored.MANIFEST:
            path.write_bytes(data)


# --- records of a run -------------------------------------------------------------------------

_SHA = "0" * 64
ORIGIN = Origin("test", {"seed": 0})


def _manifest() -> dict[str, Any]:
    from genret_dask.storage.fingerprint import sha256_file

    with contextlib.ExitStack() as stack:
        import tempfile

        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        _model_rest(folder)
        files = {path.name: sha256_file(path) for path in folder.iterdir()}
    return {
        "format": 3,
        "family": "t5",
        "graph": "beam",
        "precision": "fp32",
        "n_params": 1000,
        "start_token": 40,
        "vocab_size": 60,
        "architecture": {
            "kind": "encoder-decoder",
            "d_model": 16,
            "heads": 2,
            "kv_heads": 2,
            "d_head": 8,
            "d_ff": 32,
            "gated": False,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "vocab_size": 60,
        },
        "files": files,
        "parity": {"max_difference": 1e-5, "tolerance": 1e-3, "compared": 100},
        "reading": {"begin_tokens": [], "end_tokens": [1], "eos_token": 1},
        "versions": {"torch": "2"},
    }


def _model_rest(folder: Path) -> None:
    (folder / "tokenizer.json").write_text("{}")
    (folder / "weights.bin").write_bytes(b"\0" * 64)


def _codes_record() -> dict[str, Any]:
    import tempfile

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary, "codes")
        _codes_rest(folder)
        return record_of(folder)


def _codes_rest(folder: Path) -> None:
    codes = Codes(np.array([[0, 0], [0, 1], [1, 0]], dtype=np.int32), (2, 2))
    write_codes(codes, folder, ORIGIN)


def _load_codes(folder: Path) -> None:
    verify(folder)
    codes = read_codes(folder)
    assert codes.trie.depth == codes.length


def _index_record() -> dict[str, Any]:
    return {
        **ORIGIN.record(),
        "vocabulary": 400,
        "tokenizer": _SHA,
        "corpus": "abc",
        "tokens": 9,
        "without_spans": [1],
        "parts": {},
    }


def _training_record() -> dict[str, Any]:
    return {
        "name": "t5",
        "n_params": 5,
        "n_train": 5,
        "train_flops": 1.5,
        "start_token": 3,
        "begin_tokens": [],
        "end_tokens": [],
        "history": [{"step": 1, "dev_loss": 0.5}],
    }


def _load_records(folder: Path) -> None:
    from genret_dask.monitoring.timing import read_stages

    spec = SweepSpec()
    task = TrainTask(
        name="t5",
        model=spec.models[0],
        fraction=1.0,
        training=spec.training,
        seed=0,
        max_tokens=spec.max_tokens,
        identifiers=spec.identifiers[0],
        pairs=folder,
        tokenizer=folder,
        space=folder,
        folder=folder,
        made_from=ORIGIN,
    )
    finished(task)
    read_index(folder)
    read_stages(folder)


def _events() -> list[dict[str, Any]]:
    head = {"time": "2026-01-01T00:00:00.000Z", "run": "abc"}
    return [
        {**head, "event": "run_started", "workers": 1},
        {**head, "event": "machines", "machines": [{"threads": 1}]},
        {**head, "event": "stage_began", "stage": "train", "total": 1},
        {**head, "event": "stage_ended", "stage": "train", "seconds": 1.0, "done": 1, "total": 1},
    ]


_POINTS = [
    ["series", "n", "d", "y", "weight"],
    *(["a", 10.0**row, 10.0 ** (8 - row % 3), 1 / row, 1.0] for row in range(3, 9)),
]

TARGETS: dict[str, Target] = {
    "sweep": Target({"sweep.yaml": Source(SWEEP, YAML)}, _load_sweep),
    "cluster": Target(
        {
            "a.yaml": Source(LOCAL, YAML),
            "b.yaml": Source(QUEUE, YAML),
            "c.yaml": Source(ADDRESS, YAML),
        },
        _load_clusters,
    ),
    "beir": Target(_beir(packed=False), _load_beir),
    "beir-gz": Target(_beir(packed=True), _load_beir),
    "dpr": Target(
        {
            "passages.tsv": Source(_PASSAGES, TABS),
            "dev.csv.gz": Source(_QUESTIONS, TABS, packed=True),
            "test.csv": Source(_QUESTIONS, TABS),
        },
        _load_dpr,
    ),
    "points": Target(
        {"points.csv": Source(_POINTS, COMMAS)}, lambda folder: read_points(folder / "points.csv")
    ),
    "manifest": Target({"manifest.json": Source(_manifest(), RECORD)}, read_manifest, _model_rest),
    "codes": Target({"artefact.json": Source(_codes_record(), RECORD)}, _load_codes, _codes_rest),
    "collection": Target(
        {"collection.json": Source(json.loads(_written()["collection.json"]), JSON)},
        stored.read,
        _collection_rest,
    ),
    "records": Target(
        {
            "artefact.json": Source({**ORIGIN.record(), "files": {"training.json": _SHA}}, RECORD),
            "index.json": Source(_index_record(), RECORD),
            "training.json": Source(_training_record(), RECORD),
            "log.jsonl": Source(_events(), LINES),
        },
        _load_records,
    ),
}
