"""The check that ends every export: the graphs against PyTorch, on a seeded random walk."""

from __future__ import annotations

import logging
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper

from genret_dask.errors import ParityError
from genret_dask.inference.session import BeamSession, Session, session_for
from genret_dask.models.manifest import Manifest, Parity
from genret_dask.specs import PROVIDERS, Precision

logger = logging.getLogger(__name__)

TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "fp16": 0.25, "bf16": 2.0, "int8": 5.0}
"""Largest accepted |difference| in log-probability, in nats.

Of fp32 it bounds what the graphs compute. The others bound rounding, which grows with the depth of
a model and the spread of its logits: the worst of 10^5 log-probabilities was, in trained models of
10^6 parameters whose logits spread by 1.5 to 2 nats, 0.006 in fp16, 0.14 in bf16 and 0.63 in int8;
in an untrained one whose logits spread by 11, 0.03, 0.44 and 2.2. Graphs of other weights differ by
six spreads or more, and what overflows is no number.
"""

LENGTHS = (1, 4, 17)
BEAMS = (1, 3, 4, 4, 2)
ROWS = 4096
"""Vocabulary rows compared a step; the block is drawn at random."""


def check_parity(session: Session, model: Any, *, tolerance: float) -> Parity:
    """Walk `prefill` and `step` over random queries, beams and parents, and compare.

    Parameters
    ----------
    session : Session
        The exported graphs.
    model : transformers.PreTrainedModel
        The same weights in PyTorch, float32, in evaluation mode. It computes in float64 here, so
        that the difference is the graphs' own error: a deep model's float32 error is as large.
    tolerance : float
        Largest accepted |difference| in log-probability, in nats.

    Raises
    ------
    ParityError
        The difference is larger, or not a number.
    """
    try:
        worst, compared = _largest_difference(session, model.double())
    finally:
        model.float()
    family, precision = session.manifest.family, session.manifest.precision
    logger.info("parity: max |difference| %.2e in %d log-probabilities", worst, compared)
    if not worst <= tolerance:
        raise ParityError(
            f"the exported {family} graphs in {precision} differ from PyTorch by {worst:.2e} "
            "in log-probability",
            expected=f"at most {tolerance:.2e}",
            fix="nothing was published; "
            + (
                "raise export.tolerance only if you know why they differ"
                if precision == "fp32"
                else "export the model in a precision of more bits"
            ),
        )
    return Parity(max_difference=worst, tolerance=tolerance, compared=compared)


def _largest_difference(session: Session, model: Any) -> tuple[float, int]:
    """The largest |difference|, and how many log-probabilities were compared."""
    manifest = session.manifest
    rng = np.random.default_rng(0)
    vocab, queries = manifest.vocab_size, len(LENGTHS)
    tokens = rng.integers(0, vocab, (queries, max(LENGTHS)))
    state = session.prefill(tokens, np.array(LENGTHS))
    prefixes = np.zeros((queries, 1, 0), dtype=np.int64)
    worst, compared = 0.0, 0
    for step, beams in enumerate(BEAMS):
        parents = rng.integers(0, prefixes.shape[1], (queries, beams))
        new = rng.integers(0, vocab, (queries, beams))
        if step == 0:
            new[:] = manifest.start_token
        prefixes = np.take_along_axis(prefixes, parents[..., None], axis=1)
        prefixes = np.concatenate([prefixes, new[..., None]], axis=-1)
        start = int(rng.integers(0, max(1, vocab - ROWS + 1)))
        rows = (start, min(vocab, start + ROWS))
        logits, partition, state = session.step(state, new, parents, rows)
        ours = logits.astype(np.float64) - partition[..., None]
        for query, length in enumerate(LENGTHS):
            kind, asked = manifest.architecture.kind, tokens[query, :length]
            theirs = log_probabilities(model, kind, asked, prefixes[query])
            difference = np.abs(ours[query] - theirs[:, -1, rows[0] : rows[1]]).max()
            worst = float(np.maximum(worst, difference))  # keeps a NaN
            compared += ours[query].size
    return worst, compared


def log_probabilities(model: Any, kind: str, query: np.ndarray, prefixes: np.ndarray) -> np.ndarray:
    """Teacher-forced log-probabilities of one query's prefixes.

    Parameters
    ----------
    query : int64[length]
    prefixes : int64[rows, steps]
        Decoder inputs, the start token first.

    Returns
    -------
    float64[rows, steps, vocabulary]
    """
    source = torch.from_numpy(np.tile(query, (len(prefixes), 1)))
    target = torch.from_numpy(prefixes)
    with torch.inference_mode():
        if kind == "encoder-decoder":
            logits = model(input_ids=source, decoder_input_ids=target).logits
        else:
            logits = model(input_ids=torch.cat([source, target], dim=1)).logits
            logits = logits[:, len(query) :]
    return torch.log_softmax(logits.double(), dim=-1).numpy()


@contextmanager
def session_on_cpu(folder: Path, manifest: Manifest) -> Iterator[Session]:
    """A session of graphs of any precision on the CPU.

    ONNX Runtime has no bfloat16 product there. A copy of the graphs multiplies the same bfloat16
    operands in float32 and rounds the result to bfloat16, as a GPU does.
    """
    if "cpu" in PROVIDERS[manifest.precision]:
        yield session_for(folder, manifest)
        return
    with tempfile.TemporaryDirectory(prefix=".cpu.", dir=folder.parent) as copy:
        shutil.copytree(folder, copy, dirs_exist_ok=True)
        for path in Path(copy).glob("*.onnx"):
            _widen_products(path)
        yield BeamSession(Path(copy), manifest, "cpu", threads=1)


def _widen_products(path: Path) -> None:
    """Put casts around the bfloat16 products of a graph."""
    model = onnx.load(path, load_external_data=False)
    graph = onnx.shape_inference.infer_shapes(model).graph
    kinds = {value.name: value.type.tensor_type.elem_type for value in graph.value_info}
    nodes: list[onnx.NodeProto] = []
    for node in model.graph.node:
        nodes.append(node)
        result = node.output[0]
        if node.op_type not in ("MatMul", "Gemm") or kinds.get(result) != TensorProto.BFLOAT16:
            continue
        inputs = [f"{result}/{i}" for i in range(len(node.input))]
        nodes[-1:] = [
            *(
                helper.make_node("Cast", [value], [wide], to=TensorProto.FLOAT)
                for value, wide in zip(node.input, inputs, strict=True)
            ),
            node,
            helper.make_node("Cast", [f"{result}/wide"], [result], to=TensorProto.BFLOAT16),
        ]
        node.input[:], node.output[:] = inputs, [f"{result}/wide"]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    path.write_bytes(model.SerializeToString())
