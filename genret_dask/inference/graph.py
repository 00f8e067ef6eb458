"""Graphs of ONNX Runtime, opened on one provider, and the checks of what they are fed."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from threading import Lock

import numpy as np
import onnxruntime as ort
from numpy.typing import ArrayLike

from genret_dask.errors import DeviceError, ModelError

EXECUTION_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
# TF32 would round the operands of float32 products to ten bits.
PROVIDER_OPTIONS: dict[str, dict[str, str]] = {"cpu": {}, "cuda": {"use_tf32": "0"}}

_LOCK = Lock()  # `cache` alone lets two threads in at once


def open_graph(path: Path, provider: str, threads: int) -> ort.InferenceSession:
    """Open one graph on one provider, or refuse.

    Raises
    ------
    DeviceError
        The provider is not there. ONNX Runtime itself would go on, on the CPU.
    """
    wanted = EXECUTION_PROVIDERS.get(provider)
    available = ort.get_available_providers()
    if wanted is None or wanted not in available:
        raise DeviceError(
            f"provider {provider!r} is not in this onnxruntime {ort.__version__}",
            expected="one of "
            + ", ".join(name for name, full in EXECUTION_PROVIDERS.items() if full in available),
            fix="for cuda, uninstall onnxruntime and install genret-dask[gpu]",
        )
    with _LOCK:
        _share_an_arena()
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


@cache
def _share_an_arena() -> None:
    """Give all graphs of the process one arena of host memory.

    Arenas do not shrink: with one each, every open graph would hold on to its own widest moment.
    """
    ort.create_and_register_allocator(
        ort.OrtMemoryInfo(
            "Cpu", ort.OrtAllocatorType.ORT_ARENA_ALLOCATOR, 0, ort.OrtMemType.DEFAULT
        ),
        ort.OrtArenaCfg(0, -1, -1, -1),
    )


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
    vocabulary: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Tokens as contiguous int64, and parents as rows of the whole batch, flat."""
    tokens = np.ascontiguousarray(tokens, dtype=np.int64)
    parents = np.asarray(parents, dtype=np.int64)
    if tokens.ndim != 2 or tokens.shape != parents.shape or len(tokens) != queries:
        raise ValueError(f"tokens {tokens.shape}, parents {parents.shape}, {queries} queries")
    if parents.min() < 0 or parents.max() >= beams:
        raise ValueError(f"parents must be from 0 to {beams - 1}")
    if not 0 <= rows[0] < rows[1] <= vocabulary:
        raise ValueError(f"rows {rows} are not a block of {vocabulary}")
    return tokens, (parents + np.arange(queries)[:, None] * beams).ravel()
