"""Artefacts are complete or absent, and know what they were made from."""

from __future__ import annotations

import json

import pytest

from genret_dask.errors import GenretError, ModelError, StaleError
from genret_dask.storage.artefacts import fetched, is_current, publishing, verify
from genret_dask.storage.fingerprint import Origin
from genret_dask.storage.records import dump_record, parse_record, read_record

X = Origin("thing", {"rate": 0.002, "layers": [1, 2], "model": {"size": "nano"}})


def test_published_once_whole(tmp_path):
    folder = tmp_path / "a" / "thing"
    assert not is_current(folder, X)
    with publishing(folder, X, colour="red") as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "file").write_text("1")
        assert not folder.exists()
    assert is_current(folder, X)
    assert verify(folder)["colour"] == "red"
    assert list(read_record(folder / "artefact.json")["files"]) == ["deep/file"]
    assert fetched(folder) == folder


def test_a_failure_publishes_nothing_and_leaves_nothing(tmp_path):
    folder = tmp_path / "thing"
    with pytest.raises(RuntimeError), publishing(folder, X) as partial:
        (partial / "half").write_text("1")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with publishing(folder, X) as partial:
        assert not list(partial.iterdir())
    assert is_current(folder, X)


def test_the_last_of_two_writers_wins_whole(tmp_path):
    folder = tmp_path / "thing"
    with publishing(folder, X) as first:
        with publishing(folder, X) as second:
            (second / "file").write_text("2")
        assert (folder / "file").read_text() == "2"
        (first / "file").write_text("1")
    assert (folder / "file").read_text() == "1" and verify(folder)
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]


def test_other_inputs_are_refused_and_named(tmp_path):
    with publishing(tmp_path / "thing", X):
        pass
    parts = {"rate": 0.001, "layers": [1, 2, 3], "model": {"size": "nano"}, "seed": 1}
    with pytest.raises(StaleError) as error:
        is_current(tmp_path / "thing", Origin("thing", parts))
    found = error.value.found
    assert "rate was 0.002, now 0.001" in found and "layers was [1, 2], now [1, 2, 3]" in found
    assert "seed was absent, now 1" in found and "size" not in found


def test_damage_is_named(tmp_path):
    with publishing(tmp_path / "thing", X) as partial:
        (partial / "file").write_text("1")
    (tmp_path / "thing" / "file").write_text("2")
    with pytest.raises(ModelError, match="thing/file has sha256"):
        verify(tmp_path / "thing")
    (tmp_path / "thing" / "file").unlink()
    with pytest.raises(ModelError, match="No such file"):
        verify(tmp_path / "thing")
    (tmp_path / "thing" / "artefact.json").write_text("{")
    with pytest.raises(ModelError, match="not a record"):
        is_current(tmp_path / "thing", X)


def test_every_byte_of_a_record_counts(tmp_path):
    path = tmp_path / "record.json"
    content = {"made_from": {"seed": 1}, "files": {"a": "00"}, "level_sizes": [3, 4]}
    text = dump_record(content)
    assert parse_record(text, path) == content
    for place in range(len(text)):
        changed = bytearray(text)
        changed[place] ^= 1
        try:
            same = parse_record(bytes(changed), path) == content
        except ModelError:
            same = True
        assert same, place  # refused, or what changed was white space


@pytest.mark.parametrize("name", ["../out", "/etc/passwd", "a/../../b", "a\\b", ""])
def test_a_record_names_files_of_its_own_folder_only(tmp_path, name):
    with pytest.raises(ModelError, match="not inside its folder"):
        parse_record(
            dump_record({"files": {name: "00"}}), tmp_path / "artefact.json", {"files": dict}
        )


def test_a_record_without_its_hash_is_none(tmp_path):
    with pytest.raises(ModelError, match="not a record"):
        parse_record(json.dumps({"files": {}}), tmp_path / "artefact.json")


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(GenretError, match="cannot write"),
        publishing(tmp_path / "file" / "thing", X),
    ):
        pass
