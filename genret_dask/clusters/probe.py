"""What the preflight runs on every worker. It is sent by value: it must also run where genret-dask
is not installed, so it needs distributed alone, and imports anything else as the question.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import os
import pickle
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from distributed import WorkerPlugin
from distributed.core import Status

TOPIC = "genret-preflight"
"""Of the events by which a worker says why it leaves."""
TOKEN = ".preflight-"
"""How the name of a file begins by which workers know the run directory; it holds its name."""

_RUNTIME, _GPU_RUNTIME = "onnxruntime", "onnxruntime-gpu"

_TRIES = 12
_PAUSE = 0.25  # seconds; network file systems show a new file after a while


async def probe(
    folder: Any, token: str, provider: str, sources: list[str], dask_worker: Any
) -> dict[str, Any]:
    """Look at this worker and at the run directory from here.

    Parameters
    ----------
    folder : path
        The run directory, where the file named `token` holds `token`.
    provider : {"cpu", "cuda"}
    sources : list of str
        Folders and files of pretrained weights, as the study names them.
    dask_worker : distributed.Worker

    Returns
    -------
    dict
        ``problems``, a list of str, ``memory``, the limit in bytes or None, and ``answer``, the
        name of a file that holds its own name, written into the run directory, or None.
    """
    problems = [*_package_problems(), *_provider_problems(provider)]
    problems += await _source_problems(sources)
    answer, trouble = await _answer(folder, token, dask_worker.id)
    if trouble:
        problems.append(trouble)
    memory = dask_worker.memory_manager.memory_limit
    return {"problems": problems, "memory": memory, "answer": answer}


async def _answer(folder: Any, token: str, worker: str) -> tuple[str | None, str | None]:
    if trouble := await _folder_trouble(folder, token):
        return None, trouble
    name = f"{token}-{''.join(letter for letter in worker if letter.isalnum())}"
    try:
        (folder / name).write_text(name)
    except Exception as error:
        return None, f"{folder} cannot be written to: {type(error).__name__}: {error}"
    return name, None


async def _folder_trouble(folder: Any, token: str) -> str | None:
    """What is wrong with the run directory, as seen from here."""
    read = (folder / token).read_text
    for _ in range(_TRIES):
        try:
            # A dead mount must not stop the worker; an object store has a loop of its own.
            found = await asyncio.to_thread(read) if isinstance(folder, Path) else read()
        except FileNotFoundError:
            await asyncio.sleep(_PAUSE)
        except Exception as error:
            return f"{folder} cannot be read: {type(error).__name__}: {error}"
        else:
            kept = found == token
            return None if kept else f"{folder} does not keep what is written from here"
    return f"{folder} is missing there, or not the run directory seen from here"


def comparable(versions: Mapping[str, str | None]) -> dict[str, str | None]:
    """Versions less what need not agree: whether a package was built for a GPU.

    Of onnxruntime and onnxruntime-gpu one is installed, and torch's build is in the local part of
    its version.
    """
    found = {name: text and text.partition("+")[0] for name, text in versions.items()}
    if _GPU_RUNTIME in found:
        found[_RUNTIME] = found.get(_RUNTIME) or found[_GPU_RUNTIME]
        del found[_GPU_RUNTIME]
    return found


def differences(here: Mapping[str, str | None], version: Callable[[str], str | None]) -> list[str]:
    """A line for each package of `here` of which `version` finds another one."""
    there = comparable({name: version(name) for name in (*here, _GPU_RUNTIME)})
    return [
        f"{name} {there.get(name) or 'not installed'}, here {wanted or 'not installed'}"
        for name, wanted in here.items()
        if there.get(name) != wanted
    ]


class Gate(WorkerPlugin):
    """Sends a worker away that is not fit for the run; those that join later, above all.

    Parameters
    ----------
    versions : dict
        Of packages, by `comparable`.
    provider : {"cpu", "cuda"}
    sources : list of str
        Folders and files of pretrained weights.
    folder : bytes
        The run directory, pickled: a worker may lack the package of its kind of path.
    token : str
        The name of a file there, which is what it holds.
    """

    name = TOPIC

    def __init__(
        self,
        versions: dict[str, str | None],
        provider: str,
        sources: list[str],
        folder: bytes,
        token: str,
    ) -> None:
        self._versions, self._provider, self._sources = versions, provider, sources
        self._folder, self._token = folder, token

    async def setup(self, worker: Any) -> None:
        problems = [*_package_problems(), *_provider_problems(self._provider)]
        problems += differences(self._versions, _version)
        problems += await _source_problems(self._sources)
        problems += await self._folder_problems()
        if problems:
            worker.status = Status.paused  # it takes no task meanwhile
            worker.log_event(TOPIC, {"worker": worker.address, "problems": problems})
            worker.loop.call_later(1, worker.close, nanny=True, reason="genret-preflight")

    async def _folder_problems(self) -> list[str]:
        try:
            folder = pickle.loads(self._folder)
        except Exception as error:
            return [f"the run directory cannot be reached: {type(error).__name__}: {error}"]
        trouble = await _folder_trouble(folder, self._token)
        return [trouble] if trouble else []


async def _source_problems(sources: list[str]) -> list[str]:
    # A dead mount must not stop the worker.
    there = await asyncio.to_thread(lambda: [os.path.exists(source) for source in sources])
    return [
        f"the pretrained weights {source} are not there"
        for source, found in zip(sources, there, strict=True)
        if not found
    ]


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _package_problems() -> list[str]:
    if importlib.util.find_spec("genret_dask") is None:
        return ["genret-dask is not installed in the Python of the worker"]
    return []


def _provider_problems(provider: str) -> list[str]:
    wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[provider]
    try:
        available = importlib.import_module("onnxruntime").get_available_providers()
    except Exception as error:
        return [f"onnxruntime does not import: {error}"]
    problems = []
    if wanted not in available:
        problems.append(
            f"inference.provider {provider} is not in its onnxruntime ({', '.join(available)}); "
            "cuda needs genret-dask[gpu]"
        )
    if provider == "cuda":
        try:
            devices = importlib.import_module("torch").cuda.device_count()
        except Exception as error:
            return [*problems, f"torch does not import: {error}"]
        if devices == 0:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
            problems.append(f"no GPU is visible (CUDA_VISIBLE_DEVICES {visible})")
    return problems
