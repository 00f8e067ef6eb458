"""The cube's arrays, as data: names, dimensions, types, units and meaning.

A cube is one Zarr v3 group with a group for each identifier kind, and in it two datasets:
`search`, what beam search returned, and `contrast`, the teacher-forced candidates of the
contrastive generation loss.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

SEARCH, CONTRAST = "search", "contrast"


@dataclass(frozen=True)
class Variable:
    """One array of the cube.

    Attributes
    ----------
    dims : tuple of str
    dtype : str
    fill : value where nothing was computed or nothing exists
    units, long_name : str
        xarray attributes.
    """

    dims: tuple[str, ...]
    dtype: str
    fill: Any
    units: str
    long_name: str


_RANKED = ("model", "query", "beam", "rank")
_SCORED = ("model", "query", "candidate")
_NAN = float("nan")

SHARDED: dict[str, dict[str, Variable]] = {
    SEARCH: {
        "token": Variable(
            (*_RANKED, "step"), "int32", -1, "1", "vocabulary row of the identifier's token"
        ),
        "logit": Variable((*_RANKED, "step"), "float32", _NAN, "nat", "logit of the token"),
        "log_partition": Variable(
            (*_RANKED, "step"), "float32", _NAN, "nat", "log-sum-exp over the full vocabulary"
        ),
        "score": Variable(_RANKED, "float32", _NAN, "nat", "log-probability of the identifier"),
        "doc": Variable(_RANKED, "int32", -1, "1", "collection row of the document, -1 = none"),
        "flops": Variable(
            ("model", "query", "beam"),
            "float64",
            _NAN,
            "FLOP",
            "floating-point operations of a search at this beam size alone",
        ),
        "rows_decoded": Variable(
            ("model", "query", "beam"),
            "int32",
            -1,
            "1",
            "prefixes decoded by a search at this beam size alone",
        ),
    },
    CONTRAST: {
        "logit": Variable((*_SCORED, "step"), "float32", _NAN, "nat", "logit of the token"),
        "log_partition": Variable(
            (*_SCORED, "step"), "float32", _NAN, "nat", "log-sum-exp over the full vocabulary"
        ),
    },
}
"""Arrays that shards write: every one has the dimensions model and query first."""


@dataclass(frozen=True)
class Template:
    """All of a cube that is known before anything is computed.

    Attributes
    ----------
    kind : str
        Identifier kind; names the group.
    sizes : dict of dimension to int
        Every dimension of `SHARDED`.
    shard_queries : int
        Queries of a shard: the extent of a chunk along `query`.
    model, query, beam : dict of coordinate to array
        Coordinates along that dimension; each has the dimension's own name among them.
    candidates : dict of variable to array[query, candidate]
        doc, is_positive and relevance of the contrast dataset.
    attributes : dict
        Of the root: fingerprints and versions.
    """

    kind: str
    sizes: dict[str, int]
    shard_queries: int
    model: dict[str, np.ndarray]
    query: dict[str, np.ndarray]
    beam: dict[str, np.ndarray]
    candidates: dict[str, np.ndarray]
    attributes: dict[str, Any]

    def shape(self, variable: Variable) -> tuple[int, ...]:
        return tuple(self.sizes[dim] for dim in variable.dims)

    def chunks(self, variable: Variable) -> tuple[int, ...]:
        """One chunk a shard: one model, `shard_queries` queries, everything else whole."""
        extent = {
            **self.sizes,
            "model": 1,
            "query": max(1, min(self.shard_queries, self.sizes["query"])),
        }
        return tuple(extent[dim] for dim in variable.dims)


COORDINATE_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "n_params": {"units": "1", "long_name": "non-embedding parameters"},
    "n_train": {"units": "1", "long_name": "distinct training pairs"},
    "train_fraction": {"units": "1", "long_name": "fraction of the training pairs"},
    "train_flops": {"units": "FLOP", "long_name": "floating-point operations of training"},
    "family": {"long_name": "model family"},
    "precision": {"long_name": "number format of the exported weights"},
    "checkpoint": {"long_name": "hash of the exported weights"},
    "beam": {"units": "1", "long_name": "beam size"},
    "query": {"long_name": "query id"},
    "text": {"long_name": "query text"},
    "model": {"long_name": "model name"},
    "doc": {"units": "1", "long_name": "collection row of the candidate, -1 = none"},
    "is_positive": {"units": "1", "long_name": "the candidate is relevant"},
    "relevance": {"units": "1", "long_name": "grade of the candidate, 0 = not judged relevant"},
}
