"""The write protocol: a crash at any step, a full disk; never a marker before its chunks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from genret_dask.cube.store import create_cube, write_shard
from genret_dask.errors import GenretError
from genret_dask.kinds import CodesIdentifiers
from genret_dask.run.verification import verify_run
from genret_dask.shards.ledger import Ledger
from genret_dask.shards.plan import ShardTask
from genret_dask.storage import places as storage
from genret_dask.study.sweep import Study
from tests.cube.test_cube import make_arrays, make_template
from tests.runs import differing, make_spec

pytestmark = pytest.mark.chaos

TASK = ShardTask("codes", 0, "a", 0, 2)
CRASHED = 9


def write_and_mark(run: Path) -> None:
    template = make_template()
    arrays = make_arrays(template, 2, 0)
    digests = write_shard(run / "cube.zarr", "codes", 0, 0, arrays)
    ledger_of(run).mark(TASK, digests)


def ledger_of(run: Path) -> Ledger:
    return Ledger(run / "markers")


@pytest.fixture
def run(tmp_path) -> Path:
    create_cube(tmp_path / "run" / "cube.zarr", make_template())
    return tmp_path / "run"


CRASH = """
import os, sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.chaos.test_writes import CRASHED, write_and_mark

steps = {{"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.truncate"}}
source = Path({run!r})

def crash_at(step, run):
    seen = 0
    def count(event, arguments):
        nonlocal seen
        if event in steps and str(arguments[0]).startswith(str(run)):
            seen += 1
            if seen == step:
                os._exit(CRASHED)
    sys.addaudithook(count)
    write_and_mark(run)
    os._exit(0)

import shutil
for step in range(1, 500, {stride}):
    copy = source.with_name(f"crash-{{step}}")
    shutil.copytree(source, copy)
    child = os.fork()
    if not child:
        crash_at(step, copy)
    _, status = os.waitpid(child, 0)
    print(step, os.waitstatus_to_exitcode(status), flush=True)
    if not os.waitstatus_to_exitcode(status):
        break
"""


@pytest.mark.parametrize("stride", [5, pytest.param(1, marks=pytest.mark.slow)])
def test_a_crash_at_any_step_marks_nothing_that_is_not_there(run, tmp_path, stride):
    root = str(Path(__file__).parents[2])
    code = CRASH.format(root=root, run=str(run), stride=stride)
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True
    ).stdout
    ends = {int(step): int(end) for step, end in map(str.split, out.splitlines())}
    assert list(ends.values()) == [CRASHED] * (len(ends) - 1) + [0] and max(ends) > 40
    marked = 0
    for step in ends:
        crashed = tmp_path / f"crash-{step}"
        marked += ledger_of(crashed).read(TASK) is not None
        damages = verify_run(crashed)
        assert {damage.kind for damage in damages} <= {"leftover"}, step
        if step % 4 == 0:
            continue
        write_and_mark(crashed)
        assert not [damage for damage in verify_run(crashed) if damage.kind != "leftover"]
    assert 1 <= marked <= 5  # once the marker is in its place, little is left to do


def test_a_marker_comes_after_everything_is_on_the_disk(run, monkeypatch):
    events: list[tuple[str, Path]] = []
    real_fsync, real_link = os.fsync, os.link

    def fsync(descriptor):
        events.append(("sync", Path(os.readlink(f"/proc/self/fd/{descriptor}"))))
        real_fsync(descriptor)

    def link(source, target):
        events.append(("link", Path(target)))
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    write_and_mark(run)
    (place,) = (row for row, (what, _) in enumerate(events) if what == "link")
    before = {path for what, path in events[:place] if what == "sync"}
    folders = [
        run / "cube.zarr" / "codes" / dataset / name
        for dataset, variables in CodesIdentifiers().variables.items()
        for name in variables
    ]
    chunks = [path for folder in folders for path in folder.glob("c/0/**/*") if path.is_file()]
    assert len(chunks) == len(folders)
    for chunk in chunks:
        assert chunk in before
        assert {folder for folder in chunk.parents if run / "cube.zarr" in folder.parents} <= before
    assert any(path.suffix == storage.PARTIAL for path in before)
    assert ("sync", ledger_of(run).folder) in events[place:]


# --- a full disk ----------------------------------------------------------------------------------


@pytest.fixture
def disk(tmp_path):
    """A function that mounts, or resizes, a file system of its own."""
    place = tmp_path / "disk"
    place.mkdir()

    def of(size: int) -> Path:
        options = f"size={size}" + (",remount" if os.path.ismount(place) else "")
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)], capture_output=True
        )
        if made.returncode:
            pytest.skip("may not mount a file system here")
        return place

    yield of
    if os.path.ismount(place):
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def size_of(folder: Path) -> int:
    """Bytes on a disk of pages; links to one file count once."""
    files = {path.stat().st_ino: path for path in folder.rglob("*") if path.is_file()}
    return sum(-(-path.stat().st_size // 4096) * 4096 for path in files.values())


def test_a_full_disk_is_said_and_what_is_done_is_kept(toy, disk, monkeypatch):
    run = toy / "serial" / "toy"
    models = size_of(run) - size_of(run / "cube.zarr") - size_of(run / "markers")
    place = disk(models + size_of(run / "cube.zarr") // 2)
    left_out = shutil.ignore_patterns("cube.zarr", "markers", "carried")  # links take no room
    shutil.copytree(run, place / "toy", ignore=left_out)
    with pytest.raises(GenretError, match="cannot write to .*No space left") as error:
        Study(make_spec(toy), runs=place).search()
    assert error.value.exit_code == 1 and "free some room" in error.value.fix
    assert verify_run(place / "toy") == []
    done = len(list((place / "toy" / "markers").rglob("*.json")))
    assert 0 < done < len(list((run / "markers").rglob("*.json")))
    disk(4 * size_of(run))
    again = []
    from genret_dask.shards.task import run_shard

    monkeypatch.setattr(
        "genret_dask.study.search.run_shard",
        lambda task, *rest: (again.append(task.key), run_shard(task, *rest))[1],
    )
    cube = Study(make_spec(toy), runs=place).search()
    assert len(again) + done == len(list((run / "markers").rglob("*.json")))
    assert not differing(run / "cube.zarr", cube)


@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.9])
def test_a_disk_that_fills_at_any_stage_is_said(toy, disk, share):
    run = toy / "serial" / "toy"
    place = disk(max(4096, int(share * size_of(run))))
    with pytest.raises(GenretError, match="cannot write to|are free on the disk of"):
        Study(make_spec(toy), runs=place).search()
    disk(4 * size_of(run))
    cube = Study(make_spec(toy), runs=place).search()
    assert not differing(run / "cube.zarr", cube) and verify_run(place / "toy") == []
