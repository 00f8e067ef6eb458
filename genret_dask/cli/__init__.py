"""The command line: a group of commands, each in a module that is imported when asked for.

Exit codes: 0 done, 1 the run failed, 2 the input is wrong, 130 stopped by Ctrl-C, 143 by SIGTERM.
"""

from __future__ import annotations

import importlib
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from genret_dask import __version__
from genret_dask.errors import GenretError, Terminated, meant
from genret_dask.redaction import printable, redact

COMMANDS = {
    "init": "Write the YAML of a study, with every key explained.",
    "sweep": "Run a whole study: data, identifiers, training, export, search, cube.",
    "train": "Train the models of a study.",
    "export": "Export trained models to ONNX.",
    "status": "Say how far a run is, from wherever its directory can be seen.",
    "fit": "Fit scaling laws to a run's cube.",
    "compare": "Compare families, identifier kinds or models on the same queries.",
    "plan": "Choose model and beam for a budget, measured and predicted.",
    "report": "Write one page that shows a run: laws, frontier, queries, provenance.",
    "metrics": "Print the metrics of a run's cube.",
    "identifiers": "Describe the identifiers of a run: lengths, entropies, shared prefixes.",
    "add": "Search a run's models over more documents than they were trained on.",
    "search": "Search with a model of a run, or with a model's folder.",
    "explain": "Show what a model generates for a query, and where it leads.",
    "bench": "Time this engine against transformers and plain loops, on this machine.",
    "verify": "Check every chunk and artefact of a run against its hash.",
    "repair": "Redo what verify finds damaged, and only that.",
    "datasets": "List, show and validate collections.",
    "models": "List the sizes of models with their parameters.",
    "schema": "Print the JSON schema of the YAML files, for editors.",
    "certificates": "Make the CA, certificate and key of a cluster under TLS.",
    "doctor": "Say what this installation can do: runtimes, devices, versions.",
}


class LazyGroup(click.Group):
    """A group whose command ``name`` is the attribute ``name`` of ``genret_dask.cli.<name>``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            if hint := meant(cmd_name, COMMANDS):
                raise click.UsageError(f"No such command {cmd_name!r}{hint}", ctx)
            return None
        return getattr(importlib.import_module(f"genret_dask.cli.{cmd_name}"), cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # From the table: the commands' own help would import every one of them.
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))

    def invoke(self, ctx: click.Context) -> Any:
        with _signals_handled() as terminated:
            try:
                return super().invoke(ctx)
            except GenretError as error:
                logging.getLogger(__name__).debug("the command failed", exc_info=True)
                _leave(ctx, f"Error: {error}", "\n", error, error.exit_code)
            except KeyboardInterrupt as error:
                word, code = ("Terminated.", 143) if terminated.is_set() else ("Interrupted.", 130)
                _leave(ctx, f"\n{word}", " ", error, code)


@contextmanager
def _signals_handled() -> Iterator[threading.Event]:
    """Have SIGTERM do what Ctrl-C does, and Dask be silent from then on.

    Gives an event that SIGTERM sets. Where Ctrl-C is ignored, as in a shell's background, it stays
    ignored. A signal that comes while Python runs a finaliser or a callback of its garbage
    collector, which Dask has, is lost there, as every exception; it is sent again.
    """
    terminated = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        if number == signal.SIGTERM:
            terminated.set()
            if callable(signal.getsignal(signal.SIGINT)):
                signal.raise_signal(signal.SIGINT)  # who holds Ctrl-C back holds this back too
                return
        if logging.getLogger("genret_dask").level > logging.DEBUG:
            # The run ends, and its cluster with it. Imports nothing: a signal may come during one.
            for handler in logging.getLogger("distributed").handlers:
                handler.setLevel(logging.CRITICAL + 1)
        raise Terminated if terminated.is_set() else KeyboardInterrupt

    def lost(unraisable: Any) -> None:
        if issubclass(unraisable.exc_type, KeyboardInterrupt):  # from outside of this frame
            again = (threading.main_thread().ident, signal.SIGINT)
            threading.Timer(0.01, signal.pthread_kill, again).start()
        else:
            hook(unraisable)

    if threading.current_thread() is not threading.main_thread():
        yield terminated
        return
    numbers = [signal.SIGTERM]
    if callable(signal.getsignal(signal.SIGINT)):
        numbers.append(signal.SIGINT)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    hook, sys.unraisablehook = sys.unraisablehook, lost
    try:
        yield terminated
    finally:
        sys.unraisablehook = hook
        for number, handler in before.items():
            signal.signal(number, handler)


class _Discreet(logging.Formatter):
    """Lines without secrets and without what steers a terminal, tracebacks of -vv included."""

    def format(self, record: logging.LogRecord) -> str:
        return printable(redact(super().format(record)))


class _AboveBars(logging.StreamHandler[Any]):
    """Writes lines above a progress bar that is open on the same stream."""

    def emit(self, record: logging.LogRecord) -> None:
        from tqdm import tqdm

        with tqdm.external_write_mode(file=self.stream):
            super().emit(record)


def _leave(ctx: click.Context, message: str, gap: str, error: BaseException, code: int) -> NoReturn:
    """End with a message, and what was noted of the error on its way: what of the run is done."""
    text = gap.join([message, *getattr(error, "__notes__", ())])
    click.echo(printable(redact(text)), err=True)
    ctx.exit(code)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="genret-dask")
@click.option("-v", "--verbose", count=True, help="Log progress (-v) or details (-vv) to stderr.")
def main(verbose: int) -> None:
    """Scaling laws of generative retrieval, from a YAML file to a cube of logits."""
    # Not the root logger: a handler there makes Dask print its own INFO lines through it.
    logger = logging.getLogger("genret_dask")
    for handler in list(logger.handlers):
        logger.removeHandler(handler)
    handler = _AboveBars(sys.stderr)
    handler.setFormatter(_Discreet("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.addHandler(handler)
    logger.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbose, 2)])
