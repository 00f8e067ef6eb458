"""Artefacts are complete or absent, and know what they were made from."""

from __future__ import annotations

import pytest

from genret_dask.artefacts import is_current, publishing, read_record, verify
from genret_dask.errors import GenretError, ModelError, StaleError


def test_published_once_whole(tmp_path):
    folder = tmp_path / "a" / "thing"
    assert not is_current(folder, "x")
    with publishing(folder, "x", colour="red") as partial:
        (partial / "deep").mkdir()
        (partial / "deep" / "file").write_text("1")
        assert not folder.exists()
    assert is_current(folder, "x")
    assert verify(folder)["colour"] == "red"
    assert list(read_record(folder)["files"]) == ["deep/file"]


def test_a_failure_publishes_nothing_and_the_next_try_starts_clean(tmp_path):
    folder = tmp_path / "thing"
    with pytest.raises(RuntimeError), publishing(folder, "x") as partial:
        (partial / "half").write_text("1")
        raise RuntimeError
    assert not folder.exists()
    with publishing(folder, "x") as partial:
        assert not list(partial.iterdir())
    assert is_current(folder, "x")


def test_other_inputs_are_refused_with_both_fingerprints(tmp_path):
    with publishing(tmp_path / "thing", "old"):
        pass
    with pytest.raises(StaleError, match="old") as error:
        is_current(tmp_path / "thing", "new")
    assert "new" in error.value.expected


def test_damage_is_named(tmp_path):
    with publishing(tmp_path / "thing", "x") as partial:
        (partial / "file").write_text("1")
    (tmp_path / "thing" / "file").write_text("2")
    with pytest.raises(ModelError, match="thing/file"):
        verify(tmp_path / "thing")
    (tmp_path / "thing" / "file").unlink()
    with pytest.raises(ModelError, match="no file"):
        verify(tmp_path / "thing")
    (tmp_path / "thing" / "artefact.json").write_text("{")
    with pytest.raises(ModelError, match="unreadable"):
        is_current(tmp_path / "thing", "x")


def test_an_unwritable_place_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(GenretError, match="cannot write"),
        publishing(tmp_path / "file" / "thing", "x"),
    ):
        pass
