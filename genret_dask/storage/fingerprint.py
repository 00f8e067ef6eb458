"""Fingerprints: one short hash for the settings and inputs that an artefact was made from."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import BaseModel

_SHOWN = 60  # characters of a value in a message


@dataclass(frozen=True, eq=False)
class Origin:
    """What an artefact is made from: settings and inputs by name, and one fingerprint of all.

    Attributes
    ----------
    kind : str
        Of the artefact.
    parts : dict of str to JSON-like value or pydantic model
        Other artefacts stand by their fingerprints.
    recorded : str or None
        The fingerprint, where a record has it.
    """

    kind: str
    parts: dict[str, Any]
    recorded: str | None = None

    @classmethod
    def of_record(cls, kind: str, record: dict[str, Any]) -> Origin:
        """Return the origin that an artefact's record keeps."""
        return cls(kind, dict(record["made_from"]), str(record["fingerprint"]))

    @cached_property
    def fingerprint(self) -> str:
        return self.recorded or fingerprint(self.kind, self.parts)

    def record(self) -> dict[str, Any]:
        """The origin as an artefact's record keeps it."""
        return {"fingerprint": self.fingerprint, "made_from": plain(self.parts)}

    def differences(self, recorded: dict[str, Any]) -> list[str]:
        """What differs from a recorded origin: one line a field, by its dotted name."""
        before, now = self._sides(recorded)
        return [
            f"{name} was {_shown(before, name)}, now {_shown(now, name)}"
            for name in self.differing(recorded)
        ]

    def differing(self, recorded: dict[str, Any]) -> list[str]:
        """Dotted names of the fields that differ from a recorded origin."""
        before, now = self._sides(recorded)
        names = dict.fromkeys([*now, *before])
        return [name for name in names if before.get(name, ...) != now.get(name, ...)]

    def _sides(self, recorded: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        return _leaves(recorded.get("made_from")), _leaves(plain(self.parts))


def fingerprint(*parts: Any) -> str:
    """Return a 16-digit hexadecimal hash of JSON-like values and pydantic models.

    Two calls agree exactly when their parts have the same canonical JSON; key order is irrelevant.

    Examples
    --------
    >>> fingerprint({"a": 1, "b": 2}) == fingerprint({"b": 2, "a": 1})
    True
    """
    text = json.dumps(parts, sort_keys=True, separators=(",", ":"), default=_plain)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """JSON-like values and pydantic models as the values that JSON gives back."""
    return json.loads(json.dumps(value, default=_plain))


def sha256_file(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    raise TypeError(f"{type(value).__name__} has no canonical JSON form")


def _leaves(value: Any, name: str = "") -> dict[str, Any]:
    """Scalars, lists of them and empty containers of nested JSON, by dotted name."""
    flat = isinstance(value, list) and not any(isinstance(one, dict | list) for one in value)
    if isinstance(value, dict | list) and value and not flat:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        nested = [_leaves(one, f"{name}.{key}" if name else str(key)) for key, one in items]
        return {key: one for leaves in nested for key, one in leaves.items()}
    return {name: value}


def _shown(leaves: dict[str, Any], name: str) -> str:
    if name not in leaves:
        return "absent"
    text = json.dumps(leaves[name], ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."
