"""A collection out of the docstrings of installed libraries: nothing to download.

The summary sentence of a public function, class or method is the query; the rest of its docstring
is the one relevant document. Titles stay empty: an object's name often repeats its summary, so
that a title would give the answer away. Sections that say little about the object itself
(Examples, References, See Also) are cut.

The libraries are imported in a process of their own, so that hundreds of submodules, their
warnings and whatever they print never reach the caller's.
"""

from __future__ import annotations

import hashlib
import importlib
import inspect
import json
import pkgutil
import platform
import re
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

from pydantic import Field

from genret_dask.datasets.base import Dataset
from genret_dask.datasets.docstrings import Pair, parse
from genret_dask.datasets.stored import CollectionWriter
from genret_dask.errors import DatasetError
from genret_dask.specs import PositiveInt
from genret_dask.storage.fingerprint import fingerprint

RECIPE = 1
"""Raise it when the way from docstring to pair changes: it is part of the fingerprint."""

SHARES = {"train": 0.75, "dev": 0.10, "test": 0.15}
HEAD_CHARACTERS = 200

_SKIPPED_MODULES = re.compile(
    r"_.*|tests?|test_.*|.*_tests?|conftest|setup|externals|experimental|distutils|vendor(ed)?"
)


class PydocDataset(Dataset):
    """Docstrings of installed libraries: the summary asks, the rest answers."""

    kind: Literal["pydoc"] = "pydoc"
    libraries: tuple[str, ...] = (
        "numpy",
        "scipy",
        "pandas",
        "xarray",
        "dask",
        "networkx",
        "sklearn",
    )
    documents: PositiveInt | None = Field(None, description="keep this many, chosen by hash")

    needs = "the libraries installed; nothing to download"
    example = """dataset:
  kind: pydoc
  libraries: [numpy, scipy]   # default: seven libraries
  documents: 2000             # keep this many; default: all"""
    loading_seconds = 10.0

    @property
    def version(self) -> str:
        """The versions of the libraries."""
        versions = library_versions(self.libraries)
        return " ".join(f"{name}-{version}" for name, version in versions.items())

    def read(self, into: CollectionWriter) -> None:
        """Make the pairs of `libraries`.

        Of pairs that share a summary or the head of a body (200 characters: more than a model
        reads) the first stays, libraries taken in the order given and names in order of depth, then
        alphabet; the collection is sorted by qualified name. `documents` keeps those whose names
        have the smallest SHA-256, after the seed where that is not 0; splits go by SHA-1
        (75/10/15). Each document has one query, so test documents have no train query.

        Raises
        ------
        DatasetError
            A library is not installed, its import fails, or no docstring is left.
        """
        library_versions(self.libraries)
        pairs = harvest(self.libraries)
        if self.documents is not None:
            # By another hash than the splits, which would otherwise be cut off one after the other.
            pairs = sorted(sorted(pairs, key=self._keeping_order)[: self.documents])
        if not pairs:
            raise DatasetError(
                f"no usable docstrings in {', '.join(self.libraries)}",
                expected="libraries whose public objects have a summary and a description",
            )
        for name, summary, body in pairs:
            into.document(name, "", body)
            into.query(f"q-{name}", summary)
            into.judge(split_of(name), f"q-{name}", name)

    def fingerprint(self) -> str:
        """Hash the versions of the libraries and of Python, and the settings; imports nothing."""
        versions = list(library_versions(self.libraries).items())
        drawn = [self.seed] if self.seed else []
        return fingerprint(
            "pydoc", RECIPE, platform.python_version(), versions, self.documents, *drawn
        )

    def _keeping_order(self, pair: Pair) -> bytes:
        salt = f"{self.seed} " if self.seed else ""
        return hashlib.sha256(f"{salt}{pair.name}".encode()).digest()


def library_versions(libraries: Iterable[str]) -> dict[str, str]:
    """The installed version of each library, in the order given.

    Raises
    ------
    DatasetError
        A library is not installed, or a name is not that of a module.
    """
    distributions = metadata.packages_distributions()
    versions = {}
    for library in libraries:
        top = library.partition(".")[0]
        if not all(part.isidentifier() for part in library.split(".")):
            raise DatasetError(
                f"{library!r} is not the name of a module", expected="an import name such as numpy"
            )
        if top in distributions:
            versions[library] = metadata.version(distributions[top][0])
        elif top in sys.stdlib_module_names:
            versions[library] = platform.python_version()
        elif find_spec(top) is not None:
            versions[library] = "unknown"
        else:
            package = {"sklearn": "scikit-learn"}.get(top, top)
            raise DatasetError(
                f"library {library} is not installed",
                expected="every library of the pydoc dataset to be importable",
                fix=f"pip install {package}, or leave it out of dataset.libraries",
            )
    return versions


def split_of(name: str) -> str:
    """The split of an id: a fixed share of SHA-1's range each, whatever else is in the corpus."""
    digest = hashlib.sha1(name.encode(), usedforsecurity=False).digest()
    position = int.from_bytes(digest[:4], "big") / 2**32
    if position < SHARES["train"]:
        return "train"
    return "dev" if position < SHARES["train"] + SHARES["dev"] else "test"


# --- the process that imports -----------------------------------------------------------------

_CHILD = """
import json, sys
task = json.load(sys.stdin)
sys.path[:] = task["path"]
from genret_dask.datasets import pydoc
pydoc._write_pairs(task["libraries"], task["output"])
"""


def harvest(libraries: Iterable[str]) -> list[Pair]:
    """Run `collect` in a fresh, isolated interpreter and return its pairs.

    Raises
    ------
    DatasetError
        The interpreter failed; the message ends with the last line that it wrote.
    """
    with tempfile.TemporaryDirectory(prefix="genret-pydoc-") as folder:
        output = Path(folder, "pairs.json")
        # An empty entry would be the child's current directory, which may shadow libraries.
        path = [entry for entry in sys.path if entry]
        task = {"path": path, "libraries": list(libraries), "output": str(output)}
        child = subprocess.run(
            [sys.executable, "-I", "-W", "ignore", "-X", "utf8", "-c", _CHILD],
            input=json.dumps(task),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
            cwd=folder,
            check=False,
        )
        if child.returncode or not output.exists():
            last = (child.stderr.strip().splitlines() or [f"exit code {child.returncode}"])[-1]
            raise DatasetError(
                f"reading the docstrings of {', '.join(task['libraries'])} failed: {last}",
                expected="libraries that import in a plain Python process",
                fix="import them by hand to see why, or leave them out of dataset.libraries",
            )
        return [Pair(*row) for row in json.loads(output.read_text(encoding="utf-8"))]


def _write_pairs(libraries: list[str], output: str) -> None:
    Path(output).write_text(json.dumps(collect(libraries)), encoding="utf-8")


# --- from modules to pairs --------------------------------------------------------------------


def collect(libraries: Iterable[str]) -> list[Pair]:
    """Import the libraries here and return their distinct pairs, sorted by name.

    Raises
    ------
    ImportError
        A library itself does not import; submodules that do not are left out.
    """
    seen: set[tuple[int, str]] = set()
    pairs = []
    for library in libraries:
        importlib.import_module(library)
        objects = {name: doc for module in _modules(library) for name, doc in _docs(module)}
        for name in sorted(objects, key=lambda name: (name.count("."), name)):
            pair = parse(name, objects[name])
            if pair is None:
                continue
            keys = {(0, pair.summary.lower()), (1, pair.body[:HEAD_CHARACTERS].lower())}
            if seen.isdisjoint(keys):
                seen |= keys
                pairs.append(pair)
    return sorted(pairs)


def _modules(name: str) -> Iterator[ModuleType]:
    """Import a module and the public ones below it; what does not import is left out."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit):
            return
    # Some modules are another one's alias, and some answer any attribute with an error.
    if vars(module).get("__name__") != name:
        return
    yield module
    below = pkgutil.iter_modules(vars(module).get("__path__", ()))
    for info in sorted(below, key=lambda info: info.name):
        if not _SKIPPED_MODULES.fullmatch(info.name):
            yield from _modules(f"{name}.{info.name}")


def _docs(module: ModuleType) -> Iterator[tuple[str, str]]:
    """Yield (qualified name, docstring) of a module's public functions, classes and methods."""
    library = module.__name__.partition(".")[0]
    for name, value in sorted(vars(module).items()):
        if name.startswith("_") or inspect.ismodule(value) or not callable(value):
            continue
        origin = _text(value, "__module__")
        if origin and origin.partition(".")[0] not in (library, "builtins"):
            continue
        qualified = f"{module.__name__}.{name}"
        yield qualified, _text(value, "__doc__")
        if inspect.isclass(value):
            for method, member in _methods(value):
                yield f"{qualified}.{method}", member


def _methods(cls: type) -> Iterator[tuple[str, str]]:
    for name in sorted(dir(cls)):
        if name.startswith("_"):
            continue
        member = inspect.getattr_static(cls, name, None)
        if isinstance(member, (staticmethod, classmethod)):
            member = member.__func__
        if callable(member):
            yield name, _text(member, "__doc__")


def _text(value: Any, attribute: str) -> str:
    """A text attribute of an object that may well refuse to be asked."""
    try:
        found = getattr(value, attribute, None)
    except Exception:
        return ""
    return found if isinstance(found, str) else ""
