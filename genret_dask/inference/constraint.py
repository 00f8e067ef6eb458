"""What a search asks of a constraint: which tokens may follow a prefix, and what they lead to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from genret_dask.inference.rows import Children, Step


class Constraint(Protocol):
    """The token sequences that identify something, as a search walks through them.

    A prefix has a state: an entry of an array whose first axis counts prefixes. Tokens are counted
    from the first vocabulary row that a step asks for (see `Vocabulary.block`).

    Attributes
    ----------
    steps : int
        Tokens of the longest identifier, with its end token where it has one.
    keeps_ended : bool
        True: an identifier that has ended keeps its place in the beam and its score. False: it
        leaves the beam for a pool of each beam size's best, and another prefix takes its place.
    partial_tokens : int or None
        From so many tokens on, a prefix that a beam kept counts as found. None: prefixes do not.
    """

    @property
    def steps(self) -> int: ...

    @property
    def keeps_ended(self) -> bool: ...

    @property
    def partial_tokens(self) -> int | None: ...

    def root(self, rows: int) -> np.ndarray:
        """Return the state of the empty prefix, so many times."""
        ...

    def expand(self, states: np.ndarray, depth: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """List every token that may follow each prefix, the end token left out.

        Parameters
        ----------
        states : array[n, ...]
        depth : int
            Tokens of every prefix.

        Returns
        -------
        row : int64[c]
            Index into `states` of each child's prefix, ascending.
        token : int[c]
            Ascending within a row.
        states : array[c, ...]
        """
        ...

    def ends(self, states: np.ndarray, depth: int) -> np.ndarray:
        """Tell where the end token may follow; bool[n]. A prefix of `steps` tokens needs none."""
        ...


class Shortlist(ABC):
    """A constraint that finds the best children faster than by listing all."""

    @abstractmethod
    def shortlist(self, step: Step, known: Sequence[Children], sizes: np.ndarray) -> Children:
        """Find children until the best of every beam size are among them.

        Parameters
        ----------
        step : Step
        known : sequence of Children
            The prefixes that have ended, and those that end with this step.
        sizes : int64[beams]

        Returns
        -------
        Children
            With those of `known`, in any order.
        """


@dataclass(frozen=True)
class Vocabulary:
    """Where the identifiers' tokens stand among a model's rows.

    Attributes
    ----------
    start_token : int
        The token that opens an identifier.
    block_starts : int64[levels]
        First row of each level's block.
    level_sizes : tuple of int
        Rows of each block.
    end_token : int, optional
        The token that closes an identifier; a row of every block.
    """

    start_token: int
    block_starts: np.ndarray
    level_sizes: tuple[int, ...]
    end_token: int | None = None

    def __post_init__(self) -> None:
        if self.end_token is None:
            return
        for level in range(len(self.level_sizes)):
            first, stop = self.block(level)
            if not first <= self.end_token < stop:
                raise ValueError(
                    f"the end token {self.end_token} is outside the rows {first} to {stop - 1} "
                    f"that step {level} asks for"
                )

    def block(self, level: int) -> tuple[int, int]:
        start = int(self.block_starts[level])
        return start, start + self.level_sizes[level]
