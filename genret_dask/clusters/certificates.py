"""Makes a certificate authority for one cluster, and what its members show, as PEM files."""

from __future__ import annotations

import ipaddress
import os
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from genret_dask.errors import InputError

try:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
except ModuleNotFoundError:  # an extra: make_certificates says so
    x509 = None  # type: ignore[assignment]


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
        The package cryptography is missing, a file is there already, or the authority that is there
        cannot be read.
    """
    if x509 is None:
        raise InputError(
            "certificates need the package cryptography, which is not installed",
            fix="pip install 'genret-dask[ssh]', or use openssl as docs/clusters.md shows",
        )
    folder.mkdir(parents=True, exist_ok=True)
    authority = folder / "ca.pem", folder / "ca-key.pem"
    node = folder / "node.pem", folder / "node-key.pem"
    there = [path for path in (*authority, *node) if path.exists()]
    if there and there != list(authority):
        raise InputError(
            f"{folder} already holds {', '.join(path.name for path in there)}",
            expected="no node certificate, and an authority with its key or none",
            fix="give another folder, or move these files away",
        )
    issuer, key = _read(*authority) if there else _sign(authority, "genret-dask cluster CA", days)
    names = x509.SubjectAlternativeName([_general_name(host) for host in hosts])
    _sign(node, hosts[0], days, (issuer.subject, key), names)
    return node if there else (*authority, *node)


def _sign(paths: Any, name: str, days: int, issuer: Any = None, names: Any = None) -> Any:
    """Write a new key and a certificate of it, signed by `issuer` or by itself; return both."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name[:64])])
    issuer_name, issuer_key = issuer or (subject, key)
    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .issuer_name(issuer_name)
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks of a cluster's hosts differ a little
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
    )
    if names:
        purposes = [x509.ExtendedKeyUsageOID.SERVER_AUTH, x509.ExtendedKeyUsageOID.CLIENT_AUTH]
        builder = builder.add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        builder = builder.add_extension(names, critical=False)
    certificate = builder.sign(issuer_key, hashes.SHA256())
    pem = serialization.Encoding.PEM
    paths[0].write_bytes(certificate.public_bytes(pem))
    secret = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    descriptor = os.open(paths[1], os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secret)
    return certificate, key


def _general_name(host: str) -> Any:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _read(certificate: Path, key: Path) -> Any:
    try:
        return (
            x509.load_pem_x509_certificate(certificate.read_bytes()),
            serialization.load_pem_private_key(key.read_bytes(), password=None),
        )
    except (ValueError, TypeError, OSError) as error:
        raise InputError(
            f"{certificate} and {key} are not an authority's certificate and key: {error}",
            fix="give another folder, or move these files away",
        ) from error
