"""The toy study that many tests run, and what is done with its run directories."""

from __future__ import annotations

import filecmp
import shutil
from pathlib import Path

from genret_dask.datasets import BeirDataset
from genret_dask.kinds import CodesIdentifiers, NgramsIdentifiers
from genret_dask.specs import (
    FitSpec,
    InferenceSpec,
    ModelSpec,
    SweepSpec,
    TokenizerSpec,
    TrainingSpec,
)

TINY = {
    "t5": {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2},
    "llama": {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
    },
}


def make_spec(root: Path, **changes) -> SweepSpec:
    fields = {
        "name": "toy",
        "dataset": BeirDataset(kind="beir", path=root / "beir"),
        "identifiers": (
            CodesIdentifiers(levels=2, codes=6),
            NgramsIdentifiers(min_tokens=2, max_tokens=5, spans=3, part_characters=1500),
        ),
        "tokenizer": TokenizerSpec(vocab_size=400),
        "training": TrainingSpec(examples=256, batch_size=16, evaluations=2),
        "models": tuple(
            ModelSpec(family=family, config=config, name=family) for family, config in TINY.items()
        ),
        "inference": InferenceSpec(
            beams=(1, 3, 10), negatives=12, shard_queries=8, batch_queries=3
        ),
        "fits": FitSpec(bootstrap=20),
    }
    return SweepSpec(**{**fields, **changes})


def copy_models(root: Path, runs: Path) -> None:
    """A run directory with everything but the cube."""
    shutil.copytree(
        root / "serial" / "toy",
        runs / "toy",
        ignore=shutil.ignore_patterns("cube.zarr", "markers"),
    )


def differing(first: Path, second: Path) -> list[str]:
    names = {
        path.relative_to(base).as_posix()
        for base in (first, second)
        for path in base.rglob("*")
        if path.is_file()
    }
    _, mismatch, errors = filecmp.cmpfiles(first, second, sorted(names), shallow=False)
    return mismatch + errors
