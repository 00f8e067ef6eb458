"""What every model family brings to be trained, exported and searched.

No other file asks which family it has: it calls these methods. Their defaults are those of a
causal language model of transformers that is built like LLaMA, so that another one is a few lines.
"""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from genret_dask.errors import ModelError
from genret_dask.models.flops import Architecture
from genret_dask.models.reader import Reader, ends_of, pieces_of, plain
from genret_dask.specs.validation import Record

if TYPE_CHECKING:
    import torch

Count = Annotated[int, Field(gt=0, lt=2**31)]
"""A size in a family's `fields`."""

Share = Annotated[float, Field(ge=0, lt=1)]
"""A probability in a family's `fields`."""


class Family:
    """A family of models that can be trained.

    A subclass is an entry of `genret_dask.families` under the `model_type` that transformers gives
    to its configurations.

    Attributes
    ----------
    config_class, model_class : str
        Names of its classes in transformers, which plans do not import.
    fields : type of Record
        What `config` of a study's model may give; the vocabulary and its tokens are the study's.
    presets : dict of str to dict
        The fields of each size.
    defaults : dict
        Fields of models from scratch, where a preset or `config` has none.
    dropout : str or None
        The field of the study's dropout.
    exporter : str
        The entry of `genret_dask.exporters` that writes its graphs.
    """

    config_class: ClassVar[str]
    model_class: ClassVar[str]
    fields: ClassVar[type[Record]]
    presets: ClassVar[dict[str, dict[str, Any]]] = {}
    defaults: ClassVar[dict[str, Any]] = {"tie_word_embeddings": True}
    dropout: ClassVar[str | None] = "attention_dropout"
    exporter: ClassVar[str] = "llama"

    def load_config_class(self) -> Any:
        """Import the class of its configurations."""
        return getattr(import_module("transformers"), self.config_class)

    def load_model_class(self) -> Any:
        """Import the class of its models."""
        return getattr(import_module("transformers"), self.model_class)

    def architecture(self, config: Any) -> Architecture:
        """Return the sizes that cost and state follow from.

        Errors of wrong sizes are the caller's: see `genret_dask.models.architectures`.
        """
        heads = config.num_attention_heads
        return Architecture(
            kind="decoder",
            d_model=config.hidden_size,
            heads=heads,
            kv_heads=config.num_key_value_heads,
            d_head=getattr(config, "head_dim", None) or config.hidden_size // heads,
            d_ff=config.intermediate_size,
            gated=True,
            encoder_layers=0,
            decoder_layers=config.num_hidden_layers,
            vocab_size=config.vocab_size,
        )

    def longest(self, config: Any) -> int | None:
        """Return the most tokens that a query, the start token and an identifier may have together.

        By default the window of attention, if any layer has one: within it all tokens are attended.

        Parameters
        ----------
        config
            A configuration, or the fields of a preset as attributes.
        """
        kinds = getattr(config, "layer_types", None)
        if kinds is not None and "sliding_attention" not in kinds:
            return None
        return getattr(config, "sliding_window", None)

    # --- reading ------------------------------------------------------------------------------

    def ends(self, tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Return the tokens that open and close every text: those that its tokeniser adds."""
        return ends_of(tokenizer.backend_tokenizer)

    def reader(self, tokenizer: Any, max_tokens: int, prompt: str | None = None) -> Reader:
        """Return the reader of a model.

        Parameters
        ----------
        tokenizer : PreTrainedTokenizerFast
        prompt : str, optional
            Holds ``{query}`` once. What stands around it opens and closes every text.

        Raises
        ------
        ModelError
            The tokeniser has no end token, or does not read every text, or reads the prompt and a
            query otherwise than in one piece.
        """
        if tokenizer.eos_token_id is None:
            raise ModelError(
                "the tokeniser has no end token",
                expected="eos_token in tokenizer_config.json",
            )
        opening, closing = self.ends(tokenizer)
        text, lead = plain(tokenizer.backend_tokenizer), ""
        if prompt is not None:
            before, lead, behind = pieces_of(tokenizer, prompt)
            opening, closing = opening + before, behind + closing
        return Reader(text, max_tokens, opening, closing, tokenizer.eos_token_id, lead)

    def opening(
        self, config: Any, tokenizer: Any, max_tokens: int, prompt: str | None
    ) -> tuple[Reader, int]:
        """Return how a ready checkpoint reads a query, and the token that opens its identifier.

        By default the prompt's last token: the identifier follows it.

        Raises
        ------
        ModelError
            Nothing of a prompt stands behind the query.
        """
        reader = self.reader(tokenizer, max_tokens, prompt)
        if not reader.closing:
            raise ModelError(
                f"a {config.model_type} generates an identifier behind a prompt, and there is none",
                expected='a prompt that goes on behind the query, as "{query} answer:"',
                fix="set the model's prompt",
            )
        return replace(reader, closing=reader.closing[:-1]), reader.closing[-1]

    # --- training -----------------------------------------------------------------------------

    def inputs(self, model: Any, labels: torch.Tensor) -> torch.Tensor:
        """Return the tokens that identifiers are predicted from: the start token, then labels."""
        from torch.nn import functional

        start = model.config.decoder_start_token_id
        return functional.pad(labels[:, :-1].clamp(min=0), (1, 0), value=start)

    def logits(
        self, model: Any, tokens: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return teacher-forced logits of identifier tokens, [batch, steps, vocabulary].

        A sequence is the query's tokens, the start token, the identifier's tokens. Whatever stands
        behind them is never attended.

        Parameters
        ----------
        tokens : int64[batch, width]
            Right-padded query tokens.
        lengths : int64[batch]
        labels : int64[batch, steps]
            The identifier's vocabulary rows, negative behind its end.
        """
        import torch
        from torch.nn import functional

        steps = labels.shape[1]
        places = lengths[:, None] + torch.arange(steps, device=tokens.device)
        sequence = functional.pad(tokens, (0, steps)).scatter(1, places, self.inputs(model, labels))
        states = model.base_model(input_ids=sequence, use_cache=False).last_hidden_state
        states = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
        logits: torch.Tensor = model.get_output_embeddings()(states)
        return logits

    def reading_attention(self, model: Any) -> list[tuple[Any, Any]]:
        """Return the value and output projections of the attention that sees the query.

        A model from scratch starts with them as a plain mean; none where it shall not.
        """
        layers = [layer.self_attn for layer in model.base_model.layers]
        return [(layer.v_proj, layer.o_proj) for layer in layers]

    def undo_head_scale(self, model: Any) -> None:
        """Let a model from scratch start with logits that its head does not scale, in place."""
        return

    def untie(self, model: Any) -> None:
        """Let a model keep a head that differs from its embeddings, and its logits, in place.

        Raises
        ------
        ModelError
            A model of the family has one matrix for both.
        """
        model.config.tie_word_embeddings = False


class EncoderDecoder(Family):
    """A family whose encoder reads the query, and whose decoder attends to what it made of it.

    `reading_attention` and `architecture` are left.
    """

    def ends(self, tokenizer: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Close texts with the end token whatever the tokeniser does, as encoders expect it."""
        opening, closing = super().ends(tokenizer)
        return opening, closing or (tokenizer.eos_token_id,)

    def opening(
        self, config: Any, tokenizer: Any, max_tokens: int, prompt: str | None
    ) -> tuple[Reader, int]:
        """See `Family`; the decoder begins with a token of its own."""
        start = getattr(config, "decoder_start_token_id", None)
        if start is None:
            raise ModelError(
                "config.json has no decoder_start_token_id",
                expected="the token that the decoder begins with",
                fix="set it in config.json",
            )
        return self.reader(tokenizer, max_tokens, prompt), int(start)

    def logits(
        self, model: Any, tokens: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """See `Family`; the encoder reads the query, the decoder the identifier."""
        import torch

        mask = (torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]).long()
        inputs = self.inputs(model, labels)
        logits: torch.Tensor = model(
            input_ids=tokens, attention_mask=mask, decoder_input_ids=inputs
        ).logits
        return logits

    def untie(self, model: Any) -> None:
        """See `Family`."""
        raise ModelError(
            f"the head of a {model.config.model_type} is its embeddings, and here it differs",
            expected="an adapter that trained both as one, or neither",
        )
