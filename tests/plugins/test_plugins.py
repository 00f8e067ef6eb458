"""The example package of docs/extending.md, installed, and swept end to end."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

HERE = Path(__file__).parent
COMMAND = str(Path(sys.executable).with_name("genret-dask"))
PAGE = HERE.parents[1] / "docs" / "extending.md"
CLUSTER = {
    "module": "distributed",
    "class": "LocalCluster",
    "kwargs": {"n_workers": 1, "processes": False},
}
WORDS = ("red", "blue", "green", "old", "new", "small", "large", "warm", "cold", "quick")


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A folder with the package installed, and a table of questions."""
    root = tmp_path_factory.mktemp("plugins")
    install = ["install", "--quiet", "--no-deps", "--target", str(root / "site"), str(HERE)]
    subprocess.run([sys.executable, "-m", "pip", *install], check=True)
    with open(root / "questions.csv", "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["question", "answer", "split"])
        for row in range(60):
            thing = f"{WORDS[row % 10]} {WORDS[row // 10]}"
            split = "test" if row % 6 == 0 else "train"
            table.writerow([f"which is the {thing} one", f"it is the {thing} thing {row}", split])
    return root


ALL = """
import json, sys
from click.testing import CliRunner
from genret_dask.cli import main
done = [CliRunner().invoke(main, words) for words in json.loads(sys.argv[1])]
print(json.dumps([[one.exit_code, one.stdout, one.stderr] for one in done]))
"""


def run(place: Path, *commands: list[str]) -> list[str]:
    """What each command prints in one process that finds the package, and ends well."""
    done = subprocess.run(
        [sys.executable, "-c", ALL, json.dumps(commands)],
        cwd=place,
        env=os.environ | {"PYTHONPATH": str(place / "site")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout.splitlines()[-1])
    for code, _, stderr in results:
        assert code == 0, stderr
    return [stdout for _, stdout, _ in results]


def test_a_package_adds_one_of_everything(place):
    settings = {
        "name": "toy",
        "dataset": {"kind": "csv", "path": "questions.csv"},
        "identifiers": [{"kind": "reversed"}, {"kind": "codes", "levels": 1, "codes": 8}],
        "tokenizer": {"vocab_size": 300},
        "models": [{"family": "seed_oss", "size": "tiny"}],
        "training": {"examples": 256, "evaluations": 1},
        "inference": {"beams": [1, 60], "negatives": 4},
        "baselines": ["bm25", "overlap"],
        "fits": {"bootstrap": 10},
    }
    (place / "toy.yaml").write_text(yaml.safe_dump(settings))
    (place / "here.yaml").write_text(yaml.safe_dump(CLUSTER))
    question = ["--query", "which is the old one", "--model", "seed_oss-tiny"]
    _, shown, fitted, planned, explained, _ = run(
        place,
        ["sweep", "--cluster", "here.yaml", "--config", "toy.yaml"],
        ["metrics", "runs/toy"],
        ["fit", "runs/toy", "--metric", "precision@10", "--json", "--draws", "10"],
        ["plan", "runs/toy", "--metric", "precision@10", "--json", "--draws", "10"],
        ["explain", "runs/toy", *question, "--identifiers", "reversed", "--json"],
        ["verify", "runs/toy"],
    )
    *metrics, bm25, overlap = json.loads((place / "runs/toy/results/metrics.json").read_text())
    # All documents share words with every question.
    assert [one["recall@100"]["mean"] for one in (bm25, overlap)] == [1, 1]
    assert overlap["baseline"] == "overlap" and "overlap" in shown
    assert {one["identifiers"] for one in metrics} == {"reversed", "codes"}
    # At a beam that holds every document all are found, among them the relevant one.
    assert all(0 <= one["precision@10"]["mean"] <= 0.1 for one in metrics)
    assert all(one["recall@100"]["mean"] == 1 for one in metrics if one["beam"] == 60)
    assert all(one["family"] == "seed_oss" for one in metrics)
    assert "precision@10" in shown
    assert {one["metric"] for one in json.loads(fitted)} == {"1 - precision@10"}
    assert [one["metric"] for one in json.loads(planned)] == ["precision@10"] * 2
    found = json.loads(explained)
    for one in found["identifiers"]:
        number = int("".join(reversed(one["identifier"].split("-"))))
        assert one["documents"] == [f"d{number}"]


def test_without_the_package_its_names_are_refused(place):
    (place / "alone.yaml").write_text(yaml.safe_dump({"identifiers": ["reversed"]}))
    refused = subprocess.run(
        [COMMAND, "sweep", "--cluster", "here.yaml", "--config", "alone.yaml", "--dry-run"],
        cwd=place,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert "no 'reversed' among the identifiers" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_the_page_shows_the_files_as_they_are():
    blocks = re.findall(r"`tests/plugins/([\w/.]+)`:?\n\n```\w+\n(.*?)```", PAGE.read_text(), re.S)
    assert len(blocks) >= 5
    for name, text in blocks:
        assert (HERE / name).read_text() == text, name
