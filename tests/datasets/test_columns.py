import pytest
from hypothesis import given
from hypothesis import strategies as st

from genret_dask.datasets.columns import Strings

distinct = st.lists(st.text(max_size=4), min_size=65, max_size=200, unique=True)


def looked_up(values, names):
    column = Strings.of(values)
    return Strings(column.column, column.sort_hashes()).find(names).tolist()


@given(distinct, st.data())
def test_a_name_is_found_by_its_hash(values, data):
    name = data.draw(st.sampled_from(values) | st.text(max_size=4))
    expected = values.index(name) if name in values else -1
    assert looked_up(values, [name]) == Strings.of(values).find([name]).tolist() == [expected]


@pytest.mark.parametrize("name", ["d0", "d7", "d199", "other"])
def test_strings_of_one_hash_are_told_apart(monkeypatch, name):
    hashes = Strings.hashes.fget
    monkeypatch.setattr(Strings, "hashes", property(lambda self: hashes(self) % 3))
    values = [f"d{row}" for row in range(200)]
    expected = values.index(name) if name in values else -1
    assert looked_up(values, [name]) == [expected]
    assert Strings.of(values).repeated() is None


def test_a_string_that_the_column_repeats_is_its_last_row():
    values = ["a"] * 100 + ["b"]
    assert looked_up(values, ["a"]) == Strings.of(values).find(["a"]).tolist() == [99]
