"""genret-dask certificates: the PEM files that a cluster file's security names."""

from __future__ import annotations

from pathlib import Path

import click


@click.command()
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option(
    "--host",
    "hosts",
    multiple=True,
    required=True,
    metavar="NAME",
    help="A host name or address that the certificate is for; may be repeated.",
)
@click.option(
    "--days", type=click.IntRange(min=1), default=365, show_default=True, help="Of validity."
)
def certificates(folder: Path, hosts: tuple[str, ...], days: int) -> None:
    """Make a CA, and a certificate and key that scheduler, workers and clients show.

    Run again without node.pem, the CA in DIR signs another one.
    """
    from genret_dask.clusters.certificates import make_certificates

    for path in make_certificates(folder, hosts, days):
        click.echo(path)
    click.echo(
        "keep ca-key.pem off the cluster: whoever has it, or any certificate it signed with its "
        "key, can run code there",
        err=True,
    )
