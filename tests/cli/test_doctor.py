"""The doctor's findings, here and on machines that it is told about."""

from __future__ import annotations

import importlib
import json
import os
import platform
from importlib import metadata
from types import SimpleNamespace

import pytest
from click.testing import CliRunner

from genret_dask.cli import main

module = importlib.import_module("genret_dask.cli.doctor")


def run(*options):
    return CliRunner().invoke(main, ["doctor", *options])


@pytest.fixture
def installed(monkeypatch):
    """Pretend that packages have these versions; None is not installed."""

    def pretend(**versions):
        real = metadata.version

        def version(name):
            if name.replace("-", "_") not in versions:
                return real(name)
            found = versions[name.replace("-", "_")]
            if found is None:
                raise metadata.PackageNotFoundError(name)
            return found

        monkeypatch.setattr(metadata, "version", version)

    return pretend


@pytest.fixture
def imports(monkeypatch):
    """Pretend that modules are these objects; an exception is raised."""

    def pretend(**modules):
        real = importlib.import_module

        def load(name, package=None):
            found = modules.get(name.replace(".", "_"))
            if isinstance(found, Exception):
                raise found
            return found or real(name, package)

        monkeypatch.setattr(importlib, "import_module", load)

    return pretend


def runtime(*, available, live):
    session = SimpleNamespace(get_providers=lambda: live)
    return SimpleNamespace(
        __version__="1.2",
        get_available_providers=lambda: available,
        SessionOptions=SimpleNamespace,
        InferenceSession=lambda *args, **kwargs: session,
    )


def test_here_all_that_is_required_is_there():
    result = run("--json")
    assert result.exit_code == 0, result.output
    report = json.loads(result.stdout)
    assert report["problems"] == []
    assert report["python"] == platform.python_version()
    assert report["packages"]["numpy"] == metadata.version("numpy")
    assert {"dask", "distributed", "torch", "transformers"} <= set(report["packages"])
    assert "CPUExecutionProvider" in report["onnxruntime"]["providers"]
    assert 1 <= report["cores"]["usable"] <= report["cores"]["logical"]
    assert 0 < report["memory"]["limit_bytes"] <= report["memory"]["total_bytes"]


def test_text_has_the_same_facts():
    result = run()
    assert result.exit_code == 0
    assert platform.python_version() in result.stdout
    assert metadata.version("dask") in result.stdout
    assert "CPUExecutionProvider" in result.stdout


def test_usable_cores_follow_the_affinity():
    everything = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(everything)})
    try:
        assert module.examine()["cores"]["usable"] == 1
    finally:
        os.sched_setaffinity(0, everything)


def test_a_missing_requirement_is_a_problem(installed):
    installed(gguf=None)
    result = run()
    assert result.exit_code == 1
    assert "problem: gguf is not installed: pip install 'gguf" in result.stdout


def test_a_version_too_old_is_a_problem(installed):
    installed(zarr="2.18.0")
    result = run("--json")
    assert result.exit_code == 1
    assert any("zarr is 2.18.0" in problem for problem in json.loads(result.stdout)["problems"])


def test_not_installed_at_all(monkeypatch):
    def requires(name):
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", requires)
    assert any("itself is not installed" in problem for problem in module.examine()["problems"])


def test_no_runtime_is_a_problem(imports):
    imports(onnxruntime=ImportError("No module named 'onnxruntime'"))
    result = run()
    assert result.exit_code == 1
    assert "genret-dask[cpu]" in result.stdout


def test_two_runtimes_are_a_warning(installed):
    installed(onnxruntime="1.2", onnxruntime_gpu="1.2")
    result = run()
    assert result.exit_code == 0
    assert "warning: onnxruntime and onnxruntime-gpu are both installed" in result.stdout


CUDA, CPU = "CUDAExecutionProvider", "CPUExecutionProvider"


@pytest.mark.parametrize(("live", "loads"), [([CUDA, CPU], True), ([CPU], False)])
def test_cuda_counts_only_when_a_session_has_it(imports, live, loads):
    imports(onnxruntime=runtime(available=[CUDA, CPU], live=live))
    report = module.examine()
    assert report["onnxruntime"]["cuda_loads"] is loads
    assert any("CUDA provider does not load" in text for text in report["warnings"]) is not loads


def test_a_session_that_fails_says_why(imports):
    def broken(*args, **kwargs):
        raise RuntimeError("libcublas.so.12 not found")

    fake = runtime(available=[CUDA, CPU], live=[])
    fake.InferenceSession = broken
    imports(onnxruntime=fake)
    report = module.examine()
    assert not report["onnxruntime"]["cuda_loads"]
    assert any("libcublas" in text for text in report["warnings"])


def test_the_probe_graph_is_valid():
    real = importlib.import_module("onnxruntime")
    cpu = SimpleNamespace(
        SessionOptions=real.SessionOptions,
        InferenceSession=lambda model, sess_options, providers: real.InferenceSession(
            model, sess_options=sess_options, providers=[CPU]
        ),
    )
    loads, reason = module._cuda_loads(cpu)
    assert not loads and "fell back to the CPU" in reason


def test_a_gpu_that_the_runtime_does_not_use(imports):
    device = SimpleNamespace(name="H200", total_memory=141 * 2**30)
    cuda = SimpleNamespace(
        is_available=lambda: True,
        device_count=lambda: 1,
        get_device_properties=lambda index: device,
    )
    imports(
        torch=SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="13.0")),
        onnxruntime=runtime(available=[CPU], live=[CPU]),
    )
    result = run()
    assert "H200 (141.0 GiB)" in result.stdout
    assert "genret-dask[gpu]" in result.stdout
