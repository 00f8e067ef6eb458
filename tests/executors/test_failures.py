"""Failures: kept in the run directory until the task succeeds, and summed up in one error."""

from __future__ import annotations

from genret_dask.errors import BudgetError, GenretError, ModelError
from genret_dask.executors.failures import FailureLog, read_failures, summary


def test_what_failed_is_kept_until_it_succeeds(tmp_path):
    log = FailureLog(tmp_path)
    log.add("b", ValueError("bad"), "tcp://w", 2)
    log.add("a", GenretError("found", fix="mend"), "", 1)
    first, second = read_failures(tmp_path)
    assert (first.key, first.error) == ("a", "GenretError: found")
    assert (second.worker, second.attempts) == ("tcp://w", 2) and second.time.endswith("+00:00")
    later = FailureLog(tmp_path)
    later.discard("c")
    later.discard("a")
    assert [one.key for one in read_failures(tmp_path)] == ["b"]
    later.discard("b")
    assert not (tmp_path / "failures.json").exists() and read_failures(tmp_path) == []


def test_all_are_forgotten_at_the_end(tmp_path):
    log = FailureLog(tmp_path)
    log.add("a", ValueError(), "", 1)
    log.clear()
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_is_a_warning(tmp_path, caplog):
    for content in ("{", '{"failures": [{"no": 1}]}', "[]"):
        (tmp_path / "failures.json").write_text(content)
        assert read_failures(tmp_path) == []
        assert "is damaged" in caplog.text
        caplog.clear()


def test_the_same_reason_is_logged_once(caplog):
    log = FailureLog()
    for key in "abc":
        log.add(key, ValueError("same"), "w", 1)
    assert len(caplog.records) == 1


def test_one_error_stands_for_all():
    alone = ModelError("m", fix="mend it")
    assert summary([("a", alone)], 3) is alone
    same = summary([("a", ModelError("m")), ("b", ModelError("m"))], 3)
    assert same.found == "m" and same.exit_code == 2
    kind = summary([("a", BudgetError("1", fix="more")), ("b", BudgetError("2"))], 9)
    assert type(kind) is BudgetError and kind.fix == "more" and "2 of 9 tasks" in kind.found
    mixed = summary([(f"k{n}", ValueError(str(n))) for n in range(7)] + [("z", alone)], 9)
    assert type(mixed) is GenretError and "k4: ValueError: 4" in mixed.found
    assert "and 3 more, in failures.json" in mixed.found
