"""YAML as data: what the loader makes of a file, and what it refuses, with the line."""

from __future__ import annotations

import pytest

from genret_dask.errors import SpecError
from genret_dask.specs.strict_yaml import read_yaml


@pytest.fixture
def read(tmp_path):
    def read(text: str | bytes):
        path = tmp_path / "x.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return read_yaml(path)

    return read


def test_plain_values(read):
    assert read("a: 1\nb: [x, 2.5, true, null]\nc: {d: 'e'}\n") == {
        "a": 1,
        "b": ["x", 2.5, True, None],
        "c": {"d": "e"},
    }
    assert read("") == {} == read("# nothing\n")
    assert read(b"\xef\xbb\xbfa: 1\r\n") == {"a": 1}


def test_dates_and_times_are_texts(read):
    assert read("name: 2026-01-31\n") == {"name": "2026-01-31"}
    times = {"walltime": "4:00:00", "short": "1:30", "exact": "1:30.5"}
    assert read("".join(f"{key}: {text}\n" for key, text in times.items())) == times
    assert read("a: 12\nb: -1.5e+3\nc: 0x1f\n") == {"a": 12, "b": -1500.0, "c": 31}


def test_anchors_aliases_and_merges_of_honest_size(read):
    text = "base: &base {x: 1, y: 2}\na: {<<: *base, y: 3}\nb: *base\n"
    assert read(text) == {
        "base": {"x": 1, "y": 2},
        "a": {"x": 1, "y": 3},
        "b": {"x": 1, "y": 2},
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3, column 1: the key 'a' a second time"),
        ("x:\n  a: 1\n  a: 1\n", "line 3, column 3: the key 'a' a second time"),
        ("a: &a [*a]\n", "line 1, column 4: found unconstructable recursive node"),
        ("a: " + "[" * 10_000, "recursion"),
        ("a: &x 1\nb: *y\n", "line 2, column 4: found undefined alias"),
        ("a: " + "9" * 5000, "not a int"),
        ("a: !!int x\n", "line 1, column 4: not a int"),
        ("a: !!bool x\n", "not a bool"),
        ("a: 0x_\n", "not a int"),
        ('a: "\\ud800"\n', "not a str"),
        ("a: !!set {x}\n", "line 1, column 4: could not determine a constructor"),
        ("a: !!python/name:os.system\n", "tag:yaml.org,2002:python/name:os.system"),
        ("? [a]\n: b\n", "unhashable key"),
        ("a: 1\n---\nb: 2\n", "line 2"),
        ("a: [1\n", "line 2"),
        ("- 1\n", "holds a list"),
        ("a\0b: 1\n", "not allowed"),
        (b"\xff\xfea", "invalid start byte"),
    ],
)
def test_what_is_refused(read, text, message):
    with pytest.raises(SpecError) as caught:
        read(text)
    assert message in str(caught.value) and "x.yaml" in str(caught.value)
    assert caught.value.expected


def test_a_secret_near_a_mistake_is_not_quoted(read):
    for text in ("A: *hunter2\n", "environment:\n  A: !hunter2 x\n", "key:\n  *hunter2\n"):
        with pytest.raises(SpecError) as caught:
            read(text)
        assert "hunter2" not in str(caught.value)
