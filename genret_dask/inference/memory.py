"""What decoding takes, in bytes, as arithmetic: a batch is cut to its budget before it starts.

Counted are the float32 arrays that exist at once at the widest moment of a pass: the keys and
values of a step and of the step before it, its logits, one layer's activations, and what the
search itself keeps. Weights are not among them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from genret_dask.models.flops import Architecture

TILE = 4096
"""Vocabulary rows whose logits a beam-native graph holds at a time."""

MARGIN = 1.3
"""For the holes that arrays of different size leave in ONNX Runtime's arena.

With it, the bounds below were 1.1 to 1.6 times what the process grew by, to 2.0 times for models in
half precision, and 2.7 times for a search at a whole grid of beam sizes, whose union counts as
their sum: T5 and LLaMA of 5 and 7 million parameters and 32,768 vocabulary rows, on the CPU, with
batches of 1 to 16, prompts of 8 to 256 tokens, 257 candidates, and identifiers of 7 tokens.
"""

_FLOAT = 4
_CHILD = 128  # bytes of a prefix's child while a search ranks it, and one for each beam size
_SCORE = 12  # bytes of a vocabulary row's score, and of whether it is looked up
_CANDIDATE = 40  # bytes of a candidate's token while it is scored


@dataclass(frozen=True)
class Decoding:
    """A model, and what it is asked to decode.

    Attributes
    ----------
    architecture : Architecture
    graph : {"beam", "optimum"}
        Whether a query's rows share the prompt's state, or each has a copy.
    nodes : tuple of int
        Distinct prefixes of each length, from the root's 1 to the number of documents.
    blocks : tuple of int
        Vocabulary rows that each level asks for.
    beams : tuple of int
    identifiers : int
        Of a candidate.
    results : int, optional
        Identifiers that a search returns at the largest beam size; as many as its beam has.
    whole_vocabulary : bool
        Whether a search holds the scores of all of a block's rows at once, and ranks only the
        best; else it ranks the children that the constraint lists.
    """

    architecture: Architecture
    graph: Literal["beam", "optimum"]
    nodes: tuple[int, ...]
    blocks: tuple[int, ...]
    beams: tuple[int, ...]
    identifiers: int = 1
    results: int | None = None
    whole_vocabulary: bool = False

    def search_bytes(self, prompt: int) -> int:
        """Upper bound of what `search` takes for each query of a batch.

        Parameters
        ----------
        prompt : int
            Tokens that the queries are padded to.

        Notes
        -----
        The union of what the beams keep counts as their sum, which it cannot exceed: beams of
        different size may have nothing in common. It is seldom 1.2 times the largest beam.
        """
        rows = [min(sum(min(beam, nodes) for beam in self.beams), nodes) for nodes in self.nodes]
        if self.whole_vocabulary:
            host = max(
                row * block * _SCORE for row, block in zip(rows[:-1], self.blocks, strict=True)
            )
        else:
            levels = zip(rows[:-1], self.blocks, self.nodes[1:], strict=True)
            children = max(min(row * block, nodes) for row, block, nodes in levels)
            host = children * (_CHILD + len(self.beams))
        return host + self._found_bytes + self._pass_bytes(prompt, rows)

    def score_bytes(self, prompt: int, candidates: int) -> int:
        """Upper bound of what `score` takes for so many candidates of each query of a batch."""
        paths = candidates * self.identifiers
        rows = [min(paths, nodes) for nodes in self.nodes]
        return paths * len(self.blocks) * _CANDIDATE + self._pass_bytes(prompt, rows)

    def query_bytes(self, prompt: int, candidates: int) -> int:
        """Upper bound of what each query of a batch takes to search and, after that, to score."""
        return max(self.search_bytes(prompt), self.score_bytes(prompt, candidates))

    def result_bytes(self, candidates: int) -> int:
        """What each query of a shard leaves behind, while the shard is put together and written."""
        paths = candidates * self.identifiers
        return 3 * (self._found_bytes + paths * len(self.blocks) * 3 * _FLOAT)

    def split(self, prompt: int, candidates: int, room: int, most: int) -> tuple[int, int]:
        """How many queries, and how many of a query's candidates, fit into `room` bytes at once.

        Candidates are parted only where those of a single query do not fit.

        Parameters
        ----------
        most : int
            Queries of a batch, at most.

        Returns
        -------
        queries, candidates : int
            Both 0 where not even one query can be searched, or one candidate scored.
        """
        queries = min(most, room // self.query_bytes(prompt, candidates))
        if queries > 0:
            return queries, candidates
        counts = range(1, candidates + 1)
        part = bisect_right(counts, room, key=lambda count: self.score_bytes(prompt, count))
        return (1, part) if part and self.search_bytes(prompt) <= room else (0, 0)

    def _pass_bytes(self, prompt: int, rows: Sequence[int]) -> int:
        """The widest of a prefill and one step a level, with `rows` prefixes of each length."""
        steps = (
            self._step(prompt, level, rows[max(level - 1, 0)], rows[level])
            for level in range(len(self.blocks))
        )
        return int(MARGIN * _FLOAT * max(self._prefill(prompt), *steps))

    def _prefill(self, prompt: int) -> int:
        a = self.architecture
        prompt += 1  # where the start token is part of it
        layer = prompt * self._layer + 3 * a.heads * prompt**2
        logits = prompt * a.vocab_size if self.graph == "optimum" else 0
        return prompt * self._cached + layer + logits

    def _step(self, prompt: int, time: int, before: int, rows: int) -> int:
        """Of `rows` prefixes, `time` tokens long; `before` were there the step before."""
        a = self.architecture
        own = time + 1
        attention = 3 * a.heads * (prompt + own) + 2 * own * (a.inner + a.kv)
        if self.graph == "optimum":
            state = (before + 2 * rows) * (prompt + own) * self._cached
            logits = 3 * a.vocab_size
        else:
            state = (prompt + before * time + rows * own) * self._cached
            logits = 2 * min(TILE, a.vocab_size) + 3 * self.blocks[time]
        return state + rows * (self._layer + attention + logits)

    @property
    def _found_bytes(self) -> int:
        """Of a query's `Beams`."""
        results, of_token = self.results or max(self.beams), 3 if self.whole_vocabulary else 4
        return len(self.beams) * results * _FLOAT * (of_token * len(self.blocks) + 4)

    @property
    def _cached(self) -> int:
        """Numbers in a token's keys and values, all layers."""
        return 2 * self.architecture.kv * self.architecture.decoder_layers

    @property
    def _layer(self) -> int:
        """Numbers in a token's activations in one layer."""
        a = self.architecture
        projections = 3 * (a.inner + 2 * a.kv)
        feed_forward = (6 if a.gated else 2) * a.d_ff
        return 3 * a.d_model + max(projections, feed_forward)
