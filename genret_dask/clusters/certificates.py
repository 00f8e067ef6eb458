"""A certificate authority for one cluster, and what its members show, as PEM files."""

from __future__ import annotations

import datetime
import ipaddress
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from genret_dask.errors import InputError


class _Signed(NamedTuple):
    certificate: Any
    key: Any


def make_certificates(folder: Path, hosts: Sequence[str], days: int = 365) -> tuple[Path, ...]:
    """Write ``ca.pem``, ``ca-key.pem``, ``node.pem`` and ``node-key.pem``.

    An authority that is in the folder already signs the new node's certificate. Keys are on P-256
    and can be read by their owner only.

    Parameters
    ----------
    folder : Path
    hosts : sequence of str
        Names and addresses that the node's certificate is for. Dask does not compare them: any
        certificate of the authority opens the cluster.
    days : int
        How long the certificates are valid.

    Returns
    -------
    tuple of Path
        The files that were written.

    Raises
    ------
    InputError
        The package cryptography is missing, or a file is there already.
    """
    try:
        import cryptography  # noqa: F401
    except ModuleNotFoundError as error:
        raise InputError(
            "certificates need the package cryptography, which is not installed",
            fix="pip install 'genret-dask[ssh]', or use openssl as docs/clusters.md shows",
        ) from error
    folder.mkdir(parents=True, exist_ok=True)
    authority = folder / "ca.pem", folder / "ca-key.pem"
    node = folder / "node.pem", folder / "node-key.pem"
    is_there = [path.exists() for path in authority]
    if any(path.exists() for path in node) or any(is_there) != all(is_there):
        there = ", ".join(path.name for path in (*authority, *node) if path.exists())
        raise InputError(
            f"{folder} already holds {there}",
            expected="no node certificate, and an authority with its key or none",
            fix="give another folder, or move these files away",
        )
    if all(is_there):
        issuer = _read(*authority)
    else:
        issuer = _sign("genret-dask cluster CA", days)
        _write(issuer, *authority)
    _write(_sign(hosts[0], days, issuer, hosts), *node)
    return node if all(is_there) else (*authority, *node)


def _sign(
    name: str, days: int, issuer: _Signed | None = None, hosts: Sequence[str] = ()
) -> _Signed:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    now = datetime.datetime.now(datetime.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer.certificate.subject if issuer else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        # Clocks of a cluster's hosts differ a little.
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if issuer:
        purposes = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    return _Signed(builder.sign(issuer.key if issuer else key, hashes.SHA256()), key)


def _general_name(host: str) -> Any:
    from cryptography import x509

    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _read(certificate: Path, key: Path) -> _Signed:
    from cryptography import x509
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return _Signed(
            x509.load_pem_x509_certificate(certificate.read_bytes()),
            load_pem_private_key(key.read_bytes(), password=None),
        )
    except (ValueError, TypeError, OSError) as error:
        raise InputError(
            f"{certificate} and {key} are not an authority's certificate and key: {error}",
            fix="give another folder, or move these files away",
        ) from error


def _write(signed: _Signed, certificate: Path, key: Path) -> None:
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    certificate.write_bytes(signed.certificate.public_bytes(Encoding.PEM))
    descriptor = os.open(key, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(signed.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
