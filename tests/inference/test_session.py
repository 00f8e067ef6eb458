"""How sessions are opened, and what they refuse; their numbers are tested with the exporters."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from transformers import T5Config, T5ForConditionalGeneration

from genret_dask.errors import DeviceError
from genret_dask.exporters import export_model
from genret_dask.inference.session import open_session

VOCAB = 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("session")
    torch.manual_seed(0)
    config = T5Config(vocab_size=VOCAB, d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(root / "hf")
    export_model("t5", root / "hf", root / "onnx", start_token=1)
    return root / "onnx"


def test_importing_and_opening_need_no_torch(folder):
    code = (
        "import sys; from genret_dask.inference.session import open_session;"
        f"open_session({str(folder)!r}); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_missing_cuda_raises(folder, monkeypatch):
    monkeypatch.setattr(ort, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="'cuda' is not in this onnxruntime") as error:
        open_session(folder, provider="cuda")
    assert "cpu" in error.value.expected
    with pytest.raises(DeviceError, match="'tpu'"):
        open_session(folder, provider="tpu")


def test_a_silent_fallback_raises(folder, monkeypatch):
    monkeypatch.setattr(
        ort, "get_available_providers", lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]
    )
    real = ort.InferenceSession

    def falls_back(path, sess_options, providers):
        return real(path, sess_options=sess_options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(ort, "InferenceSession", falls_back)
    with pytest.raises(DeviceError, match="could not start CUDAExecutionProvider"):
        open_session(folder, provider="cuda")


def test_options_reach_onnxruntime(folder):
    session = open_session(folder, threads=2)
    options = session._step.get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1
    assert options.execution_mode == ort.ExecutionMode.ORT_SEQUENTIAL
    assert options.use_deterministic_compute


def test_a_session_does_not_pickle(folder):
    with pytest.raises(TypeError):
        pickle.dumps(open_session(folder))


def test_wrong_shapes_and_ranges_are_refused(folder):
    session = open_session(folder)
    tokens = np.zeros((2, 3), dtype=np.int64)
    for lengths in ([1], [0, 3], [1, 4]):
        with pytest.raises(ValueError, match="length"):
            session.prefill(tokens, np.array(lengths))
    state = session.prefill(tokens, np.array([1, 3]))
    one = np.zeros((2, 1), dtype=np.int64)
    with pytest.raises(ValueError, match="parents must be"):
        session.step(state, one, one + 1, (0, 1))
    with pytest.raises(ValueError, match="queries"):
        session.step(state, one[:1], one[:1], (0, 1))
    for rows in ((3, 3), (0, VOCAB + 1), (-1, 2)):
        with pytest.raises(ValueError, match="rows"):
            session.step(state, one, one, rows)
    _, _, state = session.step(state, np.ones((2, 4)), np.zeros((2, 4)), (0, 1))
    logits, partition, _ = session.step(state, one, one + 3, (0, VOCAB))
    assert logits.shape == (2, 1, VOCAB)
    assert partition.shape == (2, 1)
