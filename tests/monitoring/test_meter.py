"""Phases and counts: heard by whoever listens around, and by nobody else."""

from __future__ import annotations

from distributed.metrics import context_meter
from hypothesis import given
from hypothesis import strategies as st

from genret_dask.inference import resident
from genret_dask.inference.beam import search
from genret_dask.monitoring.meter import PHASES, count, count_decoded, measured, phase
from tests.inference.test_beam import pad


def test_what_is_counted_within_is_summed_by_unit_and_inner_listeners_do_not_take_it_away():
    with measured() as outer:
        count("search", 2, "queries")
        with measured() as inner, phase("step"):
            count_decoded("search", 5)
            count("anything", 7, "no unit of ours")
    count("search", 100, "queries")
    assert inner.pop("seconds") <= outer.pop("seconds")
    assert inner == {"rows": 5, "tokens": 5}
    assert outer == {"queries": 2, "rows": 5, "tokens": 5}


@given(st.lists(st.sampled_from(PHASES), min_size=1, max_size=6))
def test_seconds_of_nested_phases_add_up_to_no_more_than_the_outermost_took(names):
    seconds = []

    def nest(rest):
        with phase(rest[0]):
            if rest[1:]:
                nest(rest[1:])

    def listen(name, amount, unit):
        seconds.append((name, amount))

    with context_meter.add_callback(listen), measured() as found:
        nest(names)
    assert [name for name, _ in seconds] == names[::-1]
    assert sum(amount for _, amount in seconds) <= found["seconds"] + 1e-3


def test_a_search_tells_its_phases_and_every_row_and_token_it_read(tiny):
    tokens, lengths = pad([[3, 7, 1], [9], [4, 4]])
    heard = []
    with (
        context_meter.add_callback(lambda *entry: heard.append(entry)),
        measured() as found,
    ):
        beams = search(tiny.session, tiny.codes.trie, tiny.vocabulary, tokens, lengths, [4])
    assert {name for name, _, unit in heard if unit == "seconds"} == {
        "prefill", "step", "constraint", "select"
    }  # fmt: skip
    assert found["rows"] == beams.rows_decoded.sum()
    assert found["tokens"] == found["rows"] + lengths.sum()


def test_the_search_on_a_device_counts_what_the_one_on_the_host_does(tiny):
    tokens, lengths = pad([[3, 7, 1], [9], [4, 4]])
    counted = []
    for one in (search, resident.search):
        with measured() as found:
            one(tiny.session, tiny.codes.trie, tiny.vocabulary, tokens, lengths, [1, 5])
        counted.append({unit: found[unit] for unit in ("rows", "tokens")})
    assert counted[0] == counted[1]
