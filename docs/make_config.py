"""Write docs/config.md, the reference of a study's YAML, from the records that read it.

python docs/make_config.py            # writes it
python docs/make_config.py --check    # exits with 1 where it is not what the records say
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from genret_dask.specs import SweepSpec
from genret_dask.specs.registry import Group, Registered, entry, names_of

PAGE = Path(__file__).with_name("config.md")
HEAD = """# The YAML of a study

`genret-dask sweep --config FILE` reads it; every key has a default, and an empty file is the
default study. Unknown keys and wrong values are refused before any work. This page is
written by `docs/make_config.py` from the records that read the file.
"""
LIMITS = {Gt: (">", "gt"), Ge: (">=", "ge"), Lt: ("<", "lt"), Le: ("<=", "le")}
NAMES = {"str": "text", "int": "whole number", "float": "number", "bool": "true or false",
         "Path": "path", "dict": "mapping", "Any": "anything"}  # fmt: skip
LARGE = 2**31  # limits from here on are NumPy's, and no concern of a reader


def page() -> str:
    """Return the page's text."""
    parts, seen = [HEAD], set()

    def add(record: type[BaseModel], title: str, level: int) -> None:
        if record in seen:
            return
        seen.add(record)
        parts.append(f"{'#' * level} {title}\n\n{summary(record)}\n\n{table(record)}")
        for name, field in record.model_fields.items():
            for inner in records_in(field):
                kind = inner.model_fields.get("kind")
                said = f", kind {get_args(kind.annotation)[0]}" if kind else ""
                add(inner, f"`{name}`{said}", level + (level < 4))

    add(SweepSpec, "The whole", 2)
    return "\n".join(parts)


def summary(record: type[BaseModel]) -> str:
    """Return the first paragraph of a record's docstring."""
    return " ".join((record.__doc__ or "").strip().split("\n\n")[0].split())


def table(record: type[BaseModel]) -> str:
    """Return a record's keys as a Markdown table."""
    rows = ["| key | value | default | |", "|---|---|---|---|"]
    for name, field in record.model_fields.items():
        cells = (f"`{name}`", kind_of(field), default_of(field), field.description or "")
        rows.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def default_of(field: FieldInfo) -> str:
    """Return a field's default as YAML has it, or that there is none."""
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel) or (
        isinstance(value, tuple) and any(isinstance(one, BaseModel) for one in value)
    ):
        return "see below"
    if value is None or value is PydanticUndefined:
        return ""
    return f"`{json.dumps(value, default=str)}`"


def kind_of(field: FieldInfo) -> str:
    """Return what a field takes, in words."""
    return words_of(field.rebuild_annotation())


def own(group: Group) -> list[str]:
    """Return the entries of a group that this package brings itself."""
    here = "genret_dask."
    return [name for name in names_of(group) if entry(group, name).__module__.startswith(here)]


def words_of(annotation: Any) -> str:
    """Return what an annotation takes, in words."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        for one in arguments[1:]:
            if isinstance(one, Registered):
                return f"a record, by its `kind`: {', '.join(own(one.group))}"
        limits = [words for one in arguments[1:] for words in limits_of(one)]
        return " ".join([words_of(arguments[0]), " and ".join(limits)]).rstrip()
    if origin is Literal:
        return " or ".join(f"`{one}`" for one in arguments)
    if origin in (Union, UnionType):
        return " or ".join(dict.fromkeys(words_of(one) for one in arguments if one is not NoneType))
    if origin is tuple:
        inner = dict.fromkeys(words_of(one) for one in arguments if one is not ...)
        return f"list of {' and '.join(inner)}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "a record"
    return NAMES.get(getattr(annotation, "__name__", ""), NAMES.get(str(origin), "mapping"))


def limits_of(constraint: Any) -> list[str]:
    """Return a constraint in words; those of the metadata inside a `Field` too."""
    if isinstance(constraint, FieldInfo):
        return [words for one in constraint.metadata for words in limits_of(one)]
    for kind, (sign, attribute) in LIMITS.items():
        if isinstance(constraint, kind):
            value = getattr(constraint, attribute)
            return [] if value >= LARGE else [f"{sign} {value:,}"]
    return []


def records_in(field: FieldInfo) -> list[type[BaseModel]]:
    """Return the records that a field's value may be of."""
    found: list[type[BaseModel]] = []

    def look(annotation: Any) -> None:
        if isinstance(annotation, Registered):
            found.extend(entry(annotation.group, name) for name in own(annotation.group))
        elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
            found.append(annotation)
        for one in get_args(annotation):
            look(one)

    look(field.rebuild_annotation())
    return found


def main() -> int:
    """Write the page, or with --check compare it."""
    if "--check" not in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    elif not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
        print("docs/config.md is not what the records say; run python docs/make_config.py")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
