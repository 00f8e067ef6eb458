"""``genret-dask doctor``: what this installation can do, and what stands in its way."""

from __future__ import annotations

import importlib
import json
import os
import platform
from importlib import metadata
from typing import Any

import click
from packaging.requirements import Requirement

from genret_dask import __version__
from genret_dask.cli.tables import labelled
from genret_dask.storage.versions import versions_of

_RUNTIMES = ("onnxruntime", "onnxruntime-gpu")
_RUN_EXTRAS = ("cpu", "gpu")
_BROUGHT_ALONG = ("distributed", "optimum-onnx")  # by dask[distributed] and the extras


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Say which ONNX Runtime and providers are live, versions, cores, memory and GPU.

    Exits with 1 when something that a sweep requires is missing.
    """
    report = examine()
    click.echo(json.dumps(report, indent=2) if as_json else _text(report))
    if report["problems"]:
        ctx.exit(1)


def examine() -> dict[str, Any]:
    """Return what `doctor` prints, as plain JSON values.

    ``problems`` names what a sweep requires and cannot have here; ``warnings`` what may surprise.
    """
    problems: list[str] = []
    warnings: list[str] = []
    names = ("dask.system", "distributed.system", "psutil")
    system, limits, psutil = (_import(name, problems) for name in names)
    memory = psutil and psutil.virtual_memory()
    report: dict[str, Any] = {
        "genret_dask": __version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _packages(problems),
        "onnxruntime": _onnxruntime(problems, warnings),
        "cores": {"usable": system and system.cpu_count(), "logical": os.cpu_count()},
        "memory": {
            "limit_bytes": limits and int(limits.MEMORY_LIMIT),
            "total_bytes": memory and int(memory.total),
            "available_bytes": memory and int(memory.available),
        },
        "gpu": _gpu(problems),
    }
    if report["gpu"]["available"] and not report["onnxruntime"]["cuda_loads"]:
        warnings.append(
            "there is a GPU, but ONNX Runtime cannot use it: pip uninstall onnxruntime, then "
            "pip install 'genret-dask[gpu]'"
        )
    return report | {"warnings": warnings, "problems": problems}


def _packages(problems: list[str]) -> dict[str, str | None]:
    """Installed versions of every requirement, and a problem for each that is not met."""
    try:
        required = metadata.requires("genret-dask") or []
    except metadata.PackageNotFoundError:
        problems.append("genret-dask itself is not installed: pip install -e '.[cpu]'")
        return {}
    requirements = list(map(Requirement, required))
    installed = versions_of([*_BROUGHT_ALONG, *(one.name for one in requirements)])
    found = {name: installed.get(name) for name in _BROUGHT_ALONG}
    for requirement in requirements:
        version, marker = installed.get(requirement.name), requirement.marker
        if not marker or any(marker.evaluate({"extra": extra}) for extra in ("", *_RUN_EXTRAS)):
            found[requirement.name] = version
        if marker and not marker.evaluate({"extra": ""}):
            continue
        if version is None:
            problems.append(f"{requirement.name} is not installed: pip install '{requirement}'")
        elif not requirement.specifier.contains(version, prereleases=True):
            problems.append(
                f"{requirement.name} is {version}, not {requirement.specifier}: "
                f"pip install '{requirement}'"
            )
    return dict(sorted(found.items()))


def _onnxruntime(problems: list[str], warnings: list[str]) -> dict[str, Any]:
    installed = versions_of(_RUNTIMES)
    if len(installed) > 1:
        warnings.append(
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's module: "
            "pip uninstall both, then install one (genret-dask[cpu] or genret-dask[gpu])"
        )
    result: dict[str, Any] = {"installed": installed, "version": None, "providers": []}
    result["cuda_loads"] = False
    runtime = _import("onnxruntime", problems, fix="pip install 'genret-dask[cpu]' (or [gpu])")
    if runtime is not None:
        result |= {"version": runtime.__version__, "providers": runtime.get_available_providers()}
        if "CUDAExecutionProvider" in result["providers"]:
            result["cuda_loads"], result["cuda_error"] = _cuda_loads(runtime)
            if not result["cuda_loads"]:
                warnings.append(f"the CUDA provider does not load: {result['cuda_error']}")
    return result


def _cuda_loads(runtime: Any) -> tuple[bool, str | None]:
    """Open a session on CUDA; ONNX Runtime falls back to the CPU without an error."""
    from onnx.parser import parse_model

    model = parse_model(
        '<ir_version: 8, opset_import: ["": 17]> probe (float[1] x) => (float[1] y) { y = Neg (x) }'
    )
    options = runtime.SessionOptions()
    options.log_severity_level = 4
    try:
        if hasattr(runtime, "preload_dlls"):
            runtime.preload_dlls()
        session = runtime.InferenceSession(
            model.SerializeToString(), options, providers=["CUDAExecutionProvider"]
        )
    except Exception as error:
        return False, str(error).strip() or type(error).__name__
    if "CUDAExecutionProvider" in session.get_providers():
        return True, None
    return False, "the session fell back to the CPU (CUDA or cuDNN libraries are missing)"


def _gpu(problems: list[str]) -> dict[str, Any]:
    torch = _import("torch", problems)
    if torch is None or not torch.cuda.is_available():
        return {"available": False, "devices": []}
    properties = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return {
        "available": True,
        "cuda": torch.version.cuda,
        "devices": [{"name": item.name, "memory_bytes": item.total_memory} for item in properties],
    }


def _import(name: str, problems: list[str], *, fix: str | None = None) -> Any:
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:
        advice = fix or f"pip install {name.partition('.')[0]}"
        problems.append(f"{name} does not import ({error}): {advice}")
        return None


def _text(report: dict[str, Any]) -> str:
    runtime, cores, memory = report["onnxruntime"], report["cores"], report["memory"]
    installed = ", ".join(f"{name} {version}" for name, version in runtime["installed"].items())
    devices = [
        f"{item['name']} ({_gib(item['memory_bytes'])})" for item in report["gpu"]["devices"]
    ]
    rows = {
        "genret-dask": report["genret_dask"],
        "python": f"{report['python']} on {report['platform']}",
        "onnxruntime": installed or runtime["version"] or "none",
        "providers": ", ".join(runtime["providers"]) or "none",
        "CUDA in onnxruntime": "loads" if runtime["cuda_loads"] else "no",
        "cores": f"{cores['usable']} usable of {cores['logical']}",
        "memory": f"{_gib(memory['limit_bytes'])} limit, {_gib(memory['available_bytes'])} free "
        f"of {_gib(memory['total_bytes'])}",
        "GPU (torch)": ", ".join(devices) or "none",
    }
    rows |= {name: version or "not installed" for name, version in report["packages"].items()}
    lines = [labelled(rows, width=max(map(len, rows)), gap="  ")]
    lines += [f"warning: {text}" for text in report["warnings"]]
    lines += [f"problem: {text}" for text in report["problems"]]
    lines.append("something required is missing" if report["problems"] else "all is well")
    return "\n".join(lines)


def _gib(size: int | None) -> str:
    return "unknown" if size is None else f"{size / 2**30:.1f} GiB"
