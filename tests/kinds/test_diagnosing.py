"""A sweep of kinds of every sort, and what `genret-dask identifiers` says of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from genret_dask.cli import main
from genret_dask.identifiers import Codes, write_codes
from genret_dask.kinds import (
    AtomicIdentifiers,
    CodesIdentifiers,
    Kind,
    NgramsIdentifiers,
    NumbersIdentifiers,
)
from genret_dask.report import write_report
from genret_dask.specs import ModelSpec, TrainingSpec
from genret_dask.storage.fingerprint import Origin
from genret_dask.study.sweep import Study
from tests.conftest import make_collection, write_beir
from tests.report.conftest import Page
from tests.runs import TINY, make_spec

DOCUMENTS = 40


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("kinds")
    write_beir(make_collection(DOCUMENTS), root / "beir")
    spec = make_spec(
        root,
        identifiers=(
            CodesIdentifiers(levels=2, codes=4, quantiser="kmeans"),
            AtomicIdentifiers(),
            NumbersIdentifiers(base=7, order="random"),
            NgramsIdentifiers(min_tokens=2, max_tokens=4, spans=2, part_characters=1500),
        ),
        models=(ModelSpec(family="llama", config=TINY["llama"], name="llama"),),
        training=TrainingSpec(examples=64, batch_size=16, evaluations=1),
    )
    study = Study(
        spec.model_copy(update={"inference": spec.inference.model_copy(update={"beams": (40,)})}),
        runs=root,
    )
    with study.log:
        study.search()
        study.analyse()
    return study.folder


def described(run: Path) -> dict[str, dict]:
    result = CliRunner().invoke(main, ["identifiers", str(run), "--json"])
    assert result.exit_code == 0, result.output
    return {one["identifiers"]: one for one in json.loads(result.output)}


def test_a_beam_of_all_documents_finds_them_with_every_kind(run):
    metrics = json.loads((run / "results" / "metrics.json").read_text())
    kinds = [one for one in metrics if not one.get("baseline")]
    recall = {one["identifiers"]: one["recall@100"]["mean"] for one in kinds}
    assert recall.keys() == {"codes", "atomic", "numbers", "ngrams"}
    assert all(recall[kind] == 1 for kind in ("codes", "atomic", "numbers"))


def test_diagnostics_of_every_kind(run):
    found = described(run)
    assert [*found] == ["codes", "atomic", "numbers", "ngrams"]
    for kind in ("codes", "atomic", "numbers"):
        facts, levels = found[kind]["facts"], found[kind]["levels"]
        assert facts["documents"] == DOCUMENTS and facts["steps"] == len(levels)
        assert facts["unreachable"] == facts["without_identifier"] == 0
        assert facts["sharing_an_identifier"] == 0
        assert facts["vocabulary_rows"] == sum(one["cells"] for one in levels)
        assert levels[-1]["group_largest"] == 1 and levels[-1]["prefixes"] == DOCUMENTS
    assert found["atomic"]["levels"][0]["entropy"] == pytest.approx(np.log2(DOCUMENTS))
    assert found["numbers"]["facts"]["tokens_most"] == 2
    shared = found["codes"]["facts"]["sharing_all_quantised_cells"]
    assert shared == found["codes"]["facts"]["sharing_all_but_last_token"] > 0
    ngrams = found["ngrams"]
    assert ngrams["tokenizer"] == "tokenizer" and ngrams["levels"] == []
    assert ngrams["facts"]["parts"] > 1 and ngrams["facts"]["views"] == "body"
    assert ngrams["facts"]["sharing_a_token_stream"] == ngrams["facts"]["unreachable"] == 0
    assert 0 < ngrams["facts"]["distinct_tokens"] <= ngrams["facts"]["vocabulary"]


def test_the_command_prints_facts_and_levels(run):
    printed = CliRunner().invoke(main, ["identifiers", str(run)]).output
    assert "ngrams, tokenizer" in printed and "sharing all quantised cells" in printed
    assert "entropy, bits" in printed


def test_the_page_shows_them_and_does_without(run):
    Page(html := write_report(run, draws=2).read_text(encoding="utf-8"))
    assert '<h2 id="identifiers">' in html and "sharing all quantised cells" in html
    assert html.count('data-label="entropy, bits"') == 3 + 1 + 2
    (run / "identifiers").rename(run / "elsewhere")
    try:
        html = write_report(run, draws=2).read_text(encoding="utf-8")
    finally:
        (run / "elsewhere").rename(run / "identifiers")
    assert "#identifiers" not in html and "Worst and best queries" in html


def test_a_run_without_identifiers_is_refused(run, tmp_path):
    (tmp_path / "spec.json").write_bytes((run / "spec.json").read_bytes())
    (tmp_path / "collection").symlink_to(run / "collection")
    for folder, found in ((tmp_path, "no identifiers codes"), (tmp_path / "x", "x is")):
        result = CliRunner().invoke(main, ["identifiers", str(folder)])
        assert result.exit_code == 2 and found in result.stderr, result.output


def test_codes_that_all_differ_share_nothing(tmp_path):
    kind = CodesIdentifiers(levels=2, codes=40)
    cells = np.stack([np.arange(40) // 7, np.arange(40) % 7], axis=1)
    write_codes(Codes.of_cells(cells), tmp_path / "codes", Origin("codes", {}))
    facts = kind.diagnostics(tmp_path / "codes", make_collection()).facts
    assert facts["sharing_all_quantised_cells"] == 0 and facts["sharing_all_but_last_token"] == 40


def test_the_default_tells_what_every_kind_has(run):
    folder = run / "identifiers" / "numbers"
    found = Kind.diagnostics(NumbersIdentifiers(base=7), folder, make_collection())
    assert found.facts == {
        "documents": DOCUMENTS,
        "without_identifier": 0,
        "vocabulary_rows": 13,
        "steps": 2,
    }
