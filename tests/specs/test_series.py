"""A series of checkpoints is a ready model for each folder that a pattern matches."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from genret_dask.errors import SpecError
from genret_dask.specs import ModelSpec, SweepSpec
from genret_dask.specs.validation import validate


def write(folder: Path, flops: Any = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"model_type": "t5"}')
    if flops is not None:
        (folder / "trainer_state.json").write_text(json.dumps({"total_flos": flops}))
    return folder


def models_of(pattern: Any, **fields: Any) -> tuple[ModelSpec, ...]:
    entry = {"name": "mine", "checkpoints": pattern, **fields}
    content = {"models": [entry], "identifiers": "titles"}
    spec: SweepSpec = validate(SweepSpec, content, source="x")
    assert validate(SweepSpec, json.loads(spec.model_dump_json()), source="x") == spec
    return spec.models


def test_folders_are_models_in_natural_order(tmp_path):
    for run in "ab":
        for step in (10, 9):
            write(tmp_path / run / f"step-{step}")
    found = models_of(f"{tmp_path}/*/step-*", n_train=5)
    assert [one.name for one in found] == [
        f"mine-{run}-step-{step}" for run in "ab" for step in (9, 10)
    ]
    assert {(one.family, one.n_train, one.train_flops) for one in found} == {("t5", 5, None)}
    assert found[0].checkpoint.path == tmp_path / "a" / "step-9"


def test_only_what_differs_is_in_the_name(tmp_path):
    for step in (1, 2):
        write(tmp_path / f"step-{step}" / "hf model")
    assert [one.name for one in models_of(f"{tmp_path}/*/hf*")] == ["mine-step-1", "mine-step-2"]
    assert [one.name for one in models_of(f"{tmp_path}/step-1/*")] == ["mine-hf-model"]


@pytest.mark.parametrize(
    ("flops", "expected"), [(3e9, 3e9), (7, 7.0), (0, None), (-1, None), ("9", None), (True, None)]
)
def test_the_operations_are_those_that_the_trainer_counted(tmp_path, flops, expected):
    write(tmp_path / "step-1", flops)
    assert models_of(f"{tmp_path}/step-*")[0].train_flops == expected
    assert models_of(f"{tmp_path}/step-*", train_flops=2.0)[0].train_flops == 2.0


def refused(pattern: Any, **fields: Any) -> str:
    with pytest.raises(SpecError) as caught:
        models_of(pattern, **fields)
    return str(caught.value)


def test_patterns_without_checkpoints_are_refused(tmp_path):
    assert "matches nothing" in refused(f"{tmp_path}/*")
    (tmp_path / "notes.txt").touch()
    assert "matches only files" in refused(f"{tmp_path}/*")
    (tmp_path / "step-1").mkdir()
    (tmp_path / "step-1" / "model.bin").touch()
    said = refused(f"{tmp_path}/*")
    assert "1 folders without config.json or adapter_config.json" in said
    assert "holds model.bin" in said


def test_a_series_needs_a_name_and_a_pattern(tmp_path):
    write(tmp_path / "step-1")
    assert "named after name" in refused(f"{tmp_path}/*", name=None)
    assert "named after name" in refused(f"{tmp_path}/*", checkpoint="x")
    assert "give a pattern of folders" in refused(3)
