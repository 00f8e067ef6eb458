"""The JSON schema of a study's YAML, with the short forms that the records take in before.

Editors complete and check a file by it; what needs a look at files or at other keys, only
`load_spec` tells.
"""

from __future__ import annotations

from typing import Any

from genret_dask.specs.sweep import SweepSpec

_TEXT = {"type": "string"}
_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def study_schema() -> dict[str, Any]:
    """Return the JSON schema of what `load_spec` reads, as far as a schema can tell it.

    Kinds, families' names and metrics of installed packages are in it.
    """
    schema = SweepSpec.model_json_schema()
    keys, model = schema["properties"], schema["$defs"]["ModelSpec"]
    kind = {"anyOf": [keys["identifiers"]["items"], _TEXT]}
    keys["identifiers"] = _one_or_more(kind)
    source = {"anyOf": [_TEXT, {"$ref": "#/$defs/PretrainedSpec"}]}
    model["properties"]["checkpoint"] = source
    model["properties"]["checkpoints"] = {
        **source,
        "description": "a pattern of folders; each becomes a model",
    }
    model["properties"]["identifiers"] = _one_or_more(_TEXT)
    model["properties"]["training"] = {
        **schema["$defs"]["TrainingSpec"],
        "description": model["properties"]["training"]["description"],
    }
    model["required"] = []  # the family of a checkpoint's folder is its own
    return {"$schema": _DIALECT, "title": "A study of genret-dask", **_without_titles(schema)}


def _one_or_more(item: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [{"type": "array", "items": item}, item]}


def _without_titles(schema: Any) -> Any:
    """Leave out the titles, which pydantic makes of the names of keys and records."""
    if isinstance(schema, list):
        return [_without_titles(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        name: _without_titles(one)
        for name, one in schema.items()
        if name != "title" or not isinstance(one, str)
    }
