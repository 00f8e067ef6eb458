"""The group: lazy imports, exit codes, messages without tracebacks."""

from __future__ import annotations

import errno
import logging
import subprocess
import sys
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner

from genret_dask import __version__, cli
from genret_dask.errors import DatasetError, GenretError


@pytest.fixture
def fails(monkeypatch):
    """Run ``genret-dask doctor`` with a body of our own in the place of doctor's."""

    def run(error, *options):
        @click.command()
        def doctor():
            raise error

        fake = SimpleNamespace(doctor=doctor)
        monkeypatch.setitem(sys.modules, "genret_dask.cli.doctor", fake)
        return CliRunner().invoke(cli.main, [*options, "doctor"])

    return run


@pytest.fixture(autouse=True)
def _restore_logging():
    logger = logging.getLogger("genret_dask")
    level, handlers = logger.level, list(logger.handlers)
    yield
    logger.setLevel(level)
    logger.handlers[:] = handlers


def test_version():
    result = CliRunner().invoke(cli.main, ["--version"])
    assert result.exit_code == 0
    assert __version__ in result.stdout


@pytest.mark.parametrize(("name", "hint"), [("swep", "; did you mean sweep?"), ("xyzzy", ".")])
def test_a_misspelt_command_is_told_from_what_was_meant(name, hint):
    result = CliRunner().invoke(cli.main, [name])
    assert result.exit_code == 2 and f"No such command '{name}'{hint}" in result.stderr


def test_help_lists_every_command_and_imports_none():
    script = (
        "import sys; from genret_dask.cli import main\n"
        "try: main(['--help'])\n"
        "finally: print('heavy:', sorted({'torch', 'numpy', 'distributed', 'xarray', 'pydantic'} "
        "& set(sys.modules)))"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    assert "heavy: []" in result.stdout
    for name in cli.COMMANDS:
        assert f"\n  {name} " in result.stdout


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(name):
    result = CliRunner().invoke(cli.main, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert name in result.stdout.splitlines()[0]


def test_unknown_command_is_a_usage_error():
    result = CliRunner().invoke(cli.main, ["swep"])
    assert result.exit_code == 2
    assert "swep" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GenretError("it broke", expected="whole", fix="mend it"), 1),
        (DatasetError("it broke", expected="whole", fix="mend it"), 2),
    ],
)
def test_our_errors_are_messages(fails, error, code):
    result = fails(error)
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr == "Error: it broke\n  expected: whole\n  to fix:   mend it\n"


def test_interrupt_exits_130_in_one_line(fails):
    result = fails(KeyboardInterrupt())
    assert result.exit_code == 130
    assert result.output.strip() == "Interrupted."


def test_unexpected_errors_keep_their_traceback(fails):
    result = fails(ZeroDivisionError("bug"))
    assert isinstance(result.exception, ZeroDivisionError)


def test_broken_pipe_is_quiet(fails):
    result = fails(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert isinstance(result.exception, SystemExit)
    assert result.output == ""


@pytest.mark.parametrize(
    ("options", "level"), [((), "WARNING"), (("-v",), "INFO"), (("-vv",), "DEBUG")]
)
def test_verbosity(fails, options, level):
    fails(GenretError("x"), *options)
    logger = logging.getLogger("genret_dask")
    assert logger.level == getattr(logging, level)
    assert len(logger.handlers) == 1  # one a process, however often main runs


@pytest.mark.parametrize("verbose", [False, True])
def test_dask_tells_no_traceback_unless_asked_for_details(verbose):
    from genret_dask.cli.options import _hush_dask

    logging.getLogger("genret_dask").setLevel(logging.DEBUG if verbose else logging.WARNING)
    heard: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: heard.append(record.msg)
    dask, asyncio = logging.getLogger("distributed"), logging.getLogger("asyncio")
    dask.addHandler(handler)
    asyncio.addHandler(handler)
    before = asyncio.level
    asyncio.setLevel(logging.NOTSET)
    try:
        _hush_dask()
        logging.getLogger("distributed.batched").info("closed", exc_info=OSError("gone"))
        logging.getLogger("distributed.nanny").warning("restarting")
        asyncio.error("never retrieved")
    finally:
        dask.removeHandler(handler)
        asyncio.removeHandler(handler)
        asyncio.setLevel(before)
    assert heard == (["closed", "restarting", "never retrieved"] if verbose else ["restarting"])
