"""The cube of a study before its first shard: groups, coordinates, fingerprint."""

from __future__ import annotations

import json
from importlib.metadata import version

import numpy as np

from genret_dask.cube.schema import Group, Template
from genret_dask.cube.store import FORMAT
from genret_dask.fingerprint import Origin, fingerprint
from genret_dask.grid import cells_of
from genret_dask.inputs import Inputs
from genret_dask.models.manifest import Manifest
from genret_dask.specs import CodesIdentifiers, IdentifiersSpec, NgramsIdentifiers, SweepSpec


def build_template(
    study: SweepSpec, inputs: Inputs, manifests: dict[tuple[str, str], Manifest]
) -> Template:
    """The cube of a study, from its inputs and the manifests of its exported models."""
    spec, collection = study.inference, inputs.collection
    hashes = {place: fingerprint("model", one.files) for place, one in manifests.items()}
    spaces = {
        cell.kind: inputs.space(cell.identifiers, cell.model).made_from.fingerprint
        for cell in cells_of(study)
    }
    settings = spec.model_dump(mode="json", exclude={"batch_queries", "threads", "memory"})
    described = {f"{kind}/{name}": found for (kind, name), found in hashes.items()}
    parts = {
        "format": FORMAT,
        "models": described,
        "identifiers": {one.kind: one for one in study.identifiers},
        "index": spaces,
        "inference": settings,
    }
    return Template(
        made_from=Origin("cube", parts),
        groups=tuple(
            _group(
                study,
                inputs,
                identifiers,
                {name: one for (kind, name), one in manifests.items() if kind == identifiers.kind},
                {name: one for (kind, name), one in hashes.items() if kind == identifiers.kind},
            )
            for identifiers in study.identifiers
        ),
        attributes={
            "spec": json.loads(study.model_dump_json()),
            "dataset": f"{collection.name} {collection.version}",
            "dataset_hash": collection.content_hash,
            "identifiers_hash": spaces,
            "documents": len(collection),
            "versions": versions(),
        },
    )


def versions() -> dict[str, str]:
    """Of the packages that a cube's numbers come from."""
    names = ("genret-dask", "torch", "transformers", "onnx", "zarr", "xarray")
    return {name: version(name) for name in names}


def _group(
    study: SweepSpec,
    inputs: Inputs,
    identifiers: IdentifiersSpec,
    manifests: dict[str, Manifest],
    hashes: dict[str, str],
) -> Group:
    spec, collection, rows = study.inference, inputs.collection, inputs.queries
    candidates = inputs.candidates
    facts = {name: manifest.provenance for name, manifest in manifests.items()}
    return Group(
        kind=identifiers.kind,
        sizes=group_sizes(
            study,
            identifiers,
            models=len(manifests),
            queries=len(rows),
            candidates=candidates["doc"].shape[1],
            documents=len(collection),
            steps=(
                inputs.codes.length
                if isinstance(identifiers, CodesIdentifiers)
                else identifiers.max_tokens
            ),
        ),
        shard_queries=min(spec.shard_queries, len(rows)),
        model={
            "model": np.array(list(manifests)),
            "family": np.array([manifest.family for manifest in manifests.values()]),
            "n_params": np.array([manifest.n_params for manifest in manifests.values()]),
            "n_train": np.array([fact["n_train"] for fact in facts.values()]),
            "train_fraction": np.array([fact["train_fraction"] for fact in facts.values()]),
            "train_flops": np.array([fact["train_flops"] for fact in facts.values()]),
            "precision": np.array([manifest.precision for manifest in manifests.values()]),
            "checkpoint": np.array(list(hashes.values())),
        },
        query={
            "query": np.array([collection.query_ids[row] for row in rows]),
            "text": np.array([collection.queries[row] for row in rows]),
            "own": inputs.own,
        },
        beam={"beam": np.array(spec.beams)},
        candidates=candidates,
    )


def group_sizes(
    spec: SweepSpec,
    identifiers: IdentifiersSpec,
    *,
    models: int,
    queries: int,
    candidates: int,
    documents: int,
    steps: int,
) -> dict[str, int]:
    """Every dimension of a group of the cube."""
    beams = spec.inference.beams
    sizes = {
        "model": models,
        "query": queries,
        "beam": len(beams),
        "rank": min(max(beams), documents),
        "step": steps,
        "candidate": candidates,
    }
    if isinstance(identifiers, NgramsIdentifiers):
        sizes["ngram"], sizes["identifier"] = identifiers.ngrams(beams), identifiers.spans
        sizes["rank"] = identifiers.scoring.documents
    return sizes
