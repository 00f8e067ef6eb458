"""Causal models that no family is written for: built by transformers, exported by optimum.

What is special to them is asked of their classes: the signature of a configuration says what it
takes, and a model without memory how large it is.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from pydantic import create_model

from genret_dask.errors import meant
from genret_dask.models.families.base import Family
from genret_dask.models.flops import Architecture
from genret_dask.specs.validation import Record

if TYPE_CHECKING:
    import torch

_UNFIT = {"mpt": "its PyTorch code does not run in float64, in which exports are checked"}
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
_WIDTHS = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
_TASK = "text-generation-with-past"


class Generic(Family):
    """A family that is known by the `model_type` of its configurations alone."""

    exporter = "optimum"

    def architecture(self, config: Any) -> Architecture:
        """See `Family`; the model is built without memory."""
        import torch

        with torch.device("meta"):
            return measured(self.load_model_class()(config))

    def longest(self, config: Any) -> int | None:
        """See `Family`; none of them is read beyond the positions that it has."""
        return getattr(config, "max_position_embeddings", None)

    def logits(
        self, model: Any, tokens: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """See `Family`; the head sees identifiers alone, and whatever follows it is the model's."""
        import torch
        from torch.nn import functional

        steps = labels.shape[1]
        places = lengths[:, None] + torch.arange(steps, device=tokens.device)
        sequence = functional.pad(tokens, (0, steps)).scatter(1, places, self.inputs(model, labels))

        def of_identifiers(_: Any, arguments: tuple[torch.Tensor, ...]) -> torch.Tensor:
            (states,) = arguments
            return states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))

        hook = model.get_output_embeddings().register_forward_pre_hook(of_identifiers)
        try:
            logits: torch.Tensor = model(input_ids=sequence, use_cache=False).logits
        finally:
            hook.remove()
        return logits

    def reading_attention(self, model: Any) -> list[tuple[Any, Any]]:
        """See `Family`; each calls its projections otherwise."""
        return []


def refusal(model_type: str) -> str | None:
    """Say why models of a type cannot be trained as they are; None where they can."""
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    if model_type not in CONFIG_MAPPING:
        return "transformers does not know it" + meant(model_type, CONFIG_MAPPING)
    if model_type in modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES:
        return "it is an encoder-decoder, which needs an exporter of its own"
    if model_type not in modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        return "transformers has no causal language model of it"
    try:
        exported = _TASK in _exported(model_type)
    except ImportError:
        return "it is exported by the package optimum-onnx; pip install 'genret-dask[cpu]'"
    if not exported:
        return "optimum does not export it as a causal language model"
    config = CONFIG_MAPPING[model_type]()
    if hasattr(config, "text_config"):
        return "it has parts beside its language model"
    if any((getattr(config, name, None) or 0) > 1 for name in _EXPERTS):
        return "it is a mixture of experts, whose cost does not follow from its sizes"
    return _UNFIT.get(model_type)


@lru_cache
def family_class(model_type: str) -> type[Family]:
    """Return the family of a type that `refusal` has nothing against."""
    from transformers.models.auto import modeling_auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    config_class = CONFIG_MAPPING[model_type]
    given = {
        name: parameter.default
        for name, parameter in inspect.signature(config_class).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
        and name.removesuffix("_token_id") == name
        and name != "vocab_size"
    } | {"tie_word_embeddings": True}
    drops = [
        name
        for name, default in given.items()
        if isinstance(default, float) and ("dropout" in name or name.endswith("pdrop"))
    ]
    # The study's dropout is that of attention, as it is of LLaMA.
    dropout = next(iter(sorted(drops, key=lambda name: not name.startswith("att"))), None)
    fields: dict[str, Any] = {name: (Any, None) for name in given}
    return type(
        config_class.__name__.removesuffix("Config"),
        (Generic,),
        {
            "config_class": config_class.__name__,
            "model_class": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type],
            "fields": create_model(f"{model_type}_fields", __base__=Record, **fields),
            "defaults": {
                "tie_word_embeddings": True,
                **{name: 0.0 for name in drops if name != dropout},
            },
            "dropout": dropout,
        },
    )


def measured(model: Any) -> Architecture:
    """Return a causal model's sizes, by its configuration and the shapes of its weights."""
    import torch

    config = model.config
    d_model, layers = config.hidden_size, config.num_hidden_layers
    heads = config.num_attention_heads
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    if getattr(config, "multi_query", False):
        kv_heads = 1
    d_head = getattr(config, "head_dim", None) or d_model // heads
    d_ff = next(filter(None, (getattr(config, name, None) for name in _WIDTHS)), 4 * d_model)
    head = model.get_output_embeddings()
    matrices = sum(
        weight.numel()
        for module in model.modules()
        if module is not head and not isinstance(module, torch.nn.Embedding)
        for weight in module.parameters(recurse=False)
        if weight.ndim == 2
    )
    attention = d_model * d_head * 2 * (heads + kv_heads)
    return Architecture(
        kind="decoder",
        d_model=d_model,
        heads=heads,
        kv_heads=kv_heads,
        d_head=d_head,
        d_ff=d_ff,
        gated=matrices / layers - attention > 2.5 * d_model * d_ff,
        encoder_layers=0,
        decoder_layers=layers,
        vocab_size=head.weight.shape[0],
    )


@lru_cache
def _exported(model_type: str) -> frozenset[str]:
    """What optimum exports models of a type as."""
    import optimum.exporters.onnx.model_configs  # noqa: F401, it registers what there is
    from optimum.exporters.tasks import TasksManager

    try:
        return frozenset(
            TasksManager.get_supported_tasks_for_model_type(
                model_type, "onnx", library_name="transformers"
            )
        )
    except KeyError:
        return frozenset()
