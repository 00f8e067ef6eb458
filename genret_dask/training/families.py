"""How each family is taught: from text tokens to the log-probabilities of an identifier."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional

from genret_dask.errors import ModelError
from genret_dask.models.reader import Reader, ends_of, plain


def reader_of(tokenizer: Any, family: str, max_tokens: int) -> Reader:
    """The reader of a model: opens and closes texts as its tokeniser does.

    A T5 closes them with the end token whatever its tokeniser does, as encoders expect it.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerFast

    Raises
    ------
    ModelError
        The tokeniser has no end token.
    """
    end = tokenizer.eos_token_id
    if end is None:
        raise ModelError(
            f"the tokeniser of this {family} has no end token",
            expected="eos_token in tokenizer_config.json",
        )
    opening, closing = ends_of(tokenizer.backend_tokenizer)
    if family == "t5":
        closing = closing or (end,)
    return Reader(plain(tokenizer.backend_tokenizer), max_tokens, opening, closing, end)


def identifier_logits(
    model: Any, family: str, tokens: torch.Tensor, lengths: torch.Tensor, labels: torch.Tensor
) -> torch.Tensor:
    """Teacher-forced logits of identifier tokens, [batch, levels, vocabulary].

    Parameters
    ----------
    tokens : int64[batch, width]
        Right-padded query tokens.
    lengths : int64[batch]
    labels : int64[batch, levels]
        The identifier's vocabulary rows, negative behind its end.
    """
    start = model.config.decoder_start_token_id
    inputs = functional.pad(labels[:, :-1].clamp(min=0), (1, 0), value=start)
    width, levels = tokens.shape[1], labels.shape[1]
    if family == "t5":
        mask = (torch.arange(width, device=tokens.device) < lengths[:, None]).long()
        return model(input_ids=tokens, attention_mask=mask, decoder_input_ids=inputs).logits
    # The identifier follows each query's last token; whatever stands behind it is never attended.
    sequence = functional.pad(tokens, (0, levels))
    places = lengths[:, None] + torch.arange(levels, device=tokens.device)
    sequence = sequence.scatter(1, places, inputs)
    states = model.model(input_ids=sequence, use_cache=False).last_hidden_state
    states = states.gather(1, places[..., None].expand(-1, -1, states.shape[-1]))
    return model.lm_head(states)


def identifier_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Generation loss of each identifier: mean over its tokens of -log p; float32 [batch].

    Parameters
    ----------
    labels : int64[batch, levels]
        `genret_dask.kinds.base.IGNORED` behind an identifier's end.
    """
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), reduction="none"
    )
    return losses.view(labels.shape).sum(dim=1) / (labels >= 0).sum(dim=1)
