"""Graphs in 16 and 8 bits: near float32, narrow where they should be, and refused where not."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from onnx import TensorProto

from genret_dask.errors import DeviceError, ModelError, ParityError
from genret_dask.exporters import export_model, head
from genret_dask.exporters.parity import TOLERANCES, session_on_cpu
from genret_dask.inference.beam import search
from genret_dask.inference.score import score
from genret_dask.inference.session import open_session
from genret_dask.models.manifest import read_manifest
from tests.conftest import TEXT_ROWS, TinyModel
from tests.exporters.test_exporters import (
    MODELS,
    START,
    VOCAB,
    save,
    tiny_gpt2,
    tiny_llama,
    tiny_t5,
)

# Root mean square difference in log-probability, as a share of the logits' spread; two models of
# other weights are 1.4 apart.
CLOSE = {"fp16": 0.01, "bf16": 0.1, "int8": 0.4}
REDUCED = tuple(CLOSE)
BEAM_NATIVE = {
    name: MODELS[name]  # positions and activations make no difference here
    for name in ("t5-relu-tied", "t5-gated-untied", "llama-tied", "llama-gqa-untied")
}


@pytest.fixture(scope="module", params=BEAM_NATIVE)
def folders(request, tmp_path_factory) -> dict[str, Path]:
    """One checkpoint in every precision."""
    family, build = BEAM_NATIVE[request.param]
    root = tmp_path_factory.mktemp(request.param)
    checkpoint = save(build(), root / "hf")
    found = {}
    for precision in ("fp32", *REDUCED):
        found[precision] = root / precision
        export_model(family, checkpoint, found[precision], start_token=START, precision=precision)
    return found


def walk(session, queries=slice(None), width=12):
    """Logits and log-partitions of a seeded walk over three steps, for some of four queries."""
    rng = np.random.default_rng(3)
    tokens = rng.integers(0, VOCAB, (4, 12))[queries, :width]
    lengths = np.array([12, 3, 7, 1])[queries]
    state, logits, partitions = session.prefill(tokens, lengths), [], []
    for step, beams in enumerate((1, 3, 5)):
        new = rng.integers(0, VOCAB, (4, beams))[queries]
        parents = rng.integers(0, (1, 1, 3)[step], (4, beams))[queries]
        new = np.full_like(new, START) if step == 0 else new
        found, partition, state = session.step(state, new, parents, (0, VOCAB))
        logits.append(found)
        partitions.append(partition)
    return np.concatenate(logits, axis=1), np.concatenate(partitions, axis=1)


def walk_on_cpu(folder: Path):
    with session_on_cpu(folder, read_manifest(folder)) as session:
        return walk(session)


def log_probability(found):
    logits, partition = found
    return logits - partition[..., None]


def distance(found, expected) -> float:
    return np.sqrt(np.mean((found - expected) ** 2)) / expected.std()


def initializers(path: Path) -> dict[str, onnx.TensorProto]:
    return {t.name: t for t in onnx.load(path, load_external_data=False).graph.initializer}


def nodes(path: Path) -> list[onnx.NodeProto]:
    return list(onnx.load(path, load_external_data=False).graph.node)


@pytest.mark.parametrize("precision", REDUCED)
def test_log_probabilities_are_near_those_of_float32(folders, precision):
    exact = log_probability(walk(open_session(folders["fp32"])))
    reduced = log_probability(walk_on_cpu(folders[precision]))
    assert 0 < distance(reduced, exact) < CLOSE[precision]


@pytest.mark.parametrize("precision", ("fp32", *REDUCED))
def test_no_token_has_a_loss_below_zero(precision, tmp_path, monkeypatch):
    monkeypatch.setattr(head, "_TILE", 16)
    torch.manual_seed(0)
    model = tiny_llama(2, False)
    with torch.no_grad():
        model.lm_head.weight *= 1000  # nearly all mass on one row
    model.save_pretrained(tmp_path / "hf")
    export_model(
        "llama",
        tmp_path / "hf",
        tmp_path / "onnx",
        start_token=START,
        precision=precision,
        tolerance=1000.0,
    )
    with session_on_cpu(tmp_path / "onnx", read_manifest(tmp_path / "onnx")) as session:
        tokens = np.random.default_rng(0).integers(0, VOCAB, (64, 4))
        state = session.prefill(tokens, np.full(64, 4))
        start = np.full((64, 1), START)
        for rows in ((0, VOCAB), (10, 30), (57, 58)):
            logits, partition, _ = session.step(state, start, start * 0, rows)
            assert (partition[..., None] - logits).min() > -1e-3


@pytest.mark.parametrize("precision", REDUCED)
def test_the_manifest_records_precision_and_parity(folders, precision):
    exact, manifest = read_manifest(folders["fp32"]), read_manifest(folders[precision])
    assert (exact.precision, manifest.precision) == ("fp32", precision)
    assert manifest.parity.tolerance == TOLERANCES[precision]
    assert exact.parity.max_difference < manifest.parity.max_difference
    assert manifest.n_params == exact.n_params
    assert set(manifest.files) == set(exact.files)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_results_are_not_on_a_grid_of_16_bits(folders, precision):
    dropped = {"fp16": 13, "bf16": 16}[precision]  # bits of float32 that 16 bits do not have
    for found in walk_on_cpu(folders[precision]):
        assert found.dtype == np.float32
        assert (found.view(np.uint32) & (2**dropped - 1) != 0).mean() > 0.9


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_weights_of_products_and_states_have_16_bits_but_not_wo(folders, precision):
    kind = {"fp16": TensorProto.FLOAT16, "bf16": TensorProto.BFLOAT16}[precision]
    for name in ("prefill.onnx", "step.onnx"):
        constants = initializers(folders[precision] / name)
        weights = [n.input[1] for n in nodes(folders[precision] / name) if n.op_type == "MatMul"]
        weights = [weight for weight in weights if weight in constants]
        assert weights
        for weight in weights:
            wide = weight.endswith(".wo")
            assert constants[weight].data_type == (TensorProto.FLOAT if wide else kind)
        graph = onnx.load(folders[precision] / name, load_external_data=False).graph
        states = [v for v in (*graph.input, *graph.output) if "_key_" in v.name]
        assert {value.type.tensor_type.elem_type for value in states} == {kind}


def test_t5_whose_wo_passes_the_range_of_float16_is_exported(tmp_path):
    model = tiny_t5("relu", True)
    checkpoint = save(model, tmp_path / "hf")
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(".wo.weight"):
                parameter *= 1e6
    model.save_pretrained(checkpoint)
    made = export_model("t5", checkpoint, tmp_path / "x", start_token=START, precision="fp16")
    assert made.parity.max_difference < TOLERANCES["fp16"]


def test_what_overflows_is_not_published(tmp_path):
    model = tiny_llama(4, True)
    checkpoint = save(model, tmp_path / "hf")
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight *= 1e6
    model.save_pretrained(checkpoint)
    with pytest.raises(ParityError, match="in fp16 differ from PyTorch by nan"):
        export_model("llama", checkpoint, tmp_path / "x", start_token=START, precision="fp16")
    assert not (tmp_path / "x").exists()


# --- int8 ---------------------------------------------------------------------------------------


def test_every_weight_of_a_product_is_quantised_and_no_activation(folders):
    for name in ("prefill.onnx", "step.onnx"):
        constants = initializers(folders["fp32"] / name)
        products = [n for n in nodes(folders["fp32"] / name) if n.op_type in ("MatMul", "Gemm")]
        with_weight = [node for node in products if node.input[1] in constants]
        kinds = [node.op_type for node in nodes(folders["int8"] / name)]
        assert kinds.count("MatMulIntegerToFloat") == len(with_weight) > 0
        assert kinds.count("MatMul") == len(products) - len(with_weight)
        assert not {"DynamicQuantizeLinear", "MatMulInteger", "Gemm"} & set(kinds)
    name = "head.onnx" if (folders["fp32"] / "head.onnx").exists() else "step.onnx"
    head = [n for n in nodes(folders["fp32"] / name) if n.op_type == "Gemm"][-1].input[1]
    (quantised,) = [
        tensor
        for name, tensor in initializers(folders["int8"] / name).items()
        if name.startswith(head) and name.endswith("_quantized")
    ]
    assert quantised.data_type == TensorProto.INT8
    assert sorted(quantised.dims) == sorted([VOCAB, 16])


def test_quantised_weights_keep_to_seven_bits(folders):
    graph = onnx.load(folders["int8"] / "step.onnx").graph
    integers = [t for t in graph.initializer if t.data_type == TensorProto.INT8 and len(t.dims) > 1]
    largest = [int(np.abs(onnx.numpy_helper.to_array(tensor)).max()) for tensor in integers]
    assert largest and max(largest) == 64


def test_a_quantised_folder_stands_alone(folders, tmp_path):
    (tmp_path / "moved").mkdir()
    for path in folders["int8"].iterdir():
        (tmp_path / "moved" / path.name).write_bytes(path.read_bytes())
    expected = walk(open_session(folders["int8"]))
    for found, wanted in zip(walk(open_session(tmp_path / "moved")), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    for name in ("prefill.onnx", "step.onnx"):
        places = {
            entry.value
            for tensor in initializers(folders["int8"] / name).values()
            for entry in tensor.external_data
            if entry.key == "location"
        }
        assert places == {"weights.bin"}


def test_quantised_scores_do_not_depend_on_batch_mates_or_padding(folders):
    session = open_session(folders["int8"])
    together = log_probability(walk(session))
    alone = log_probability(walk(session, [1], width=3))
    # With one scale a tensor, as optimum has it, these differ by 0.02 to 0.4.
    np.testing.assert_allclose(alone[0], together[1], atol=2e-3)


def test_optimum_exports_in_fp32_and_int8_alone(tmp_path):
    checkpoint = save(tiny_gpt2(), tmp_path / "hf")
    made = export_model("optimum", checkpoint, tmp_path / "x", start_token=START, precision="int8")
    assert made.precision == "int8"
    assert made.parity.max_difference < 1
    kinds = [node.op_type for node in nodes(tmp_path / "x" / "model.onnx")]
    assert kinds.count("MatMulIntegerToFloat") == 2 * 4  # the tied head is transposed in the graph
    with pytest.raises(ModelError, match="does not export in bf16"):
        export_model("optimum", checkpoint, tmp_path / "y", start_token=START, precision="bf16")


# --- where they run -----------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "provider"), [("bf16", "cpu"), ("int8", "cuda")])
def test_a_precision_that_the_provider_cannot_run_is_refused(folders, precision, provider):
    with pytest.raises(DeviceError, match=f"in {precision}, which provider '{provider}'"):
        open_session(folders[precision], provider=provider)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_a_gpu_gives_what_the_cpu_gives(folders, precision):
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        pytest.skip("no CUDA provider")
    exact = log_probability(walk(open_session(folders["fp32"], provider="cuda")))
    found = log_probability(walk(open_session(folders[precision], provider="cuda")))
    expected = log_probability(walk_on_cpu(folders[precision]))
    # The CPU widens to float32 between operators; a GPU rounds every one of them.
    assert distance(found, exact) < 2 * CLOSE[precision]
    assert distance(found, expected) < 2 * CLOSE[precision]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_search_returns_documents_whose_scores_are_those_of_teacher_forcing(
    tiny: TinyModel, precision, tmp_path
):
    export_model(
        tiny.family,
        tiny.folder.parent / "hf",
        tmp_path / "x",
        start_token=TEXT_ROWS,
        precision=precision,
    )
    session = open_session(tmp_path / "x")
    rng = np.random.default_rng(0)
    tokens, lengths = rng.integers(0, TEXT_ROWS, (3, 6)), np.array([6, 2, 4])
    found = search(session, tiny.codes.trie, tiny.vocabulary, tokens, lengths, (2, 20))
    assert (found.doc[:, 1] >= 0).all()
    assert (np.diff(found.score[:, 1], axis=-1) <= 0).all()
    assert all(len(set(ranking)) == 20 for ranking in found.doc[:, 1].tolist())
    paths = tiny.codes.paths(found.doc[:, 1])
    logit, partition = score(session, tiny.vocabulary, tokens, lengths, paths)
    np.testing.assert_allclose((logit - partition).sum(axis=-1), found.score[:, 1], atol=1e-2)
