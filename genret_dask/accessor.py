"""The accessor `.genret`: metrics, resamples and laws as methods of xarray's objects.

Importing this module registers it; `genret_dask.open_cube` does. Every method is one call of a
plain function of `genret_dask.metrics` or `genret_dask.fits`, and as lazy as that.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr

from genret_dask.cube.schema import CONTRAST, SEARCH
from genret_dask.datasets import stored
from genret_dask.datasets.collection import Collection
from genret_dask.errors import InputError
from genret_dask.fits.fit_over import fit_over, of_family
from genret_dask.fits.fitting import Fit
from genret_dask.fits.table import fits_of
from genret_dask.metrics import contrastive, ranking
from genret_dask.metrics.answers import ANSWERS
from genret_dask.metrics.baselines import baseline_queries
from genret_dask.metrics.bootstrap import bootstrap_mean, interval
from genret_dask.metrics.contrastive import Form
from genret_dask.metrics.queries import per_query, reduce_queries
from genret_dask.metrics.reported import main_metric, measure_of, measures_of, run_of
from genret_dask.metrics.runs import write_qrels, write_run
from genret_dask.storage.artefacts import RECORD
from genret_dask.storage.layout import RunLayout
from genret_dask.storage.places import place_of


@xr.register_dataarray_accessor("genret")
class MetricAccessor:
    """Of a metric over `query`.

    Examples
    --------
    >>> loss = xr.DataArray([[1.0, 3.0], [2.0, 2.0]], dims=("model", "query"))
    >>> loss.genret.bootstrap(draws=100).dims
    ('draw', 'model')
    """

    def __init__(self, values: xr.DataArray) -> None:
        self._values = values

    def bootstrap(self, draws: int = 1000, seed: int = 0) -> xr.DataArray:
        """`genret_dask.metrics.bootstrap.bootstrap_mean`: (draw, ...)."""
        return bootstrap_mean(self._values, draws, seed)

    def interval(self, level: float = 0.95, draws: int = 1000, seed: int = 0) -> xr.DataArray:
        """Percentile interval of the mean over the queries: (bound, ...)."""
        return interval(self.bootstrap(draws, seed), level)

    def fit(
        self, *axes: str, family: str | None = None, precision: str | None = None, **options: Any
    ) -> Fit:
        """`genret_dask.fits.fit_over`, of one family and precision."""
        return fit_over(of_family(self._values, family, precision), *axes, **options)


@xr.register_datatree_accessor("genret")
class KindAccessor:
    """Of a cube, or of the group of one identifier kind.

    Parameters
    ----------
    tree : xarray.DataTree
        Has the children `search` and `contrast`, or is a cube of a single kind.
    """

    def __init__(self, tree: xr.DataTree) -> None:
        self._tree = tree

    def __repr__(self) -> str:
        names = ", ".join(str(kind.name) for kind in self._kinds) or "no identifier kind"
        sizes = self._kinds[0][SEARCH].sizes if self._kinds else {}
        counts = ", ".join(f"{sizes[dim]} {dim}" for dim in ("model", "query", "beam") if sizes)
        return f"<genret accessor of {names}: {counts}>"

    def documents(self, run: Path | str | None = None) -> xr.Dataset:
        """The documents that `doc` of the cube counts: id, title and text along `doc`.

        Parameters
        ----------
        run : path, optional
            The run directory that holds the collection; by default the one that the cube was
            opened in.

        Raises
        ------
        InputError
            The tree does not say where it was opened, or no collection is there.

        Examples
        --------
        >>> tree.genret.documents().sel(doc=3)["title"].item()  # doctest: +SKIP
        """
        return documents_of(self._tree, run)

    @property
    def kind(self) -> str:
        """Identifier kind."""
        return str(self._kind.name)

    @property
    def search(self) -> xr.Dataset:
        """What beam search returned."""
        return self._kind[SEARCH].to_dataset()

    @property
    def contrast(self) -> xr.Dataset:
        """The teacher-forced candidates."""
        return self._kind[CONTRAST].to_dataset()

    def cgl(self, form: Form = "ratio") -> xr.DataArray:
        """`genret_dask.metrics.cgl`: (model, query)."""
        return contrastive.cgl(self.contrast, form)

    def generation_loss(self) -> xr.DataArray:
        """`genret_dask.metrics.generation_loss`: (model, query, candidate)."""
        return contrastive.generation_loss(self.contrast)

    def positive_loss(self) -> xr.DataArray:
        """`genret_dask.metrics.positive_loss`: (model, query)."""
        return contrastive.positive_loss(self.contrast)

    def recall(self, k: int) -> xr.DataArray:
        """`genret_dask.metrics.recall`: (model, query, beam)."""
        return ranking.recall(self.search, self.contrast, k)

    def mrr(self, k: int) -> xr.DataArray:
        """`genret_dask.metrics.mrr`: (model, query, beam)."""
        return ranking.mrr(self.search, self.contrast, k)

    def ndcg(self, k: int) -> xr.DataArray:
        """`genret_dask.metrics.ndcg`: (model, query, beam)."""
        return ranking.ndcg(self.search, self.contrast, k)

    def average_precision(self, k: int) -> xr.DataArray:
        """`genret_dask.metrics.average_precision`: (model, query, beam)."""
        return ranking.average_precision(self.search, self.contrast, k)

    def ndcg_exp(self, k: int) -> xr.DataArray:
        """`genret_dask.metrics.ndcg_exp`: (model, query, beam)."""
        return ranking.ndcg_exp(self.search, self.contrast, k)

    def success(self, k: int) -> xr.DataArray:
        """`genret_dask.metrics.success`: (model, query, beam)."""
        return ranking.success(self.search, self.contrast, k)

    def r_precision(self) -> xr.DataArray:
        """`genret_dask.metrics.r_precision`: (model, query, beam)."""
        return ranking.r_precision(self.search, self.contrast)

    def answer_hits(self, k: int) -> xr.DataArray:
        """`genret_dask.metrics.answer_hits` with the answers of the cube's run."""
        return self.metric(f"{ANSWERS}@{k}")

    @property
    def main_metric(self) -> str:
        """The measure of rankings that the cube's collection names; recall@10 if it names none."""
        return main_metric(self._tree.root.attrs)

    def metric(self, name: str | None = None) -> xr.DataArray:
        """A metric by its name: cgl, generation_loss, or a measure of rankings at any cut-off.

        The default is `main_metric`.

        Raises
        ------
        InputError
            There is none of that name.
        """
        losses = {"cgl": self.cgl, "generation_loss": self.positive_loss}
        if name in losses:
            return losses[name]()
        name = self.main_metric if name is None else name
        found = measure_of(self._tree, name)(self.search, self.contrast)
        return found.rename(name)

    def flops(self) -> xr.DataArray:
        """Floating-point operations of each search: (model, query, beam)."""
        return self.search["flops"]

    def per_query(self) -> xr.Dataset:
        """`genret_dask.metrics.queries.per_query`: every metric of every query."""
        return per_query(self.search, self.contrast, measures_of(self._tree))

    def baselines(self, *metrics: str) -> xr.Dataset:
        """Measures of the cube's baselines: each over (baseline, query), lazy.

        Their rankings are ``tree["baselines/NAME"]``: doc and score over (query, rank).

        Parameters
        ----------
        *metrics : str
            Measures of rankings, at any cut-off; all that are reported by default.

        Raises
        ------
        InputError
            The cube has no baseline, or there is no such measure.
        """
        named = {name: measure_of(self._tree, name) for name in metrics}
        found = baseline_queries(self._tree, named or measures_of(self._tree))
        if found is None:
            raise InputError(
                "the cube has no baselines",
                expected="the group baselines, which a sweep writes",
                fix="sweep again with a baseline, as baselines: [bm25]: only it is computed",
            )
        return found

    def bootstrap(self, metric: str = "cgl", draws: int = 1000, seed: int = 0) -> xr.DataArray:
        """Mean of a metric of `per_query` in each resample: (draw, model, ...)."""
        return bootstrap_mean(self.metric(metric), draws, seed)

    def fit(
        self,
        *axes: str,
        metric: str = "cgl",
        family: str | None = None,
        precision: str | None = None,
        **options: Any,
    ) -> Fit:
        """`genret_dask.fits.fit_over` of a metric of `per_query`; over ``flops`` as well."""
        values = of_family(self.metric(metric), family, precision)
        if "flops" in axes:
            flops = of_family(self.flops(), family, precision).mean("query")
            values = values.assign_coords(flops=flops.reset_coords(drop=True))
        return fit_over(values, *axes, **options)

    def fits(
        self, draws: int = 1000, seed: int = 0, metric: str | None = None, **options: Any
    ) -> list[Fit]:
        """Every law of the cube, in one pass: `genret_dask.fits.fits_of`, by `main_metric`."""
        name = self.main_metric if metric is None else metric
        values = reduce_queries(self.search, self.contrast, {name: measure_of(self._tree, name)})
        return fits_of(self.kind, values, draws, seed, metric=name, **options)

    def trec_run(
        self, path: Path | str, *, model: str, beam: int, run: Path | str | None = None
    ) -> Path:
        """Write the rankings of a model at any beam: `genret_dask.metrics.write_run`.

        The ids are those of the collection in the run directory, as `documents` finds it.
        """
        names = collection_of(self._tree, run).document_ids
        return write_run(self.search, names, path, model=model, beam=beam)

    def trec_qrels(self, path: Path | str, *, run: Path | str | None = None) -> Path:
        """Write the relevant documents of every query: `genret_dask.metrics.write_qrels`."""
        return write_qrels(self.contrast, collection_of(self._tree, run).document_ids, path)

    @property
    def _kinds(self) -> list[xr.DataTree]:
        trees = [self._tree, *self._tree.children.values()]
        return [tree for tree in trees if {SEARCH, CONTRAST} <= set(tree.children)]

    @property
    def _kind(self) -> xr.DataTree:
        children = self._kinds
        if len(children) != 1:
            names = ", ".join(str(child.name) for child in children) or "none"
            raise InputError(
                f"the tree has the identifier kinds {names}",
                expected="one kind, or the group of one",
                fix="take it first, as in tree['codes'].genret",
            )
        return children[0]


def documents_of(tree: xr.DataTree, run: Path | str | None = None) -> xr.Dataset:
    """The documents of a cube's run; see `KindAccessor.documents`."""
    return open_collection(_run_of(tree, run))


def collection_of(tree: xr.DataTree, run: Path | str | None = None) -> Collection:
    """The collection of a cube's run; errors as of `documents_of`."""
    return stored.read_artefact(_collection_in(_run_of(tree, run)))


def _run_of(tree: xr.DataTree, run: Path | str | None) -> Path | str:
    found = run_of(tree) if run is None else run
    if found is None:
        raise InputError(
            "the tree does not say where it was opened",
            expected="a cube by genret_dask.open_cube, or its run directory",
            fix="give it, as in documents(run='runs/pydoc')",
        )
    return found


def open_collection(run: Path | str) -> xr.Dataset:
    """Open the documents of a run, without reading them.

    Returns
    -------
    xarray.Dataset
        id, title and text (str) over `doc`, the rows that the cube's rankings name: lazy, a Dask
        chunk for each batch of the file.

    Raises
    ------
    InputError
        There is no collection.
    """
    folder = _collection_in(run)
    found = stored.read_artefact(folder)
    columns = {"id": "document_ids", "title": "titles", "text": "texts"}
    blocks = partial(
        da.map_blocks, _strings, folder, chunks=(found.texts.chunks,), meta=np.empty(0, object)
    )
    return xr.Dataset(
        {name: ("doc", blocks(column, dtype=object)) for name, column in columns.items()},
        coords={"doc": np.arange(len(found), dtype=np.int32)},
        attrs={"collection": found.name},
    )


def _collection_in(run: Path | str) -> Path:
    folder = RunLayout(place_of(run)).collection
    if not (folder / RECORD).is_file():
        raise InputError(
            f"there is no collection at {folder}",
            expected="the run directory that the cube was made in",
            fix="copy its folder collection beside the cube, or give the run: documents(run=...)",
        )
    return folder


def _strings(folder: Path, column: str, block_info: Any = None) -> np.ndarray:
    """Read a chunk of a collection's column."""
    ((start, stop),) = block_info[None]["array-location"]
    return np.array(getattr(stored.read_artefact(folder), column)[start:stop], dtype=object)


@xr.register_dataset_accessor("genret")
class DatasetAccessor:
    """Of a contrast dataset, or of the metrics of each query (`per_query`)."""

    def __init__(self, data: xr.Dataset) -> None:
        self._data = data

    def cgl(self, form: Form = "ratio") -> xr.DataArray:
        """`genret_dask.metrics.cgl` of a contrast dataset; the value of each query otherwise."""
        if "cgl" in self._data and form == "ratio":
            return self._data["cgl"]
        return contrastive.cgl(self._needing("log_partition", "is_positive"), form)

    def positive_loss(self) -> xr.DataArray:
        """`genret_dask.metrics.positive_loss` of a contrast dataset."""
        return contrastive.positive_loss(self._needing("log_partition", "is_positive"))

    def recall(self, k: int, contrast: xr.Dataset | None = None) -> xr.DataArray:
        """`genret_dask.metrics.recall` of a search dataset; the value of each query otherwise.

        Parameters
        ----------
        k : int
        contrast : xarray.Dataset, optional
            Says which documents are relevant, for a search dataset.
        """
        if f"recall@{k}" in self._data:
            return self._data[f"recall@{k}"]
        if contrast is None:
            raise InputError(
                f"this dataset has no recall@{k} and does not know what is relevant",
                expected="the contrast dataset as well",
                fix="use recall(k, contrast), or the accessor of the tree that holds both",
            )
        return ranking.recall(self._needing("doc"), contrast, k)

    def bootstrap(self, draws: int = 1000, seed: int = 0) -> xr.Dataset:
        """`bootstrap_mean` of every variable over `query`."""
        return self._data.map(
            lambda values: bootstrap_mean(values, draws, seed) if "query" in values.dims else values
        )

    def fit(
        self, *axes: str, metric: str = "cgl", family: str | None = None, **options: Any
    ) -> Fit:
        """`genret_dask.fits.fit_over` of one of its metrics."""
        values = self.cgl() if metric == "cgl" else self._needing(metric)[metric]
        return fit_over(of_family(values, family), *axes, **options)

    def _needing(self, *names: str) -> xr.Dataset:
        if missing := [name for name in names if name not in self._data]:
            raise InputError(
                f"the dataset has no {missing[0]!r}",
                expected=f"{', '.join(names)}; it has {', '.join(map(str, self._data.data_vars))}",
            )
        return self._data
