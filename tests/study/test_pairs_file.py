"""A user's own pseudo-queries: what they change of a study, and what is refused before it works."""

from __future__ import annotations

import json
import re

import pytest
from click.testing import CliRunner

from genret_dask.cli import main
from genret_dask.errors import DatasetError
from genret_dask.kinds import CodesIdentifiers
from genret_dask.specs import ModelSpec, PairsSpec, SweepSpec, TrainingSpec
from genret_dask.specs.grid import cells_of
from genret_dask.study.origins import Origins
from genret_dask.study.sweep import Study
from tests.cli.test_sweep import CLUSTER
from tests.conftest import make_collection, write_beir
from tests.runs import TINY, make_spec


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("pairs")
    write_beir(make_collection(16), root / "beir")
    (root / "pairs.tsv").write_text("".join(f"d{row % 16}\task {row}\n" for row in range(40)))
    return root


def study(root, *files, **pairs) -> SweepSpec:
    return make_spec(
        root,
        identifiers=(CodesIdentifiers(levels=2, codes=4),),
        models=(ModelSpec(family="llama", config=TINY["llama"], name="m", fractions=(0.5, 1.0)),),
        training=TrainingSpec(
            examples=32, batch_size=16, evaluations=1, pairs=PairsSpec(file=files, **pairs)
        ),
    )


def checkpoints(spec: SweepSpec, folder) -> list[str]:
    origins = Origins(spec, folder)
    return [origins.checkpoint(cell).fingerprint for cell in cells_of(spec)]


def test_one_path_and_several_are_read_from_yaml():
    content = {"training": {"pairs": {"file": "a.tsv"}}}
    one = SweepSpec.model_validate(content).training.pairs
    content["training"]["pairs"]["file"] = ["a.tsv", "b.jsonl.gz"]
    assert [str(path) for path in one.file] == ["a.tsv"]
    assert len(SweepSpec.model_validate(content).training.pairs.file) == 2
    assert (
        SweepSpec.model_validate({"training": {"pairs": {"file": None}}}).training.pairs.file == ()
    )


def test_a_training_is_told_by_the_bytes_of_its_pairs_and_only_where_it_has_some(root, tmp_path):
    none = Origins(study(root), tmp_path)
    (first, _) = (none.checkpoint(cell) for cell in cells_of(none.spec))
    assert "file" not in first.made_from.parts["training"]["pairs"] and none.pairs is None
    same, other = tmp_path / "same.tsv", tmp_path / "other.tsv"
    same.write_bytes((root / "pairs.tsv").read_bytes())
    other.write_text("d1\tanother\n")
    found = checkpoints(study(root, root / "pairs.tsv"), tmp_path)
    assert checkpoints(study(root, same), tmp_path) == found
    assert set(found).isdisjoint(checkpoints(study(root), tmp_path))
    assert set(found).isdisjoint(checkpoints(study(root, other), tmp_path))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("d1\tq\nd99\tq\n", r"pairs\.tsv, line 2: beir has no document 'd99'"),
        ("d1\t\n", r"pairs\.tsv, line 1: the query is empty"),
        ('{"_id": "d1"\n', r"pairs\.tsv, line 1: not JSON"),
        (None, r"pairs\.tsv: No such file"),
    ],
)
def test_broken_files_are_refused_before_any_work_and_by_a_dry_run(
    root, tmp_path, content, message
):
    path = tmp_path / "pairs.tsv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DatasetError, match=message):
        Study(study(root, path), runs=tmp_path / "runs").search()
    assert not list((tmp_path / "runs").rglob("checkpoints"))
    config, cluster = tmp_path / "study.yaml", tmp_path / "cluster.yaml"
    config.write_text(json.dumps(study(root, path).model_dump(mode="json")))
    cluster.write_text(json.dumps(CLUSTER))
    options = ["--config", str(config), "--cluster", str(cluster), "--runs", str(tmp_path / "dry")]
    dry = CliRunner().invoke(main, ["sweep", "--dry-run", *options])
    assert dry.exit_code == 2 and re.search(message, " ".join(dry.output.split()))
    assert not (tmp_path / "dry").exists()


def test_trainings_count_them_and_keep_them_in_the_run(root, tmp_path):
    spec = study(root, root / "pairs.tsv", queries=False, documents=True, sentences=0, spans=0)
    runs = tmp_path / "runs"
    records = Study(spec, runs=runs).train()
    counts = {record["train_fraction"]: record["n_train"] for record in records.values()}
    assert counts == {0.5: 28, 1.0: 56}
    assert (runs / "toy" / "pairs" / "artefact.json").is_file()
    again = Study(spec, runs=runs)
    assert {step.state for step in again.check() if step.stage in ("pairs", "train")} == {"done"}
