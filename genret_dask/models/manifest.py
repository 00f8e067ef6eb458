"""The manifest of an exported model folder: what the model is, and the hash of every file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt, ValidationError

from genret_dask.errors import ModelError
from genret_dask.models.flops import Architecture
from genret_dask.specs import Precision
from genret_dask.storage.artefacts import check_hash, hashes_of
from genret_dask.storage.fingerprint import fingerprint
from genret_dask.storage.host_cache import fetch
from genret_dask.storage.places import is_local, place_of
from genret_dask.storage.records import dump_record, parse_record, stays_inside

MANIFEST = "manifest.json"

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Parity(_Frozen):
    """How far the exported graphs are from PyTorch.

    Attributes
    ----------
    max_difference : float
        Largest |difference| in log-probability, in nats.
    tolerance : float
        What was accepted.
    compared : int
        Log-probabilities compared.
    """

    max_difference: float
    tolerance: float
    compared: int


class Reading(_Frozen):
    """How a model reads a text: see `genret_dask.models.reader.Reader`.

    Attributes
    ----------
    begin_tokens, end_tokens : tuple of int
        Tokens that every text begins and ends with.
    eos_token : int
        Of the model's text: the token that ends an identifier of text.
    lead : str
        What stands before a text without being tokens of its own: a blank behind a prompt.
    """

    begin_tokens: tuple[NonNegativeInt, ...]
    end_tokens: tuple[NonNegativeInt, ...]
    eos_token: NonNegativeInt
    lead: str = ""


class Training(_Frozen):
    """What a model was trained on.

    Attributes
    ----------
    made_from : str
        Fingerprint of what the checkpoint was made from.
    n_train : int or None
        (text, identifier) pairs, as docs/laws.md counts them; None of a ready checkpoint, of which
        it is not known.
    train_fraction : float
        Of all pairs.
    train_flops : float or None
        Of the whole training, where it is known.
    dev_loss : float or None
        Of the weights that were kept, in nats; None without dev pairs.
    """

    made_from: str
    n_train: PositiveInt | None
    train_fraction: float
    train_flops: float | None
    dev_loss: float | None = None


class Manifest(_Frozen):
    """What an exported model is.

    Attributes
    ----------
    format : int
        Version of this record and of the graphs.
    family : str
    graph : {"beam", "optimum"}
        Beam-native `prefill` and `step` graphs, or one generic graph with past keys and values.
    precision : {"fp32", "fp16", "bf16", "int8"}
    n_params : int
        Parameters other than the input-embedding matrix; a tied head is left out with it.
    start_token : int
        The token that opens an identifier.
    vocab_size : int
        Rows of the output head.
    architecture : Architecture
    files : dict of str to str
        SHA-256 of every other file, by path within the folder.
    parity : Parity
    reading : Reading or None
        None of a model that was exported without it, and cannot be searched with texts.
    training : Training or None
        None of a model that no study trained.
    versions : dict of str to str
        Packages that made the folder.
    """

    format: Literal[3] = 3
    family: str
    graph: Literal["beam", "optimum"] = "beam"
    precision: Precision = "fp32"
    n_params: PositiveInt
    start_token: NonNegativeInt
    vocab_size: PositiveInt
    architecture: Architecture
    files: dict[str, Sha256]
    parity: Parity
    reading: Reading | None = None
    training: Training | None = None
    versions: dict[str, str] = Field(default_factory=dict)

    @property
    def fingerprint(self) -> str:
        """Of the bytes of all files of the model."""
        return fingerprint("model", self.files)

    @property
    def made_from(self) -> str | None:
        """Fingerprint of what the checkpoint was made from, if a study trained it."""
        return None if self.training is None else self.training.made_from

    def require_reading(self) -> Reading:
        """Return how the model reads a text.

        Raises
        ------
        ModelError
            The model was exported without it.
        """
        if self.reading is None:
            raise self._lacking("reading")
        return self.reading

    def require_training(self) -> Training:
        """Return what a study trained the model on.

        Raises
        ------
        ModelError
            No study trained it.
        """
        if self.training is None:
            raise self._lacking("training")
        return self.training

    def _lacking(self, name: str) -> ModelError:
        return ModelError(
            f"the {self.family} was exported without {name}",
            expected=f"{name} in its {MANIFEST}",
            fix=f"export the model again with {name}=",
        )


def read_manifest(folder: Path | str, *, verify: bool = True) -> Manifest:
    """Read an exported model's manifest.

    Parameters
    ----------
    verify : bool
        Also hash every file, of an object store those of the host's copy, and check that no graph
        reads weights that the manifest lacks.

    Raises
    ------
    ModelError
        There is no manifest, it is malformed, or a file is missing or has another hash.
    """
    folder = place_of(folder)
    path = folder / MANIFEST
    try:
        manifest = Manifest.model_validate(parse_record(path.read_bytes(), path))
    except OSError as error:
        raise _not_exported(
            f"{path}: {error.strerror}", "a folder that `genret-dask export` made"
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise _not_exported(f"{path}: {where}: {first['msg']}", "a manifest of format 3") from error
    for name in manifest.files:
        if not stays_inside(name) or (is_local(folder) and not _leads_inside(folder, name)):
            raise _not_exported(
                f"{path} names {name!r}, which is outside", "files inside the model's folder"
            )
    if verify:
        _verify(fetched_model(folder), manifest)
    return manifest


def fetched_model(folder: Path) -> Path:
    """An exported model as a folder of this machine; see `genret_dask.storage.host_cache.fetch`."""
    return fetch(folder, MANIFEST)


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write `manifest.json` into a folder."""
    (folder / MANIFEST).write_bytes(dump_record(manifest.model_dump(mode="json")))


def hash_files(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder but its manifest, by path within it."""
    return {name: digest for name, digest in hashes_of(folder).items() if name != MANIFEST}


def _verify(folder: Path, manifest: Manifest) -> None:
    for name, digest in manifest.files.items():
        check_hash(folder / name, digest)
    for path in sorted(folder.rglob("*.onnx")):
        if path.relative_to(folder).as_posix() not in manifest.files:
            raise _not_exported(
                f"{path} is not in the folder's manifest", "the graphs that the manifest lists"
            )
        for unlisted in sorted(weight_files(path) - manifest.files.keys()):
            raise _not_exported(
                f"{path} reads its weights from {unlisted!r}", "a file that the manifest lists"
            )


def weight_files(path: Path) -> set[str]:
    """Return the names of the files that a graph's weights lie in.

    Raises
    ------
    ModelError
        The file is no ONNX graph.
    """
    import onnx

    try:
        model = onnx.load(path, load_external_data=False)
    except Exception as error:  # of protobuf's several implementations
        raise _not_exported(
            f"{path} is not an ONNX graph: {str(error)[:200]}",
            "a graph that `genret-dask export` wrote",
        ) from error
    entries = (entry for tensor in _tensors(model) for entry in tensor.external_data)
    return {entry.value for entry in entries if entry.key == "location"}


def _not_exported(found: str, expected: str) -> ModelError:
    return ModelError(found, expected=expected, fix="export the model again")


def _leads_inside(folder: Path, name: str) -> bool:
    """Whether no link on the way to a file leads out of the folder."""
    return Path(os.path.realpath(folder / name)).is_relative_to(os.path.realpath(folder))


def _tensors(message: Any) -> Iterator[Any]:
    """Every tensor of a graph, wherever it hides: initialisers, attributes, bodies of loops."""
    if message.DESCRIPTOR.name == "TensorProto":
        yield message
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if isinstance(value, Iterable) else [value]:
                yield from _tensors(one)
