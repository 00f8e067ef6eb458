"""The ``security`` of a cluster file: TLS 1.3 by PEM files, both sides proving who they are.

Dask reads certificates from its configuration on every side of a connection, so a cluster's are
turned into configuration; `tls_settings` gives it, after a look at the files that are read here.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from genret_dask.errors import SpecError
from genret_dask.specs.validation import Record

logger = logging.getLogger(__name__)

Role = Literal["scheduler", "worker", "client"]
ROLES: tuple[Role, ...] = ("scheduler", "worker", "client")

_TLS = "distributed.comm.tls"
_MAKE = "genret-dask certificates DIR --host NAME makes a CA, a certificate and a key"


class Pair(Record):
    """A certificate and its private key, PEM files."""

    cert: Path
    key: Path


class ClusterSecurity(Record):
    """A cluster's authority, and a certificate and key for all roles or for each its own."""

    ca: Path = Field(description="certificate of the authority that signed all others")
    cert: Path | None = None
    key: Path | None = None
    scheduler: Pair | None = None
    worker: Pair | None = None
    client: Pair | None = None

    @model_validator(mode="after")
    def _whole(self) -> ClusterSecurity:
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key go together")
        return self

    def pair(self, role: Role) -> Pair | None:
        """Return the certificate and key that `role` shows."""
        own: Pair | None = getattr(self, role)
        if own is None and self.cert is not None and self.key is not None:
            return Pair(cert=self.cert, key=self.key)
        return own

    def within(self, folder: Path) -> ClusterSecurity:
        """Take relative paths from `folder`."""
        pairs = {
            role: Pair(cert=folder / pair.cert, key=folder / pair.key)
            for role in ROLES
            if (pair := self.pair(role))
        }
        return ClusterSecurity(ca=folder / self.ca, **pairs)


def tls_settings(security: ClusterSecurity, here: Sequence[Role]) -> dict[str, Any]:
    """Check the files that are read here, and give Dask's configuration for this security.

    Parameters
    ----------
    security : ClusterSecurity
        With absolute paths.
    here : sequence of Role
        The roles that processes of this machine have; only their files are looked at.

    Raises
    ------
    SpecError
        A file is missing, cannot be read, is not PEM, or a key does not fit its certificate.
    """
    settings: dict[str, Any] = {
        "distributed.comm.require-encryption": True,
        "distributed.comm.default-scheme": "tls",
        f"{_TLS}.min-version": 1.3,
        f"{_TLS}.ca-file": str(security.ca),
    }
    _check_ca(security.ca)
    checked = set()
    for role in ROLES:
        pair = security.pair(role)
        if pair is None:
            continue
        settings[f"{_TLS}.{role}.cert"] = str(pair.cert)
        settings[f"{_TLS}.{role}.key"] = str(pair.key)
        if role in here and (pair.cert, pair.key) not in checked:
            _check_pair(pair)
            checked.add((pair.cert, pair.key))
    return settings


def tls_environment(settings: dict[str, Any]) -> dict[str, str]:
    """Give a worker that is started elsewhere its part of `settings`, as environment variables.

    Command lines name the files, but neither the least version nor that plain text is refused.
    """
    names = ("distributed.comm.require-encryption", f"{_TLS}.min-version")
    variables = [name.upper().replace(".", "__").replace("-", "_") for name in names]
    return {f"DASK_{one}": str(settings[name]) for one, name in zip(variables, names, strict=True)}


def has_tls_settings() -> bool:
    """Tell whether Dask's own configuration names what a client shows."""
    import dask

    return all(dask.config.get(f"{_TLS}.{name}", None) for name in ("ca-file", "client.cert"))


def _check_ca(path: Path) -> None:
    found = f"security.ca {path} holds no certificate"
    _check([path], lambda: ssl.create_default_context(cafile=path), found, "a PEM file")


def _check_pair(pair: Pair) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    _check(
        [pair.cert, pair.key],
        # A key under a passphrase would be asked for on the terminal, by every process.
        lambda: context.load_cert_chain(pair.cert, pair.key, password=lambda: ""),
        f"security: {pair.cert} and {pair.key} are not a certificate and its key",
        "two PEM files that belong together, the key without a passphrase",
    )
    if pair.key.stat().st_mode & 0o077:
        logger.warning(
            "the private key %s can be read by others than its owner: chmod 600 it", pair.key
        )


def _check(paths: Sequence[Path], load: Callable[[], Any], found: str, expected: str) -> None:
    """Refuse files that cannot be read, or that `load` does not take."""
    for path in paths:
        try:
            path.open("rb").close()
        except OSError as error:
            raise SpecError(
                f"security: {path} cannot be read ({error.strerror})",
                expected="a PEM file; relative paths are taken from the cluster file's folder",
                fix=_MAKE,
            ) from error
    try:
        load()
    except OSError as error:  # SSLError is one
        reason = getattr(error, "reason", None) or error
        raise SpecError(f"{found} ({reason})", expected=expected, fix=_MAKE) from error
