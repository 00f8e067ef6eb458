"""YAML as JSON's types: the safe loader, which also refuses a key that stands twice in a mapping.

PyYAML alone takes the last of two equal keys silently, and makes dates and numbers to the base of
60 of plain texts such as ``2026-01-31`` and ``4:00:00``.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from genret_dask.errors import SpecError

_TAG = "tag:yaml.org,2002:"
_QUOTED = re.compile(r"'[^']*'|\"[^\"]*\"")
_JSON = {None, *(_TAG + kind for kind in ("null", "bool", "int", "float", "str", "seq", "map"))}


class StrictLoader(yaml.SafeLoader):
    """The loader of `read_yaml`."""

    yaml_constructors = {
        tag: constructor
        for tag, constructor in yaml.SafeLoader.yaml_constructors.items()
        if tag in _JSON
    }

    def resolve(self, kind: Any, value: Any, implicit: Any) -> Any:
        """Find the tag of a plain value; dates and times are texts."""
        tag = super().resolve(kind, value, implicit)
        is_time = tag in (_TAG + "int", _TAG + "float") and ":" in value
        return _TAG + "str" if is_time or tag == _TAG + "timestamp" else tag

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Compose a mapping whose keys differ."""
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if (key.tag, key.value) in seen:
                    raise _refusal(f"the key {key.value!r} a second time", key)
                seen.add((key.tag, key.value))
        return node

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        """Construct a value; what is no value of its tag, or holds itself, is an error."""
        try:
            if isinstance(node, yaml.ScalarNode):
                node.value.encode()  # half a character fails here
            return super().construct_object(node, deep=True)
        except (ValueError, LookupError, AttributeError) as error:
            raise _refusal(f"not a {node.tag.removeprefix(_TAG)}", node) from error


def read_yaml(path: Path | str) -> dict[str, Any]:
    """Read a YAML file that holds a mapping.

    Raises
    ------
    SpecError
        The file is missing, is not UTF-8, is not YAML, repeats a key, or holds a value that is
        none of JSON's; the message names the line.
    """
    expected, text = "a YAML file in UTF-8, keys and plain values", ""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
        content = yaml.load(text, StrictLoader)
    except OSError as error:
        raise SpecError(f"{path}: {error.strerror}", expected="a readable YAML file") from error
    except (UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise SpecError(f"{path} is not YAML: {_reason(error, text)}", expected=expected) from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SpecError(f"{path} holds a {type(content).__name__}", expected="a mapping of keys")
    return content


def _refusal(problem: str, node: yaml.Node) -> ConstructorError:
    return ConstructorError(problem=problem, problem_mark=node.start_mark)


def _reason(error: Exception, text: str) -> str:
    """Say where and why, without the line itself, which PyYAML's own text quotes."""
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    if not isinstance(error, yaml.MarkedYAMLError) or mark is None:
        return " ".join(str(error).split())
    problem = error.problem or error.context or ""
    if "alias" in problem or "environment:" in text:  # whose values may be secret
        problem = _QUOTED.sub("a value", problem)
    return f"line {mark.line + 1}, column {mark.column + 1}: {problem}"
