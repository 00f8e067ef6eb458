"""The session of a generic decoder graph with past keys and values, as `optimum` exports it.

The prompt's keys and values are copied for every beam: slower than a beam-native graph, but it
serves any causal family.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genret_dask.errors import ModelError
from genret_dask.inference.graph import check_prompt, check_step, open_graph
from genret_dask.models.manifest import Manifest
from genret_dask.monitoring.meter import count, phase


@dataclass(frozen=True)
class PastState:
    """Keys and values of each row, the prompt's padding included."""

    lengths: np.ndarray
    width: int
    past: tuple[np.ndarray, ...]
    beams: int


class PastSession:
    """One graph, `model.onnx`, whose past is gathered by parents outside of it."""

    def __init__(self, folder: Path, manifest: Manifest, provider: str, threads: int) -> None:
        self.manifest = manifest
        self._graph = open_graph(folder / "model.onnx", provider, threads)
        inputs = {value.name: value for value in self._graph.get_inputs()}
        self._past = {n: v for n, v in inputs.items() if n.startswith("past_key_values.")}
        known = {"input_ids", "attention_mask", "position_ids", *self._past}
        if set(inputs) - known or not self._past:
            raise ModelError(
                f"{folder / 'model.onnx'} has inputs {', '.join(inputs)}",
                expected="input_ids, attention_mask, position_ids and past_key_values",
            )
        self._has_positions = "position_ids" in inputs
        self._present = [name.replace("past_key_values", "present") for name in self._past]

    @phase("prefill")
    def prefill(self, tokens: np.ndarray, lengths: np.ndarray) -> PastState:
        """See `Session.prefill`."""
        tokens, lengths = check_prompt(tokens, lengths)
        count("prefill", lengths.sum(), "tokens")
        places = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
        mask = places < lengths[:, None]
        if not self._has_positions:
            # Such a graph counts from the first column: what it attends to stands side by side.
            mask = mask[:, ::-1]
            moved = places - (tokens.shape[1] - lengths[:, None])
            tokens = np.take_along_axis(tokens, np.maximum(moved, 0), axis=1)
        empty = tuple(
            np.zeros((len(tokens), value.shape[1], 0, value.shape[3]), dtype=np.float32)
            for value in self._past.values()
        )
        _, past = self._run(tokens, mask, places, empty)
        return PastState(lengths, tokens.shape[1], past, 1)

    @phase("step")
    def step(
        self, state: PastState, tokens: np.ndarray, parents: np.ndarray, rows: tuple[int, int]
    ) -> tuple[np.ndarray, np.ndarray, PastState]:
        """See `Session.step`."""
        queries = len(state.lengths)
        tokens, flat = check_step(
            tokens, parents, rows, queries, state.beams, self.manifest.vocab_size
        )
        past = tuple(value[flat] for value in state.past)
        lengths = np.repeat(state.lengths, tokens.shape[1])[:, None]
        places = np.arange(past[0].shape[2] + 1)
        padding = state.width - lengths
        mask = (places < lengths) | (places >= state.width)
        if not self._has_positions:
            mask = places >= padding
        positions = past[0].shape[2] - padding
        logits, grown = self._run(tokens.reshape(-1, 1), mask, positions, past)
        scores = logits[:, -1].reshape(*tokens.shape, -1)
        highest = scores.max(axis=-1)
        partition = np.log(np.exp(scores - highest[..., None]).sum(axis=-1)) + highest
        new = PastState(state.lengths, state.width, grown, tokens.shape[1])
        return scores[..., rows[0] : rows[1]].copy(), partition, new

    def _run(
        self,
        tokens: np.ndarray,
        mask: np.ndarray,
        positions: np.ndarray,
        past: tuple[np.ndarray, ...],
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...]]:
        feed = {"input_ids": tokens, "attention_mask": mask.astype(np.int64)}
        if self._has_positions:
            feed["position_ids"] = np.ascontiguousarray(positions, dtype=np.int64)
        feed |= zip(self._past, past, strict=True)
        logits, *grown = self._graph.run(["logits", *self._present], feed)
        return logits, tuple(grown)
