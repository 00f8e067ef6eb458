"""A sweep's YAML: what is valid is read, what is not is named."""

from __future__ import annotations

import pytest
import yaml
from pydantic import ValidationError

from genret_dask.datasets import BeirDataset, PydocDataset
from genret_dask.errors import SpecError
from genret_dask.models.families import family_of
from genret_dask.specs import ModelSpec, SweepSpec, load_spec


@pytest.fixture
def load(tmp_path):
    def write(content):
        path = tmp_path / "sweep.yaml"
        path.write_text(content if isinstance(content, str) else yaml.safe_dump(content))
        return load_spec(path)

    return write


def refused(load, content):
    with pytest.raises(SpecError) as caught:
        load(content)
    assert caught.value.exit_code == 2
    assert "sweep.yaml" in caught.value.found
    return str(caught.value)


def test_nothing_given_is_the_default_study(load):
    spec = load("")
    assert spec == SweepSpec()
    assert isinstance(spec.dataset, PydocDataset)
    assert {model.family for model in spec.models} == {"t5", "llama"}
    assert spec.inference.beams == (1, 2, 5, 10, 20, 50, 100)


def test_a_full_file_is_read(load):
    spec = load(
        {
            "name": "squad",
            "seed": 7,
            "dataset": {"kind": "beir", "path": "data/squad-dev"},
            "identifiers": {"codes": 64, "embedding": {"kind": "tfidf", "dim": 32}},
            "models": [{"family": "t5", "size": "nano", "fractions": [0.5, 1]}],
            "inference": {"beams": [10, 1, 10], "negatives": 16},
        }
    )
    assert isinstance(spec.dataset, BeirDataset)
    assert spec.identifiers[0].embedding.dim == 32
    assert spec.inference.beams == (1, 10)
    assert spec.models == (ModelSpec(family="t5", size="nano", fractions=(0.5, 1.0)),)


@pytest.mark.parametrize(("memory", "size"), [(None, None), ("4GB", 4 * 10**9), ("512 MiB", 2**29)])
def test_memory_is_a_size(load, memory, size):
    assert load({"inference": {"memory": memory}}).inference.memory_bytes == size


def test_specs_are_frozen():
    with pytest.raises(ValidationError):
        SweepSpec().seed = 1


@pytest.mark.parametrize(
    ("content", "key", "valid"),
    [
        ({"sead": 1}, "sead", "seed"),
        ({"inference": {"beam": [1]}}, "inference.beam", "beams"),
        ({"dataset": {"kind": "beir", "path": "x", "pth": 1}}, "pth", "allow_unknown_ids"),
        ({"identifiers": {"embedding": {"kind": "tfidf", "dims": 1}}}, "dims", "dim"),
        ({"models": [{"family": "t5", "size": "nano", "sise": 1}]}, "sise", "fractions"),
        ({"training": {"pairs": {"query": True}}}, "training.pairs.query", "queries"),
    ],
)
def test_unknown_key_is_named_with_the_valid_ones(load, content, key, valid):
    message = refused(load, content)
    found, expected = message.split("expected:")
    assert "unknown key" in found and key in found
    assert valid in [word.strip(" ,") for word in expected.split()]


def test_a_misspelt_name_is_told_from_what_was_meant(load):
    said = refused(load, {"inferrence": {}})
    assert "unknown key inferrence; did you mean inference?" in said
    assert "did you mean titles?" in refused(load, {"identifiers": [{"kind": "title"}]})
    with pytest.raises(SpecError, match="did you mean llama?"):
        family_of("lama")


@pytest.mark.parametrize(
    ("content", "key"),
    [
        ({"inference": {"beams": [0]}}, "inference.beams"),
        ({"inference": {"beams": []}}, "at least one beam"),
        ({"inference": {"beams": [-5, 1]}}, "inference.beams"),
        ({"inference": {"beams": "ten"}}, "inference.beams"),
        ({"inference": {"negatives": 0}}, "inference.negatives"),
        ({"inference": {"provider": "tpu"}}, "inference.provider"),
        ({"inference": {"threads": 0}}, "inference.threads"),
        ({"inference": {"memory": "much"}}, "4GB or 512MiB"),
        ({"inference": {"memory": "1kB"}}, "1 MiB or more"),
        ({"inference": {"memory": 4e9}}, "inference.memory"),
        ({"seed": -1}, "seed"),
        ({"seed": "one"}, "seed"),
        ({"seed": True}, "seed is true; expected a number"),
        ({"training": {"learning_rate": False}}, "learning_rate is false; expected a number"),
        ({"inference": {"beams": 10}}, "should be a list, such as [1, 10]"),
        ({"name": "a/b"}, "name"),
        ({"dataset": {"kind": "msmarco"}}, "dataset"),
        ({"dataset": {"path": "x"}}, "dataset"),
        ({"models": []}, "at least one model"),
        ({"models": [{"family": "t5"}]}, "exactly one of size, config, pretrained and checkpoint"),
        ({"models": [{"family": "t5", "size": "a", "fractions": [0.0]}]}, "fractions"),
        ({"models": [{"family": "t5", "size": "a", "fractions": [1, 1]}]}, "distinct"),
        ({"models": [{"family": "t5", "size": "a", "training": {"lr": 1}}]}, "learning_rate"),
        (
            {"models": [{"family": "t5", "size": "a", "training": {"examples": -1}}]},
            "training.examples",
        ),
        ({"models": [{"family": "t5", "size": "a"}] * 2}, "t5-a"),
        ({"models": [{"family": "t5", "config": {}}]}, "needs a name"),
        ({"training": {"dropout": 1.0}}, "training.dropout"),
    ],
)
def test_wrong_value_is_named(load, content, key):
    assert key in refused(load, content)


def test_pretrained_hub_weights_need_a_revision(load):
    model = {"family": "llama", "name": "x", "pretrained": {"hub": "org/model"}}
    assert "revision" in refused(load, {"models": [model]})
    model["pretrained"]["revision"] = "abc"
    assert load({"models": [model]}).models[0].label == "x"


def test_several_problems_come_together(load):
    message = refused(load, {"sead": 1, "inference": {"negatives": 0}})
    assert "sead" in message and "inference.negatives" in message


@pytest.mark.parametrize("content", ["a: [1", "key: value: value", "\t- x", "- 1\n- 2", "words"])
def test_not_a_yaml_mapping(load, content):
    refused(load, content)


def test_yaml_tags_build_no_objects(load):
    refused(load, "name: !!python/object/apply:os.getcwd []")


def test_not_text(tmp_path):
    path = tmp_path / "sweep.yaml"
    path.write_bytes(b"\xff\xfe\x00name")
    with pytest.raises(SpecError, match="not YAML"):
        load_spec(path)


def test_missing_file(tmp_path):
    with pytest.raises(SpecError, match="absent.yaml"):
        load_spec(tmp_path / "absent.yaml")


def test_precisions_are_kept_with_fp32_first(load):
    assert SweepSpec().export.precision == ("fp32",)
    assert load({"export": {"precision": ["int8", "fp32"]}}).export.precision == ("fp32", "int8")
    cuda = {"export": {"precision": ["bf16", "fp16"]}, "inference": {"provider": "cuda"}}
    assert load(cuda).export.precision == ("bf16", "fp16")


@pytest.mark.parametrize("precision", [[], ["fp32", "fp32"]])
def test_precisions_are_distinct_and_some(load, precision):
    assert "distinct and not empty" in refused(load, {"export": {"precision": precision}})


def test_an_unknown_precision_is_named_with_those_there_are(load):
    message = refused(load, {"export": {"precision": ["fp8"]}})
    assert "export.precision.0" in message and "'bf16'" in message


@pytest.mark.parametrize(("precision", "provider"), [("int8", "cuda"), ("bf16", "cpu")])
def test_a_precision_that_the_provider_cannot_run_is_refused(load, precision, provider):
    content = {"export": {"precision": ["fp32", precision]}, "inference": {"provider": provider}}
    expected = f"export.precision {precision} does not run with inference.provider {provider}"
    assert expected in refused(load, content)


def test_a_precision_cannot_take_another_models_name(load):
    models = [{"family": "t5", "size": "nano", "name": name} for name in ("a", "a.int8")]
    assert "share a name: a.int8" in refused(
        load, {"models": models, "export": {"precision": ["fp32", "int8"]}}
    )
