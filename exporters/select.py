"""The selection of a beam search as a graph, so that it can stay on the model's device.

It does what `genret_dask.inference.beam` does between two steps, on dense arrays: a row's children
are laid out as wide as the widest node of the level, in the order of the trie, so that the lower
place wins a tie.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np

from genret_dask.exporters.graph import Graph, Weights


def write_graphs(folder: Path, precision: str, *draws: Callable[[Graph], None]) -> None:
    """Write graphs, each drawn by the function of its name, their weights, and `select`."""
    with Weights(folder) as weights:
        for draw in draws:
            graph = Graph(draw.__name__, weights, precision)
            draw(graph)
            graph.save(folder)
        graph = Graph("select", weights)
        select(graph)
        graph.save(folder)


def select(g: Graph) -> None:
    """Draw `select`: the children that a grid of beams keeps.

    Sizes: B queries, K rows a query, V rows of the level's block, G beam sizes, S rows of the next
    level. A row is a prefix; one whose node is -1 is empty. Rows stand in the order of their nodes.
    """
    rows, grid = ["batch", "rows"], ["grid", "batch", "rows"]
    logits = g.input("logits", np.float32, [*rows, "block"])
    partition = g.input("log_partition", np.float32, rows)
    score = g.input("score", np.float64, rows)
    node = g.input("node", np.int64, rows)
    member = g.input("member", np.bool_, grid)
    children = g.input("children", np.int32, ["nodes"])
    codes = g.input("codes", np.int32, ["edges"])
    sizes = g.input("sizes", np.int64, ["grid"])
    width = g.input("width", np.int64, [1])  # children of the level's widest node
    slots = g.input("slots", np.int64, [1])  # S at most
    first_row = g.input("first_row", np.int64, [])  # of the level's block

    last = g.const([-1])
    lowest = g.const(-np.inf, np.float64)
    batch, count = g.size("node", 0), g.size("node", 1)
    places = g.op("Mul", count, width)

    here = g.op("Max", node, g.const(0))
    begins = g.op("Gather", children, here)
    ends = g.op("Gather", children, g.op("Add", here, g.const(1)))
    number = g.op("Sub", ends, begins)
    offset = g.op("Cast", g.span(width), to=6)
    there = g.op("Less", offset, g.op("Unsqueeze", number, last))
    alive = g.op("GreaterOrEqual", node, g.const(0))
    there = g.op("And", there, g.op("Unsqueeze", alive, last))
    edge = g.op("Add", g.op("Unsqueeze", begins, last), offset)
    edge = g.op("Where", there, edge, g.const(0, np.int32))
    code = g.op("Cast", g.op("Gather", codes, edge), to=7)
    logit = g.op("GatherElements", logits, code, axis=2)
    wide = g.op("Cast", logit, to=11)
    gain = g.op("Sub", wide, g.op("Unsqueeze", g.op("Cast", partition, to=11), last))
    total = g.op("Add", g.op("Unsqueeze", score, last), gain)
    # What is not finite is counted and never chosen; the host refuses the search for it.
    finite = g.op("Less", g.op("Abs", total), g.const(np.inf, np.float64))
    wrong = g.op("Cast", g.op("And", there, g.op("Not", finite)), to=7)
    total = g.op("Where", g.op("And", there, finite), total, lowest)

    # The log-sum-exp over each row's children; an empty row has none, and is the parent of none.
    listed = g.op("Where", there, wide, lowest)
    highest = g.op("ReduceMax", listed, last, keepdims=1)
    summed = g.op("ReduceSum", g.op("Exp", g.op("Sub", listed, highest)), last, keepdims=0)
    allowed = g.op("Add", g.op("Log", summed), g.op("Squeeze", highest, last))
    allowed = g.op("Cast", allowed, to=1)

    def flat(value: str) -> str:
        return g.reshape(value, [batch, places])

    # Each beam's best children, as a mask over all places.
    own = g.op("Where", g.op("Unsqueeze", member, last), total, lowest)
    own = g.reshape(own, [-1, batch, places])
    most = g.op("Min", g.op("ReduceMax", sizes, keepdims=1), places)
    best, place = g.ops("TopK", own, most, count=2, axis=-1)
    within = g.op("Less", g.span(most), g.op("Unsqueeze", sizes, g.const([1, 2])))
    kept = g.op("And", within, g.op("Greater", best, lowest))
    nothing = g.op("Expand", g.const(0), g.op("Shape", own))
    marks = g.op("ScatterElements", nothing, place, g.op("Cast", kept, to=7), axis=2)

    # What any of them keeps, in the order of the places.
    union = g.op("ReduceMax", marks, g.const([0]), keepdims=0)
    key = g.op("Mul", union, g.op("Sub", places, g.span(places)))
    found, chosen = g.ops("TopK", key, g.op("Min", slots, places), count=2, axis=-1)
    live = g.op("Greater", found, g.const(0))
    parent = g.op("Div", chosen, width)
    new_code = g.op("GatherElements", flat(code), chosen, axis=1)
    new_node = g.op("Cast", g.op("GatherElements", flat(edge), chosen, axis=1), to=7)
    tokens = g.op("Add", g.op("Where", live, new_code, g.const(0)), first_row)
    start = g.op("Unsqueeze", g.op("Mul", g.span(batch), count), g.const([1]))
    shape = g.op("Concat", g.size("member", 0), g.op("Shape", chosen), axis=0)
    marks = g.op("GatherElements", marks, g.op("Expand", chosen, shape), axis=2)

    new = ["batch", "new_rows"]
    g.output("tokens", tokens, np.int64, new)
    g.output("parents", g.reshape(g.op("Add", parent, start), [-1]), np.int64, ["all_rows"])
    g.output("new_node", g.op("Where", live, new_node, g.const(-1)), np.int64, new)
    total = g.op("GatherElements", flat(total), chosen, axis=1)
    g.output("new_score", g.op("Where", live, total, lowest), np.float64, new)
    g.output("new_member", g.op("Greater", marks, g.const(0)), np.bool_, ["grid", *new])
    g.output("parent", parent, np.int64, new)
    g.output("code", new_code, np.int64, new)
    g.output("logit", g.op("GatherElements", flat(logit), chosen, axis=1), np.float32, new)
    chosen_partition = g.op("GatherElements", partition, parent, axis=1)
    g.output("partition", chosen_partition, np.float32, new)
    g.output("allowed", g.op("GatherElements", allowed, parent, axis=1), np.float32, new)
    wrong = g.op("ReduceSum", wrong, g.const([1, 2]), keepdims=0)
    g.output("not_finite", wrong, np.int64, ["batch"])
    g.output("kept", g.op("ReduceSum", union, g.const([1]), keepdims=0), np.int64, ["batch"])
