"""A study as a YAML file with every key, each with its description beside it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo

from genret_dask.specs.sweep import SweepSpec
from genret_dask.specs.validation import Record

_COLUMN = 38  # where descriptions begin
_WIDTH = 100

Line = tuple[str, str]
"""The YAML of a line, and what is said of it."""


def written(spec: SweepSpec, head: str = "") -> str:
    """Return the YAML of a study; `load_spec` reads the same study from it.

    Parameters
    ----------
    head : str
        Lines of text that stand above it as comments.
    """
    lines = [*(f"# {line}".rstrip() for line in head.splitlines()), *([""] if head else [])]
    for name, field in SweepSpec.model_fields.items():
        block = list(_lines(name, getattr(spec, name), field, ""))
        if len(block) > 1:
            lines.append("")
        lines += [_aligned(*line) for line in block]
    return "\n".join(lines) + "\n"


def _lines(name: str, value: Any, field: FieldInfo, indent: str) -> Iterator[Line]:
    said = field.description or ""
    if isinstance(value, Record):
        yield f"{indent}{name}:", said or _summary(value)
        yield from _keys(value, indent + "  ")
    elif name == "models":
        yield f"{indent}{name}:", said or _summary(value[0])
        for model in value:
            yield f"{indent}  - {_flow(model.model_dump(mode='json', exclude_defaults=True))}", ""
    elif isinstance(value, tuple) and value and isinstance(value[0], Record):
        yield f"{indent}{name}:", said
        for one in value:
            (first, of_first), *others = _keys(one, indent + "    ")
            yield f"{indent}  - {first.lstrip()}", _summary(one) or of_first
            yield from others
    else:
        yield f"{indent}{name}: {_flow(value)}", said


def _keys(record: Record, indent: str) -> Iterator[Line]:
    for name, field in type(record).model_fields.items():
        yield from _lines(name, getattr(record, name), field, indent)


def _summary(record: Record) -> str:
    return (type(record).__doc__ or "").partition("\n")[0].rstrip(".")


def _flow(value: Any) -> str:
    """Return a value as YAML in one line."""
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, tuple):
        value = [str(one) if isinstance(one, Path) else one for one in value]
    text: str = yaml.safe_dump(
        value, default_flow_style=True, sort_keys=False, width=float("inf"), allow_unicode=True
    )
    return text.removesuffix("\n").removesuffix("\n...")


def _aligned(text: str, said: str) -> str:
    """Put the description behind the text, over as many lines as it takes."""
    if not said:
        return text
    lines, room = [""], _WIDTH - _COLUMN - 2
    for word in said.split():
        if len(lines[-1]) + 1 + len(word) > room:
            lines.append("")
        lines[-1] += f" {word}"
    first, *others = lines
    return "\n".join(
        [f"{text:<{_COLUMN - 2}}  #{first}", *(" " * _COLUMN + f"#{line}" for line in others)]
    )
