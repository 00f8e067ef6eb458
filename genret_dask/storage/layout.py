"""The names of all that lies in a run directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

TEXTS = "columns"
"""The folder of the texts within the artefact of a collection."""

ROWS = "rows.npy"
"""The file of their rows."""

_DIGEST = 12  # digits of a tokeniser's hash that name what is made of its tokens


@dataclass(frozen=True)
class RunLayout:
    """Give the place of each folder and file of a run directory, whether it is there or not.

    Examples
    --------
    >>> run = RunLayout(Path("runs/pydoc"))
    >>> run.model("codes", "t5-micro").as_posix(), run.cube.name
    ('runs/pydoc/models/codes/t5-micro', 'cube.zarr')
    """

    run: Path

    # --- artefacts ----------------------------------------------------------------------------

    @property
    def collection(self) -> Path:
        return self.run / "collection"

    @property
    def pairs(self) -> Path:
        """The training pairs of the user's files."""
        return self.run / "pairs"

    def tokenizer(self, label: str | None = None) -> Path:
        """The study's tokeniser, or the one of the pretrained model of that label."""
        return self.run / "tokenizers" / label if label else self.run / "tokenizer"

    def identifiers(self, kind: str | None = None, digest: str | None = None) -> Path:
        """The identifiers of a kind, of one tokeniser by the hash of its file; or of all."""
        return self._within("identifiers", kind, digest and digest[:_DIGEST])

    def spans(self, name: str | None = None) -> Path:
        """Spans that were sampled, or the folder of all."""
        return self._within("spans", name)

    @property
    def within(self) -> Path:
        """The rows of the documents that a search is kept to."""
        return self.run / "within"

    @property
    def candidates(self) -> Path:
        return self.run / "candidates"

    def baseline(self, name: str) -> Path:
        """The rankings of a baseline."""
        return self.run / "baselines" / name

    def checkpoint(self, kind: str, name: str | None = None) -> Path:
        """A trained cell, or the folder of all of a kind of identifier."""
        return self._within("checkpoints", kind, name)

    def model(self, kind: str, name: str | None = None) -> Path:
        """An exported model, or the folder of all of a kind of identifier."""
        return self._within("models", kind, name)

    @property
    def results(self) -> Path:
        return self.run / "results"

    @property
    def report(self) -> Path:
        return self.run / "report"

    @property
    def page(self) -> Path:
        return self.report / "index.html"

    def _within(self, *names: str | None) -> Path:
        return self.run.joinpath(*(name for name in names if name is not None))

    # --- the cube -----------------------------------------------------------------------------

    @property
    def cube(self) -> Path:
        return self.run / "cube.zarr"

    @property
    def seal(self) -> Path:
        """Beside the cube: the hash of every file that is no shard's, and that of the markers."""
        return self.run / "seal.json"

    @property
    def markers(self) -> Path:
        return self.run / "markers"

    @property
    def attempts(self) -> Path:
        return self.markers / "attempts"

    # --- files of the run ---------------------------------------------------------------------

    @property
    def spec(self) -> Path:
        return self.run / "spec.json"

    @property
    def log(self) -> Path:
        return self.run / "log.jsonl"

    @property
    def failures(self) -> Path:
        return self.run / "failures.json"

    @property
    def resources(self) -> Path:
        return self.run / "resources.json"

    @property
    def lease(self) -> Path:
        return self.run / ".lease"
