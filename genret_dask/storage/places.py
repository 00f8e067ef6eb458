"""Where run directories live: a folder of this machine, or a prefix of an object store by its URL.

Paths of this machine are `pathlib.Path`, those of an object store `upath.UPath`; both take the
same operators. On disks a file is durable when it and its folder were synced, and whole when it was
renamed into place; an object store acknowledges whole objects only. Files that a library must map
are fetched once per host, into a cache that is checked by hash (see
`genret_dask.storage.host_cache`).
"""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from genret_dask.errors import GenretError, InputError

_AT_ONCE = 1000  # objects asked for together

CACHE = "GENRET_CACHE"
"""Environment variable: the folder of a host for what it fetches; ~/.cache/genret-dask without."""

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_FULL_TEXT = re.compile(r"No space left|^\d+ requested and \d+ written$")  # safetensors, NumPy

PARTIAL = ".partial"
"""Suffix of files and folders that are being written; `repair` removes what a crash left."""


def place_of(place: Path | str) -> Path:
    """A folder by its path, made absolute, or by the URL of an object store.

    Raises
    ------
    InputError
        The URL's store needs a package that is not installed, or the URL holds a password.
    """
    text = str(place)
    if "://" not in text:
        return place if not isinstance(place, str | Path) else Path(place).absolute()
    scheme, _, rest = text.partition("://")
    if "@" in rest.partition("/")[0]:
        raise InputError(
            f"a {scheme}:// URL with credentials in it",
            expected=f"{scheme}://bucket/folder, as URLs are logged",
            fix="give credentials by the store's own means, as AWS_ACCESS_KEY_ID or a profile",
        )
    try:
        from upath import UPath

        options: dict[str, Any] = {"use_listings_cache": False} if scheme == "s3" else {}
        found: Any = UPath(text.rstrip("/"), protocol=scheme, **options)
        _ = found.fs  # its package is imported here
        return found
    except (ImportError, ValueError) as error:
        raise InputError(
            f"{text} cannot be reached: {error}",
            expected="a local path, or a URL whose file system is installed",
            fix="pip install 'genret-dask[s3]' for s3://",
        ) from error


def is_local(path: Path) -> bool:
    return isinstance(path, Path)


# --- single files ---------------------------------------------------------------------------------


def replace_file(path: Path, content: bytes) -> None:
    """Put a file in its place, whole and durable; another one of that name is replaced.

    Raises
    ------
    GenretError
        There is no room, or no permission to write; what was there is still there.
    """
    if not is_local(path):
        path.write_bytes(content)
        return
    partial = beside(path)
    _write_synced(partial, content)
    os.replace(partial, path)
    fsync(path.parent)


def create_file(path: Path, content: bytes) -> bool:
    """Put a file in its place, whole and durable, unless there is one: then return False.

    Raises
    ------
    GenretError
        There is no room, or no permission to write.
    """
    if not is_local(path):
        return _create_object(path, content)
    partial = beside(path)
    _write_synced(partial, content)
    try:
        os.link(partial, path)
    except FileExistsError:
        return False
    finally:
        partial.unlink()
    fsync(path.parent)
    return True


def _create_object(path: Any, content: bytes) -> bool:
    try:
        path.fs.pipe_file(path.path, content, mode="create")
    except FileExistsError:
        # An answer may have been lost after the store had taken the object: it is ours then.
        return bool(path.read_bytes() == content)
    return True


def _write_synced(path: Path, content: bytes) -> None:
    try:
        with open(path, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        path.unlink(missing_ok=True)
        raise unwritable(path, error) from error


def beside(path: Path) -> Path:
    """A name for `path` while it is being written, which no other writer has."""
    return path.with_name(f"{path.name}.{_writer()}{PARTIAL}")


def _writer() -> str:
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"


def fsync(path: Path) -> None:
    """Have the operating system put a file, or a folder's entries, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(folder: Path) -> None:
    """Make a folder, and probe that it can be written to and creates a file once only.

    Raises
    ------
    GenretError
        It cannot be made, reached or written to, or its object store ignores ``If-None-Match``:
        two writers could not be told apart.
    """
    probe = folder / f".probe.{_writer()}"
    try:
        if is_local(folder):
            folder.mkdir(parents=True, exist_ok=True)
        create_file(probe, b"1")
        once = not create_file(probe, b"2")
        probe.unlink()
    except Exception as error:  # a store's library has errors of its own
        raise unwritable(folder, error) from error
    if not once:
        raise GenretError(
            f"the object store of {folder} overwrites where it was asked to create",
            expected="a store that honours If-None-Match on writes, as S3 does",
            fix="use another store, or a file system that all workers share",
        )


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say plainly that there is no room, whichever library's error says it.

    Raises
    ------
    GenretError
        The disk, or the user's share of it, is full or read-only.
    """
    try:
        yield
    except Exception as error:
        full = isinstance(error, OSError) and error.errno in _FULL
        if full or _FULL_TEXT.search(str(error)):
            raise unwritable(path, error) from error
        raise


def unwritable(path: Path, error: Exception) -> GenretError:
    """The error for a place that cannot be written to."""
    reason = getattr(error, "strerror", None) or error
    return GenretError(
        f"cannot write to {path}: {reason}",
        expected="a run directory that this user can write to, on a disk with room",
        fix="free some room, choose another place with --runs, or change its permissions; "
        "what is finished is kept",
    )


# --- folders --------------------------------------------------------------------------------------


def cache() -> Path:
    """The folder of this host for what it fetches and stages."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get(CACHE) or Path(home) / "genret-dask")


@contextmanager
def staged(folder: Path, last: str) -> Iterator[Path]:
    """Give a folder of this machine to fill; on leaving without an error it takes `folder`'s place.

    Parameters
    ----------
    last : str
        The file whose presence says that the rest is there: the last to reach an object store.

    Raises
    ------
    GenretError
        There is no room, or no permission to write.
    """
    staging = beside(folder if is_local(folder) else cache() / "staging" / folder.name)
    try:
        staging.mkdir(parents=True)
    except OSError as error:
        raise unwritable(staging, error) from error
    try:
        with writing(folder):
            yield staging
            if is_local(folder):
                for path in [*staging.rglob("*"), staging]:
                    fsync(path)
                _move(staging, folder)
                fsync(folder.parent)
            else:
                _upload(staging, folder, last)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def link_tree(source: Path, folder: Path, without: str | None = None) -> None:
    """Fill an empty or absent folder with links to the files of another, or with copies.

    Parameters
    ----------
    without : str, optional
        A name that is left out.
    """
    ignore = None if without is None else shutil.ignore_patterns(without)
    shutil.copytree(source, folder, copy_function=_linked, ignore=ignore, dirs_exist_ok=True)


def _linked(source: str, target: str) -> None:
    """Link a file, or copy it where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _move(staging: Path, folder: Path) -> None:
    """Rename a folder; one of that name goes away, whoever put it there."""
    while True:
        try:
            os.rename(staging, folder)
            return
        except OSError:
            if not folder.exists():
                raise
        old = beside(folder)
        try:
            os.rename(folder, old)
        except FileNotFoundError:
            continue  # another writer was as quick
        shutil.rmtree(old, ignore_errors=True)


def _upload(staging: Path, folder: Any, last: str) -> None:
    files = sorted(path for path in staging.rglob("*") if path.is_file())
    files.sort(key=lambda path: path == staging / last)
    if (folder / last).is_file():
        (folder / last).unlink()  # from here on the old one is not whole any more
    for path in files:
        target = folder / path.relative_to(staging).as_posix()
        target.fs.put_file(str(path), target.path)


def remove(folder: Path) -> None:
    """Remove a folder and what is in it, if it is there."""
    if is_local(folder):
        shutil.rmtree(folder, ignore_errors=True)
        return
    place: Any = folder
    if place.exists():
        place.fs.rm(place.path, recursive=True)


def names_in(folder: Path) -> list[str]:
    """Names in a folder, by one listing; empty where there is no folder."""
    try:
        if is_local(folder):
            return os.listdir(folder)
        place: Any = folder
        return [name.rpartition("/")[2] for name in place.fs.ls(place.path, detail=False)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_files(paths: dict[str, Path]) -> dict[str, bytes]:
    """Contents of many files, by the same keys; those of an object store many at a time."""
    keys = list(paths)
    if not keys or is_local(paths[keys[0]]):
        return {key: path.read_bytes() for key, path in paths.items()}
    found: dict[str, bytes] = {}
    for first in range(0, len(keys), _AT_ONCE):
        chosen: dict[str, Any] = {key: paths[key] for key in keys[first : first + _AT_ONCE]}
        fs = chosen[keys[first]].fs
        contents = fs.cat([path.path for path in chosen.values()])
        found |= {key: contents[path.path] for key, path in chosen.items()}
    return found


def bytes_below(folder: Path) -> int:
    """Bytes of the files below a folder of this machine, if it is there."""
    found = 0
    for path, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):  # a file that another process removes
                found += os.stat(os.path.join(path, name)).st_size
    return found


def files_in(folder: Path) -> list[str]:
    """Paths of all files below a folder, relative to it, in order."""
    if is_local(folder):
        return sorted(
            path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
        )
    place: Any = folder
    root = place.path.rstrip("/") + "/"
    return sorted(name.removeprefix(root) for name in place.fs.find(place.path))
