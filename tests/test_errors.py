"""Errors say what to do and survive the way back from a worker process; fingerprints are stable."""

from __future__ import annotations

import hashlib
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from genret_dask import errors
from genret_dask.errors import GenretError, InputError
from genret_dask.kinds import CodesIdentifiers
from genret_dask.specs import SweepSpec
from genret_dask.storage.fingerprint import fingerprint, sha256_file
from tests.strategies import JSON

CLASSES = [
    item
    for item in vars(errors).values()
    if isinstance(item, type) and issubclass(item, GenretError)
]


@pytest.mark.parametrize("cls", CLASSES)
@pytest.mark.parametrize(
    "hints", [{}, {"expected": "a"}, {"fix": "b"}, {"expected": "a", "fix": "b"}]
)
def test_pickles_whole(cls, hints):
    error = cls("found é", **hints)
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is cls
    assert str(copy) == str(error)
    assert (copy.found, copy.expected, copy.fix) == (
        "found é",
        hints.get("expected"),
        hints.get("fix"),
    )


def test_message_holds_the_three_parts():
    text = str(GenretError("no cube", expected="a cube", fix="run sweep"))
    assert text.splitlines()[0] == "no cube"
    assert "expected: a cube" in text and "to fix:   run sweep" in text
    assert str(GenretError("no cube")) == "no cube"


@pytest.mark.parametrize("cls", CLASSES)
def test_exit_code_tells_input_from_run(cls):
    assert cls.exit_code == (2 if issubclass(cls, InputError) else 1)


@given(st.dictionaries(st.text(), JSON, max_size=5))
def test_fingerprint_ignores_key_order(content):
    backwards = dict(reversed(content.items()))
    assert fingerprint(content) == fingerprint(backwards)


def test_fingerprint_is_the_same_in_every_release():
    # The first 16 digits of the SHA-256 of canonical JSON: old run directories stay valid.
    expected = hashlib.sha256(b'[{"a":1,"b":[2.5,null]},"x"]').hexdigest()[:16]
    assert fingerprint({"b": [2.5, None], "a": 1}, "x") == expected


def test_fingerprint_tells_settings_apart():
    parts = [
        (1, 2),
        (12,),
        ("1", 2),
        ([1, 2],),
        (CodesIdentifiers(),),
        (CodesIdentifiers(codes=64),),
    ]
    assert len({fingerprint(*part) for part in parts}) == len(parts)
    assert fingerprint(SweepSpec()) == fingerprint(SweepSpec())
    assert fingerprint(SweepSpec(seed=1)) != fingerprint(SweepSpec())


def test_fingerprint_refuses_what_has_no_canonical_form():
    with pytest.raises(TypeError, match="object"):
        fingerprint(object())


def test_sha256_of_a_file(tmp_path):
    path = tmp_path / "weights"
    path.write_bytes(b"\x00\xff" * 100_000)
    assert sha256_file(path) == hashlib.sha256(b"\x00\xff" * 100_000).hexdigest()
