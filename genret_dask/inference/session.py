"""Exported models, opened with ONNX Runtime: the prompt once, then steps over beams.

A session belongs to the process that made it and does not pickle.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike

from genret_dask.errors import DeviceError, ModelError
from genret_dask.models.manifest import Manifest, fetched_model, read_manifest
from genret_dask.monitoring.meter import count, phase
from genret_dask.specs import PROVIDERS
from genret_dask.storage.places import place_of

_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# TF32 would round the operands of float32 products to ten bits.
PROVIDER_OPTIONS: dict[str, dict[str, str]] = {"cpu": {}, "cuda": {"use_tf32": "0"}}
_ELEMENTS = {"tensor(float)": 1, "tensor(float16)": 10, "tensor(bfloat16)": 16}
"""ONNX's number of an input's type; NumPy itself has no bfloat16."""

# One arena of host memory for all graphs of the process: arenas do not shrink, and with one each,
# every graph that is open would hold on to its own widest moment.
ort.create_and_register_allocator(
    ort.OrtMemoryInfo("Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT),
    ort.OrtArenaCfg(0, -1, -1, -1),
)


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
    if provider not in PROVIDERS[manifest.precision] and provider in _PROVIDERS:
        raise DeviceError(
            f"{folder} holds a model in {manifest.precision}, which provider {provider!r} "
            "cannot run",
            expected=" or ".join(PROVIDERS[manifest.precision]),
            fix="set inference.provider, or export the model in another precision",
        )
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
    options.add_session_config_entry("session.use_env_allocators", "1")
    # Threads of one graph that wait spinning for its next run would take cores from the others.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    if provider == "cuda" and hasattr(ort, "preload_dlls"):
        ort.preload_dlls()  # PyTorch's packages bring the CUDA libraries
        ort.set_default_logger_severity(3)  # one line on stderr for every first TopK otherwise
    try:
        session = ort.InferenceSession(
            path, sess_options=options, providers=[(wanted, PROVIDER_OPTIONS[provider])]
        )
    except Exception as error:  # ONNX Runtime has a class for every status, and no base of its own
        raise ModelError(
            f"onnxruntime cannot open {path}: {' '.join(str(error).split())[:300]}",
            expected="a graph that `genret-dask export` wrote, and memory for it",
            fix="export the model again",
        ) from error
    if wanted not in session.get_providers():
        raise DeviceError(
            f"onnxruntime could not start {wanted}; it fell back to "
            + ", ".join(session.get_providers()),
            fix="check the driver and the CUDA and cuDNN libraries with `genret-dask doctor`",
        )
    return session


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
        self._select: ort.InferenceSession | None = None
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
        tokens, parents = check_step(tokens, parents, rows, state.queries, state.beams, self)
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
        if self._select is None:
            path = self._folder / "select.onnx"
            self._select = open_graph(path, self.device, self._threads)
        names = [value.name for value in self._select.get_outputs()]
        return dict(zip(names, self._run(self._select, inputs, names, ()), strict=True))

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


def on_host(sizes: ArrayLike) -> ort.OrtValue:
    """int64 that shapes follow from: read by the host on every device."""
    return ort.OrtValue.ortvalue_from_numpy(np.array(sizes, dtype=np.int64))


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
