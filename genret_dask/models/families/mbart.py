"""mBART: BART whose layers norm what they read, and with a norm behind each stack."""

from __future__ import annotations

from genret_dask.models.families.bart import Bart


class MBart(Bart):
    """Liu et al. (2020)."""

    config_class = "MBartConfig"
    model_class = "MBartForConditionalGeneration"
