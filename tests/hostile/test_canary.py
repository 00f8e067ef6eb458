"""Nothing from a file is executed: each file carries a canary that would be there if it were.

Where there is an unsafe way to read the same file, it is taken too, in a process of its own: it
must bring the canary up, or the test shows nothing.
"""

from __future__ import annotations

import gzip
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx.external_data_helper import convert_model_to_external_data
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration

from genret_dask.clusters import load_cluster_spec
from genret_dask.cube.open import open_cube
from genret_dask.errors import CubeError, ModelError, SpecError
from genret_dask.exporters import export_model
from genret_dask.identifiers.embedding import SentenceEmbedding, embed
from genret_dask.inference.session import open_session
from genret_dask.models.configs import config_of, pretrained_tokenizer
from genret_dask.models.manifest import MANIFEST, hash_files, read_manifest
from genret_dask.specs import ModelSpec, PretrainedSpec, load_spec
from genret_dask.storage.arrays import read_array
from genret_dask.storage.records import dump_record, parse_record
from genret_dask.training.build import build_model
from tests.conftest import make_collection, make_model, random_codes
from tests.fits.conftest import write_law_cube


class Payload:
    """Pickles into a call that makes the canary."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple:
        return os.mkdir, (str(self.canary),)


@pytest.fixture
def canary(tmp_path) -> Path:
    return tmp_path / "canary"


def unsafe(code: str, *arguments: object) -> None:
    """Run code the unsafe way, elsewhere."""
    subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        check=False,
        capture_output=True,
        env={**os.environ, "NUMCODECS_ALLOW_UNSAFE_PICKLE_DECODE": "1"},
    )


def wakes(canary: Path) -> bool:
    """Whether the unsafe way brought the canary up; it is gone again afterwards."""
    found = canary.exists()
    if found:
        canary.rmdir() if canary.is_dir() else canary.unlink()
    return found


# --- YAML -------------------------------------------------------------------------------------


@pytest.mark.parametrize("load", [load_spec, load_cluster_spec])
def test_yaml_makes_no_objects(tmp_path, canary, load):
    path = tmp_path / "x.yaml"
    path.write_text(f"name: !!python/object/apply:os.mkdir ['{canary}']\n")
    unsafe("import sys, yaml; yaml.unsafe_load(open(sys.argv[1]))", path)
    assert wakes(canary)
    with pytest.raises(SpecError, match=r"line 1.*python/object/apply:os.mkdir"):
        load(path)
    assert not canary.exists()


@pytest.mark.parametrize(
    ("module", "name"), [("subprocess", "Popen"), ("os", "system"), ("builtins", "exec")]
)
def test_a_cluster_file_starts_clusters_only(tmp_path, canary, module, name):
    path = tmp_path / "cluster.yaml"
    path.write_text(f"module: {module}\nclass: {name}\nargs: ['mkdir {canary}']\n")
    with pytest.raises(SpecError, match="is not allowed"):
        load_cluster_spec(path)
    assert not canary.exists()


# --- arrays -----------------------------------------------------------------------------------


def write_pickled(path: Path, canary: Path) -> None:
    np.save(path, np.array([[Payload(canary)]], dtype=object), allow_pickle=True)


@pytest.mark.parametrize("mapped", [True, False])
def test_arrays_of_objects_are_not_read(tmp_path, canary, mapped):
    path = tmp_path / "candidates.npy"
    write_pickled(path, canary)
    unsafe("import sys, numpy; numpy.load(sys.argv[1], allow_pickle=True)", path)
    assert wakes(canary)
    with pytest.raises(ModelError, match="candidates.npy cannot be read"):
        read_array(path, mapped=mapped)
    path.write_bytes(pickle.dumps(Payload(canary)))
    with pytest.raises(ModelError, match="candidates.npy cannot be read"):
        read_array(path, mapped=mapped)
    np.savez(tmp_path / "z", a=np.zeros(2))
    shutil.move(tmp_path / "z.npz", path)
    with pytest.raises(ModelError, match="not hold an array"):
        read_array(path, mapped=mapped)
    assert not canary.exists()


# --- Hugging Face folders ---------------------------------------------------------------------


def write_folder(folder: Path, **config: object) -> Path:
    """A tiny T5 with its tokeniser."""
    T5ForConditionalGeneration(
        T5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    ).save_pretrained(folder)
    tokenizer = Tokenizer(models.WordLevel({"</s>": 0, "a": 1, "<unk>": 2}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>"
    ).save_pretrained(folder)
    change(folder / "config.json", **config)
    return folder


def change(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


def model_of(folder: Path) -> ModelSpec:
    return ModelSpec(family="t5", name="x", pretrained=PretrainedSpec(path=folder))


def build(spec: ModelSpec) -> tuple[Any, int]:
    tokenizer = pretrained_tokenizer(spec, spec.pretrained)
    return build_model(spec, tokenizer, 4, dropout=0.0, seed=0)


@pytest.mark.parametrize("beside", [False, True])
def test_a_pickled_checkpoint_is_not_read(tmp_path, canary, beside):
    folder = write_folder(tmp_path / "hf")
    torch.save({"shared.weight": Payload(canary)}, folder / "pytorch_model.bin")
    if beside:
        build(model_of(folder))
    else:
        unsafe(
            "import sys, torch; torch.load(sys.argv[1], weights_only=False)",
            folder / "pytorch_model.bin",
        )
        assert wakes(canary)
        (folder / "model.safetensors").unlink()
        with pytest.raises(ModelError, match="safetensors"):
            build(model_of(folder))
        with pytest.raises(ModelError, match="safetensors"):
            export_model("t5", folder, tmp_path / "onnx", start_token=3)
    assert not canary.exists()


EVIL = "import os\nos.mkdir({canary!r})\n"
CLASSES = """
from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
class Config(PretrainedConfig):
    model_type = "evil"
class Model(PreTrainedModel):
    config_class = Config
class Tok(PreTrainedTokenizerFast):
    pass
"""
AUTO = {
    "AutoConfig": "modeling.Config",
    "AutoModel": "modeling.Model",
    "AutoModelForSeq2SeqLM": "modeling.Model",
}


def write_custom_model(folder: Path, canary: Path, model_type: str) -> Path:
    write_folder(folder, model_type=model_type, auto_map=AUTO, architectures=["Model"])
    (folder / "modeling.py").write_text(EVIL.format(canary=str(canary)) + CLASSES)
    return folder


def test_code_of_a_model_folder_is_not_run(tmp_path, canary, monkeypatch):
    monkeypatch.setattr("builtins.input", lambda prompt: pytest.fail(f"asked: {prompt}"))
    folder = write_custom_model(tmp_path / "hf", canary, "evil")
    unsafe(
        "import sys; from transformers import AutoConfig\n"
        "AutoConfig.from_pretrained(sys.argv[1], trust_remote_code=True)",
        folder,
    )
    assert wakes(canary)
    spec, embedding = model_of(folder), SentenceEmbedding(kind="sentence", path=folder)
    for read in (
        lambda: config_of(spec),
        lambda: pretrained_tokenizer(spec, spec.pretrained),
        lambda: build(spec),
        lambda: embed(make_collection(2), embedding),
        lambda: export_model("t5", folder, tmp_path / "onnx", start_token=3),
        lambda: export_model("optimum", folder, tmp_path / "onnx", start_token=3),
    ):
        with pytest.raises(ModelError, match=r"custom code|cannot load"):
            read()
    assert not canary.exists()


def test_an_attention_kernel_of_the_hub_is_not_fetched(tmp_path):
    for key in ("_attn_implementation", "_attn_implementation_internal"):
        folder = write_folder(tmp_path / key, **{key: "someone/evil-kernel"})
        with pytest.raises(ModelError, match="kernel"):
            build(model_of(folder))


@pytest.mark.parametrize("content", ["noise", "huge", "template"])
def test_gguf_metadata_is_data(tmp_path, canary, content):
    path = tmp_path / "model.gguf"
    if content == "noise":
        path.write_bytes(b"GGUF" + os.urandom(4096))
    elif content == "huge":
        counts = np.array([2**62, 2**62], dtype="<u8").tobytes()
        path.write_bytes(b"GGUF" + np.array([3], dtype="<u4").tobytes() + counts)
    else:
        from gguf import GGUFWriter

        writer = GGUFWriter(path, "llama")
        writer.add_string(
            "tokenizer.chat_template",
            "{{ cycler.__init__.__globals__.os.mkdir('" + str(canary) + "') }}",
        )
        writer.add_string("general.name", "../../x")
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
    spec = ModelSpec(family="llama", name="x", pretrained=PretrainedSpec(gguf=path))
    with pytest.raises(ModelError, match="cannot load"):
        build(spec)
    assert not canary.exists()


# --- exported models --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("exported")
    return make_model("t5", random_codes(20, (3, 4), seed=0), root).folder


def rehash(folder: Path) -> None:
    """The manifest of an attacker who can write the folder."""
    path = folder / MANIFEST
    record = parse_record(path.read_bytes(), path)
    path.write_bytes(dump_record({**record, "files": hash_files(folder)}))


@pytest.mark.parametrize("where", ["parent", "absolute", "link", "attribute"])
def test_weights_outside_the_folder_are_not_read(tmp_path, exported, where):
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    outside = tmp_path / "secret.bin"
    model = onnx.load(folder / "step.onnx")
    names = {"parent": "../secret.bin", "absolute": str(outside), "link": "inside.bin"}
    convert_model_to_external_data(model, location="inside.bin", size_threshold=128)
    onnx.save(model, folder / "step.onnx")
    rehash(folder)
    if where == "attribute":
        model = onnx.load(folder / "step.onnx", load_external_data=False)
        tensor = onnx.TensorProto(
            name="c", dims=[1], data_type=1, data_location=onnx.TensorProto.EXTERNAL
        )
        tensor.external_data.add(key="location", value="../secret.bin")
        node = onnx.helper.make_node("Constant", [], ["unused"])
        node.attribute.append(onnx.helper.make_attribute("value", tensor))
        model.graph.node.append(node)
        outside.write_bytes(b"\0" * 4)
    else:
        shutil.move(folder / "inside.bin", outside)
        model = onnx.load(folder / "step.onnx", load_external_data=False)
        for item in model.graph.initializer:
            for entry in item.external_data:
                if entry.key == "location":
                    entry.value = names[where]
        if where == "link":
            (folder / "inside.bin").symlink_to(outside)
    onnx.save(model, folder / "step.onnx")
    rehash(folder)
    with pytest.raises(ModelError, match=r"reads its weights from|which is outside"):
        open_session(folder)


def test_a_graph_that_the_manifest_does_not_list_is_not_opened(tmp_path, exported):
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    shutil.copy(folder / "step.onnx", folder / "head.onnx")
    with pytest.raises(ModelError, match="head.onnx is not in the folder's manifest"):
        open_session(folder)


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "..\\x", "", "a\0"])
def test_a_manifest_names_files_inside_its_folder(tmp_path, exported, name):
    folder = Path(shutil.copytree(exported, tmp_path / "model"))
    path = folder / MANIFEST
    record = parse_record(path.read_bytes(), path)
    record["files"][name] = "0" * 64
    path.write_bytes(dump_record(record))
    with pytest.raises(ModelError, match="outside"):
        read_manifest(folder)


# --- the cube ---------------------------------------------------------------------------------


def test_a_cube_with_a_pickle_codec_is_not_read(tmp_path, canary):
    cube = write_law_cube(tmp_path / "run" / "cube.zarr", queries=4, shard=4)
    chunk = cube / "codes" / "search" / "query" / "c" / "0"
    chunk.write_bytes(pickle.dumps(Payload(canary)))
    unsafe("import sys, numcodecs; numcodecs.Pickle().decode(open(sys.argv[1],'rb').read())", chunk)
    assert wakes(canary)
    for path in (cube / "zarr.json", chunk.parents[1] / "zarr.json"):
        text = json.loads(path.read_text())
        array = text
        if "consolidated_metadata" in text:
            array = text["consolidated_metadata"]["metadata"]["codes/search/query"]
        array["codecs"] = [{"name": "numcodecs.pickle", "configuration": {}}]
        path.write_text(json.dumps(text))
    with pytest.raises(CubeError, match=r"UnknownCodecError|cannot be read"):
        open_cube(cube)["codes/search"]["query"].load()
    assert not canary.exists()


# --- sizes ------------------------------------------------------------------------------------


def test_a_gzip_bomb_is_read_as_a_stream(tmp_path):
    """Half a gigabyte of blanks in two megabytes: refused, in bounded memory, at a line's limit."""
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    with gzip.open(folder / "corpus.jsonl.gz", "wb", compresslevel=1) as file:
        for _ in range(512):
            file.write(b" " * 2**20)
    (folder / "queries.jsonl").write_text('{"_id": "q", "text": "x"}\n')
    (folder / "qrels" / "test.tsv").write_text("q\td\t1\n")
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from genret_dask.datasets import BeirDataset\n"
        "from genret_dask.errors import DatasetError\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: BeirDataset(path=Path(sys.argv[1])).load()\n"
        "except DatasetError as error: print(error)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    *message, kibibytes = done.stdout.strip().splitlines()
    assert "corpus.jsonl.gz, line 1" in message[0] and "longer than" in message[0]
    assert int(kibibytes) < 2**18
