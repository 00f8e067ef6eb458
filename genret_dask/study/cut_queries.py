"""Say which of the searched queries have more tokens than a model reads."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from genret_dask.errors import listed
from genret_dask.models.manifest import read_manifest
from genret_dask.models.reader import Reader
from genret_dask.shards.task import Exported

logger = logging.getLogger(__name__)


def warn_of_cut_queries(
    queries: Sequence[str], split: str, max_tokens: int, models: Mapping[tuple[str, str], Exported]
) -> None:
    """Log a line for each way of reading that cuts queries, with the models that read so.

    Parameters
    ----------
    queries : sequence of str
        All that are searched.
    split : str
        Theirs.
    models : mapping of (identifier kind, model name) to Exported
    """
    readers: dict[str, tuple[Reader, list[str]]] = {}
    for (_, name), model in models.items():
        manifest = read_manifest(model.folder, verify=False)
        path = model.folder / "tokenizer.json"
        reader = Reader.of_model(path, manifest.require_reading(), max_tokens)
        key = f"{manifest.files['tokenizer.json']} {reader.opening} {reader.closing}"
        names = readers.setdefault(key, (reader, []))[1]
        names += [] if name in names else [name]
    for reader, names in readers.values():
        if cut := int(reader.read(queries).cut.sum()):
            logger.warning(
                "%d of %d queries of the %s split have more than %d tokens for %s and are cut; "
                "max_tokens sets how many are read",
                cut,
                len(queries),
                split,
                max_tokens,
                listed(names),
            )
