"""What a worker holds while it trains or exports a model, in bytes, before it starts.

Counted from above: the process with its libraries, the decomposition that a model from scratch
starts from, and the model with its gradients, moments and activations. Pairs are drawn a few
batches at a time and do not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dask.utils import format_bytes

from genret_dask.datasets.collection import Collection
from genret_dask.errors import BudgetError
from genret_dask.models.flops import Architecture
from genret_dask.specs import TrainingSpec

PROCESS = 585_000_000
"""A worker that has imported what training or an export needs."""

MARGIN = 1.15
"""For what the allocator keeps between two phases."""

SAMPLED = 100_000
"""Documents, at most, that a model from scratch starts from."""

SMALLER_TRAINING = "train smaller models, with a smaller training.batch_size"
SMALLER_EXPORT = "train smaller models"

_FLOAT = 4
_CHUNK = 64_000_000  # texts that are tokenised together
_LETTERS = 3  # of a token, at least; a document's are counted by its letters
_DOCUMENT_TOKENS = 512  # that the start of a model from scratch reads of a document
_TERM = 80  # of the token-document matrix, an entry and its copies while it is weighted
_SESSION = 50_000_000  # ONNX Runtime's, of a model without weights
_EXPORT = 5.1  # times the weights, nearly all of it the check against PyTorch in float64


@dataclass(frozen=True)
class Texts:
    """The documents of a collection.

    Attributes
    ----------
    documents : int
    nbytes : int
        Of their letters.
    """

    documents: int
    nbytes: int


@dataclass(frozen=True)
class Need:
    """What a task of a stage holds at its widest moment.

    Attributes
    ----------
    stage : str
        As training, export or index.
    task : str
    nbytes : int
        The process included.
    fix : callable
        Says what makes it fit into so many bytes.
    """

    stage: str
    task: str
    nbytes: int
    fix: Callable[[int], str]

    def __str__(self) -> str:
        return f"{format_bytes(self.nbytes)} for the {self.stage} of {self.task}"


def texts_of(collection: Collection) -> Texts:
    """Count the documents of a collection, and the bytes of their letters."""
    return Texts(len(collection), collection.texts.nbytes + collection.titles.nbytes)


def weight_bytes(architecture: Architecture, *, tied: bool) -> int:
    """Float32 weights of a model, its norms left out."""
    a = architecture
    cross = 4 * a.d_model * a.inner if a.kind == "encoder-decoder" else 0
    layers = a.encoder_layers * a.block + a.decoder_layers * (a.block + cross)
    return _FLOAT * (layers + (1 if tied else 2) * a.vocab_size * a.d_model)


def training_bytes(
    architecture: Architecture,
    training: TrainingSpec,
    texts: Texts,
    *,
    max_tokens: int,
    steps: int,
    tied: bool = True,
    pretrained: bool = False,
) -> int:
    """What a training holds at its widest moment, the process included.

    Parameters
    ----------
    max_tokens, steps : int
        Tokens of a text and of an identifier, at most.
    tied : bool
        Whether the output head is the embeddings.
    """
    weights = weight_bytes(architecture, tied=tied)
    start = 0
    if not pretrained and training.init == "lsa":
        start = _start_bytes(architecture, texts) + _CHUNK
    model = 4 * weights  # with gradients and two moments
    # Saving copies the moments.
    batch = max(_batch_bytes(architecture, training.batch_size, max_tokens, steps), 2 * weights)
    return int(PROCESS + MARGIN * max(weights + start, model + batch))


def export_bytes(architecture: Architecture, *, tied: bool = True) -> int:
    """What the export of a model holds at its widest moment, the process included."""
    return int(PROCESS + _SESSION + MARGIN * _EXPORT * weight_bytes(architecture, tied=tied))


def _start_bytes(architecture: Architecture, texts: Texts) -> int:
    """The latent start: the sample's token matrix, and its singular vectors in float64."""
    documents = min(texts.documents, SAMPLED)
    dim, rows = architecture.d_model, documents + architecture.vocab_size
    letters = texts.nbytes * documents // max(texts.documents, 1)
    tokens = min(letters // _LETTERS, _DOCUMENT_TOKENS * documents)
    return _TERM * tokens + 3 * 8 * (rows * (dim + 10) + documents * dim)


def _batch_bytes(architecture: Architecture, rows: int, source: int, steps: int) -> int:
    """Activations of a batch that the backward pass reads, and three copies of its logits."""
    a = architecture
    head = 3 * steps * a.vocab_size

    def layers(count: int, length: int, seen: int) -> int:
        row = 16 * a.d_model + 10 * a.inner + 6 * a.d_ff + 4 * a.heads * seen
        return count * length * row

    if a.kind == "encoder-decoder":
        stacks = layers(a.encoder_layers, source, source)
        stacks += layers(a.decoder_layers, steps, steps) + layers(a.decoder_layers, steps, source)
    else:
        stacks = layers(a.decoder_layers, source + steps, source + steps)
    return _FLOAT * rows * (head + stacks)


def summary(needs: Sequence[Need]) -> str:
    """The largest need of each stage, for a plan."""
    stages = {need.stage: need for need in sorted(needs, key=lambda need: need.nbytes)}
    return ", ".join(f"about {need}" for need in stages.values())


def check_memory(limits: Mapping[str, int | None], needs: Iterable[Need]) -> None:
    """Refuse tasks that no worker can hold.

    Parameters
    ----------
    limits : mapping of worker to int or None
        Memory limits in bytes, of `client.scheduler_info()["workers"]`; 0 and None are none.
    needs : iterable of Need

    Raises
    ------
    BudgetError
        The smallest limit is below the largest need; both are named.
    """
    limited = {worker: limit for worker, limit in limits.items() if limit}
    largest = max(needs, key=lambda need: need.nbytes, default=None)
    if largest is None or not limited:
        return
    worker = min(limited, key=lambda name: limited[name])
    if limited[worker] < largest.nbytes:
        raise BudgetError(
            f"a memory limit of {format_bytes(limited[worker])} ({worker}), and about {largest}",
            expected=f"{format_bytes(largest.nbytes)} a worker",
            fix=f"give workers a larger memory_limit, start fewer of them, or "
            f"{largest.fix(limited[worker])}",
        )
