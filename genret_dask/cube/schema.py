"""The cube's arrays, as data: names, dimensions, types, units and meaning.

A cube is one Zarr v3 group with a group for each identifier kind, and in it two datasets:
`search`, what beam search returned, and `contrast`, the teacher-forced candidates of the
contrastive generation loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from genret_dask.storage.fingerprint import Origin

SEARCH, CONTRAST = "search", "contrast"

BASELINES = "baselines"
"""The group that is no identifier kind's; see `genret_dask.cube.baselines`."""


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


RANKED = ("model", "query", "beam", "rank")
SCORED = ("model", "query", "candidate")
_NAN = float("nan")

COSTS = {
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
}


def token_variables(dims: tuple[str, ...]) -> dict[str, Variable]:
    """Describe the vocabulary row and the logits of each token of an identifier."""
    steps = (*dims, "step")
    partition = "log-sum-exp over the full vocabulary"
    return {
        "token": Variable(steps, "int32", -1, "1", "vocabulary row of the identifier's token"),
        "logit": Variable(steps, "float32", _NAN, "nat", "logit of the token"),
        "log_partition": Variable(steps, "float32", _NAN, "nat", partition),
    }


def allowed_variable(dims: tuple[str, ...]) -> dict[str, Variable]:
    """Describe what the tokens that may follow have together, at each token."""
    meaning = "log-sum-exp over the tokens that the constraint allows"
    return {"log_allowed": Variable((*dims, "step"), "float32", _NAN, "nat", meaning)}


def ranking_variables(score: str, unit: str) -> dict[str, Variable]:
    """Describe the ranked documents and their scores; `score` says what the score is."""
    return {
        "score": Variable(RANKED, "float32", _NAN, unit, score),
        "doc": Variable(RANKED, "int32", -1, "1", "collection row of the document, -1 = none"),
    }


Variables = dict[str, dict[str, Variable]]
"""Arrays that shards write, by dataset and name; all begin with model and query."""


@dataclass(frozen=True)
class Group:
    """All of a cube's group that is known before anything is computed.

    Attributes
    ----------
    name : str
        Of its identifiers in the study.
    kind : str
        Of its identifiers.
    variables : Variables
        Arrays that shards write.
    sizes : dict of dimension to int
        Every dimension of the kind's arrays.
    shard_queries : int
        Queries of a shard: the extent of a chunk along `query`, of which the last may be part.
    model, query, beam : dict of coordinate to array
        Coordinates along that dimension; each has the dimension's own name among them.
    candidates : dict of variable to array[query, candidate]
        doc, is_positive and relevance of the contrast dataset.
    made_from : dict of dataset to tuple of str
        For each model a fingerprint of all that its values depend on but queries and candidates.
    """

    name: str
    kind: str
    variables: Variables
    sizes: dict[str, int]
    shard_queries: int
    model: dict[str, np.ndarray]
    query: dict[str, np.ndarray]
    beam: dict[str, np.ndarray]
    candidates: dict[str, np.ndarray]
    made_from: dict[str, tuple[str, ...]] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        """Of those arrays, before compression."""
        return sum(
            math.prod(self.shape(variable)) * np.dtype(variable.dtype).itemsize
            for variables in self.variables.values()
            for variable in variables.values()
        )

    def shape(self, variable: Variable) -> tuple[int, ...]:
        return tuple(self.sizes[dim] for dim in variable.dims)

    def chunks(self, variable: Variable) -> tuple[int, ...]:
        """One chunk a shard: one model, `shard_queries` queries, everything else whole."""
        extent = {**self.sizes, "model": 1, "query": self.shard_queries}
        return tuple(extent[dim] for dim in variable.dims)


@dataclass(frozen=True)
class Template:
    """A cube before its first shard: a group for each identifier kind.

    Attributes
    ----------
    groups : tuple of Group
    made_from : Origin
        Everything that its values depend on.
    attributes : dict
        Of the root, beside those of `made_from`: the spec, hashes and versions.
    """

    groups: tuple[Group, ...]
    made_from: Origin
    attributes: dict[str, Any]


COORDINATE_ATTRIBUTES: dict[str, dict[str, Any]] = {
    "n_params": {"units": "1", "long_name": "non-embedding parameters"},
    "n_train": {"units": "1", "long_name": "training pairs, NaN = not known"},
    "train_fraction": {"units": "1", "long_name": "fraction of the training pairs"},
    "train_flops": {"units": "FLOP", "long_name": "floating-point operations of training"},
    "origin": {"long_name": "trained by the study, or a ready checkpoint"},
    "family": {"long_name": "model family"},
    "precision": {"long_name": "number format of the exported weights"},
    "checkpoint": {"long_name": "hash of the exported weights"},
    "beam": {"units": "1", "long_name": "beam size"},
    "query": {"long_name": "query id"},
    "text": {"long_name": "query text"},
    "own": {"units": "1", "long_name": "document with the query's id, left out; -1 = none"},
    "model": {"long_name": "model name"},
    "doc": {"units": "1", "long_name": "collection row of the candidate, -1 = none"},
    "score": {"units": "1", "long_name": "score of a baseline, the higher the better, NaN = none"},
    "is_positive": {"units": "1", "long_name": "the candidate is relevant"},
    "relevance": {"units": "1", "long_name": "grade of the candidate, 0 = not judged relevant"},
}
