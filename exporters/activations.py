"""The activations of feed-forward layers, by the names that transformers gives them."""

from __future__ import annotations

from collections.abc import Callable

from genret_dask.exporters.graph import Graph


def _silu(g: Graph, x: str) -> str:
    return g.op("Mul", x, g.op("Sigmoid", x))


def _relu(g: Graph, x: str) -> str:
    return g.op("Relu", x)


def _gelu(g: Graph, x: str) -> str:
    return g.op("Gelu", x)


def _tanh_gelu(g: Graph, x: str) -> str:
    return g.op("Gelu", x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Graph, str], str]] = {
    "relu": _relu,
    "silu": _silu,
    "swish": _silu,
    "gelu": _gelu,
    "gelu_new": _tanh_gelu,
    "gelu_pytorch_tanh": _tanh_gelu,
}
"""Each adds its nodes to a graph and returns the result's name."""


def activation_problems(field: str, name: object) -> list[str]:
    """A line where there is no activation of that name."""
    if name in ACTIVATIONS:
        return []
    return [f"{field} is {name!r}; expected one of {', '.join(ACTIVATIONS)}"]
