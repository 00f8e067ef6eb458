"""What every exporter brings: the configurations that it takes, and how it writes their graphs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

import numpy as np

from genret_dask.models.architectures import architecture_of
from genret_dask.models.flops import Architecture
from genret_dask.specs import Precision


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that is being exported.

    Attributes
    ----------
    folder : Path
        A Hugging Face folder.
    model : transformers.PreTrainedModel
        Its weights, float32.
    architecture : Architecture
    start_token : int
        The token that opens an identifier.
    precision : {"fp32", "fp16", "bf16", "int8"}
        Of the graphs; int8 ones are written in float32 and quantised afterwards.
    """

    folder: Path
    model: Any
    architecture: Architecture
    start_token: int
    precision: Precision

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the weights by name; they share the model's memory."""
        return {name: value.detach().numpy() for name, value in self.model.state_dict().items()}


class Exporter(ABC):
    """Writes the graphs of one or several families: an entry of `genret_dask.exporters`.

    A family names its exporter; an exporter that no family of its name is trained with exports
    ready checkpoints under its own name.

    Attributes
    ----------
    graph : {"beam", "optimum"}
        Graphs `prefill` and `step`, with `head` where the prefill takes in the start token, and
        `select`; or one graph with past keys and values.
    precisions : tuple of Precision
    model_class : str
        Name of the transformers class of checkpoints that are of no family.
    """

    graph: ClassVar[Literal["beam", "optimum"]] = "beam"
    precisions: ClassVar[tuple[Precision, ...]] = get_args(Precision)
    model_class: ClassVar[str] = "AutoModelForCausalLM"

    def check(self, config: Any) -> list[str]:
        """Return what keeps a configuration from being exported, a line each."""
        return []

    def architecture(self, model: Any) -> Architecture:
        """Return the sizes of a model."""
        return architecture_of(model.config)

    @abstractmethod
    def write(self, checkpoint: Checkpoint, folder: Path) -> None:
        """Write the graphs of a checkpoint into a folder.

        Raises
        ------
        ModelError
            The checkpoint is of a kind that this exporter does not know.
        """
