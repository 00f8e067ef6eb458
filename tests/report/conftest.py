"""Run directories with a law cube, and what a browser or a parser finds in a page."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
import zarr

from genret_dask.cube.store import seal_cube
from genret_dask.report import write_report
from tests.fits import conftest as laws

DRAWS = 10
_VOID = {"meta", "link", "br", "hr", "img", "input"}


class Page(HTMLParser):
    """A page as its elements; raises where a tag is not closed or closes another."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.rows: list[tuple[dict[str, str | None], list[str]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert not self._open, f"not closed: {self._open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "tr":
            self.rows.append((dict(attrs), []))
        if tag in ("td", "th") and self.rows:
            self.rows[-1][1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open[-1:]}"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        self.text.append(data)
        if self._open and {"td", "th"} & set(self._open):
            cell = self.rows[-1][1]
            cell[-1] = f"{cell[-1]} {data.strip()}".strip()

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and all(attributes.get(key) == value for key, value in wanted.items())
        ]

    @property
    def figures(self) -> list[dict[str, str | None]]:
        return self.all("svg", **{"class": "figure"})


def read_page(run: Path, **options) -> Page:
    return Page(write_report(run, **{"draws": DRAWS, "seed": 1, **options}).read_text("utf-8"))


def rewrite(run: Path, kind: str, dataset: str, name: str, change: Callable) -> None:
    """Change an array of a sealed cube."""
    with zarr.config.set({"array.write_empty_chunks": True}):
        array = zarr.open_group(run / "cube.zarr", mode="r+")[f"{kind}/{dataset}/{name}"]
        array[...] = change(np.array(array[...]))


@pytest.fixture(scope="module")
def both_kinds(tmp_path_factory, rough_fits) -> Path:
    """A run of the same models with codes and with n-grams."""
    run = tmp_path_factory.mktemp("both")
    laws.write_law_cube(run / "cube.zarr", kind="codes")
    laws.write_law_cube(run / "other.zarr", kind="ngrams")
    shutil.copytree(run / "other.zarr" / "ngrams", run / "cube.zarr" / "ngrams")
    shutil.rmtree(run / "other.zarr")
    seal_cube(run / "cube.zarr", 2, "digest")
    return run


@pytest.fixture(scope="module")
def four_sizes(tmp_path_factory) -> Path:
    """A run of one kind and four models of a family."""
    run = tmp_path_factory.mktemp("four")
    sizes = ("t5-a", "t5-b", "t5-c", "t5-d")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(laws, "MODELS", [one for one in laws.MODELS if one[0] in sizes])
        laws.write_law_cube(run / "cube.zarr", queries=20)
    return run


@pytest.fixture
def fresh_cube(four_sizes, tmp_path) -> Path:
    """A copy of that run, to be changed."""
    return Path(shutil.copytree(four_sizes, tmp_path / "run"))


@pytest.fixture(scope="module")
def published_html(both_kinds) -> str:
    """Its page with the study's published points."""
    return write_report(both_kinds, draws=DRAWS, seed=1, published=True).read_text("utf-8")
