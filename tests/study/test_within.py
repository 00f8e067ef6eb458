"""A search that is kept to some documents."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from genret_dask.cube.open import open_cube
from genret_dask.datasets import BeirDataset
from genret_dask.errors import GenretError
from genret_dask.kinds import CodesIdentifiers, NgramsIdentifiers, TitlesIdentifiers
from genret_dask.specs import InferenceSpec, ModelSpec, TrainingSpec
from genret_dask.study.sweep import Study, sweep
from tests.conftest import make_collection, write_beir
from tests.runs import TINY, make_spec

KINDS = CodesIdentifiers(levels=2, codes=4), TitlesIdentifiers(repeated="share")
KEPT = [1, 2, 5, 6, 7, 13]


def study(root: Path, within: Path | None, kinds=KINDS, beams=(1, 30)):
    return make_spec(
        root,
        identifiers=kinds,
        models=(ModelSpec(family="llama", config=TINY["llama"], name="llama"),),
        training=TrainingSpec(examples=160, batch_size=16, evaluations=1),
        inference=InferenceSpec(beams=beams, negatives=8, batch_queries=8, within=within),
    )


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A collection, and a study of all of its documents."""
    root = tmp_path_factory.mktemp("within")
    collection = make_collection(16)
    titles = [f"title {row // 2}" for row in range(len(collection))]
    write_beir(replace(collection, titles=titles), root / "beir")
    (root / "ids.txt").write_text("".join(f"d{row}\n" for row in [*KEPT, KEPT[0]]))
    sweep(study(root, None), runs=root / "whole")
    return root


def test_queries_that_lose_their_documents_are_counted(root, caplog):
    spec = study(root, root / "ids.txt")
    Study(spec, runs=root / "counted").check()
    (line,) = [record.message for record in caplog.records if "inference.within" in record.message]
    collection = BeirDataset(path=root / "beir").load(root / "collection")
    relevant = collection.qrels["test"].relevant()
    asked = {*relevant.query.tolist()}
    led = {
        query for query, doc in zip(relevant.query, relevant.document, strict=True) if doc in KEPT
    }
    assert f"{len(asked - led)} of {len(asked)} queries" in line and 0 < len(led) < len(asked)


def test_a_beam_that_covers_all_finds_those_documents_by_the_same_scores(root):
    """And candidates are scored as they were, whichever documents are searched."""
    whole = open_cube(root / "whole" / "toy")
    spec = study(root, root / "ids.txt")
    with pytest.raises(GenretError, match="within"):
        sweep(spec, runs=root / "whole")  # a cube of all documents is another one
    found = open_cube(sweep(spec, runs=root / "within"))
    for label in ("codes", "titles"):
        mine, theirs = found[f"{label}/search"], whole[f"{label}/search"]
        for query in range(mine.sizes["query"]):
            here, there = (one.isel(model=0, query=query, beam=-1) for one in (mine, theirs))
            kept = np.isin(there["doc"].values, KEPT)
            count = len(KEPT)
            assert here["doc"].values[:count].tolist() == there["doc"].values[kept].tolist()
            assert (here["doc"].values[count:] == -1).all()
            for name in ("score", "logit"):
                np.testing.assert_allclose(
                    here[name].values[:count], there[name].values[kept], atol=1e-5
                )
                assert np.isnan(here[name].values[count:]).all()
        xr.testing.assert_equal(
            found[f"{label}/contrast"].to_dataset(), whole[f"{label}/contrast"].to_dataset()
        )


@pytest.mark.parametrize(
    ("content", "kinds", "said"),
    [
        ("d1\nx1\nx2\n", KINDS, "2 ids that the collection lacks: x1, x2"),
        ("\n", KINDS, "has no id"),
        (None, KINDS, "cannot be read"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_any_work(root, tmp_path, content, kinds, said):
    place = tmp_path / "ids.txt"
    if content is not None:
        place.write_text(content)
    with pytest.raises(GenretError, match=said):
        Study(study(root, place, kinds), runs=tmp_path / "runs").check()
    assert not (tmp_path / "runs").exists()


def test_ngrams_of_some_documents_are_those_of_a_collection_of_these(root, tmp_path):
    """What a search lists is within reach of the documents, and leads to no others."""
    kinds = (NgramsIdentifiers(max_tokens=3, log_allowed=True),)
    sweep(study(root, None, kinds, beams=(4,)), runs=tmp_path / "whole")
    whole = open_cube(tmp_path / "whole" / "toy")["ngrams/search"]
    found = open_cube(sweep(study(root, root / "ids.txt", kinds, (4,)), runs=tmp_path / "within"))
    found = found["ngrams/search"]
    assert {*np.unique(found["doc"])} <= {-1, *KEPT} < {*np.unique(whole["doc"])}
    held = found["token"].values >= 0
    assert (found["count"].values[held[..., 0]] > 0).all()
    np.testing.assert_array_equal(np.isnan(found["log_allowed"]), ~held)
    tolerance = 1e-5
    assert (found["log_allowed"] <= found["log_partition"] + tolerance).where(held, True).all()
    assert (found["log_allowed"] >= found["logit"] - tolerance).where(held, True).all()
    first = found["log_allowed"].isel(step=0, ngram=0) - whole["log_allowed"].isel(step=0, ngram=0)
    assert (first <= tolerance).all() and (first < -tolerance).any()
