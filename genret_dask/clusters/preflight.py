"""What is looked at on every worker before work starts, so that a wrong one fails in seconds.

Versions, the run directory, ONNX Runtime's provider and memory: all problems at once, a line each,
and workers with the same one together.
"""

from __future__ import annotations

import logging
import secrets
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cloudpickle
from dask.utils import format_bytes

from genret_dask.clusters import probe
from genret_dask.errors import GenretError
from genret_dask.storage.places import check_writable, names_in, replace_file

if TYPE_CHECKING:
    from distributed import Client

    from genret_dask.specs import SweepSpec

logger = logging.getLogger(__name__)

PACKAGES = (
    "genret-dask",
    "numpy",
    "zarr",
    "torch",
    "onnxruntime",
    "onnxruntime-gpu",
    "transformers",
    "tokenizers",
    "icu4py",
)
"""Beside Python, dask and distributed: what results depend on, or files and tasks cannot cross."""

_DASK = ("dask", "distributed")
_LEAST_MEMORY = 2**28  # a worker that has imported what a search needs holds 180 MB
_ALLOWED_FAILURES = 3  # Dask's default
_NAMED = 3


class _Problems:
    """Lines, each with the workers that it is true of."""

    def __init__(self, workers: int) -> None:
        self._all = workers
        self._lines: dict[str, list[str]] = {}

    def add(self, worker: str, line: str) -> None:
        self._lines.setdefault(line, []).append(worker)

    def lines(self) -> list[str]:
        return [f"{self._who(workers)}: {line}" for line, workers in self._lines.items()]

    def _who(self, workers: list[str]) -> str:
        if workers == [_SCHEDULER]:
            return _SCHEDULER
        named = ", ".join(workers[:_NAMED])
        rest = f", and {len(workers) - _NAMED} more" if len(workers) > _NAMED else ""
        return f"{len(workers)} of {self._all} workers ({named}{rest})"


_SCHEDULER = "the scheduler"


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
        Look at workers that join later, too, and send wrong ones away: their packages, provider and
        run directory. It lasts as long as the scheduler does.

    Raises
    ------
    GenretError
        Something is wrong; a line each.
    """
    started = time.monotonic()
    workers = sorted(client.scheduler_info()["workers"])
    packages = _packages(spec)
    versions: Any = client.get_versions(packages=list(packages))
    problems = _Problems(len(workers))
    _compare(_SCHEDULER, versions["scheduler"], versions["client"], _DASK, problems)
    able = []
    for worker in workers:
        theirs = versions["workers"].get(worker)
        if theirs is None:
            problems.add(worker, "does not answer")
            continue
        _compare(worker, theirs, versions["client"], packages, problems)
        if _python(theirs) == _python(versions["client"]):
            able.append(worker)  # code for another Python does not even load
        else:
            here = _python(versions["client"])
            problems.add(worker, f"Python {_python(theirs)}, here {here}")
    token = f"{probe.TOKEN}{secrets.token_hex(8)}"
    with _removed_on_error(folder / token):
        if able:
            _probe(client, able, spec, folder, token, problems)
        _warn_of_failures(client)
        if lines := problems.lines():
            raise GenretError(
                "\n".join(
                    ["the workers are not ready for this run:", *(f"  {line}" for line in lines)]
                ),
                expected="the same packages as here, the run directory of this machine, and what "
                "the study asks for, on every worker",
                fix="see docs/clusters.md, Before work starts; nothing was started yet",
            )
        if newcomers:
            _guard(client, versions["client"]["packages"], spec, folder, token)
        else:
            _remove(folder / token)
    logger.info("preflight of %d workers: %.1f s", len(workers), time.monotonic() - started)


@contextmanager
def _removed_on_error(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        _remove(path)
        raise


def _remove(path: Path) -> None:
    with suppress(OSError):
        path.unlink(missing_ok=True)


def _python(versions: dict[str, Any]) -> str:
    return ".".join(versions["host"]["python"].split(".")[:2])


def _compare(
    worker: str,
    theirs: dict[str, Any],
    ours: dict[str, Any],
    packages: Iterable[str],
    problems: _Problems,
) -> None:
    here = probe.comparable({name: ours["packages"].get(name) for name in packages})
    for line in probe.differences(here, theirs["packages"].get):
        problems.add(worker, line)


def _probe(
    client: Client,
    workers: list[str],
    spec: SweepSpec,
    folder: Path,
    token: str,
    problems: _Problems,
) -> None:
    answers = []
    check_writable(folder)
    for earlier in names_in(folder):
        if earlier.startswith(probe.TOKEN):
            _remove(folder / earlier)
    replace_file(folder / token, token.encode())
    try:
        found = _run(client, workers, folder, token, spec)
        for worker, result in found.items():
            if isinstance(result, BaseException):
                problems.add(worker, f"cannot be looked at: {type(result).__name__}: {result}")
                continue
            answers.append(result["answer"])
            for line in [*result["problems"], *_memory_problems(result["memory"], spec)]:
                problems.add(worker, line)
            if result["answer"] and not _is_seen(folder, result["answer"]):
                problems.add(worker, f"{folder} is another one there: its files are not seen here")
    finally:
        for name in filter(None, answers):
            _remove(folder / name)


def _packages(spec: SweepSpec) -> tuple[str, ...]:
    """What must be the same on every worker; only int8 needs optimum."""
    quantised = "int8" in spec.export.precision
    return (*_DASK, *PACKAGES, *(["optimum-onnx"] if quantised else []))


def _sources(spec: SweepSpec) -> list[str]:
    """Places of pretrained weights; hub ids are none."""
    named = [model.pretrained for model in spec.models if model.pretrained is not None]
    return [str(place) for one in named if (place := one.path or one.gguf) is not None]


def _run(
    client: Client, workers: list[str], folder: Path, token: str, spec: SweepSpec
) -> dict[str, Any]:
    asked = spec.inference.provider, _sources(spec)
    with _by_value():
        return client.run(probe.probe, folder, token, *asked, workers=workers, on_error="return")


def _guard(
    client: Client, packages: dict[str, str | None], spec: SweepSpec, folder: Path, token: str
) -> None:
    versions = probe.comparable({name: packages.get(name) for name in _packages(spec)})
    asked = spec.inference.provider, _sources(spec)

    def say(event: tuple[float, Any]) -> None:
        problems = "; ".join(event[1]["problems"])
        logger.warning("worker %s came and was sent away: %s", event[1]["worker"], problems)

    client.subscribe_topic(probe.TOPIC, say)
    with _by_value():
        client.register_plugin(probe.Gate(versions, *asked, cloudpickle.dumps(folder), token))


@contextmanager
def _by_value() -> Iterator[None]:
    module = sys.modules[probe.__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        yield
    finally:
        cloudpickle.unregister_pickle_by_value(module)


def _is_seen(folder: Path, name: str) -> bool:
    for _ in range(12):
        try:
            return (folder / name).read_text() == name
        except FileNotFoundError:
            time.sleep(0.25)  # network file systems show a new file after a while
    return False


def _memory_problems(limit: int | None, spec: SweepSpec) -> list[str]:
    if not limit:
        return []
    asked = spec.inference.memory_bytes if spec.inference.provider == "cpu" else None
    if limit < _LEAST_MEMORY:
        return [
            f"a memory limit of {format_bytes(limit)}, less than the {format_bytes(_LEAST_MEMORY)} "
            "that the process itself takes"
        ]
    if asked is not None and asked > limit:
        return [
            f"a memory limit of {format_bytes(limit)}, less than the {format_bytes(asked)} that "
            "inference.memory asks for"
        ]
    return []


def _warn_of_failures(client: Client) -> None:
    # A function inside one is sent by value: a scheduler need not have this package.
    def allowed_failures(dask_scheduler: Any) -> int:
        return dask_scheduler.allowed_failures

    try:
        allowed: Any = client.run_on_scheduler(allowed_failures)
    except Exception as error:  # of another Python, it cannot even load the question
        logger.warning("the scheduler's settings cannot be read: %s", error)
        return
    if allowed == _ALLOWED_FAILURES:
        logger.warning(
            "the scheduler gives a task up after %d workers died under it, Dask's default, which "
            "may condemn an innocent one: start it with "
            "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=10",
            allowed,
        )
