"""Valid files, damaged: hypothesis strategies over trees, tables and bytes."""

from __future__ import annotations

import copy
import gzip
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hypothesis import strategies as st

from genret_dask.storage.records import dump_record

Content = bytes | str
"""A file's bytes, or what stands in its place: "missing", "folder", "loop"."""


@dataclass(frozen=True)
class Format:
    """How a tree of values becomes a file, and which texts hurt its parser."""

    render: Callable[[Any], bytes]
    inserts: tuple[bytes, ...] = ()


@dataclass(frozen=True, repr=False)
class Source:
    """A valid file: what it says, and its format."""

    tree: Any
    format: Format
    packed: bool = False
    bytes_: bytes = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bytes_", self.pack(self.format.render(self.tree)))

    def pack(self, data: bytes) -> bytes:
        return gzip.compress(data, mtime=0) if self.packed else data


# --- the formats ------------------------------------------------------------------------------


def _yaml(tree: Any) -> bytes:
    try:
        return yaml.safe_dump(tree, allow_unicode=True, sort_keys=False).encode("utf-8")
    except (UnicodeEncodeError, yaml.YAMLError):
        return json.dumps(tree, default=str).encode()


def _json(tree: Any) -> bytes:
    return json.dumps(tree, default=str).encode()


def _record(tree: Any) -> bytes:
    """With the right hash: what is behind it has to stand the damage by itself."""
    try:
        return dump_record(tree)
    except TypeError:  # not a mapping any more, or not of plain values
        return _json(tree)


def _lines(tree: Any) -> bytes:
    rows = tree if isinstance(tree, list) else [tree]
    return b"".join(_json(row) + b"\n" for row in rows)


def _table(separator: str) -> Callable[[Any], bytes]:
    def render(tree: Any) -> bytes:
        rows = tree if isinstance(tree, list) else [tree]
        cells = (row if isinstance(row, list) else [row] for row in rows)
        text = "".join(separator.join(map(str, row)) + "\n" for row in cells)
        return text.encode("utf-8", "surrogatepass")

    return render


_YAML_INSERTS = tuple(
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
_JSON_INSERTS = (
    b"[" * 5000,
    b'{"a":' * 5000,
    b'{"_id": "d1", "_id": "d2", "text": 1}\n',
    b"9" * 5000,
    b"NaN\n",
    b"Infinity\n",
    b'"\\ud800"\n',
    b"null\n",
    b"1e999\n",
)
_TABLE_INSERTS = (
    b'"' + b"x" * 200_000,
    b'"a\nb"\n',
    b"\t" * 500 + b"\n",
    b"," * 500 + b"\n",
    b"a\tb\tc\td\n",
    b"d1\n",
    b"1,2\n",
    b"q\t" + b"[" * 2000 + b"]" * 2000 + b"\n",
    b"q\t" + b"-" * 20_000 + b"1\n",
    b"q\t['a' * 10**9]\n",
    b"q\t__import__('os').abort()\n",
    b"q1\td1\t-1\n",
    b"q1\td1\t1e400\n",
    b"q1\td1\tnan\n",
    b"q1\td1\t" + b"9" * 5000 + b"\n",
    b"x,1e400,inf,nan,-1\n",
)

YAML = Format(_yaml, _YAML_INSERTS)
JSON = Format(_json, _JSON_INSERTS)
RECORD = Format(_record, _JSON_INSERTS)
LINES = Format(_lines, _JSON_INSERTS)
TABS = Format(_table("\t"), _TABLE_INSERTS)
COMMAS = Format(_table(","), _TABLE_INSERTS)

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
def spoiled(draw: st.DrawFn, data: bytes, inserts: tuple[bytes, ...] = ()) -> bytes:
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
                piece = draw(st.sampled_from([*_ANYWHERE, *inserts]))
                at_line = data.rfind(b"\n", 0, place) + 1
                place = draw(st.sampled_from([place, at_line, 0, len(data)]))
                data = data[:place] + piece + data[place:]
    return data


@st.composite
def damaged(draw: st.DrawFn, sources: dict[str, Source]) -> dict[str, Content]:
    """The files of a folder, one of them damaged."""
    files: dict[str, Content] = {name: source.bytes_ for name, source in sources.items()}
    name = draw(st.sampled_from(sorted(sources)))
    source = sources[name]
    match draw(st.sampled_from(["tree"] * 5 + ["text"] * 3 + ["bytes"] * 2 + ["place"])):
        case "tree":
            files[name] = source.pack(source.format.render(draw(mutated(source.tree))))
        case "text":
            plain = source.format.render(source.tree)
            files[name] = source.pack(draw(spoiled(plain, source.format.inserts)))
        case "bytes":
            files[name] = draw(spoiled(source.bytes_))
        case "place":
            files[name] = draw(st.sampled_from(["missing", "folder", "loop", b"", b"\n"]))
    return files


def write(files: dict[str, Content], folder: Path) -> None:
    """Put a damaged folder on the disk."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if isinstance(content, bytes):
            path.write_bytes(content)
        elif content == "folder":
            path.mkdir()
        elif content == "loop":
            path.symlink_to(path.name)
