"""Exported models, opened with ONNX Runtime: the prompt once, then steps over beams.

A session belongs to the process that made it and does not pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort

from genret_dask.errors import DeviceError
from genret_dask.models.manifest import Manifest, read_manifest

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


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
            The first step's is the start token.
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
        ONNX Runtime does not have the provider, or cannot use it here.
    """
    return session_for(Path(folder), read_manifest(folder), provider, threads)


def session_for(
    folder: Path, manifest: Manifest, provider: str = "cpu", threads: int = 1
) -> Session:
    """Open a folder whose manifest is at hand, without checking its files."""
    if manifest.graph == "optimum":
        from genret_dask.inference.past import PastSession

        return PastSession(folder, manifest, provider, threads)
    return BeamSession(folder, manifest, provider, threads)


def open_graph(path: Path, provider: str, threads: int) -> ort.InferenceSession:
    """Open one graph on one provider, or refuse.

    Raises
    ------
    DeviceError
        The provider is not there. ONNX Runtime itself would go on, on the CPU.
    """
    wanted = _PROVIDERS.get(provider)
    available = ort.get_available_providers()
    if wanted is None or wanted not in available:
        raise DeviceError(
            f"provider {provider!r} is not in this onnxruntime {ort.__version__}",
            expected="one of "
            + ", ".join(name for name, full in _PROVIDERS.items() if full in available),
            fix="for cuda, uninstall onnxruntime and install genret-dask[gpu]",
        )
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.use_deterministic_compute = True
    options.enable_mem_pattern = False  # shapes differ from step to step; patterns only add memory
    options.log_severity_level = 3
    session = ort.InferenceSession(path, sess_options=options, providers=[wanted])
    if wanted not in session.get_providers():
        raise DeviceError(
            f"onnxruntime could not start {wanted}; it fell back to "
            + ", ".join(session.get_providers()),
            fix="check the driver and the CUDA and cuDNN libraries with `genret-dask doctor`",
        )
    return session


@dataclass(frozen=True)
class BeamState:
    """The shared prompt and the rows' own keys and values, on the session's device."""

    lengths: ort.OrtValue
    prompt: tuple[ort.OrtValue, ...]
    own: tuple[ort.OrtValue, ...]
    queries: int
    beams: int


class BeamSession:
    """Beam-native graphs: `prefill` once a query, `step` with the parent gather inside."""

    def __init__(self, folder: Path, manifest: Manifest, provider: str, threads: int) -> None:
        self.manifest = manifest
        self._device = provider
        self._prefill = open_graph(folder / "prefill.onnx", provider, threads)
        self._step = open_graph(folder / "step.onnx", provider, threads)
        layers = range(manifest.architecture.decoder_layers)
        kinds = ("key", "value")
        self._prompt_names = [f"prompt_{kind}_{i}" for i in layers for kind in kinds]
        self._past_names = [f"past_{kind}_{i}" for i in layers for kind in kinds]
        self._own_names = [f"own_{kind}_{i}" for i in layers for kind in kinds]

    def prefill(self, tokens: np.ndarray, lengths: np.ndarray) -> BeamState:
        """See `Session.prefill`."""
        tokens, lengths = check_prompt(tokens, lengths)
        placed = self._place(lengths)
        inputs = {"tokens": self._place(tokens), "lengths": placed}
        prompt = self._run(self._prefill, inputs, self._prompt_names, ())
        queries = len(tokens)
        empty = np.zeros((queries, 0, self.manifest.architecture.kv), dtype=np.float32)
        own = (self._place(empty),) * len(self._past_names)
        return BeamState(placed, tuple(prompt), own, queries, 1)

    def step(
        self, state: BeamState, tokens: np.ndarray, parents: np.ndarray, rows: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, BeamState]:
        """See `Session.step`."""
        tokens, parents = check_step(tokens, parents, rows, state.queries, state.beams, self)
        inputs = {
            "tokens": self._place(tokens),
            "parents": self._place(parents),
            "lengths": state.lengths,
            "rows_start": _on_host(rows[0]),
            "rows_stop": _on_host(rows[1]),
        }
        inputs |= zip(self._prompt_names, state.prompt, strict=True)
        inputs |= zip(self._past_names, state.own, strict=True)
        logits, partition, *own = self._run(
            self._step, inputs, self._own_names, ("logits", "log_partition")
        )
        new = BeamState(state.lengths, state.prompt, tuple(own), state.queries, tokens.shape[1])
        return logits.numpy(), partition.numpy(), new

    def _place(self, array: np.ndarray) -> ort.OrtValue:
        return ort.OrtValue.ortvalue_from_numpy(array, self._device, 0)

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
            binding.bind_output(name, self._device, 0)
        graph.run_with_iobinding(binding)
        return list(binding.get_outputs())


def _on_host(size: int) -> ort.OrtValue:
    """A scalar that shapes follow from: read by the host on every device."""
    return ort.OrtValue.ortvalue_from_numpy(np.array(size, dtype=np.int64))


def check_prompt(tokens: np.ndarray, lengths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Contiguous int64 query tokens and lengths; ValueError where they do not fit."""
    tokens = np.ascontiguousarray(tokens, dtype=np.int64)
    lengths = np.ascontiguousarray(lengths, dtype=np.int64)
    if tokens.ndim != 2 or lengths.shape != tokens.shape[:1] or not len(tokens):
        raise ValueError(f"tokens {tokens.shape} and lengths {lengths.shape} do not fit")
    if lengths.min() < 1 or lengths.max() > tokens.shape[1]:
        raise ValueError(f"lengths must be from 1 to {tokens.shape[1]}")
    return tokens, lengths


def check_step(
    tokens: np.ndarray,
    parents: np.ndarray,
    rows: tuple[int, int],
    queries: int,
    beams: int,
    session: Session,
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens as contiguous int64, and parents as rows of the whole batch, flat."""
    tokens = np.ascontiguousarray(tokens, dtype=np.int64)
    parents = np.asarray(parents, dtype=np.int64)
    if tokens.ndim != 2 or tokens.shape != parents.shape or len(tokens) != queries:
        raise ValueError(f"tokens {tokens.shape}, parents {parents.shape}, {queries} queries")
    if parents.min() < 0 or parents.max() >= beams:
        raise ValueError(f"parents must be from 0 to {beams - 1}")
    if not 0 <= rows[0] < rows[1] <= session.manifest.vocab_size:
        raise ValueError(f"rows {rows} are not a block of {session.manifest.vocab_size}")
    return tokens, (parents + np.arange(queries)[:, None] * beams).ravel()
