"""The page: everything a run has to say in one HTML file, with its figures as files beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import xarray as xr
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from genret_dask import __version__
from genret_dask.cube.baselines import baselines_in
from genret_dask.cube.store import read_attributes
from genret_dask.fits.published import SOURCE
from genret_dask.metrics.bootstrap import finite
from genret_dask.metrics.reported import short_name
from genret_dask.report.choices import family_figures, frontier_figure, kind_figures
from genret_dask.report.drawing import PALETTES, Drawing
from genret_dask.report.figures import joint_figures, law_figures, warning_count
from genret_dask.report.gather import Gathered, Kind, gather
from genret_dask.report.identifiers import identifier_spaces
from genret_dask.report.provenance import provenance
from genret_dask.report.queries import document_names, extreme_queries
from genret_dask.report.text import clean, decimal, estimate, seconds, share, short, upper_first
from genret_dask.storage.artefacts import Artefact, publishing
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.layout import RunLayout


@dataclass(frozen=True)
class Section:
    """Figures under a heading: of the laws, families or frontier of a kind, or between kinds."""

    part: str
    kind: Kind | None
    drawings: tuple[Drawing, ...]

    @property
    def anchor(self) -> str:
        return f"{self.kind.name}-{self.part}" if self.kind else self.part


def write_report(
    run: Path | str,
    *,
    published: bool = False,
    draws: int | None = None,
    seed: int | None = None,
    values: Mapping[str, xr.Dataset] | None = None,
    metric: str | None = None,
) -> Path:
    """Write `report/index.html` of a run and its figures as SVG files; replaces an earlier one.

    The page loads nothing: figures are inline, colours follow the reader's light or dark setting.

    Parameters
    ----------
    run : path
        A run directory with a sealed cube.
    published : bool
        Lay the study's published points beside one's own.
    draws, seed : int, optional
        Resamples of the queries; those of the run's own results by default.
    values : mapping of str to xarray.Dataset, optional
        The metrics of each query of the run's cube, as `gather` takes them.
    metric : str, optional
        The measure of rankings to show; the one that the collection names by default.

    Returns
    -------
    Path
        Of the page.

    Raises
    ------
    InputError
        There is no cube, or no such metric.
    CubeError
        It is not sealed.

    Examples
    --------
    >>> write_report("runs/pydoc")  # doctest: +SKIP
    """
    gathered = gather(
        run, published=published, draws=draws, seed=seed, values=values, metric=metric
    )
    sections = sections_of(gathered)
    html = render(gathered, sections)
    with publishing(gathered.layout.report, _made_from(gathered.run)) as partial:
        (partial / gathered.layout.page.name).write_text(html, encoding="utf-8")
        for section in sections:
            for drawing in section.drawings:
                path = partial / f"{drawing.name}.svg"
                path.write_text(drawing.standalone(), encoding="utf-8")
    return gathered.layout.page


def is_reported(run: Path) -> bool:
    """Tell whether the run's page was made from the cube that is there, by this version."""
    return Artefact(RunLayout(run).report, _made_from(run)).state == "done"


def sections_of(gathered: Gathered) -> list[Section]:
    """Draw the figures of a page, by section; sections without a figure are left out."""
    found = []
    for kind in gathered.kinds:
        laws = (*law_figures(kind, gathered.published), *joint_figures(kind))
        found += [
            Section("laws", kind, laws),
            Section("families", kind, tuple(family_figures(kind))),
            Section("frontier", kind, tuple(frontier_figure(kind, gathered.baselines))),
        ]
    if len(gathered.kinds) > 1:
        drawn = kind_figures(gathered.between_kinds, gathered.metric)
        found.append(Section("kinds", None, tuple(drawn)))
    return [section for section in found if section.drawings]


def render(gathered: Gathered, sections: Sequence[Section]) -> str:
    """Write the page as HTML. Every text of the run is escaped."""
    environment = Environment(
        loader=PackageLoader("genret_dask.report", ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = (decimal, short, estimate, share, clean, seconds, warning_count, upper_first)
    environment.filters.update({function.__name__: function for function in filters})
    names = document_names(gathered.run, gathered.attributes.get("documents"))
    asked = [(kind.name, extreme_queries(kind, names)) for kind in gathered.kinds]
    spec = gathered.attributes.get("spec") or {}
    return environment.get_template("page.html.j2").render(
        title=clean(spec.get("name") or gathered.run.name),
        version=__version__,
        written=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        palettes=PALETTES,
        kinds=gathered.kinds,
        baselines=gathered.baselines,
        metric=clean(gathered.metric),
        key=gathered.metric,
        word=clean(gathered.metric.partition("@")[0]),
        short_metric=clean(short_name(gathered.metric)),
        sections=sections,
        svg=lambda drawing: Markup(drawing.themed()),
        laws=law_rows(gathered),
        source=SOURCE if gathered.published else None,
        queries=[(name, found) for name, found in asked if found],
        spaces=identifier_spaces(gathered),
        several=len(gathered.kinds) > 1,
        **provenance(gathered),
    )


def law_rows(gathered: Gathered) -> list[tuple[str, str, dict[str, Any]]]:
    """List the laws: what of, the identifier kind and the record.

    The records of `genret_dask.fits.table` come first, then those of figures alone.
    """
    rows = []
    for kind in gathered.kinds:
        rows += [("table", kind.name, fit.record()) for fit in kind.fits]
        rows += [("figure", kind.name, fit.record()) for fit in kind.more]
    return rows + [("published", "published", fit.record()) for fit in gathered.published]


def _made_from(run: Path) -> Origin:
    cube = RunLayout(run).cube
    attributes, baselines = read_attributes(cube), baselines_in(cube)
    parts = {
        "version": __version__,
        "format": finite(attributes.get("format") or 0),
        "cube": attributes.get("digest"),
        "fits": (attributes.get("spec") or {}).get("fits"),
        **({"baselines": baselines} if baselines else {}),
    }
    return Origin("report", parts)
