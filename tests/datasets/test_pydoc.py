"""The docstring collection, on a small library and on one made for the test."""

from __future__ import annotations

import sys
from importlib import metadata

import pytest

from genret_dask.datasets import PydocDataset, pydoc
from genret_dask.datasets.docstrings import parse
from genret_dask.errors import DatasetError

PROSE = "It does so with care and tells nobody, in {} ways that no one has yet had time to count. "
DASK = PydocDataset(libraries=("dask",))


@pytest.fixture(scope="module")
def dask_docs():
    return DASK.load()


@pytest.fixture
def library(tmp_path, monkeypatch):
    """A package `toylib` whose modules misbehave."""

    def function(name, summary, body):
        return f"def {name}():\n    '''{summary}\n\n    {body}\n    '''\n"

    root = tmp_path / "toylib"
    (root / "tests").mkdir(parents=True)
    files = {
        "__init__.py": "print('loud')\n"
        + function("zed", "Do the first thing.", PROSE.format("one"))
        + function("_hidden", "Do the hidden thing.", PROSE.format("hidden"))
        + function("short", "Do the short thing.", "Too short."),
        "work.py": "from toylib import zed as again\nfrom json import dumps\n"
        + function("copy", "Do the first thing.", PROSE.format("two"))
        + function("body", "Do another thing.", PROSE.format("one"))
        + "class Thing:\n    '''Hold a nice thing.\n\n    "
        + PROSE.format("three")
        + "'''\n"
        + "\n".join(
            "    " + line
            for line in function("method", "Call the thing now.", PROSE.format("0x7f00deadbeef"))
            .strip()
            .splitlines()
        ),
        "broken.py": "raise RuntimeError('boom')\n",
        "quits.py": "raise SystemExit(3)\n",
        "answers.py": "def __getattr__(name):\n    raise ImportError('not here')\n"
        + function("rare", "Do the rare thing.", PROSE.format("four")),
        "_private.py": function("secret", "Do the secret thing.", PROSE.format("five")),
        "conftest.py": function("fixture", "Do the fixture thing.", PROSE.format("six")),
        "tests/__init__.py": "",
        "tests/test_toy.py": function("test", "Do the test thing.", PROSE.format("seven")),
    }
    for name, text in files.items():
        (root / name).write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    return PydocDataset(libraries=("toylib",))


def test_what_is_taken_of_a_library(library, capfd):
    collection = library.load()
    assert collection.document_ids == (
        "toylib.answers.rare",
        "toylib.work.Thing",
        "toylib.work.Thing.method",
        "toylib.zed",
    )
    assert collection.query_ids[3] == "q-toylib.zed"
    assert collection.queries[3] == "Do the first thing."
    assert collection.texts[3] == PROSE.format("one").strip()
    assert "in 0x0 ways" in collection.texts[2]
    assert set(collection.titles) == {""}
    assert "toylib" not in sys.modules
    assert capfd.readouterr().out == ""


def test_collect_in_process_equals_the_child(library):
    pairs = pydoc.collect(["toylib"])
    assert len(pairs) == 4 and pairs == pydoc.harvest(["toylib"])
    for name in [name for name in sys.modules if name.partition(".")[0] == "toylib"]:
        del sys.modules[name]


def test_a_library_that_does_not_import(library, tmp_path):
    (tmp_path / "toylib" / "__init__.py").write_text("raise ImportError('libfoo.so missing')\n")
    with pytest.raises(DatasetError, match="toylib failed: ImportError: libfoo.so missing"):
        library.load()


def test_a_library_without_docstrings(library, tmp_path):
    (tmp_path / "emptylib.py").write_text("x = 1\n")
    with pytest.raises(DatasetError, match="no usable docstrings in emptylib"):
        PydocDataset(libraries=("emptylib",)).load()


def test_dask_gives_clean_pairs(dask_docs):
    assert len(dask_docs) > 150
    assert list(dask_docs.document_ids) == sorted(dask_docs.document_ids)
    assert len(set(map(str.lower, dask_docs.queries))) == len(dask_docs)
    assert len({text[:200].lower() for text in dask_docs.texts}) == len(dask_docs)
    assert all(name.startswith("dask.") for name in dask_docs.document_ids)
    assert not any(".tests." in name or "._" in name for name in dask_docs.document_ids)
    together = "\n".join(dask_docs.texts)
    assert ">>>" not in together and "Examples" not in together.splitlines()
    assert "Parameters" in together
    assert f"dask-{metadata.version('dask')}" in dask_docs.version


def test_each_query_has_its_document_in_one_split(dask_docs):
    rows = []
    for split, share in pydoc.SHARES.items():
        qrels = dask_docs.qrels[split]
        assert qrels.query.tolist() == qrels.document.tolist()
        assert len(qrels) / len(dask_docs) == pytest.approx(share, abs=0.08)
        rows += qrels.query.tolist()
    assert sorted(rows) == list(range(len(dask_docs)))


def test_fewer_documents_are_a_stable_subset_with_all_splits(dask_docs):
    # Another process, too: the same bytes whatever its hash seed.
    few = PydocDataset(libraries=("dask",), documents=60).load()
    assert len(few) == 60
    whole = dict(zip(dask_docs.document_ids, dask_docs.texts, strict=True))
    assert all(whole[name] == text for name, text in zip(few.document_ids, few.texts, strict=True))
    assert all(len(few.qrels[split]) for split in ("train", "dev", "test"))
    for name in few.document_ids:
        assert pydoc.split_of(name) in pydoc.SHARES


def test_a_library_that_is_not_there():
    spec = PydocDataset(libraries=("dask", "nolib"))
    for method in ("load", "fingerprint"):
        with pytest.raises(DatasetError, match="library nolib is not installed") as caught:
            getattr(spec, method)()
        assert caught.value.fix.startswith("pip install nolib")
    with pytest.raises(DatasetError, match="not the name of a module"):
        PydocDataset(libraries=("os; import x",)).fingerprint()


def test_the_fingerprint_follows_versions_and_settings(monkeypatch):
    first = DASK.fingerprint()
    assert first == PydocDataset(libraries=("dask",)).fingerprint()
    assert first != PydocDataset(libraries=("dask",), documents=5).fingerprint()
    assert first != PydocDataset(libraries=("dask", "json")).fingerprint()
    monkeypatch.setattr(pydoc.metadata, "version", lambda name: "0.0")
    assert first != DASK.fingerprint()


NUMPYDOC = """
    frob(x, axis=None, *, out=(1, 2))

    Frob the `x` with :func:`~toylib.nob`. More of the first paragraph [1]_.

    .. versionadded:: 1.0
       Gone as well.

    .. note:: Keep the note.

    Parameters
    ----------
    x : array_like
        An array at 0x7fa0b1c2d3e4, with ``marks`` and a great many words to be long.
    axis : int
        The axis.

    See Also
    --------
    nob : Unrelated words.

    Notes
    -----
    A remark.

    >>> frob(1)
    2

    Examples
    --------
    Text of an example.

    >>> frob(2)
    3

    References
    ----------
    .. [1] Someone, somewhere.
    """


def test_parse_numpydoc():
    pair = parse("toylib.frob", NUMPYDOC)
    assert pair is not None
    assert pair.summary == "Frob the x with toylib.nob."
    assert pair.body.splitlines() == [
        "More of the first paragraph.",
        "Keep the note.",
        "Parameters",
        "x : array_like An array at 0x0, with marks and a great many words to be long.",
        "axis : int The axis.",
        "Notes",
        "A remark.",
    ]


@pytest.mark.parametrize(
    "doc",
    [
        "",
        "f(x)",
        "Only a summary line of some length.",
        "Two words\n\n" + PROSE.format(1),
        "x = dgemm(a,b,[c])\n\nWrapper for dgemm.\n\n" + PROSE.format(1),
        "A fine summary line.\n\nExamples\n--------\n" + PROSE.format(1),
    ],
)
def test_parse_leaves_out(doc):
    assert parse("name", doc) is None


def test_parse_drops_the_note_of_a_copied_docstring():
    copied = "This docstring was copied from numpy.f.\n\nSome inconsistencies with the Dask version"
    pair = parse("f", f"{copied} may exist.\n\nDo the thing.\n\n{PROSE}")
    assert pair is not None and pair == parse("f", f"Do the thing.\n\n{PROSE}")
