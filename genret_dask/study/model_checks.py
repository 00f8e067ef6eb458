"""What can be known of a study's models before any work: from the YAML, config.json and headers.

Models of a preset are known without torch; configurations of a user and pretrained weights are
built without memory (on torch's "meta" device) and held against what their exporter takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from genret_dask.errors import GenretError, SpecError, listed
from genret_dask.exporters import config_problems, exporter_of
from genret_dask.models.adapters import check_adapter, misfits
from genret_dask.models.configs import (
    base_config,
    config_of,
    pretrained_tokenizer,
    source_of,
    trained_family,
)
from genret_dask.models.families import EncoderDecoder, Family, family_of
from genret_dask.models.gguf import read_header
from genret_dask.models.pretrained import weight_shapes
from genret_dask.specs import ModelSpec, PretrainedSpec, SweepSpec
from genret_dask.specs.checkpoints import TOKENISERS
from genret_dask.specs.grid import Cell, cells_of
from genret_dask.specs.registry import names_of

_DOCUMENTS = 10**9  # more than any collection has
_GGUF_TOKENISER = ("tokenizer.ggml.tokens", "tokenizer.ggml.eos_token_id")


def check_models(spec: SweepSpec) -> None:
    """Refuse a study with models that could not be trained, exported or embedded with.

    Raises
    ------
    SpecError
        All that is wrong, a line each.
    """
    if problems := model_problems(spec):
        lines = "".join(f"\n  {problem}" for problem in problems)
        raise SpecError(
            f"the study cannot be made:{lines}",
            fix="correct them; nothing was started yet",
        )


def model_problems(spec: SweepSpec) -> list[str]:
    """What is wrong with the models of a study, a line each; empty where nothing is."""
    problems = [line for model in spec.models for line in _problems_of(model, spec)]
    problems += [line for cell in cells_of(spec) for line in _row_problems(cell)]
    problems += [line for kind in spec.identifiers for line in kind.problems()]
    if "int8" in spec.export.precision and not _is_installed("optimum-onnx"):
        problems.append(
            "export.precision int8 needs the package optimum-onnx; pip install 'genret-dask[cpu]'"
        )
    return problems


def _problems_of(model: ModelSpec, spec: SweepSpec) -> Iterator[str]:
    label = f"model {model.label}"
    try:
        family = trained_family(model)
    except GenretError as error:
        yield error.line(label)
        return
    exporters = names_of("exporters")
    if family.exporter not in exporters:
        yield (
            f"{label}: the exporter {family.exporter!r} of family {model.family!r} is not "
            f"installed; expected one of {', '.join(exporters)}"
        )
        return
    yield from _precision_problems(label, model, spec)
    if model.size in family.presets:
        fields = {**family.defaults, **family.presets[model.size]}
        problems = _length_problems(family, SimpleNamespace(**fields), model, spec)
        yield from (f"{label}: {problem}" for problem in problems)
        return
    source = model.source
    if source is not None and source.gguf is not None:
        yield from _gguf_problems(label, model, source.gguf)
        return
    try:
        if source is not None and source.path is not None:
            check_adapter(source.path, source.base)
        config = config_of(model)
    except GenretError as error:
        yield error.line(label)
        return
    problems = [*_settings_problems(config), *config_problems(model.family, config)]
    problems = problems or _length_problems(family, config, model, spec)
    yield from (f"{label}: {problem}" for problem in problems)
    if source is not None:
        yield from _tokenizer_problems(label, model, source, config, spec)
    if not problems:
        yield from _weight_problems(label, model, config)


def _precision_problems(label: str, model: ModelSpec, spec: SweepSpec) -> Iterator[str]:
    """Every exporter writes fp32, and importing one may take torch."""
    if asked := [one for one in spec.export.precision if one != "fp32"]:
        taken = exporter_of(model.family).precisions
        if refused := [one for one in asked if one not in taken]:
            yield (
                f"{label}: family {model.family!r} is not exported in {', '.join(refused)}; "
                f"expected export.precision to be of {', '.join(taken)}"
            )


def _gguf_problems(label: str, model: ModelSpec, path: Path) -> Iterator[str]:
    """From the header alone: transformers takes minutes to read a large vocabulary."""
    try:
        source_of(model, PretrainedSpec(gguf=path))
        header = read_header(path)
    except GenretError as error:
        yield error.line(label)
        return
    behind = (model.prompt or "").partition("{query}")[2]
    causal = not isinstance(family_of(model.family), EncoderDecoder)
    if model.checkpoint is not None and causal and not behind:
        yield (
            f"{label}: a {model.family} generates an identifier behind a prompt; give one that "
            "goes on behind {query}"
        )
    found = header.get("general.architecture")
    if found != model.family:
        yield f"{label}: {path} holds a {found}; expected a {model.family}"
    missing = [name for name in _GGUF_TOKENISER if name not in header]
    if missing:
        yield f"{label}: {path} has no tokeniser; expected {' and '.join(missing)} in its header"


def _settings_problems(config: Any) -> list[str]:
    """What transformers takes, and training does not."""
    if getattr(config, "quantization_config", None):
        return ["its weights are quantised; expected weights of 16 or 32 bits, or a GGUF file"]
    return []


def _length_problems(family: Family, config: Any, model: ModelSpec, spec: SweepSpec) -> list[str]:
    """Texts, and identifiers of the model, that are longer than it reads."""
    longest = family.longest(config)
    if longest is None:
        return []
    kinds = [cell.identifiers for cell in cells_of(spec) if cell.model is model]
    steps = max(kind.planned(_DOCUMENTS).steps for kind in kinds)
    if spec.max_tokens + 1 + steps <= longest:
        return []
    return [
        f"it attends to {longest:,} tokens together; expected {spec.max_tokens + 1 + steps:,} or "
        f"more: max_tokens is {spec.max_tokens:,}, and a start token and an identifier follow"
    ]


def _row_problems(cell: Cell) -> Iterator[str]:
    """Identifiers whose rows of the vocabulary a ready checkpoint lacks."""
    if cell.model.checkpoint is not None and cell.identifiers.planned(1).rows:
        yield (
            f"model {cell.model.label}: the identifiers {cell.kind} are new rows of the "
            "vocabulary, which a ready checkpoint lacks; expected identifiers of its own tokens, "
            "as titles, ngrams or a file of texts or tokens; or pretrained in place of checkpoint, "
            "to train it"
        )


def _tokenizer_problems(
    label: str, model: ModelSpec, source: PretrainedSpec, config: Any, spec: SweepSpec
) -> Iterator[str]:
    folder = source.tokenizer_place
    if folder is not None and not any((folder / name).is_file() for name in TOKENISERS):
        yield f"{label}: {folder} has no tokeniser; expected one of {', '.join(TOKENISERS)}"
        return
    try:
        tokenizer = pretrained_tokenizer(model, source)
    except GenretError as error:
        yield error.line(f"{label}: its tokeniser")
        return
    if not tokenizer.is_fast:
        yield f"{label}: its tokeniser has no tokenizer.json, and cannot be converted to one"
    elif tokenizer.eos_token_id is None:
        yield f"{label}: its tokeniser has no end token; set eos_token in tokenizer_config.json"
    else:
        family = family_of(model.family)
        problems = [*_reading_problems(tokenizer, family)]
        problems = problems or [*_prompt_problems(tokenizer, model, config, spec.max_tokens)]
        vocabulary = tokenizer.get_vocab()
        for cell in cells_of(spec):
            if cell.model is model:
                problems += cell.identifiers.lacking(vocabulary)
        yield from (f"{label}: {one}" for one in problems)


def _reading_problems(tokenizer: Any, family: Family) -> Iterator[str]:
    """What keeps a tokeniser from reading any text, and its ids from being followed by others."""
    highest = max(tokenizer.get_vocab().values())
    if highest >= len(tokenizer):
        yield (
            f"its tokeniser has {len(tokenizer):,} tokens, and ids up to {highest:,}; "
            "expected ids without holes"
        )
    try:
        family.reader(tokenizer, max_tokens=8).read(["a", "\u2603 \U0001f30b"])
    except Exception as error:  # the tokenizers package raises nothing narrower
        found = error.found if isinstance(error, GenretError) else str(error)
        yield f"its tokeniser does not read every text: {found}"


def _prompt_problems(
    tokenizer: Any, model: ModelSpec, config: Any, max_tokens: int
) -> Iterator[str]:
    """A prompt that leaves no room, or whose pieces are not those of the whole, or that is none."""
    family = family_of(model.family)
    try:
        reader = family.reader(tokenizer, max_tokens, model.prompt)
        if model.checkpoint is not None:
            family.opening(config, tokenizer, max_tokens, model.prompt)
            if len(tokenizer) > config.vocab_size:
                yield (
                    f"its tokeniser has {len(tokenizer):,} tokens, and the model "
                    f"{config.vocab_size:,} rows; expected a row for each"
                )
    except GenretError as error:
        yield error.line("its prompt")
        return
    if model.prompt is None:
        return
    around = len(reader.opening) + len(reader.closing)
    if around + 2 >= max_tokens:
        yield (
            f"its prompt takes {around} of the {max_tokens} tokens that max_tokens allows; "
            "raise max_tokens"
        )


def _weight_problems(label: str, model: ModelSpec, config: Any) -> Iterator[str]:
    """Build the model without memory, and hold the headers of its weights against it."""
    import torch

    build = family_of(model.family).load_model_class()
    try:
        with torch.device("meta"):
            empty = build(config)
    except Exception as error:  # layers check what they are given each in their own way
        yield f"{label}: {type(error).__name__}: {str(error)[:200]}"
        return
    source = model.source
    if source is None or source.path is None:
        return
    try:
        shapes = weight_shapes(source.base or source.path)
        if source.base is None:
            problems = [*_differences(empty, shapes)]
        else:
            own = base_config(model, source)
            with torch.device("meta"):
                problems = [*_differences(build(own), shapes)]
            resized = own.vocab_size != config.vocab_size
            problems = problems or [*misfits(source.path, empty, resized=resized)]
    except GenretError as error:
        yield error.line(label)
    else:
        yield from (f"{label}: {problem}" for problem in problems)


def _differences(empty: Any, shapes: dict[str, tuple[int, ...]]) -> Iterator[str]:
    """Weights of a model that are not in its files, and one of another shape there."""
    prefix = f"{empty.base_model_prefix}."  # files of a model without its head lack it
    shapes = {**{prefix + name: shape for name, shape in shapes.items()}, **shapes}
    weights = dict(empty.named_parameters(remove_duplicate=False))
    found = {id(weight) for name, weight in weights.items() if name in shapes}  # of tied ones, any
    missing = [name for name, weight in weights.items() if id(weight) not in found]
    if missing:
        yield f"{len(missing)} weights are missing: {listed(missing)}"
    for name, weight in weights.items():
        here, wanted = list(shapes.get(name, weight.shape)), list(weight.shape)
        if here != wanted:
            yield f"{name} is {here} in the weights, and {wanted} by config.json"
            return


def _is_installed(package: str) -> bool:
    try:
        return bool(metadata.version(package))
    except metadata.PackageNotFoundError:
        return False
