"""Small real things that many tests share: a collection, and tiny exported models.

Imports stand in the functions: pytest-xdist's controller reads this file before it starts workers.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from genret_dask.datasets.collection import Collection
    from genret_dask.identifiers import Codes
    from genret_dask.inference.constraint import Vocabulary
    from genret_dask.inference.session import Session
    from genret_dask.kinds import Source

os.environ.setdefault("GENRET_CACHE", tempfile.mkdtemp(prefix="genret-cache-"))


def pytest_configure(config: pytest.Config) -> None:
    """Without `-m`, leave out slow tests, and of the whole suite those of `chaos` and `cluster`."""
    if not config.option.markexpr:
        whole = config.args_source is pytest.Config.ArgsSource.TESTPATHS
        config.option.markexpr = f"not slow{' and not chaos and not cluster' if whole else ''}"


TEXT_ROWS = 40
FAMILIES = ("t5", "llama")
_T5 = {"d_model": 16, "d_kv": 8, "d_ff": 32, "num_layers": 2, "num_heads": 2}
_LLAMA = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "initializer_range": 0.4,
}
_BART = {
    "d_model": 16,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "max_position_embeddings": 64,
    "init_std": 0.4,
}
SMALL: dict[str, dict[str, Any]] = {
    "t5": _T5,
    "llama": _LLAMA,
    "bart": _BART,
    "mbart": {**_BART, "scale_embedding": True},
    "gemma": {**_LLAMA, "head_dim": 4},
    "gpt_neox": {name: size for name, size in _LLAMA.items() if name != "num_key_value_heads"},
    "mistral": {**_LLAMA, "head_dim": 6},
    "mt5": _T5,
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, "head_dim": 8},
}
"""Sizes of a small model of each family."""


def make_collection(documents: int = 40, seed: int = 0) -> Collection:
    """Documents of random words, two queries each: words of their document."""
    import numpy as np

    from genret_dask.datasets.collection import Collection, Qrels

    rng = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(200)]
    texts = [" ".join(rng.choice(words, 30)) + "." for _ in range(documents)]
    queries = [
        " ".join(rng.choice(texts[row % documents].split(), 4)) for row in range(2 * documents)
    ]
    rows = np.arange(2 * documents)
    split = np.where(rows < documents, "train", np.where(rows % 3 == 0, "dev", "test"))
    qrels = {
        name: Qrels.from_rows(
            rows[split == name], rows[split == name] % documents, np.ones((split == name).sum())
        )
        for name in ("train", "dev", "test")
    }
    return Collection(
        name="toy",
        version="1",
        document_ids=tuple(f"d{row}" for row in range(documents)),
        titles=("",) * documents,
        texts=tuple(texts),
        query_ids=tuple(f"q{row}" for row in rows),
        queries=tuple(queries),
        qrels=qrels,
    )


def source_of(collection: Collection, seed: int = 0) -> Source:
    """What identifiers are made from, of a collection so small that it is no tasks."""
    from genret_dask.kinds import Source

    return Source(
        collection=collection,
        place=Path(),
        tokenizer=None,
        working=Path(),
        seed=seed,
        report=lambda stage, done, total: None,
        map=lambda *tasks, **options: [],
    )


def write_beir(collection: Collection, folder: Path) -> Path:
    from genret_dask.datasets.beir import write_folder

    write_folder(collection, folder)
    return folder


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """More threads are slower on models this small."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def toy(tmp_path_factory) -> Path:
    """A folder with a collection, and a finished serial run of it, to be read alone.

    It is one for all workers of pytest-xdist: the first to ask makes it.
    """
    from genret_dask.study.sweep import Study
    from tests.runs import make_spec

    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    root, ready = base / "toy", base / "toy.ready"
    with open(base / "toy.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not ready.exists():
            write_beir(make_collection(), root / "beir")
            study = Study(make_spec(root), runs=root / "serial")
            with study.log:
                study.search()
            ready.touch()
    return root


@pytest.fixture(scope="module")
def rough_fits() -> Iterator[None]:
    """A few steps of each search for a law over several axes, where its digits are not asked."""
    from genret_dask.fits import surface
    from genret_dask.fits.projection import Effort

    with pytest.MonkeyPatch.context() as patch:
        for name in ("QUICK", "PRECISE"):
            patch.setattr(surface, name, Effort(steps=10, gain=1e-8, patience=6))
        yield


@dataclass(frozen=True)
class TinyModel:
    """A random model over 40 text rows, a start row and the rows of `codes`."""

    family: str
    hf: Any
    folder: Path
    session: Session
    codes: Codes
    vocabulary: Vocabulary


def random_codes(documents: int, sizes: tuple[int, ...], seed: int) -> Codes:
    import numpy as np

    from genret_dask.identifiers import Codes
    from genret_dask.identifiers.unique import make_unique

    rng = np.random.default_rng(seed)
    cells = np.stack([rng.integers(0, size, documents) for size in sizes], axis=1)
    codes = make_unique(cells.astype(np.int32))
    return Codes(codes, tuple(int(column.max()) + 1 for column in codes.T))


def make_model(
    family: str, codes: Codes, root: Path, seed: int = 0, head: float = 1.0
) -> TinyModel:
    """A random model; with a `head` of 0 all its logits are equal."""
    import torch

    from genret_dask.exporters import export_model
    from genret_dask.inference.constraint import Vocabulary
    from genret_dask.inference.session import open_session
    from genret_dask.models.families import family_of

    torch.manual_seed(seed)
    rows, made = TEXT_ROWS + 1 + codes.rows, family_of(family)
    config = made.load_config_class()(vocab_size=rows, **{**made.defaults, **SMALL[family]})
    model = made.load_model_class()(config)
    if "t5" in family:
        with torch.no_grad():
            model.get_input_embeddings().weight *= 3
    with torch.no_grad():
        model.get_output_embeddings().weight *= head
    model.eval()
    model.config.decoder_start_token_id = TEXT_ROWS
    model.generation_config.decoder_start_token_id = TEXT_ROWS
    model.generation_config.forced_eos_token_id = None
    model.save_pretrained(root / "hf")
    export_model(family, root / "hf", root / "onnx", start_token=TEXT_ROWS)
    vocabulary = Vocabulary(TEXT_ROWS, codes.block_starts + TEXT_ROWS + 1, codes.level_sizes)
    return TinyModel(family, model, root / "onnx", open_session(root / "onnx"), codes, vocabulary)


@pytest.fixture(scope="session", params=FAMILIES)
def tiny(request, tmp_path_factory) -> TinyModel:
    """A tiny model of each family over 60 documents of three levels and a unique one."""
    codes = random_codes(60, (4, 3, 4), seed=1)
    return make_model(request.param, codes, tmp_path_factory.mktemp(request.param))
