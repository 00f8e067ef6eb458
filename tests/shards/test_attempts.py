"""Attempts that died are counted; allocations that fail lead to smaller batches."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from genret_dask.errors import BudgetError
from genret_dask.kinds.fixed import CodeDecoder
from genret_dask.shards.attempts import attempt
from genret_dask.shards.memory_plan import MemoryPlan
from tests.shards.test_resources import Workbench, root

__all__ = ["root"]


def test_attempts_that_died_are_counted_and_ended_ones_are_not(tmp_path):
    script = """
    import os, sys
    from pathlib import Path
    from genret_dask.shards.attempts import attempt
    with attempt(Path(sys.argv[1]), "k"):
        os._exit(9)
    """
    for _ in range(2):
        command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
        assert subprocess.run(command).returncode == 9
    with attempt(tmp_path, "other") as died:
        assert died == 0
    with pytest.raises(ZeroDivisionError), attempt(tmp_path, "k") as died:
        assert died == 2
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with attempt(tmp_path, "k") as died:
        assert died == 0


def test_a_damaged_or_unwritable_count_is_no_reason_to_stop(tmp_path, caplog):
    (tmp_path / "k.attempts").write_text("many")
    with attempt(tmp_path, "k") as died:
        assert died == 0
    (tmp_path / "file").touch()
    with attempt(tmp_path / "file", "k") as died:
        assert died == 0
    assert "cannot count" in caplog.text


def test_each_death_halves_the_room_down_to_one_query(root):
    bench = Workbench(root, "t5")
    spec = bench.spec.model_copy(update={"memory": "100GB", "batch_queries": 8})
    memory = MemoryPlan(bench.task, bench.decoding, spec, np.full(8, 15), bench.candidates)
    batches = [
        memory.splits(memory.room(bench.resources, died), bench.resources)[16] for died in range(9)
    ]
    assert [queries for queries, _ in batches] == [8, 8, 8, 8, 4, 2, 1, 1, 1]
    assert {candidates for _, candidates in batches[:-2]} == {bench.candidates}


@pytest.mark.parametrize("fits", [1, 0])
def test_an_allocation_that_fails_is_tried_with_smaller_batches(root, monkeypatch, fits):
    bench = Workbench(root, "t5")
    plain, sizes = bench.compute(10**9), []
    search = CodeDecoder.search

    def greedy(self, tokens, lengths):
        sizes.append(len(tokens))
        np.ones((len(tokens) - fits) * 2**46)  # more than any address space
        return search(self, tokens, lengths)

    monkeypatch.setattr(CodeDecoder, "search", greedy)
    if not fits:
        with pytest.raises(BudgetError, match="did not find the memory") as error:
            bench.compute(10**9)
        assert isinstance(error.value.__cause__, MemoryError)
        return
    found = bench.compute(10**9)
    assert sizes[0] > 1 and sizes[-1] == 1
    np.testing.assert_array_equal(found["search"]["doc"], plain["search"]["doc"])
    np.testing.assert_allclose(found["search"]["score"], plain["search"]["score"], rtol=1e-5)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs resource limits")
def test_onnxruntimes_own_failures_are_recognised(root):
    folder = root / "serial" / "toy" / "models" / "codes" / "t5"
    script = """
    import resource, sys
    import numpy as np, psutil
    from genret_dask.inference.session import open_session
    from genret_dask.shards.memory_plan import is_out_of_memory
    session = open_session(sys.argv[1])
    room = psutil.Process().memory_info().vms + 2**28
    resource.setrlimit(resource.RLIMIT_AS, (room, room))
    tokens = np.full((20_000, 64), 5)
    for lengths in (np.full(20_000, 64), np.array([64])):
        try:
            session.prefill(tokens[:len(lengths)], lengths)
            print("fits")
        except Exception as error:
            print(is_out_of_memory(error))
    print(is_out_of_memory(RuntimeError("bad graph")), is_out_of_memory(ValueError()))
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(folder)]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert out.split() == ["True", "fits", "False", "False"]
