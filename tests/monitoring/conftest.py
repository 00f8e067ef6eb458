"""A finished run of models that generate codes and n-grams, with one beam size."""

from __future__ import annotations

from pathlib import Path

import pytest

from genret_dask.specs import InferenceSpec
from genret_dask.study.sweep import Study
from tests.conftest import make_collection, write_beir
from tests.shards.test_shards import make_spec


def one_beam(root: Path, **changes):
    inference = InferenceSpec(beams=(3,), negatives=12, shard_queries=8, batch_queries=3)
    return make_spec(root, inference=inference, **changes)


@pytest.fixture(scope="session")
def root(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("monitoring")
    write_beir(make_collection(), root / "beir")
    study = Study(one_beam(root), runs=root / "serial")
    with study.log:
        study.search()
    return root
