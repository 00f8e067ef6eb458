"""YAML as data: what the loader makes of a file, and what it refuses, with the line."""

from __future__ import annotations

import pytest

from genret_dask.errors import SpecError
from genret_dask.specs.strict_yaml import DEEPEST, LARGEST_FILE, MOST_VALUES, read_yaml
from tests.hostile.mutations import BOMB, MERGE_BOMB


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


def test_a_date_is_a_text(read):
    assert read("name: 2026-01-31\n") == {"name": "2026-01-31"}


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
        (BOMB, f"more than {MOST_VALUES:,} values"),
        (MERGE_BOMB, f"more than {MOST_VALUES:,} values"),
        ("a: &a [*a]\n", "line 1, column 8: an alias to what it is part of"),
        ("a: " + "[" * 10_000, f"more than {DEEPEST} levels"),
        ("a: &x 1\nb: *y\n", "line 2, column 4: found undefined alias"),
        ("a: " + "9" * 5000, "a number of 5000 characters"),
        ("a: !!int x\n", "line 1, column 4: not a int"),
        ("a: !!bool x\n", "not a bool"),
        ("a: 0x_\n", "not a int"),
        ('a: "\\0"\n', "a NUL or half a character"),
        ('a: "\\ud800"\n', "a NUL or half a character"),
        ("a: !!set {x}\n", "could not determine a constructor"),
        ("a: !!python/name:os.system\n", "tag:yaml.org,2002:python/name:os.system"),
        ("? [a]\n: b\n", "unhashable key"),
        ("a: 1\n---\nb: 2\n", "line 2"),
        ("a: [1\n", "line 2"),
        ("- 1\n", "holds a list"),
        ("a\0b: 1\n", "not allowed"),
        (b"\xff\xfea", "invalid start byte"),
        ("#" * (LARGEST_FILE + 1), "above 256 KiB"),
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
