"""Where a run's numbers come from: settings, data, versions, hashes, machines, time and cost."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from genret_dask.models.manifest import MANIFEST
from genret_dask.monitoring.timing import read_stages
from genret_dask.report.gather import Gathered
from genret_dask.report.text import clean, seconds, short
from genret_dask.storage.layout import RunLayout

_ORDER = (
    "dataset", "tokenizer", "embedding", "identifiers", "index", "train", "export",
    "spans of candidates", "search", "results",
)  # fmt: skip


def provenance(gathered: Gathered) -> dict[str, Any]:
    """Collect what the page says of a run's origin, by the names that its template uses."""
    spec = gathered.attributes.get("spec")
    models = _models(gathered)
    return {
        "facts": _facts(gathered, models),
        "models": models,
        "stages": _stage_rows(gathered),
        "machines": _machine_lines(gathered.run),
        "memory": _read(gathered.layout.resources).get("memory") or [],
        "spec": yaml.safe_dump(spec, sort_keys=False, allow_unicode=True) if spec else "",
    }


def _facts(gathered: Gathered, models: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Names and values: data, identifiers, the cube, versions."""
    attributes = gathered.attributes
    spec = attributes.get("spec") or {}
    inference = spec.get("inference") or {}
    hashes = attributes.get("identifiers_hash") or {}
    versions = dict(attributes.get("versions") or {})
    for model in models:
        versions = {**(model["manifest"].get("versions") or {}), **versions}
    found = [
        ("dataset", attributes.get("dataset")),
        ("dataset hash", attributes.get("dataset_hash")),
        ("documents", _count(attributes.get("documents"))),
        ("split", inference.get("split")),
        ("queries", ", ".join(f"{one.queries:,} ({one.name})" for one in gathered.kinds)),
        ("identifiers", _by_name(hashes) if isinstance(hashes, dict) else hashes),
        ("negatives", _count(inference.get("negatives"))),
        ("seed", spec.get("seed")),
        ("intervals", f"{gathered.draws:,} resamples of the queries, seed {gathered.seed}"),
        ("cube fingerprint", attributes.get("fingerprint")),
        ("cube digest", attributes.get("digest")),
        ("shards", _count(attributes.get("shards"))),
        ("versions", _by_name(dict(sorted(versions.items())))),
    ]
    return [(name, clean(str(value))) for name, value in found if value not in (None, "")]


def _models(gathered: Gathered) -> list[dict[str, Any]]:
    """Each model's place among its kind's, and what its manifest and its training say of it."""
    found = []
    for kind in gathered.kinds:
        hashes = kind.search.coords.get("checkpoint")
        for row, name in enumerate(kind.means.model.tolist()):
            found.append(
                {
                    "kind": kind,
                    "row": row,
                    "manifest": _read(gathered.layout.model(kind.name, name) / MANIFEST),
                    "training": _training(gathered.layout, kind.name, name),
                    "hash": "–" if hashes is None else hashes.values[row],
                }
            )
    return found


def _machine_lines(run: Path) -> list[str]:
    """The machines that worked on the run, each once."""
    machines = [one for record in read_stages(run) for one in record.get("machines") or []]
    lines = (
        f"workers: {one.get('workers')}, threads in all: {one.get('threads')}; "
        f"{one.get('processor')}, {one.get('cores')} cores, "
        f"{(one.get('memory_bytes') or 0) / 2**30:.1f} GiB, "
        f"{', '.join(one.get('gpus') or []) or 'no GPU'}; "
        f"{one.get('platform')}, Python {one.get('python')}"
        for one in machines
    )
    return list(dict.fromkeys(map(clean, lines)))


def _stage_rows(gathered: Gathered) -> list[dict[str, str]]:
    """Wall time, worker time and FLOPs of each stage, over all runs of the study."""
    wall: defaultdict[str, float] = defaultdict(float)
    trainings = (
        _read(path)
        for kind in gathered.kinds
        for path in gathered.layout.checkpoint(kind.name).glob("*/training.json")
    )
    work = {"train": sum(float(one.get("seconds") or 0) for one in trainings), "search": 0.0}
    for record in read_stages(gathered.run):
        threads = sum(int(one.get("threads") or 0) for one in record.get("machines") or [])
        for stage, entry in record["stages"].items():
            wall[stage] += float(entry.get("seconds") or 0)
            if stage == "search":
                work[stage] += float(entry.get("seconds") or 0) * threads
    searches = (np.nansum(kind.values["flops"].values) for kind in gathered.kinds)
    costs = {"train": _train_cost(gathered), "search": float(sum(searches))}
    return [
        {
            "stage": clean(stage),
            "wall": seconds(wall[stage]) if stage in wall else "not recorded",
            "work": seconds(work.get(stage) or None),
            "flops": short(costs.get(stage)),
        }
        for stage in [*_ORDER, *sorted(set(wall) - set(_ORDER))]
        if stage in wall or stage in costs
    ]


def _by_name(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items())


def _training(run: RunLayout, kind: str, model: str) -> dict[str, Any]:
    cells = (model, model.rpartition(".")[0])  # of a reduced precision, without its suffix
    found = (_read(run.checkpoint(kind, cell) / "training.json") for cell in cells)
    return next(filter(None, found), {})


def _train_cost(gathered: Gathered) -> float:
    """FLOPs of the trainings; models in several precisions share one."""
    costs = {}
    for kind in gathered.kinds:
        means = kind.means
        for name, precision, flops in zip(
            means.model, means.precision, means.train_flops, strict=True
        ):
            costs[kind.name, name.removesuffix(f".{precision}")] = flops
    return float(np.nansum(list(costs.values())))


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""
