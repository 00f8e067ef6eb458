"""mT5: T5 with a gated feed-forward layer; ready checkpoints have a head of their own."""

from __future__ import annotations

from genret_dask.models.families.t5 import T5, T5Fields


class MT5Fields(T5Fields):
    """What `config` may give of an `MT5Config`."""

    feed_forward_proj: str = "gated-gelu"


class MT5(T5):
    """Xue et al. (2021)."""

    config_class = "MT5Config"
    model_class = "MT5ForConditionalGeneration"
    fields = MT5Fields
    presets = {name: sizes for name, sizes in T5.presets.items() if name != "large"}
