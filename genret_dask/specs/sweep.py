"""The YAML of a sweep as frozen records, validated once, at the edge.

Every record forbids unknown keys. `load_spec` turns a validation failure into a `SpecError` that
names the key and lists the valid ones.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, ValidationError, field_validator, model_validator

from genret_dask.specs.checkpoints import TOKENISERS, family_at, with_base
from genret_dask.specs.registry import Registered, entry
from genret_dask.specs.series import expanded
from genret_dask.specs.strict_yaml import read_yaml
from genret_dask.specs.taken import with_models_of
from genret_dask.specs.validation import Record, validate

Fraction = Annotated[float, Field(gt=0, le=1)]
Provider = Literal["cpu", "cuda"]
Precision = Literal["fp32", "fp16", "bf16", "int8"]

PROVIDERS: dict[Precision, tuple[Provider, ...]] = {
    "fp32": ("cpu", "cuda"),
    "fp16": ("cpu", "cuda"),
    "bf16": ("cuda",),
    "int8": ("cpu",),
}
"""Where ONNX Runtime runs a precision. The CPU has no bfloat16 product, and computes float16 ones
in float32, between casts; the fused integer products have no CUDA kernel."""


PositiveInt = Annotated[int, Field(gt=0, lt=2**31)]
"""NumPy's and ONNX Runtime's sizes end there, or not far beyond."""

Whole = Annotated[int, Field(ge=0, lt=2**31)]

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9._-]*$", max_length=128)]
"""A name that is a folder's too: neither hidden, nor a way out of the run directory."""

# --- training ---------------------------------------------------------------------------------


def _without_max_tokens(content: Any) -> Any:
    """Refuse the key that training and inference had each for itself."""
    if isinstance(content, dict) and "max_tokens" in content:
        raise ValueError(
            "max_tokens stands at the top level, for training and search alike: "
            f"max_tokens: {content['max_tokens']!r}"
        )
    return content


class TokenizerSpec(Record):
    """The tokeniser of models trained from scratch; pretrained ones bring their own."""

    vocab_size: Annotated[int, Field(ge=300, lt=2**31)] = Field(4096, description="tokens")


class PairsSpec(Record):
    """Which (text, document) pairs a model is trained on."""

    queries: bool = Field(True, description="train queries")
    documents: bool = Field(True, description="the head of the document")
    sentences: Whole = Field(8, description="sentences a document")
    spans: Whole = Field(8, description="random word spans a document")
    span_words: tuple[PositiveInt, PositiveInt] = Field(
        (4, 12), description="of a span, at least and at most"
    )
    file: tuple[Path, ...] = Field(
        (),
        description="pseudo-queries, one file or several: document id, tab and query, or JSON",
    )

    @field_validator("file", mode="before")
    @classmethod
    def _listed(cls, file: Any) -> Any:
        return (file,) if isinstance(file, str | Path) else () if file is None else file

    @field_validator("span_words")
    @classmethod
    def _ascending(cls, span_words: tuple[int, int]) -> tuple[int, int]:
        if span_words[0] > span_words[1]:
            raise ValueError("the shortest span is above the longest")
        return span_words


class TrainingSpec(Record):
    """The recipe: AdamW, linear warm-up, cosine decay, early stop on the dev loss."""

    pairs: PairsSpec = PairsSpec()
    init: Literal["lsa", "random"] = Field(
        "lsa", description="embeddings of a model from scratch: latent semantic, or random"
    )
    batch_size: PositiveInt = 64
    examples: Annotated[int, Field(gt=0, lt=2**53)] = Field(
        60_000, description="examples seen, repeats included"
    )
    learning_rate: PositiveFloat = Field(2e-3, description="at its height")
    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="share of the steps until the rate is at its height"
    )
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    word_dropout: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.1, description="share of input tokens masked, afresh at each visit"
    )
    query_share: Fraction = Field(
        0.25, description="share of examples drawn from train queries, where there are any"
    )
    evaluations: PositiveInt = Field(10, description="dev evaluations and checkpoints a run")
    patience: PositiveInt = Field(4, description="evaluations without a better dev loss to stop")
    dev_queries: PositiveInt = Field(256, description="pairs of an evaluation")

    _moved = model_validator(mode="before")(_without_max_tokens)


# --- models -----------------------------------------------------------------------------------


class PretrainedSpec(Record):
    """Weights to start from: a folder, a pinned hub revision, or a GGUF file."""

    path: Path | None = Field(None, description="a local Hugging Face folder, or a peft adapter's")
    base: Path | None = Field(
        None, description="the folder of an adapter's base; that which the adapter names"
    )
    hub: str | None = Field(None, description="a hub id; needs revision")
    revision: str | None = Field(None, description="a commit hash")
    gguf: Path | None = Field(None, description="a GGUF file")

    _adapted = model_validator(mode="before")(with_base)

    @model_validator(mode="after")
    def _one_source(self) -> PretrainedSpec:
        if sum(value is not None for value in (self.path, self.hub, self.gguf)) != 1:
            raise ValueError("give exactly one of path, hub and gguf")
        if (self.hub is None) != (self.revision is None):
            raise ValueError("hub needs a pinned revision (a commit hash), and only hub takes one")
        if self.base is not None and self.path is None:
            raise ValueError("base is of an adapter, which path names")
        return self

    @property
    def places(self) -> tuple[Path, ...]:
        """The files and folders that it is read from; a hub's are none."""
        return tuple(place for place in (self.path, self.gguf, self.base) if place is not None)

    @property
    def tokenizer_place(self) -> Path | None:
        """Where its tokeniser is: an adapter may leave it to its base. None of a hub's."""
        if self.path is not None and self.base is not None:
            own = any((self.path / name).is_file() for name in TOKENISERS)
            return self.path if own else self.base
        return self.path or self.gguf


_SHARED = {"pairs", "dev_queries"}
"""Keys of training that make the pairs, which are the same for all models of a study."""


class ModelSpec(Record):
    """One model of the grid: trained once for each data fraction, or a ready checkpoint."""

    family: Name = Field(
        description="t5, llama, or another of docs/models.md; of a checkpoint's folder, its own"
    )
    size: Name | None = Field(None, description="a preset of the family")
    config: dict[str, Any] | None = Field(None, description="transformers config fields")
    pretrained: PretrainedSpec | None = Field(None, description="weights to start from")
    checkpoint: PretrainedSpec | None = Field(
        None, description="a ready model, searched as it is; a folder's path will do"
    )
    n_train: PositiveInt | None = Field(
        None, description="pairs that a checkpoint was trained on, where that is known"
    )
    train_flops: PositiveFloat | None = Field(
        None, description="operations of a checkpoint's training, where they are known"
    )
    prompt: str | None = Field(
        None, description='what stands around a query, as "question: {query} answer:"'
    )
    name: Name | None = Field(None, description="family-size where there is a size")
    fractions: tuple[Fraction, ...] = Field(
        (1.0,), description="of the training pairs; a model each"
    )
    training: dict[str, Any] = Field(default_factory=dict, description="overrides of training")
    identifiers: tuple[Name, ...] = Field(
        (), description="names of those of the study's identifiers that it generates; all"
    )

    @field_validator("identifiers", mode="before")
    @classmethod
    def _listed(cls, identifiers: Any) -> Any:
        return (identifiers,) if isinstance(identifiers, str) else identifiers

    @model_validator(mode="before")
    @classmethod
    def _of_checkpoint(cls, content: Any) -> Any:
        """Take a path for a checkpoint, and its family from its config.json."""
        source = content.get("checkpoint") if isinstance(content, dict) else None
        source = with_base({"path": Path(source)} if isinstance(source, str | Path) else source)
        if not isinstance(source, dict):
            return content
        content = {**content, "checkpoint": source}
        if "family" in content or not isinstance(source.get("path"), str | Path):
            return content
        return {**content, "family": family_at(source)}

    @model_validator(mode="after")
    def _one_source(self) -> ModelSpec:
        sources = (self.size, self.config, self.pretrained, self.checkpoint)
        if sum(value is not None for value in sources) != 1:
            raise ValueError("give exactly one of size, config, pretrained and checkpoint")
        self._check_checkpoint()
        if self.prompt is not None and self.prompt.count("{query}") != 1:
            raise ValueError(f"prompt is {self.prompt!r}; it holds {{query}} once")
        if not self.fractions or len(set(self.fractions)) != len(self.fractions):
            raise ValueError("fractions must be distinct and not empty")
        if self.size is None and self.name is None:
            raise ValueError("a model without a size preset needs a name")
        _without_max_tokens(self.training)
        if shared := sorted(_SHARED & set(self.training)):
            raise ValueError(
                f"training has {', '.join(shared)}, which all models of a study share; "
                "move it to the study's training"
            )
        unknown = set(self.training) - set(TrainingSpec.model_fields)
        if unknown:
            raise ValueError(
                f"training has no key {', '.join(sorted(unknown))}; "
                f"valid keys: {', '.join(TrainingSpec.model_fields)}"
            )
        try:
            TrainingSpec.model_validate(self.training)
        except ValidationError as error:
            found = error.errors()[0]
            key = ".".join(map(str, found["loc"]))
            raise ValueError(f"training.{key}: {found['msg']}") from None
        return self

    def _check_checkpoint(self) -> None:
        """Refuse settings of a training that there is none of, and facts of one that there is."""
        if self.checkpoint is not None:
            if self.fractions != (1.0,) or self.training:
                raise ValueError("a checkpoint is not trained: it takes no fractions or training")
        elif self.n_train is not None or self.train_flops is not None:
            raise ValueError("n_train and train_flops are of a checkpoint")

    @property
    def label(self) -> str:
        return self.name or f"{self.family}-{self.size}"

    @property
    def source(self) -> PretrainedSpec | None:
        """Where its weights and its tokeniser come from; None from scratch."""
        return self.checkpoint or self.pretrained


# --- inference --------------------------------------------------------------------------------


class ExportSpec(Record):
    """How trained models become ONNX graphs."""

    tolerance: PositiveFloat = Field(
        1e-3, description="largest |difference| in log-probability at fp32"
    )
    precision: tuple[Precision, ...] = Field(
        ("fp32",), description="fp32, fp16, bf16, int8: each makes a model of its own of a cell"
    )

    @field_validator("precision")
    @classmethod
    def _distinct(cls, precision: tuple[Precision, ...]) -> tuple[Precision, ...]:
        if not precision or len(set(precision)) != len(precision):
            raise ValueError("precisions must be distinct and not empty")
        return tuple(sorted(precision, key=lambda name: name != "fp32"))


class InferenceSpec(Record):
    """What the sweep computes for each (model, query)."""

    split: Literal["train", "dev", "test"] = Field("test", description="whose queries")
    queries: PositiveInt | None = Field(None, description="a seeded sample of the split; all")
    beams: tuple[PositiveInt, ...] = Field(
        (1, 2, 5, 10, 20, 50, 100), description="sizes, searched in one pass"
    )
    negatives: PositiveInt = Field(256, description="documents a query is contrasted with")
    ignore_identical_ids: bool | None = Field(
        None,
        description="leave a document with the query's id out of its ranking and negatives; "
        "by default where the texts coincide too",
    )
    within: Path | None = Field(
        None, description="a file of document ids, one a line: only they are searched; all"
    )
    shard_queries: PositiveInt = Field(64, description="queries a task")
    batch_queries: PositiveInt = Field(16, description="queries decoded together")
    provider: Provider = Field("cpu", description="of ONNX Runtime; cuda needs a GPU")
    threads: PositiveInt | None = Field(
        None, description="ONNX Runtime threads a task; the host's cores shared among its tasks"
    )
    memory: str | None = Field(
        None, description="what a worker process may hold, as 4GB; 60 % of its memory limit"
    )

    _moved = model_validator(mode="before")(_without_max_tokens)

    @field_validator("memory")
    @classmethod
    def _a_size(cls, memory: str | None) -> str | None:
        if memory is not None and _bytes(memory) < 2**20:
            raise ValueError("give a size with its unit, of 1 MiB or more, such as 4GB or 512MiB")
        return memory

    @property
    def memory_bytes(self) -> int | None:
        return None if self.memory is None else _bytes(self.memory)

    @field_validator("beams")
    @classmethod
    def _ascending(cls, beams: tuple[int, ...]) -> tuple[int, ...]:
        if not beams:
            raise ValueError("give at least one beam size")
        return tuple(sorted(set(beams)))


def _bytes(size: str) -> int:
    """A size in bytes; 0 where it is none."""
    from dask.utils import parse_bytes

    try:
        return parse_bytes(size)
    except (ValueError, OverflowError):
        return 0


class FitSpec(Record):
    """How laws are fitted."""

    bootstrap: PositiveInt = Field(1000, description="resamples of the queries for intervals")


# --- the whole --------------------------------------------------------------------------------


_DEFAULT_MODELS = tuple(
    ModelSpec(family=family, size=size, fractions=(0.25, 0.5, 1.0) if size == "nano" else (1.0,))
    for family in ("t5", "llama")
    for size in ("femto", "pico", "nano", "micro")
)


MOST_DOCUMENTS = 2_000_000
"""Of a collection that BM25 ranks without being asked for: more take a worker gigabytes."""


class SweepSpec(Record):
    """A whole study: what `genret-dask sweep --config FILE` reads."""

    name: Name = Field("pydoc", description="the run's directory")
    seed: Annotated[int, Field(ge=0, lt=2**63)] = Field(0, description="of all that is drawn")
    dataset: Annotated[Any, Registered("datasets")] = Field(
        default_factory=lambda: entry("datasets", "pydoc")(documents=2000)
    )
    identifiers: tuple[Annotated[Any, Registered("identifiers", default="codes")], ...] = Field(
        default_factory=lambda: (entry("identifiers", "codes")(),)
    )
    models_from: Path | None = Field(
        None, description="a finished run whose models are searched; nothing is trained"
    )
    tokenizer: TokenizerSpec = TokenizerSpec()
    max_tokens: Annotated[int, Field(ge=3, lt=2**31)] = Field(
        32, description="tokens kept of a text that a model reads, in training and search"
    )
    training: TrainingSpec = TrainingSpec()
    models: tuple[ModelSpec, ...] = _DEFAULT_MODELS
    export: ExportSpec = ExportSpec()
    inference: InferenceSpec = InferenceSpec()
    baselines: tuple[Annotated[Any, Registered("baselines")], ...] | None = Field(
        None,
        description="what the models are compared with, in every table: [bm25], for collections "
        f"of up to {MOST_DOCUMENTS:,} documents; [] for none",
    )
    fits: FitSpec = FitSpec()

    @field_validator("models", mode="before")
    @classmethod
    def _of_series(cls, models: Any) -> Any:
        return expanded(models)

    @field_validator("identifiers", "baselines", mode="before")
    @classmethod
    def _listed(cls, given: Any) -> Any:
        """One kind, or a list of them; a name alone has its defaults."""
        if given is None:
            return given
        several = given if isinstance(given, list | tuple) else [given]
        return tuple({"kind": one} if isinstance(one, str) else one for one in several)

    @field_validator("identifiers")
    @classmethod
    def _distinct_labels(cls, identifiers: tuple[Any, ...]) -> tuple[Any, ...]:
        labels = [one.label for one in identifiers]
        if not labels:
            raise ValueError("give at least one kind of identifier")
        if repeated := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(
                f"several identifiers are called {', '.join(repeated)}; give each its own name"
            )
        if "baselines" in labels:
            raise ValueError("identifiers cannot be called baselines: the cube has those there")
        return identifiers

    @field_validator("baselines")
    @classmethod
    def _distinct_baselines(cls, baselines: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        labels = [one.label for one in baselines or ()]
        if repeated := sorted({label for label in labels if labels.count(label) > 1}):
            raise ValueError(
                f"several baselines are called {', '.join(repeated)}; give each its own name"
            )
        return baselines

    def baselines_for(self, documents: int) -> tuple[Any, ...]:
        """Return the baselines of a collection of so many documents."""
        if self.baselines is not None:
            return self.baselines
        return (entry("baselines", "bm25")(),) if documents <= MOST_DOCUMENTS else ()

    @model_validator(mode="after")
    def _distinct_models(self) -> SweepSpec:
        labels = [
            precise_name(model.label, precision)
            for model in self.models
            for precision in self.export.precision
        ]
        if not labels:
            raise ValueError("give at least one model")
        repeated = sorted({label for label in labels if labels.count(label) > 1})
        if repeated:
            raise ValueError(f"models share a name: {', '.join(repeated)}; give each its own name")
        if both := sorted({*labels} & {one.label for one in self.baselines_for(0)}):
            raise ValueError(
                f"a model and a baseline are called {', '.join(both)}; give one another name"
            )
        return self

    @model_validator(mode="after")
    def _models_of_all_identifiers(self) -> SweepSpec:
        labels = [one.label for one in self.identifiers]
        used: set[str] = set()
        for model in self.models:
            if unknown := sorted({*model.identifiers} - {*labels}):
                raise ValueError(
                    f"model {model.label} generates the identifiers {', '.join(unknown)}; "
                    f"expected of {', '.join(labels)}"
                )
            used |= {*model.identifiers} or {*labels}
        if unused := [label for label in labels if label not in used]:
            raise ValueError(f"no model generates the identifiers {', '.join(unused)}")
        return self

    @model_validator(mode="after")
    def _precisions_that_run(self) -> SweepSpec:
        provider = self.inference.provider
        for precision in self.export.precision:
            if provider not in PROVIDERS[precision]:
                raise ValueError(
                    f"export.precision {precision} does not run with inference.provider "
                    f"{provider}, only with {' or '.join(PROVIDERS[precision])}"
                )
        return self


def precise_name(cell: str, precision: str) -> str:
    """The name of a cell's model in a precision: fp32 has the cell's own, `t5-micro.int8`."""
    return cell if precision == "fp32" else f"{cell}.{precision}"


def load_spec(path: Path | str, **given: Any) -> SweepSpec:
    """Read a sweep's YAML file.

    Relative paths inside the file are taken from the current directory.

    Parameters
    ----------
    **given
        Keys that replace those of the file.

    Raises
    ------
    SpecError
        The file is missing, is not YAML, or has an unknown key or a wrong value.
    """
    return spec_of({**read_yaml(path), **given}, source=str(path))


def spec_of(content: dict[str, Any], source: str) -> SweepSpec:
    """Build a study from the content of its YAML; see `load_spec`."""
    if content.get("models_from") is not None:
        content = with_models_of(content, source)
    found: SweepSpec = validate(SweepSpec, content, source=source)
    return found
