"""YAML as data alone: the safe loader, less what hides mistakes or exhausts the reader.

Refused with the line: repeated keys (PyYAML silently takes the last), nesting and aliases beyond
what a configuration needs, values that JSON cannot hold, and NUL.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from genret_dask.errors import SpecError

LARGEST_FILE = 2**18
DEEPEST = 32
MOST_VALUES = 20_000
"""Bytes of a file, nested levels, and values once aliases and merges are written out."""

_LONGEST_NUMBER = 64
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_TAG = "tag:yaml.org,2002:"
_NO_JSON = {_TAG + kind for kind in ("binary", "omap", "pairs", "set", "timestamp")}


class StrictLoader(yaml.SafeLoader):
    """The loader of `read_yaml`; it makes what JSON has: a date is a text."""

    yaml_constructors = {
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag not in _NO_JSON
    }
    yaml_implicit_resolvers = {
        first: [(tag, pattern) for tag, pattern in found if tag not in _NO_JSON]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        """Compose a node, counting what it holds once aliases are written out."""
        alias = self.check_event(yaml.events.AliasEvent)
        mark = self.peek_event().start_mark
        self._depth += 1
        if self._depth > DEEPEST:
            raise _refusal(f"more than {DEEPEST} levels of nesting", mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        if alias and id(node) not in self._sizes:
            raise _refusal("an alias to what it is part of", mark)
        size = 1 + sum(self._sizes[id(child)] for child in _children(node))
        if size > MOST_VALUES:
            raise _refusal(f"more than {MOST_VALUES:,} values, aliases written out", mark)
        self._sizes[id(node)] = size
        return node

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compose a mapping whose keys differ."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise _refusal(f"the key {key.value!r} a second time", key.start_mark)
                seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Construct a value; one that cannot be is an error of this line, whatever Python says."""
        if isinstance(node, yaml.ScalarNode):
            _check_scalar(node)
        try:
            return super().construct_object(node, deep=deep)
        except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
            kind = node.tag.rpartition(":")[2]
            raise _refusal(f"not a {kind}", node.start_mark) from error


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises
    ------
    SpecError
        The file is missing, too large, not UTF-8, not YAML, or holds what `StrictLoader` refuses;
        the message names the line, and no value of a key that looks like a secret's.
    """
    path = Path(path)
    expected = "a YAML file in UTF-8, keys and plain values"
    try:
        with open(path, "rb") as file:
            data = file.read(LARGEST_FILE + 1)
        if len(data) > LARGEST_FILE:
            raise SpecError(f"{path} is above {LARGEST_FILE // 2**10} KiB", expected=expected)
        text = data.decode("utf-8-sig")
        content = yaml.load(text, StrictLoader)
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}", expected="a readable YAML file") from error
    except UnicodeDecodeError as error:
        raise SpecError(f"{path} is not YAML: {error.reason}", expected=expected) from error
    except yaml.YAMLError as error:
        # PyYAML's own text quotes the line.
        raise SpecError(f"{path} is not YAML: {_told(error, text)}", expected=expected) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SpecError(f"{path} holds a {type(content).__name__}", expected="a mapping of keys")
    return content


def _children(node: Any) -> list[Any]:
    if isinstance(node, yaml.MappingNode):
        return [part for pair in node.value for part in pair]
    return node.value if isinstance(node, yaml.SequenceNode) else []


def _check_scalar(node: yaml.ScalarNode) -> None:
    if "\0" in node.value or any("\ud800" <= character <= "\udfff" for character in node.value):
        raise _refusal("a NUL or half a character", node.start_mark)
    numeric = node.tag in (_TAG + "int", _TAG + "float")
    if numeric and len(node.value) > _LONGEST_NUMBER:
        raise _refusal(f"a number of {len(node.value)} characters", node.start_mark)


def _refusal(problem: str, mark: Any) -> ConstructorError:
    return ConstructorError(problem=problem, problem_mark=mark)


def _told(error: yaml.YAMLError, text: str) -> str:
    if not isinstance(error, yaml.MarkedYAMLError):
        return " ".join(str(error).split())
    problem, mark = error.problem or error.context or "", error.problem_mark or error.context_mark
    if mark is None:
        return problem
    if "alias" in problem or "environment:" in text:  # whose values may be secret
        problem = _QUOTED.sub("a value", problem)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
