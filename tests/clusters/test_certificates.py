"""Certificates that the command makes: who signed them, for whom, and who may read the keys."""

from __future__ import annotations

import datetime
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

import pytest
from click.testing import CliRunner

from genret_dask.cli import main
from genret_dask.clusters.security import ROLES, ClusterSecurity, tls_settings
from genret_dask.errors import InputError

x509 = pytest.importorskip("cryptography.x509")

from genret_dask.clusters.certificates import make_certificates  # noqa: E402

DOCS = Path(__file__).parents[2] / "docs" / "clusters.md"


def read(path):
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_the_command_makes_a_pair_that_its_authority_signed(tmp_path):
    folder = tmp_path / "pki"
    arguments = ["certificates", str(folder), "--host", "node1", "--host", "10.0.0.1"]
    result = CliRunner().invoke(main, [*arguments, "--days", "7"])
    assert result.exit_code == 0, result.output
    names = ["ca.pem", "ca-key.pem", "node.pem", "node-key.pem"]
    assert result.stdout.split() == [str(folder / name) for name in names]
    assert "ca-key.pem off the cluster" in result.stderr
    for name in ("ca-key.pem", "node-key.pem"):
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
    authority, node = read(folder / "ca.pem"), read(folder / "node.pem")
    node.verify_directly_issued_by(authority)
    names = node.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["node1"]
    assert [str(ip) for ip in names.get_values_for_type(x509.IPAddress)] == ["10.0.0.1"]
    assert not node.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    left = node.not_valid_after_utc - datetime.datetime.now(datetime.UTC)
    assert 6 <= left.days <= 7


def test_an_authority_that_is_there_signs_another_pair(tmp_path):
    make_certificates(tmp_path, ["a"])
    authority = (tmp_path / "ca.pem").read_bytes()
    with pytest.raises(InputError, match="already holds ca.pem, ca-key.pem, node.pem"):
        make_certificates(tmp_path, ["b"])
    for name in ("node.pem", "node-key.pem"):
        (tmp_path / name).unlink()
    assert [path.name for path in make_certificates(tmp_path, ["b"])] == [
        "node.pem",
        "node-key.pem",
    ]
    assert (tmp_path / "ca.pem").read_bytes() == authority
    read(tmp_path / "node.pem").verify_directly_issued_by(read(tmp_path / "ca.pem"))


def test_half_an_authority_or_a_broken_one_is_refused(tmp_path):
    (tmp_path / "ca.pem").write_text("x")
    with pytest.raises(InputError, match="already holds ca.pem"):
        make_certificates(tmp_path, ["a"])
    (tmp_path / "ca-key.pem").write_text("x")
    with pytest.raises(InputError, match="not an authority's certificate and key"):
        make_certificates(tmp_path, ["a"])
    assert not (tmp_path / "node.pem").exists()


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
def test_the_lines_for_openssl_make_the_same_files(tmp_path):
    lines = [line for line in DOCS.read_text().splitlines() if line.startswith("openssl ")]
    assert len(lines) == 3
    for line in lines:
        subprocess.run(shlex.split(line), cwd=tmp_path, check=True, capture_output=True)
    read(tmp_path / "node.pem").verify_directly_issued_by(read(tmp_path / "ca.pem"))
    names = {"ca": "ca.pem", "cert": "node.pem", "key": "node-key.pem"}
    security = ClusterSecurity(**{name: tmp_path / file for name, file in names.items()})
    tls_settings(security, ROLES)
