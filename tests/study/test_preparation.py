"""What the preparation takes, known before it: time, disk and memory."""

from __future__ import annotations

import re
import shutil
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from genret_dask.cli import main
from genret_dask.datasets.collection import Collection, Qrels
from genret_dask.errors import BudgetError
from genret_dask.identifiers import Codes, embed_task, write_codes
from genret_dask.identifiers.ngrams import Part
from genret_dask.identifiers.stream import Stream
from genret_dask.kinds import (
    AtomicIdentifiers,
    CodesIdentifiers,
    Kind,
    NgramsIdentifiers,
    NumbersIdentifiers,
)
from genret_dask.kinds.base import Making
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.places import bytes_below, place_of
from genret_dask.study.origins import Origins
from genret_dask.study.preparation import Preparation, check_disk, preparation
from genret_dask.study.survey import survey
from genret_dask.study.sweep import Study
from genret_dask.training.memory import PROCESS, Need, check_memory
from tests.conftest import make_collection, random_codes, write_beir
from tests.runs import make_spec

KINDS = {
    "codes": CodesIdentifiers(levels=2, codes=8),
    "kmeans": CodesIdentifiers(levels=3, codes=8, quantiser="kmeans"),
    "pq": CodesIdentifiers(levels=2, codes=8, quantiser="pq"),
    "atomic": AtomicIdentifiers(),
    "numbers": NumbersIdentifiers(base=4),
    "ngrams": NgramsIdentifiers(),
    "parts": NgramsIdentifiers(part_characters=1000, views=("body", "titles")),
}


def texts(documents: int, letters: int = 100) -> Collection:
    """Documents of one text, without queries."""
    nothing = np.empty(0, np.int32)
    return Collection(
        name="texts",
        version="1",
        document_ids=tuple(f"d{row}" for row in range(documents)),
        titles=("",) * documents,
        texts=("x" * letters,) * documents,
        query_ids=(),
        queries=(),
        qrels={split: Qrels(*[nothing] * 3) for split in ("train", "dev", "test")},
    )


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from([*KINDS]),
    documents=st.tuples(st.integers(1, 300), st.integers(1, 300)).map(sorted),
    letters=st.integers(0, 50),
    vocabulary=st.sampled_from([300, 2**16]),
)
def test_more_documents_never_take_less(kind, documents, letters, vocabulary):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(embed_task, "SAMPLE", 100)
        few, many = (KINDS[kind].making(texts(n, letters), vocabulary) for n in documents)
    assert seconds(few) <= seconds(many) + 1e-9
    for name in ("bytes_kept", "bytes_working", "client_bytes", "task_bytes"):
        assert 0 <= getattr(few, name) <= getattr(many, name)


def seconds(making: Making) -> float:
    return Preparation({"it": making}).seconds(1)


def test_a_kind_that_says_nothing_takes_little():
    made = Kind.making(KINDS["codes"], texts(1000), 300)
    assert made.task_bytes == 0 and made.bytes_kept < 10**5 and seconds(made) < 1


@pytest.mark.parametrize("sizes", [(16, 16), (60, 60)])
def test_codes_take_the_planned_bytes(tmp_path, sizes):
    """With a last level that tells documents apart, and without one."""
    codes = random_codes(3000, sizes, 0) if sizes[0] == 16 else distinct_codes(3000, sizes)
    write_codes(Codes(codes.codes, codes.level_sizes), tmp_path / "codes", Origin("codes", {}))
    kind = CodesIdentifiers(levels=2, codes=sizes[0])
    planned = kind.making(texts(3000), 300).bytes_kept
    assert planned / 1.3 <= bytes_below(tmp_path / "codes") <= planned * 1.3


def distinct_codes(documents: int, sizes: tuple[int, int]) -> Codes:
    chosen = np.random.default_rng(0).permutation(sizes[0] * sizes[1])[:documents]
    return Codes(np.stack(np.divmod(chosen, sizes[1]), axis=1).astype(np.int32), sizes)


@pytest.mark.parametrize(("vocabulary", "dtype"), [(300, np.uint16), (2**16, np.uint32)])
def test_a_part_takes_the_planned_bytes(vocabulary, dtype):
    """At four letters a token."""
    tokens = np.random.default_rng(0).integers(1, 300, (1000, 25)).astype(dtype)
    tokens[:, -1] = 0
    starts, documents = np.arange(1000) * 25, np.arange(1000, dtype=np.int32)
    part = Part.build(Stream(tokens.ravel(), starts, documents), vocabulary)
    planned = KINDS["ngrams"].making(texts(1000, 100), vocabulary).bytes_kept
    assert planned / 1.3 <= part.nbytes <= planned * 1.3


# --- what is left -----------------------------------------------------------------------------


def test_what_is_done_takes_nothing(toy):
    origins = Origins(make_spec(toy), toy / "serial" / "toy")
    steps = survey(origins)
    assert preparation(origins, steps) == Preparation({})
    assert not Preparation({}).needs and not Preparation({}).nbytes
    assert Preparation({}).seconds(1) == 0
    undone = [replace(s, state="to do") if s.place.name == "codes" else s for s in steps]
    assert [*preparation(origins, undone).parts] == ["codes"]


def test_a_new_study_makes_all_and_once(toy, tmp_path):
    origins = Origins(make_spec(toy), tmp_path / "toy")
    prepared = preparation(origins, survey(origins))
    ones = ["collection", "candidates", "tokenizer", "codes", "ngrams", "spans of ngrams"]
    assert [*prepared.parts] == [*ones, "baseline bm25"]
    assert [(need.stage, need.task) for need in prepared.needs] == [("index", "ngrams")]
    assert prepared.seconds(4) < prepared.seconds(1)
    kept = sum(part.bytes_kept for part in prepared.parts.values())
    assert prepared.nbytes == kept + prepared.parts["spans of ngrams"].bytes_working


# --- what cannot fit --------------------------------------------------------------------------


def need(kind: Kind, collection: Collection) -> Need:
    (found,) = Preparation({"ngrams": kind.making(collection, 4096)}).needs
    return found


def test_a_worker_too_small_for_a_part_is_refused_with_the_setting_that_fits():
    collection, limit = texts(300, 100_000), PROCESS + 160_000_000
    with pytest.raises(BudgetError) as caught:
        check_memory({"a": limit, "b": 2 * limit}, [need(NgramsIdentifiers(), collection)])
    assert caught.value.found.endswith("for the index of ngrams")
    assert caught.value.fix.endswith(" or lower identifiers.part_characters to 9900000")
    fits = need(NgramsIdentifiers(part_characters=9_900_000), collection)
    check_memory({"a": limit}, [fits])
    assert 0.9 * limit < fits.nbytes <= limit
    with pytest.raises(BudgetError, match="or lower identifiers.part_characters$"):
        check_memory({"a": PROCESS}, [fits])


def test_embedding_tasks_are_held_against_a_limit(monkeypatch):
    monkeypatch.setattr(embed_task, "SAMPLE", 100)
    made = KINDS["codes"].making(texts(300), 300)
    (found,) = Preparation({"codes": made}).needs
    with pytest.raises(
        BudgetError, match=r"for the embedding of codes(?s:.)*identifiers.embedding"
    ):
        check_memory({"a": PROCESS}, [found])


Usage = namedtuple("Usage", "total used free")


@pytest.mark.parametrize("free", [0, 10**12])
def test_a_full_disk_is_refused_before_any_work(toy, tmp_path, monkeypatch, free):
    asked = []
    monkeypatch.setattr(
        shutil, "disk_usage", lambda place: asked.append(place) or Usage(0, 0, free)
    )
    study = Study(make_spec(toy), runs=tmp_path / "runs")
    if free:
        study.check()
    else:
        with pytest.raises(BudgetError) as caught:
            study.check()
        needed = re.fullmatch(r"(\S+ \S+) free", caught.value.expected)[1]
        assert caught.value.found.startswith(f"0 B are free on the disk of {study.folder}, and")
        assert caught.value.fix == f"free {needed}, or choose another disk with --runs"
    assert asked == [tmp_path] and not (tmp_path / "runs").exists()


def test_a_finished_run_needs_no_disk(toy, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, 0))
    Study(make_spec(toy), runs=toy / "serial").check()


def test_what_lies_there_of_a_stage_is_not_written_again(toy, tmp_path, monkeypatch):
    origins = Origins(make_spec(toy), tmp_path / "toy")
    steps = survey(origins)
    prepared = Preparation({"codes": Making(bytes_kept=1000)})
    (tmp_path / "toy" / "identifiers" / "codes").mkdir(parents=True)
    (tmp_path / "toy" / "identifiers" / "codes" / "part").write_bytes(bytes(700))
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, 300))
    check_disk(origins, steps, prepared, 0)
    with pytest.raises(BudgetError, match="and about 300 B for the preparation and 10 B for"):
        check_disk(origins, steps, prepared, 80)


def test_an_object_store_is_not_asked_for_room(toy, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda place: Usage(0, 0, 0))
    origins = Origins(make_spec(toy), place_of("memory://bucket/run"))
    check_disk(origins, [], Preparation({"codes": Making(bytes_kept=1000)}), 0)


# --- the dry run ------------------------------------------------------------------------------


def dry_run(root: Path) -> str:
    (root / "study.json").write_text(make_spec(root).model_dump_json())
    (root / "cluster.yaml").write_text("version: 1\nmodule: distributed\nclass: LocalCluster\n")
    files = {"--cluster": "cluster.yaml", "--config": "study.json", "--runs": "runs"}
    words = [word for key, one in files.items() for word in (key, str(root / one))]
    result = CliRunner().invoke(main, ["sweep", "--dry-run", *words])
    assert result.exit_code == 0, result.output
    return result.stdout


def test_a_dry_run_says_what_the_preparation_takes(tmp_path, monkeypatch):
    write_beir(make_collection(), tmp_path / "beir")
    size = r"\d+\.\d\d \w?i?B"
    line = (
        rf"prepare    about \d+ s, {size} on disk \({size} of it for a while\), a task up to {size}"
    )
    assert re.search(f"^{line}$", dry_run(tmp_path), re.M)
    monkeypatch.setattr(
        NgramsIdentifiers, "making", lambda *_: Making(600.0, client_bytes=2 * 2**30)
    )
    assert re.search(
        r"^prepare    about 10 min, .*, this process up to 2.00 GiB$", dry_run(tmp_path), re.M
    )
