"""The activations of feed-forward layers, by the names that transformers gives them."""

from __future__ import annotations

from collections.abc import Callable

from genret_dask.exporters.graph import Graph

ACTIVATIONS: dict[str, Callable[[Graph, str], str]] = {
    "relu": lambda g, x: g.op("Relu", x),
    "silu": lambda g, x: g.op("Mul", x, g.op("Sigmoid", x)),
    "swish": lambda g, x: g.op("Mul", x, g.op("Sigmoid", x)),
    "gelu": lambda g, x: g.op("Gelu", x),
    "gelu_new": lambda g, x: g.op("Gelu", x, approximate="tanh"),
    "gelu_pytorch_tanh": lambda g, x: g.op("Gelu", x, approximate="tanh"),
}
"""Each adds its nodes to a graph and returns the result's name."""


def activation_problems(field: str, name: object) -> list[str]:
    """A line where there is no activation of that name."""
    if name in ACTIVATIONS:
        return []
    return [f"{field} is {name!r}; expected one of {', '.join(ACTIVATIONS)}"]
