"""The cube of a study before its first shard: groups, coordinates, fingerprint."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import cache, partial

import numpy as np

from genret_dask.cube.schema import CONTRAST, SEARCH, Group, Template
from genret_dask.datasets.base import MAIN_METRIC
from genret_dask.kinds import Kind
from genret_dask.models.manifest import Manifest
from genret_dask.shards.plan import ShardTask, plan_shards
from genret_dask.specs import SweepSpec, precise_name
from genret_dask.specs.grid import cells_of
from genret_dask.storage.artefacts import record_of
from genret_dask.storage.fingerprint import fingerprint
from genret_dask.storage.versions import versions_of
from genret_dask.study.inputs import Inputs
from genret_dask.study.tasks import steps_of


def build_template(
    study: SweepSpec, inputs: Inputs, manifests: dict[tuple[str, str], Manifest]
) -> Template:
    """The cube of a study, from its inputs and the manifests of its exported models."""
    collection, origins = inputs.collection, inputs.origins
    metric = study.dataset.main_metric
    hashes = {place: one.fingerprint for place, one in manifests.items()}
    return Template(
        made_from=origins.cube(hashes),
        groups=tuple(
            _group(
                study,
                inputs,
                identifiers,
                {name: one for (kind, name), one in manifests.items() if kind == identifiers.label},
            )
            for identifiers in study.identifiers
        ),
        attributes={
            "spec": json.loads(study.model_dump_json()),
            "dataset": f"{collection.name} {collection.version}",
            "dataset_hash": collection.content_hash,
            "identifiers_hash": {
                cell.kind: origins.space(cell.identifiers, cell.model).fingerprint
                for cell in cells_of(study)
            },
            "documents": len(collection),
            **record_of(origins.collection.folder).get("facts", {}),
            **({} if metric == MAIN_METRIC else {"main_metric": metric}),
            "versions": versions(),
        },
    )


def shard_tasks(template: Template) -> list[ShardTask]:
    """Every shard of a cube, with all that its values depend on.

    A shard is a function of one model and of its own queries and candidates: others that a study
    has, or gets later, play no part.
    """
    tasks = []
    for group in template.groups:
        read = cache(partial(_read_by, group))
        names, queries = group.model["model"].tolist(), group.sizes["query"]
        for task in plan_shards(group.name, names, queries, group.shard_queries):
            prints = tuple(
                (dataset, fingerprint(made_from[task.model], read(task.start, task.stop)[dataset]))
                for dataset, made_from in group.made_from.items()
            )
            tasks.append(replace(task, fingerprints=prints))
    return tasks


def _read_by(group: Group, start: int, stop: int) -> dict[str, str]:
    """Hash the queries and the candidates that a shard reads; by dataset."""
    queries = {name: values[start:stop].tolist() for name, values in group.query.items()}
    documents = group.candidates["doc"][start:stop].tolist()
    return {SEARCH: fingerprint(queries), CONTRAST: fingerprint(queries, documents)}


def versions() -> dict[str, str]:
    """Return those of the packages that a cube's numbers come from."""
    return versions_of(("genret-dask", "torch", "transformers", "onnx", "zarr", "xarray"))


def _group(
    study: SweepSpec,
    inputs: Inputs,
    identifiers: Kind,
    manifests: dict[str, Manifest],
) -> Group:
    spec, collection, rows = study.inference, inputs.collection, inputs.queries
    candidates, origins = inputs.candidates, inputs.origins
    models = {
        precise_name(cell.name, precision): cell.model
        for cell in cells_of(study)
        if cell.identifiers is identifiers
        for precision in study.export.precision
    }
    trainings = [manifest.require_training() for manifest in manifests.values()]
    return Group(
        name=identifiers.label,
        kind=identifiers.kind,
        variables=identifiers.variables,
        sizes=group_sizes(
            study,
            identifiers,
            models=len(manifests),
            queries=len(rows),
            candidates=candidates["doc"].shape[1],
            documents=len(collection),
            steps=steps_of(inputs)[identifiers.label],
        ),
        shard_queries=spec.shard_queries,
        model={
            "model": np.array(list(manifests)),
            "family": np.array([manifest.family for manifest in manifests.values()]),
            "n_params": np.array([manifest.n_params for manifest in manifests.values()]),
            "n_train": _numbers([one.n_train for one in trainings]),
            "train_fraction": np.array([one.train_fraction for one in trainings]),
            "train_flops": _numbers([one.train_flops for one in trainings]),
            "origin": np.array(
                ["trained" if models[name].checkpoint is None else "ready" for name in manifests]
            ),
            "precision": np.array([manifest.precision for manifest in manifests.values()]),
            "checkpoint": np.array([manifest.fingerprint for manifest in manifests.values()]),
        },
        query={
            "query": np.array(collection.query_ids.take(rows)),
            "text": np.array(collection.queries.take(rows)),
            "own": inputs.own,
        },
        beam={"beam": np.array(spec.beams)},
        candidates=candidates,
        made_from={
            dataset: tuple(
                fingerprint(dataset, one.fingerprint, of(identifiers, models[name]))
                for name, one in manifests.items()
            )
            for dataset, of in ((SEARCH, origins.search), (CONTRAST, origins.contrast))
        },
    )


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    """Numbers of models; NaN where one is not known."""
    return np.array([np.nan if value is None else value for value in values])


def group_sizes(
    spec: SweepSpec,
    identifiers: Kind,
    *,
    models: int,
    queries: int,
    candidates: int,
    documents: int,
    steps: int,
) -> dict[str, int]:
    """Every dimension of a group of the cube."""
    beams = spec.inference.beams
    return {
        "model": models,
        "query": queries,
        "beam": len(beams),
        "step": steps,
        "candidate": candidates,
        **identifiers.sizes(beams, documents),
    }
