"""Exported models, opened with ONNX Runtime: the prompt once, then steps over beams.

A session belongs to the process that made it and does not pickle.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from genret_dask.errors import DeviceError
from genret_dask.inference.graph import (
    EXECUTION_PROVIDERS,
    check_prompt,
    check_step,
    on_host,
    open_graph,
)
from genret_dask.inference.past import PastSession
from genret_dask.models.manifest import Manifest, fetched_model, read_manifest
from genret_dask.monitoring.meter import count, phase
from genret_dask.specs import PROVIDERS
from genret_dask.storage.places import place_of

logger = logging.getLogger(__name__)

_ELEMENTS = {"tensor(float)": 1, "tensor(float16)": 10, "tensor(bfloat16)": 16}
"""ONNX's number of an input's type; NumPy itself has no bfloat16."""


class Session(Protocol):
    """What the search asks of a model, whatever its family.

    Attributes
    ----------
    manifest : Manifest
    """

    manifest: Manifest

    def prefill(self, tokens: np.ndarray, lengths: np.ndarray) -> Any:
        """Encode queries.

        Parameters
        ----------
        tokens : int64[queries, width]
            Right-padded; what stands in the padding is never seen.
        lengths : int64[queries]
            From 1 to width.

        Returns
        -------
        state
            Opaque and never changed: one state may be stepped from many times.
        """
        ...

    def step(
        self, state: Any, tokens: np.ndarray, parents: np.ndarray, rows: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, Any]:
        """Feed one token to each row.

        Parameters
        ----------
        state
            Of `prefill`, or of the step before.
        tokens : int64[queries, beams]
            The first step's is the start token, once a query.
        parents : int64[queries, beams]
            Which of the query's rows of the step before each row continues; 0 at the first step.
        rows : (int, int)
            Half-open block of the vocabulary whose logits are wanted.

        Returns
        -------
        logits : float32[queries, beams, rows]
        log_partition : float32[queries, beams]
            Log of the sum of exp(logit) over the whole vocabulary.
        state
        """
        ...


def open_session(folder: Path | str, provider: str = "cpu", threads: int = 1) -> Session:
    """Open an exported model, after checking its files against its manifest.

    Parameters
    ----------
    provider : {"cpu", "cuda"}
    threads : int
        Threads of one operator on the CPU.

    Raises
    ------
    ModelError
        A file is missing or is not what the manifest says.
    DeviceError
        ONNX Runtime does not have the provider, or cannot use it here, or not for the model's
        precision.
    """
    folder = fetched_model(place_of(folder))
    return session_for(folder, read_manifest(folder), provider, threads)


def session_for(
    folder: Path, manifest: Manifest, provider: str = "cpu", threads: int = 1
) -> Session:
    """Open a folder whose manifest is at hand, without checking its files."""
    if provider not in PROVIDERS[manifest.precision] and provider in EXECUTION_PROVIDERS:
        raise DeviceError(
            f"{folder} holds a model in {manifest.precision}, which provider {provider!r} "
            "cannot run",
            expected=" or ".join(PROVIDERS[manifest.precision]),
            fix="set inference.provider, or export the model in another precision",
        )
    if manifest.graph == "optimum":
        return PastSession(folder, manifest, provider, threads)
    return BeamSession(folder, manifest, provider, threads)


@dataclass(frozen=True)
class BeamState:
    """The shared prompt and the rows' own keys and values, on the session's device.

    Where the prompt holds the start token as well, `opening` is the hidden state that it led to,
    until the first step.
    """

    lengths: ort.OrtValue
    prompt: tuple[ort.OrtValue, ...]
    own: tuple[ort.OrtValue, ...]
    queries: int
    beams: int
    opening: ort.OrtValue | None = None


class BeamSession:
    """Beam-native graphs: `prefill` once a query, `step` with the parent gather inside.

    Where the output head is a graph of its own, the prefill takes in the start token as well, and
    the first step is the head alone.
    """

    def __init__(self, folder: Path, manifest: Manifest, provider: str, threads: int) -> None:
        self.manifest = manifest
        self._folder, self.device, self._threads = folder, provider, threads
        self._prefill = open_graph(folder / "prefill.onnx", provider, threads)
        self._step = open_graph(folder / "step.onnx", provider, threads)
        head = folder / "head.onnx"
        self._head = open_graph(head, provider, threads) if head.is_file() else None
        layers = range(manifest.architecture.decoder_layers)
        kinds = ("key", "value")
        self._prompt_names = [f"prompt_{kind}_{i}" for i in layers for kind in kinds]
        self._past_names = [f"past_{kind}_{i}" for i in layers for kind in kinds]
        self._own_names = [f"own_{kind}_{i}" for i in layers for kind in kinds]
        types = {value.name: value.type for value in self._step.get_inputs()}
        self._own_type = _ELEMENTS[types[self._past_names[0]]]

    @phase("prefill")
    def prefill(self, tokens: np.ndarray, lengths: np.ndarray) -> BeamState:
        """See `Session.prefill`."""
        tokens, lengths = check_prompt(tokens, lengths)
        count("prefill", lengths.sum(), "tokens")
        placed = self.place(lengths)
        inputs = {"tokens": self.place(tokens), "lengths": placed}
        names, opening = self._prompt_names, None
        if self._head is None:
            prompt = self._run(self._prefill, inputs, names, ())
        else:
            opening, *prompt = self._run(self._prefill, inputs, ["hidden", *names], ())
            placed = self.place(lengths + 1)
        queries = len(tokens)
        shape = [queries, 0, self.manifest.architecture.kv]
        empty = ort.OrtValue.ortvalue_from_shape_and_type(shape, self._own_type, self.device, 0)
        own = (empty,) * len(self._past_names)
        return BeamState(placed, tuple(prompt), own, queries, 1, opening)

    @phase("step")
    def step(
        self, state: BeamState, tokens: np.ndarray, parents: np.ndarray, rows: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, BeamState]:
        """See `Session.step`."""
        vocabulary = self.manifest.vocab_size
        tokens, parents = check_step(tokens, parents, rows, state.queries, state.beams, vocabulary)
        start = self.manifest.start_token
        if state.opening is not None and (tokens.shape[1] != 1 or (tokens != start).any()):
            raise ValueError(f"the first step takes the start token {start}, once a query")
        logits, partition, new = self._decode(
            state, self.place(tokens), self.place(parents), rows, "cpu"
        )
        return logits.numpy(), partition.numpy(), new

    @phase("step")
    def step_resident(
        self,
        state: BeamState,
        tokens: ort.OrtValue,
        parents: ort.OrtValue,
        rows: tuple[int, int],
    ) -> tuple[ort.OrtValue, ort.OrtValue, BeamState]:
        """`step`, arrays staying on the device; parents are rows of the whole batch."""
        return self._decode(state, tokens, parents, rows, self.device)

    @phase("select")
    def select_resident(self, inputs: dict[str, ort.OrtValue]) -> dict[str, ort.OrtValue]:
        """Run the graph `select`; outputs by name, on the session's device."""
        names = [value.name for value in self._select.get_outputs()]
        return dict(zip(names, self._run(self._select, inputs, names, ()), strict=True))

    @cached_property
    def selects_allowed(self) -> bool:
        """Whether the graph `select` gives `allowed`; exports of earlier versions do not."""
        found = any(value.name == "allowed" for value in self._select.get_outputs())
        if not found:
            logger.warning(
                "%s was exported by an earlier version, whose graph does not sum up the tokens "
                "that the constraint allows: its searches select on the host, with the same "
                "results but slower; export the model anew to have them on its device",
                self._folder,
            )
        return found

    @cached_property
    def _select(self) -> ort.InferenceSession:
        return open_graph(self._folder / "select.onnx", self.device, self._threads)

    def place(self, array: np.ndarray) -> ort.OrtValue:
        """A copy of an array on the session's device."""
        return ort.OrtValue.ortvalue_from_numpy(array, self.device, 0)

    def _decode(
        self,
        state: BeamState,
        tokens: ort.OrtValue,
        parents: ort.OrtValue,
        rows: tuple[int, int],
        device: str,
    ) -> tuple[ort.OrtValue, ort.OrtValue, BeamState]:
        """One step; logits and log-partition come to `device`."""
        block = {"rows_start": on_host(rows[0]), "rows_stop": on_host(rows[1])}
        if state.opening is not None:
            block["hidden"] = state.opening
            logits, partition = self._found(self._head, block, (), device)
            return logits, partition, replace(state, opening=None)
        inputs = {"tokens": tokens, "parents": parents, "lengths": state.lengths}
        inputs |= zip(self._prompt_names, state.prompt, strict=True)
        inputs |= zip(self._past_names, state.own, strict=True)
        if self._head is None:
            inputs |= block
            logits, partition, *own = self._found(self._step, inputs, self._own_names, device)
        else:
            block["hidden"], *own = self._run(self._step, inputs, ["hidden", *self._own_names], ())
            logits, partition = self._found(self._head, block, (), device)
        beams = tokens.shape()[1]
        new = BeamState(state.lengths, state.prompt, tuple(own), state.queries, beams)
        return logits, partition, new

    def _found(
        self,
        graph: ort.InferenceSession,
        inputs: dict[str, ort.OrtValue],
        stay: Sequence[str],
        device: str,
    ) -> list[ort.OrtValue]:
        """Logits and log-partition on `device`, then the outputs in `stay` on the session's."""
        found = ("logits", "log_partition")
        if device == self.device:
            return self._run(graph, inputs, (*found, *stay), ())
        return self._run(graph, inputs, stay, found)

    def _run(
        self,
        graph: ort.InferenceSession,
        inputs: dict[str, ort.OrtValue],
        stay: Sequence[str],
        leave: Sequence[str],
    ) -> list[ort.OrtValue]:
        """Run; outputs in `stay` stay on the device, those in `leave` come to the host first."""
        binding = graph.io_binding()
        for name, value in inputs.items():
            binding.bind_ortvalue_input(name, value)
        for name in leave:
            binding.bind_output(name, "cpu")
        for name in stay:
            binding.bind_output(name, self.device, 0)
        graph.run_with_iobinding(binding)
        return list(binding.get_outputs())
