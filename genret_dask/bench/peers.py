"""The code that a study would use instead: transformers' own search, and plain scoring loops."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from genret_dask.bench.workload import Workload

Prefixes = dict[int, Any]
"""A trie of nested dicts: token to the tokens that may follow it."""


def dict_trie(identifiers: Sequence[Sequence[int]]) -> Prefixes:
    """Identifiers as nested dicts, as generative-retrieval code commonly keeps them."""
    root: Prefixes = {}
    for identifier in identifiers:
        node = root
        for token in identifier:
            node = node.setdefault(token, {})
    return root


def allowed(root: Prefixes, prefix: Sequence[int]) -> list[int]:
    """Tokens that may follow a prefix; walks down from the root, as a callback must.

    A prefix of no identifier, to which `generate` comes where a beam has too few children, gets
    token 0: `generate` demands one, and its score stays minus infinity.
    """
    node = root
    for token in prefix:
        node = node.get(token, {})
    return list(node) or [0]


class Generate:
    """`transformers.generate` with `prefix_allowed_tokens_fn`.

    Parameters
    ----------
    workload : Workload
    batch : int
        Queries of one call to `generate`.
    """

    def __init__(self, workload: Workload, batch: int) -> None:
        self._workload, self.batch = workload, batch
        labels = workload.codes.tokens + workload.start_token + 1
        self._trie = dict_trie(labels.tolist())
        self._rows = {tuple(identifier): row for row, identifier in enumerate(labels.tolist())}

    def search(self, beam: int) -> tuple[np.ndarray, np.ndarray]:
        """Documents and their scores, each [query, rank]."""
        total = len(self._workload.tokens)
        parts = [
            self._generate(self._workload.tokens[start : start + self.batch], beam)
            for start in range(0, total, self.batch)
        ]
        doc, score = zip(*parts, strict=True)
        return np.concatenate(doc), np.concatenate(score)

    def _generate(self, queries: np.ndarray, beam: int) -> tuple[np.ndarray, np.ndarray]:
        workload = self._workload
        prompt, opening = torch.from_numpy(queries), 1
        if workload.kind == "decoder":
            start = torch.full((len(prompt), 1), workload.start_token)
            prompt, opening = torch.cat([prompt, start], dim=1), queries.shape[1] + 1
        prompt = prompt.to(workload.model.device)
        with torch.inference_mode():
            out = workload.model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                decoder_start_token_id=workload.start_token,
                num_beams=beam,
                num_return_sequences=beam,
                max_new_tokens=workload.codes.length,
                do_sample=False,
                length_penalty=0.0,
                eos_token_id=None,
                pad_token_id=0,
                prefix_allowed_tokens_fn=lambda _, ids: allowed(self._trie, ids.tolist()[opening:]),
                output_scores=True,
                return_dict_in_generate=True,
            )
        found = out.sequences[:, opening:].tolist()
        doc = np.array([self._rows.get(tuple(identifier), -1) for identifier in found])
        if beam == 1:  # a greedy search returns logits already restricted, and no score
            score = np.full(len(doc), np.nan)
        else:
            score = out.sequences_scores.double().cpu().numpy()
        shape = (len(queries), beam)
        return doc.reshape(shape), score.reshape(shape)


def score_documents(workload: Workload, documents: np.ndarray, batch: int) -> np.ndarray:
    """Score documents of a query in forward passes, each row of which has the query anew.

    Parameters
    ----------
    documents : int[query, candidate]
    batch : int
        Documents of one forward pass.

    Returns
    -------
    float32[query, candidate]
        Log-probability of the identifier.
    """
    scores = [
        _score(workload, query, found[start : start + batch])
        for query, found in zip(workload.tokens, documents, strict=False)
        for start in range(0, len(found), batch)
    ]
    return np.concatenate(scores).reshape(documents.shape)


def _score(workload: Workload, query: np.ndarray, documents: np.ndarray) -> np.ndarray:
    labels = torch.from_numpy(workload.codes.tokens[documents] + workload.start_token + 1)
    source = torch.from_numpy(np.tile(query, (len(labels), 1)))
    target = torch.cat([torch.full((len(labels), 1), workload.start_token), labels[:, :-1]], dim=1)
    device = workload.model.device
    source, target, labels = (array.to(device) for array in (source, target, labels))
    with torch.inference_mode():
        if workload.kind == "encoder-decoder":
            logits = workload.model(input_ids=source, decoder_input_ids=target).logits
        else:
            joined = torch.cat([source, target], dim=1)
            logits = workload.model(input_ids=joined, logits_to_keep=target.shape[1]).logits
        chosen = torch.log_softmax(logits.float(), dim=-1).gather(-1, labels[..., None])
        return chosen[..., 0].sum(dim=-1).cpu().numpy()
