"""The loss that identifiers are taught with."""

from __future__ import annotations

import torch
from torch.nn import functional


def identifier_loss(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Generation loss of each identifier: mean over its tokens of -log p; float32 [batch].

    Parameters
    ----------
    logits : [batch, steps, vocabulary]
    labels : int64[batch, steps]
        `genret_dask.kinds.base.IGNORED` behind an identifier's end.
    """
    losses = functional.cross_entropy(
        logits.float().flatten(0, 1), labels.flatten(), reduction="none"
    )
    return losses.view(labels.shape).sum(dim=1) / (labels >= 0).sum(dim=1)
