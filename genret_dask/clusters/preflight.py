"""Looks at every worker before work starts, so that a wrong one fails in seconds.

Looks at versions, memory, the run directory, pretrained weights and ONNX Runtime's provider, and
names all problems at once, a line each, with the workers that have it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
from dask.utils import format_bytes
from distributed import WorkerPlugin
from distributed.core import Status
from distributed.versions import get_versions

from genret_dask.errors import GenretError, listed
from genret_dask.storage.places import check_writable, names_in, replace_file

if TYPE_CHECKING:
    from distributed import Client

    from genret_dask.specs import SweepSpec

logger = logging.getLogger(__name__)

_SCHEDULERS = ("Python", "dask", "distributed")  # what a scheduler must have in common with us
PACKAGES = (
    "dask",
    "distributed",
    "genret-dask",
    "numpy",
    "zarr",
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "transformers",
    "tokenizers",
    "icu4py",
    "bm25s",
)
"""What results depend on, or files and tasks cannot cross."""

TOKEN = ".preflight-"
"""How the name of the file begins by which workers know the run directory."""
_TRIES, _PAUSE = 12, 0.25  # seconds; network file systems show a new file after a while

_LEAST_MEMORY = 2**28  # a worker that has imported what a search needs holds 180 MB
_ALLOWED_FAILURES = 3  # Dask's default


def check_cluster(
    client: Client, spec: SweepSpec, folder: Path, *, newcomers: bool = False
) -> None:
    """Look at the scheduler and every worker that is there.

    Parameters
    ----------
    client : distributed.Client
    spec : SweepSpec
        Its provider and memory are what the workers must have.
    folder : path
        The run directory; it is made if it is not there.
    newcomers : bool
        Look at workers that join later, too, and send wrong ones away. It lasts as long as the
        scheduler does.

    Raises
    ------
    GenretError
        Something is wrong; a line each.
    """
    started = time.monotonic()
    check_writable(folder)
    for name in names_in(folder):
        if name.startswith(TOKEN):
            _remove(folder / name)
    token = f"{TOKEN}{secrets.token_hex(8)}"
    with ExitStack() as stack:
        stack.callback(_remove, folder / token)
        replace_file(folder / token, b"")
        gate = Gate(spec, folder, token)
        if lines := _problems(client, spec, gate):
            raise GenretError(
                "\n  ".join(["the workers are not ready for this run:", *lines]),
                expected="the same packages as here, the run directory of this machine, and what "
                "the study asks for, on every worker",
                fix="see docs/clusters.md, Before work starts; nothing was started yet",
            )
        _warn_of_failures(client)
        if newcomers:
            client.subscribe_topic(Gate.name, _say)
            client.register_plugin(gate)
            stack.pop_all()  # whoever comes asks for the token
    logger.info("preflight: %.1f s", time.monotonic() - started)


class Gate(WorkerPlugin):
    """Sends a worker away that is not fit for the run; those that join later, above all.

    It is sent by value, and imports this package only as a question: a worker may lack it.

    Parameters
    ----------
    spec : SweepSpec
    folder : path
        The run directory.
    token : str
        The name of a file there.
    """

    name = "genret-preflight"

    def __init__(self, spec: SweepSpec, folder: Path, token: str) -> None:
        quantised = "int8" in spec.export.precision
        pretrained = [one.source for one in spec.models if one.source is not None]
        adapted = any(one.base is not None for one in pretrained)
        asked = [("optimum-onnx", quantised), ("peft", adapted)]
        self.packages = [*PACKAGES, *(name for name, needed in asked if needed)]
        self.versions = comparable(get_versions(self.packages), self.packages)
        self._provider = spec.inference.provider
        self._weights = [str(place) for one in pretrained for place in one.places]
        # As text: a worker may lack the package of its kind of path.
        self._folder, self._token = str(folder), token

    def differences(self, versions: dict[str, Any]) -> list[str]:
        """Say which packages another machine has in other versions, by Dask's `get_versions`."""
        there = comparable(versions, self.packages)
        return [
            f"{name} {there[name]}, here {here}"
            for name, here in self.versions.items()
            if there[name] != here
        ]

    async def look(self) -> list[str]:
        """Say what this worker lacks; a dead mount does not stop it meanwhile."""
        return await asyncio.to_thread(self._look)

    def _look(self) -> list[str]:
        absent = [place for place in self._weights if not os.path.exists(place)]
        return [
            *_provider_problems(self._provider),
            *(f"the pretrained weights {place} are not there" for place in absent),
            *self._folder_problems(),
        ]

    def _folder_problems(self) -> list[str]:
        try:
            from genret_dask.storage.places import place_of

            folder = place_of(self._folder)
            for _ in range(_TRIES):
                if (folder / self._token).exists():
                    break
                time.sleep(_PAUSE)
            else:
                return [f"{folder} is missing there, or not the run directory seen from here"]
            written = folder / f"{self._token}-{secrets.token_hex(4)}"
            written.write_bytes(b"")
            written.unlink()
        except Exception as error:  # an object store's library has errors of its own
            reason = getattr(error, "strerror", None) or str(error).partition("\n")[0]
            return [f"{self._folder} cannot be read or written to: {reason}"]
        return []

    async def setup(self, worker: Any) -> None:
        problems = self.differences(get_versions(self.packages)) or await self.look()
        if problems:
            worker.status = Status.paused  # it takes no task meanwhile
            worker.log_event(self.name, {"worker": worker.address, "problems": problems})
            worker.loop.call_later(1, worker.close, nanny=True, reason=self.name)


def comparable(versions: dict[str, Any], packages: list[str]) -> dict[str, str]:
    """Give versions by package, and Python's, less what need not agree.

    That is Python's patch, and whether a package was built for a GPU: of onnxruntime and
    onnxruntime-gpu one is installed, and torch's build is in the local part of its version.
    """
    found = {name: versions["packages"].get(name) or "not installed" for name in packages}
    found = {name: text.partition("+")[0] for name, text in found.items()}
    gpu = found.pop("onnxruntime-gpu")
    if found["onnxruntime"] == "not installed":
        found["onnxruntime"] = gpu
    return {"Python": ".".join(versions["host"]["python"].split(".")[:2]), **found}


def _problems(client: Client, spec: SweepSpec, gate: Gate) -> list[str]:
    """Look at all; workers with other versions are not looked at any further."""
    workers = client.scheduler_info(n_workers=-1)["workers"]
    versions: Any = client.get_versions(packages=gate.packages)
    found: dict[str, list[str]] = {}  # workers, by problem
    able = []
    for worker, info in sorted(workers.items()):
        theirs = versions["workers"].get(worker)
        lines = gate.differences(theirs) if theirs else ["does not answer"]
        if not lines:
            able.append(worker)
        for line in [*lines, *_memory_problems(info["memory_limit"] or 0, spec)]:
            found.setdefault(line, []).append(worker)
    if able:
        answers: Any = client.run(gate.look, workers=able, on_error="return")
        for worker, answer in answers.items():
            if isinstance(answer, BaseException):
                answer = [f"cannot be looked at: {type(answer).__name__}: {answer}"]
            for line in answer:
                found.setdefault(line, []).append(worker)
    scheduler = gate.differences(versions["scheduler"])
    return [
        *(f"the scheduler: {line}" for line in scheduler if line.startswith(_SCHEDULERS)),
        *(
            f"{len(names)} of {len(workers)} workers ({listed(names)}): {line}"
            for line, names in found.items()
        ),
    ]


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _say(event: tuple[float, Any]) -> None:
    problems = "; ".join(event[1]["problems"])
    logger.warning("worker %s came and was sent away: %s", event[1]["worker"], problems)


def _memory_problems(limit: int, spec: SweepSpec) -> list[str]:
    asked = spec.inference.memory_bytes if spec.inference.provider == "cpu" else None
    for least, what in (
        (_LEAST_MEMORY, "the process itself takes"),
        (asked or 0, "inference.memory asks for"),
    ):
        if 0 < limit < least:
            sizes = f"{format_bytes(limit)}, less than the {format_bytes(least)}"
            return [f"a memory limit of {sizes} that {what}"]
    return []


def _provider_problems(provider: str) -> list[str]:
    wanted = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}[provider]
    try:
        import onnxruntime

        available = onnxruntime.get_available_providers()
        problems = []
        if wanted not in available:
            problems.append(
                f"inference.provider {provider} is not in its onnxruntime "
                f"({', '.join(available)}); cuda needs genret-dask[gpu]"
            )
        if provider == "cuda":
            import torch

            if torch.cuda.device_count() == 0:
                visible = os.environ.get("CUDA_VISIBLE_DEVICES", "unset")
                problems.append(f"no GPU is visible (CUDA_VISIBLE_DEVICES {visible})")
        return problems
    except Exception as error:  # a broken installation raises whatever it pleases
        return [f"onnxruntime or torch does not import: {error}"]


def _warn_of_failures(client: Client) -> None:
    # A lambda is sent by value: a scheduler need not have this package.
    allowed: Any = client.run_on_scheduler(lambda dask_scheduler: dask_scheduler.allowed_failures)
    if allowed == _ALLOWED_FAILURES:
        logger.warning(
            "the scheduler gives a task up after %d workers died under it, Dask's default, which "
            "may condemn an innocent one: start it with "
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=10",
            allowed,
        )


cloudpickle.register_pickle_by_value(sys.modules[__name__])
