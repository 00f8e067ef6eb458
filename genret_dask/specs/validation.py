"""Frozen records of plain YAML content, and errors that name the key and list the valid ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, get_args, runtime_checkable

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator
from pydantic.fields import FieldInfo

from genret_dask.errors import SpecError, meant
from genret_dask.redaction import MASK, has_credentials, redact

_LISTED = 10  # problems in an error's text
_WORDS = {"tuple_type": "Input should be a list, such as [1, 10]"}
_FIX = "correct it; docs/config.md has the keys with their defaults"


class Record(BaseModel):
    """Forbids unknown keys, and credentials in URLs."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False
    )

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, content: Any) -> Any:
        """Refuse `true` where a number is meant: to Python it is 1."""
        for name, value in content.items() if isinstance(content, Mapping) else ():
            field = cls.model_fields.get(name)
            if isinstance(value, bool) and field and _means_number(field):
                raise ValueError(f"{name} is {str(value).lower()}; expected a number")
        return content

    @field_validator("*", mode="after")
    @classmethod
    def _no_credentials(cls, value: Any) -> Any:
        """Refuse a password in a URL: a spec is kept in the cube and shown in the report."""
        if isinstance(value, str | Path) and has_credentials(str(value)):
            raise ValueError("a URL with credentials; leave them to the environment or a profile")
        return value


def _means_number(field: FieldInfo) -> bool:
    """Whether a field may be a number, and neither true nor false."""
    types, annotations = set(), [field.annotation]
    while annotations:
        types.add(one := annotations.pop())
        annotations += get_args(one)
    return bool(types & {int, float}) and not types & {bool, Any, object}


@runtime_checkable
class Chosen(Protocol):
    """Annotates a field whose record depends on its content."""

    def options(self, content: Any) -> list[type[BaseModel]]:
        """Return the records that content may be of."""
        ...


def validate(record: type[Any], content: Any, *, source: str, fix: str = _FIX) -> Any:
    """Build a record from plain YAML content.

    Parameters
    ----------
    record : subclass of Record
    source : str
        The file that an error names.
    fix : str
        What the error tells to do.

    Raises
    ------
    SpecError
        A key is unknown or a value wrong; each is named.
    """
    try:
        return record.model_validate(content)
    except ValidationError as error:
        # Of a value that may have several types there is an error for each.
        found: dict[str, list[Any]] = {}
        for item in error.errors():
            found.setdefault(_location(content, item), []).append(item)
        problems = [_problem(record, content, *one) for one in list(found.items())[:_LISTED]]
        more = f"; and {len(found) - _LISTED} more" if len(found) > _LISTED else ""
        raise SpecError(
            f"{source}: " + "; ".join(problem for problem, _ in problems) + more,
            expected="; ".join(dict.fromkeys(valid for _, valid in problems if valid)) or None,
            fix=fix,
        ) from None


def _location(content: Any, item: Any) -> str:
    """Where an error is, without the names that pydantic gives to the types of a value."""
    kept = []
    for part in item["loc"]:
        try:
            content = content[part]
        except (LookupError, TypeError):
            continue
        kept.append(str(part))
    if item["type"] == "missing":
        kept.append(str(item["loc"][-1]))
    return ".".join(kept) or "the file"


def _problem(
    record: type[BaseModel], content: Any, location: str, items: list[Any]
) -> tuple[str, str | None]:
    item = items[0]
    if item["type"] == "extra_forbidden":
        parent = _record_at(record, item["loc"][:-1], content)
        fields = parent.model_fields if parent else {}
        keys = ", ".join(field.alias or name for name, field in fields.items())
        hint = meant(str(item["loc"][-1]), keys.split(", "))
        return f"unknown key {location}{hint}", f"valid keys: {keys}" if keys else None
    if item["type"] in ("value_error", "kind") and isinstance(item["input"], Mapping):
        return f"{location}: {item['msg'].removeprefix('Value error, ')}", None
    message, *others = dict.fromkeys(_message(item) for item in items)
    message += "".join(f", or {other.removeprefix('Input should be ')}" for other in others)
    return f"{location}: {message} (found {_shown(item)})"[:400], None


def _message(item: Any) -> str:
    """What is wrong, in words of YAML where pydantic has those of Python."""
    return _WORDS.get(item["type"], item["msg"]).removeprefix("Value error, ")


def _shown(item: Any) -> str:
    """The value at fault; of a mapping its keys, and nothing of `environment`."""
    if "environment" in item["loc"]:
        return MASK
    if isinstance(item["input"], Mapping):
        return f"keys {', '.join(map(str, item['input'])) or 'none'}"
    return redact(repr(item["input"]))


def _record_at(record: Any, location: tuple[Any, ...], content: Any) -> type[BaseModel] | None:
    """Follow an error's location through nested records, tuples and tagged unions."""
    for part in location:
        options = _options(record, content)
        content = _inner(content, part)
        if isinstance(part, int):
            continue
        # Of several records the location names the one that is meant, by its tag, before a field.
        tagged = [option for option in options if part in _tags(option)]
        fields = [option for option in options if part in option.model_fields]
        if len(options) > 1 and tagged:
            record = tagged[0]
        elif fields:
            record = fields[0].model_fields[part].rebuild_annotation()
        else:
            return None
    options = _options(record, content)
    return options[0] if len(options) == 1 else None


def _inner(content: Any, part: Any) -> Any:
    """What stands at a part of a location; the same where that only names a type, or one of one."""
    try:
        return content[part]
    except (LookupError, TypeError):
        return content


def _tags(record: type[BaseModel]) -> tuple[Any, ...]:
    """Values of the field that tells a record from others in its union."""
    kind = record.model_fields.get("kind")
    return get_args(kind.annotation) if kind else ()


def _options(annotation: Any, content: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, Chosen):
        return annotation.options(content)
    return [option for argument in get_args(annotation) for option in _options(argument, content)]
