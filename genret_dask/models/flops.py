"""Analytic FLOPs of a model: two for each multiply-add of its matrix products.

Norms, softmaxes and other elementwise work are left out, as is usual; the attention's products and
the output head are counted. Counts are of what the beam-native graphs compute for a query of the
given length, padding excluded.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import BaseModel, ConfigDict, NonNegativeInt, PositiveInt


class Architecture(BaseModel):
    """The sizes that a model's cost and its state follow from.

    Attributes
    ----------
    kind : {"encoder-decoder", "decoder"}
    d_model, d_head, d_ff : int
        Widths of the residual stream, of one attention head, and of the feed-forward layer.
    heads, kv_heads : int
        Query heads, and the key/value heads that they share.
    gated : bool
        Whether the feed-forward layer has three matrices instead of two.
    encoder_layers, decoder_layers, vocab_size : int
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["encoder-decoder", "decoder"]
    d_model: PositiveInt
    heads: PositiveInt
    kv_heads: PositiveInt
    d_head: PositiveInt
    d_ff: PositiveInt
    gated: bool
    encoder_layers: NonNegativeInt
    decoder_layers: PositiveInt
    vocab_size: PositiveInt

    @property
    def inner(self) -> int:
        """Width of all query heads together."""
        return self.heads * self.d_head

    @property
    def kv(self) -> int:
        """Width of all key (or value) heads together."""
        return self.kv_heads * self.d_head

    @property
    def block(self) -> int:
        """Weights of a layer's self-attention and feed-forward matrices."""
        projections = self.d_model * (2 * self.inner + 2 * self.kv)
        return projections + (3 if self.gated else 2) * self.d_model * self.d_ff

    def state_bytes(self, prompt: int, time: int) -> tuple[int, int]:
        """Bytes of float32 state: a query's shared prompt, and a row's own at own length `time`."""
        layer = 2 * self.kv * 4 * self.decoder_layers
        return prompt * layer, time * layer


def prefill_flops(architecture: Architecture, length: ArrayLike) -> np.ndarray:
    """FLOPs of the state that all beams of a query share.

    Parameters
    ----------
    length : int or int array
        Tokens of the query.

    Returns
    -------
    float64, the shape of `length`

    Notes
    -----
    Of a decoder's last layer only the keys and values are computed: nothing reads its output.
    """
    a, n = architecture, np.asarray(length, dtype=np.float64)
    if a.kind == "encoder-decoder":
        stack = a.encoder_layers * n * (a.block + _attention(a, n))
        return 2 * (stack + a.decoder_layers * n * 2 * a.d_model * a.kv)
    stack = (a.decoder_layers - 1) * n * (a.block + _attention(a, n))
    return 2 * (stack + n * 2 * a.d_model * a.kv)


def step_flops(architecture: Architecture, prompt_length: ArrayLike, t: ArrayLike) -> np.ndarray:
    """FLOPs of decoding one row, the full-vocabulary head included.

    Parameters
    ----------
    prompt_length : int or int array
        Tokens of the query.
    t : int or int array
        The row's own length before this step: 0 where the start token goes in.

    Returns
    -------
    float64, broadcast of both
    """
    a = architecture
    prompt, own = (np.asarray(x, dtype=np.float64) for x in (prompt_length, t))
    layer = a.block + _attention(a, prompt + own + 1)
    if a.kind == "encoder-decoder":
        layer = layer + 2 * a.d_model * a.inner
    return 2 * (a.decoder_layers * layer + a.d_model * a.vocab_size)


def training_flops_per_example(
    architecture: Architecture, input_tokens: ArrayLike, output_tokens: ArrayLike
) -> np.ndarray:
    """FLOPs of one training example: three times the teacher-forced forward pass.

    The backward pass costs two products for each of the forward (Kaplan et al., 2020, section 2).
    Attention is counted over whole squares, as dense kernels compute it, and the head over the
    output tokens alone.

    Parameters
    ----------
    input_tokens, output_tokens : int or int array
        Lengths of the query and of the identifier.

    Returns
    -------
    float64, broadcast of both
    """
    a = architecture
    source, target = (np.asarray(x, dtype=np.float64) for x in (input_tokens, output_tokens))
    head = target * a.d_model * a.vocab_size
    if a.kind == "encoder-decoder":
        cross = 2 * a.d_model * a.inner + _attention(a, source)
        layer = target * (a.block + _attention(a, target) + cross)
        return 3 * (prefill_flops(a, source) + 2 * (a.decoder_layers * layer + head))
    length = source + target
    layer = length * (a.block + _attention(a, length))
    return 3 * 2 * (a.decoder_layers * layer + head)


def _attention(a: Architecture, keys: np.ndarray) -> np.ndarray:
    """Multiply-adds a query token of scores and mixing over `keys`."""
    return 2 * a.inner * keys
