"""CSV files of points: what is read, what is printed, and what is refused without a traceback."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner

from genret_dask.cli import main
from genret_dask.fits import published_points, read_points


def fit(*arguments):
    return CliRunner().invoke(main, ["fit", *map(str, arguments)])


@pytest.fixture
def published(tmp_path):
    path = tmp_path / "published.csv"
    (t5, _) = published_points()
    lines = [f"MINDER,{x:.0f},{y!r}" for x, y in zip(t5.x[:, 0], t5.y.tolist(), strict=True)]
    path.write_text("\n".join(["series,n,y", *lines]) + "\n")
    return path


def test_the_published_points_from_a_file(published):
    result = fit("--points", published, "--json")
    assert result.exit_code == 0, result.output
    (record,) = json.loads(result.stdout)
    assert record["law"] == "L(N)" and record["series"] == "MINDER" and record["n"] == 5
    assert record["exponents"]["n"]["value"] == pytest.approx(0.402, abs=0.002)
    assert record["asymptote"]["value"] == pytest.approx(0.0035556, abs=2e-7)
    assert record["r2"] >= 0.9991
    assert record["exponent"]["low"] < 0.402 < record["exponent"]["high"]
    table = fit("--points", published, "--published").stdout
    assert "published: MINDER llama" in table and "published: arXiv 2503.18941" in table
    for words in ("0.4021 [", "0.9991", "largest left out", "2.406 [-, -]", "3 points for 3"):
        assert words in table


def test_axes_are_those_that_vary(tmp_path):
    path = tmp_path / "points.csv"
    path.write_text(
        "\ufeffSeries, N ,D,C,y,weight\n"
        + "".join(f"a,1e{k},100,,0.{9 - k},{k}\n" for k in range(1, 6))
        + "\n"
        + "".join(f"b,1e{n},1e{d},,{1 / n + 1 / d},\n" for n in (3, 4, 5) for d in (1, 2))
        + "".join(f"c,,,{k},{1 / k}, \n" for k in range(1, 6)),
        encoding="utf-8",
    )
    a, b, c = read_points(path)
    assert [(item.law, item.axes) for item in (a, b, c)] == [
        ("L(N)", ("n",)),
        ("L(N,D)", ("n", "d")),
        ("L(C)", ("c",)),
    ]
    assert a.weights.tolist() == [1, 2, 3, 4, 5] and b.weights is None
    np.testing.assert_array_equal(b.x[1], [1e3, 1e2])
    result = fit("--points", path, "--draws", 50)
    assert result.exit_code == 0, result.output
    assert "L(N,D)" in result.stdout


def test_a_file_without_series_is_one_series(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text("y,d\n" + "".join(f"{1 / k},{k}\n" for k in (1, 10, 100, 1000)))
    (points,) = read_points(path)
    assert (points.law, points.series) == ("L(D)", "mine")


GOOD = "a,1,3\na,10,2\na,100,1\n"


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ["is empty", "columns series"]),
        ("\n  \n", ["is empty"]),
        ("series,n,y\n", ["no points"]),
        ("series,n\na,1\n", ["no column y", "it has series, n"]),
        ("series,x,y\na,1,1\n", ["no column n, d or c"]),
        ("series,n,n,y\na,1,1,1\n", ["'n' twice"]),
        (f"series,n,y\n{GOOD}a,many,1\n", ["line 5", "n is 'many'", "a number above 0"]),
        (f"series,n,y\n{GOOD}a,7,\n", ["line 5", "y is ''"]),
        (f"series,n,y\n{GOOD}a,0,1\n", ["line 5", "n is 0", "above 0"]),
        (f"series,n,y\n{GOOD}a,-2,1\n", ["line 5", "n is -2"]),
        (f"series,n,y\n{GOOD}a,nan,1\n", ["line 5", "n is nan"]),
        (f"series,n,y\n{GOOD}a,2,-1\n", ["line 5", "y is -1", "0 or above"]),
        (f"series,n,y\n{GOOD}a,2,1e999\n", ["line 5", "y is 1e999"]),
        (f"series,n,y\n{GOOD}a,,1\n", ["line 5", "n is empty"]),
        (f"series,n,y\n{GOOD}a,5\n", ["line 5", "2 fields", "3, as the heading has"]),
        ("series,n,y\na,1,3\na,10,2\n", ["too few points", "2 different (N)", "3 or more"]),
        ("series,n,y\na,1,3\n", ["too few points", "1 different (N)"]),
        ("series,n,d,y\na,,,3\n", ["line 2", "no n, d"]),
        ("series,n,y,weight\na,1,3,1\na,10,2,\na,100,1,1\n", ["line 3", "weight is empty"]),
        ("series,n,y,weight\na,1,3,0\n", ["line 2", "weight is 0"]),
        (b"series,n,y\n\xff\xfe,1,1\n", ["not a CSV file in UTF-8"]),
    ],
)
def test_a_bad_file_is_refused_with_its_line(tmp_path, content, words):
    path = tmp_path / "points.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    result = fit("--points", path)
    assert result.exit_code == 2, result.output
    assert "Traceback" not in result.output and str(path) in result.output
    for word in words:
        assert word in result.output


def test_a_file_that_is_not_there_and_wrong_options(tmp_path):
    for path in (tmp_path / "none.csv", tmp_path):
        result = fit("--points", path)
        assert result.exit_code == 2 and "cannot be read" in result.output
    for arguments in (
        [],
        [tmp_path, "--points", tmp_path / "x.csv"],
        ["--points", "x", "--draws", 0],
    ):
        result = fit(*arguments)
        assert result.exit_code == 2 and "Usage" in result.output
    bad = tmp_path / "zero.csv"
    bad.write_text("n,y\n1,1\n2,0.5\n4,0\n8,0\n")
    assert fit("--points", bad).exit_code == 0
    result = fit("--points", bad, "--loss", "huber")
    assert result.exit_code == 2 and "y holds 0" in result.output
