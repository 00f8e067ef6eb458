"""genret-dask schema: what editors complete and check the YAML files by."""

from __future__ import annotations

import json

import click


@click.command()
@click.argument("of", type=click.Choice(["study", "cluster"]), default="study")
def schema(of: str) -> None:
    """Print the JSON schema of a study's YAML, or of a cluster's.

    With the first line `# yaml-language-server: $schema=study.schema.json` a file is completed and
    checked as it is typed, in editors that know the YAML language server.
    """
    if of == "study":
        from genret_dask.specs.schema import study_schema

        found = study_schema()
    else:
        from genret_dask.clusters.spec import ClusterSpec

        found = ClusterSpec.model_json_schema()
    click.echo(json.dumps(found, indent=2))
