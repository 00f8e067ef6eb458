"""Valid YAML files, damaged: hypothesis strategies over trees and bytes."""

from __future__ import annotations

import copy
import json
import math
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

Content = bytes | str
"""A file's bytes, or what stands in its place: "missing", "folder", "loop"."""


def render(tree: Any) -> bytes:
    try:
        return yaml.safe_dump(tree, allow_unicode=True, sort_keys=False).encode("utf-8")
    except (UnicodeEncodeError, yaml.YAMLError):
        return json.dumps(tree, default=str).encode()


_INSERTS = tuple(
    text.encode("utf-8", "surrogatepass")
    for text in (
        "self: &self [*self]\n",
        "m: &m {<<: *m}\n",
        "x: *nobody\n",
        "name: twice\nname: again\n",
        "seed: 1\nseed: 2\n",
        "? [a, b]\n: c\n",
        "? {a: b}\n: c\n",
        "x: !!python/object/apply:os.system [exit]\n",
        "x: !!python/name:os.system\n",
        "x: !!int abc\n",
        "x: !!float 1e\n",
        "x: !!bool maybe\n",
        "x: !!timestamp never\n",
        "x: !!binary '@@'\n",
        "x: !!set {a, b}\n",
        "x: !!omap [a: 1, a: 2]\n",
        "seed: 2020-99-99\n",
        "seed: 0x_\n",
        "seed: 0b_\n",
        "seed: 0777\n",
        "seed: 0o8\n",
        "seed: 1:99:99\n",
        "seed: ._\n",
        "seed: " + "9" * 5000 + "\n",
        "seed: 0x" + "f" * 5000 + "\n",
        "name: '" + "x" * 100_000 + "'\n",
        'name: "\\0\\ud800"\n',
        "x: " + "[" * 3000 + "\n",
        "x: " + "{a: " * 3000 + "\n",
        "- " * 2000 + "x\n",
        "\tx: 1\n",
        "%YAML 9.9\n---\n",
        "---\na: 1\n---\nb: 2\n",
        "<<: {name: merged}\n",
        "<<: 3\n",
        "=: 3\n",
        "name: ~\n",
        "{}\n[]\n",
    )
)
_ANYWHERE = (
    b"\x00",
    b"\x00" * 4096,
    b"\xff\xfe",
    b"\xef\xbb\xbf",
    b"\r\n",
    b"\r",
    b"\x1b[31m",
    b"\x80",
    b"\xed\xa0\x80",
    "\u2028".encode(),
    "\u202e".encode(),
    "😀".encode(),
    b"\n" * 2000,
    b" " * 70_000,
)

# --- trees ------------------------------------------------------------------------------------

HOSTILE = st.sampled_from(
    [
        None, True, False, 0, -1, 1, 10**9, 2**31, 2**63, -(2**63), 10**40, 0.5, -0.0, 1e308,
        1e-320, math.nan, math.inf, -math.inf, "", " ", "0", "-1", "nan", "1e400", "x" * 5000,
        "..", ".", "../x", "/", "/etc/passwd", "~", "a/b", "a\\b", "a\0b", "\ud800", "\x1b[2J", "é",
        "😀", "\n", "\t", "2020-01-01", "0777", "!!python/object:x", "<<", "*a", "&a",
        "s3://key:secret@bucket/x",
        "t5", "llama", "codes", "ngrams", "cpu", "q1", "d1", "test", "int8", "tcp://h:1", "tls://:0",
        [], [[]], {}, {"a": {}}, [None], [1, "a", None], {"kind": "codes"}, {"": 0}, {"x": [1]},
    ]
)  # fmt: skip


def _paths(tree: Any, path: tuple = ()) -> list[tuple]:
    found = [path]
    if isinstance(tree, dict):
        for key, value in tree.items():
            found += _paths(value, (*path, key))
    elif isinstance(tree, list):
        for place, value in enumerate(tree):
            found += _paths(value, (*path, place))
    return found


def _at(tree: Any, path: tuple) -> Any:
    for part in path:
        tree = tree[part]
    return tree


@st.composite
def mutated(draw: st.DrawFn, tree: Any) -> Any:
    """A tree with one to three of its parts dropped, repeated, retyped, renamed or nested."""
    root = [copy.deepcopy(tree)]
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([(0, *path) for path in _paths(root[0])]))
        parent, key = _at(root, path[:-1]), path[-1]
        operation = draw(st.sampled_from(["replace", "drop", "repeat", "rename", "nest", "other"]))
        if operation == "drop" and len(path) > 1:
            del parent[key]
        elif operation == "repeat" and isinstance(parent, list) and len(path) > 1:
            parent.insert(key, copy.deepcopy(parent[key]))
        elif operation == "rename" and isinstance(parent, dict):
            parent[draw(st.sampled_from(["", "kind", "x", key + "s", key.upper(), "<<"]))] = (
                parent.pop(key)
            )
        elif operation == "nest":
            for _ in range(draw(st.sampled_from([1, 5, 60]))):
                parent[key] = [parent[key]]
        elif operation == "other":
            elsewhere = draw(st.sampled_from(_paths(root[0])))
            parent[key] = copy.deepcopy(_at(root[0], elsewhere))
        else:
            parent[key] = copy.deepcopy(draw(HOSTILE))
    return root[0]


# --- bytes ------------------------------------------------------------------------------------


@st.composite
def spoiled(draw: st.DrawFn, data: bytes) -> bytes:
    """Bytes flipped, cut, repeated, put in, or with other line ends."""
    for _ in range(draw(st.integers(1, 3))):
        place = draw(st.integers(0, len(data)))
        match draw(st.sampled_from(["flip", "cut", "repeat", "insert", "lines", "remove"])):
            case "flip" if place < len(data):
                flipped = data[place] ^ draw(st.integers(1, 255))
                data = data[:place] + bytes([flipped]) + data[place + 1 :]
            case "cut":
                data = data[:place]
            case "repeat":
                data += data[place:]
            case "lines":
                data = data.replace(b"\n", draw(st.sampled_from([b"\r\n", b"\r", b"\n\n", b""])))
            case "remove":
                data = data[:place] + data[place + draw(st.integers(1, 9)) :]
            case _:
                piece = draw(st.sampled_from([*_ANYWHERE, *_INSERTS]))
                at_line = data.rfind(b"\n", 0, place) + 1
                place = draw(st.sampled_from([place, at_line, 0, len(data)]))
                data = data[:place] + piece + data[place:]
    return data


@st.composite
def damaged(draw: st.DrawFn, trees: dict[str, Any]) -> dict[str, Content]:
    """The files of a folder, one of them damaged."""
    files: dict[str, Content] = {name: render(tree) for name, tree in trees.items()}
    name = draw(st.sampled_from(sorted(trees)))
    match draw(st.sampled_from(["tree"] * 5 + ["text"] * 5 + ["place"])):
        case "tree":
            files[name] = render(draw(mutated(trees[name])))
        case "text":
            files[name] = draw(spoiled(render(trees[name])))
        case "place":
            files[name] = draw(st.sampled_from(["missing", "folder", "loop", b"", b"\n"]))
    return files


def write(files: dict[str, Content], folder: Path) -> None:
    """Put a damaged folder on the disk."""
    for name, content in files.items():
        path = folder / name
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "folder":
            path.mkdir()
        elif content == "loop":
            path.symlink_to(path.name)
