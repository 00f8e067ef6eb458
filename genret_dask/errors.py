"""Errors that a user can act on.

Every message says what was found, what was expected and what to do about it. The command line
prints the message without a traceback and exits with the class's ``exit_code``: 1 when the run
failed, 2 when the input was wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_LONGEST = 4000  # characters of a part of a message


class GenretError(Exception):
    """The run failed for a reason that we can name.

    Parameters
    ----------
    found : str
        What was found: the thing, by name, and its state.
    expected : str, optional
        What would have been right.
    fix : str, optional
        What the user can do about it.
    """

    exit_code = 1

    def __init__(self, found: str, *, expected: str | None = None, fix: str | None = None) -> None:
        self.found = _short(found)
        self.expected = expected and _short(expected)
        self.fix = fix
        lines = [self.found]
        if self.expected:
            lines.append(f"  expected: {self.expected}")
        if fix:
            lines.append(f"  to fix:   {fix}")
        super().__init__("\n".join(lines))

    def line(self, about: str) -> str:
        """Return the message as one line that begins with what it is about."""
        found = self.found if self.found.startswith(about) else f"{about}: {self.found}"
        parts = (found, self.expected and f"expected {self.expected}", self.fix)
        return " ".join("; ".join(part for part in parts if part).split())

    def __reduce__(self) -> tuple:
        # Exceptions cross process boundaries on the way back from a Dask worker.
        return _rebuild, (type(self), self.found, self.expected, self.fix)


def _short(text: str) -> str:
    """Cut a text, which may quote a file, in its middle where it would fill screens."""
    if len(text) <= _LONGEST:
        return text
    return f"{text[: _LONGEST // 2]} [...] {text[-_LONGEST // 2 :]}"


def _rebuild(
    cls: type[GenretError], found: str, expected: str | None, fix: str | None
) -> GenretError:
    return cls(found, expected=expected, fix=fix)


def meant(name: str, known: Iterable[str]) -> str:
    """Suggest a known name for one that is misspelt: a clause, or nothing.

    Examples
    --------
    >>> meant("lama", ["bart", "llama"])
    '; did you mean llama?'
    """
    close = get_close_matches(name, list(known), 1)
    return f"; did you mean {close[0]}?" if close else ""


def listed(names: Sequence[str], most: int = 3, of: int | None = None) -> str:
    """Name the first few of many, and count the others: of all names, or of so many as `of` says.

    Examples
    --------
    >>> listed(["a", "b", "c", "d", "e"])
    'a, b, c, and 2 more'
    """
    others = (len(names) if of is None else of) - most
    return ", ".join(names[:most]) + (f", and {others} more" if others > 0 else "")


def together(errors: Sequence[GenretError]) -> None:
    """Raise an error, or several as one."""
    if len(errors) == 1:
        raise errors[0]
    if errors:
        texts = [f"{place}. {error}" for place, error in enumerate(errors, 1)]
        raise InputError("\n".join([f"{len(errors)} things are in the way:", *texts]))


class Terminated(KeyboardInterrupt):
    """SIGTERM, which ends a command as Ctrl-C does, with another exit code."""


class InputError(GenretError):
    """The user's input is wrong."""

    exit_code = 2


class SpecError(InputError):
    """A YAML file does not describe a sweep or a cluster."""


class DatasetError(InputError):
    """A collection is malformed, incomplete or empty."""


class ModelError(InputError):
    """A checkpoint or an exported model folder is not what its manifest says."""


class StaleError(InputError):
    """An artefact in the run directory was made with other settings."""


class CubeError(GenretError):
    """A cube is unsealed, incomplete or damaged."""


class ParityError(GenretError):
    """An exported graph and its PyTorch model disagree beyond tolerance."""


class NumericError(GenretError):
    """A model computed NaN or infinity where a search or a score needs a number.

    Parameters
    ----------
    row, step : int, optional
        The query's row in its batch, and the step, both counted from 0.
    """

    def __init__(
        self,
        found: str,
        *,
        expected: str | None = None,
        fix: str | None = None,
        row: int | None = None,
        step: int | None = None,
    ) -> None:
        super().__init__(found, expected=expected, fix=fix)
        self.row, self.step = row, step

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.found, self.expected, self.fix), vars(self)

    def of(self, model: str, query: str) -> NumericError:
        """Add the names of the model and the query."""
        return NumericError(
            f"{model}, query {query}, {self.found}",
            expected=self.expected,
            fix=self.fix,
            row=self.row,
            step=self.step,
        )


class DeviceError(GenretError):
    """The device or execution provider that was asked for is not there."""


class TrainingError(GenretError):
    """Training diverged or could not go on."""


class BudgetError(GenretError):
    """A worker's memory, or the disk, cannot hold what the study needs."""


class ClusterError(GenretError):
    """The cluster lost its scheduler or its workers and did not get them back."""


class TaskError(GenretError):
    """A task killed its workers, or the cluster kept losing it."""


class LeaseError(GenretError):
    """Another process works on the run."""
