"""What one file can add by an entry point: a kind of identifier, a quantiser, a family and more.

The package's own stand in the same groups of `pyproject.toml` as those of any installed package;
docs/extending.md shows one of each.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import PydanticCustomError, core_schema

from genret_dask.errors import GenretError, SpecError, meant
from genret_dask.specs.validation import Record

Group = Literal[
    "identifiers", "quantisers", "families", "datasets", "metrics", "baselines", "exporters"
]


def names_of(group: Group) -> list[str]:
    """List the installed entries of a group, sorted."""
    return sorted(_entries(group))


@lru_cache
def entry(group: Group, name: str) -> Any:
    """Load an entry: what it names in its module.

    Raises
    ------
    SpecError
        There is none of that name, two packages have it, or its module cannot be imported.
    """
    found = _entries(group).get(name, ())
    if not found:
        raise SpecError(
            f"no {name!r} among the {group}{meant(name, names_of(group))}",
            expected=f"one of {', '.join(names_of(group))}",
            fix=f"install the package that has it in its entry points genret_dask.{group}",
        )
    if len(found) > 1:
        raise SpecError(
            f"{len(found)} packages have {name!r} among their {group}: "
            + ", ".join(one.value for one in found),
            expected="one",
            fix="uninstall the others",
        )
    try:
        return found[0].load()
    except Exception as error:  # of a module of another package
        raise SpecError(
            f"{found[0].value}, the {name!r} of the {group}, cannot be imported: "
            f"{type(error).__name__}: {str(error)[:200]}",
            fix="mend or uninstall the package that brings it",
        ) from error


@lru_cache
def _entries(group: Group) -> dict[str, list[EntryPoint]]:
    found: dict[str, list[EntryPoint]] = {}
    for one in entry_points(group=f"genret_dask.{group}"):
        mine = found.setdefault(one.name, [])
        if one not in mine:
            mine.append(one)
    return found


@dataclass(frozen=True)
class Registered:
    """Annotate a record's field whose own record is that of an entry of a group.

    The key `kind` names the entry, which is a subclass of `Record`.

    Attributes
    ----------
    group : str
    default : str or None
        The entry that is meant where no kind is named.
    """

    group: Group
    default: str | None = None

    def options(self, content: Any) -> list[Any]:
        """Return the record that content names by its kind, if there is one."""
        kind = self._kind(content)
        return [entry(self.group, kind)] if kind in names_of(self.group) else []

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_after_validator_function(
            self._validate, core_schema.any_schema()
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        records = [entry(self.group, name) for name in names_of(self.group)]
        found: dict[str, Any] = {
            "type": "object",
            "anyOf": [handler(record.__pydantic_core_schema__) for record in records],
        }
        if self.default is None:
            found["required"] = ["kind"]
        return found

    def _validate(self, content: Any) -> Any:
        if isinstance(content, Record):
            return content
        kind, known = self._kind(content), names_of(self.group)
        if kind is None:
            raise PydanticCustomError("kind", f"expected a kind: one of {', '.join(known)}")
        try:
            record = entry(self.group, kind)
        except GenretError as error:
            raise PydanticCustomError("kind", "{found}", {"found": error.line("kind")}) from error
        return record.model_validate({"kind": kind, **content})

    def _kind(self, content: Any) -> str | None:
        kind = content.get("kind", self.default) if isinstance(content, dict) else None
        return None if kind is None else str(kind)
