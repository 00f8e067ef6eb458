"""genret-dask bench: this engine against transformers and plain loops, on this machine."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("named", metavar="[CASE]...", nargs=-1)
@click.option(
    "--case",
    "cases",
    multiple=True,
    help="Another way to name a CASE. `list` names them all.",
)
@click.option("--quick", is_flag=True, help="Small models, in about two minutes; no targets.")
@click.option(
    "--family",
    "families",
    multiple=True,
    help="A model family; llama and t5 by default.",
)
@click.option("--provider", type=click.Choice(["cpu", "cuda"]), default="cpu", show_default=True)
@click.option("--threads", type=click.IntRange(min=1), help="Of both sides; all cores by default.")
@click.option("--runs", type=click.IntRange(min=5), default=5, show_default=True)
@click.option(
    "--documents", type=click.IntRange(min=10_000), help="Of `corpus`; 100,000 by default."
)
@click.option(
    "--text",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    help="A BEIR folder that `corpus` draws its passages after; docstrings by default.",
)
@click.option("--json", "json_file", type=click.Path(path_type=Path, dir_okay=False))
@click.pass_context
def bench(
    context: click.Context,
    named: tuple[str, ...],
    cases: tuple[str, ...],
    quick: bool,
    families: tuple[str, ...],
    provider: str,
    threads: int | None,
    runs: int,
    documents: int | None,
    text: Path | None,
    json_file: Path | None,
) -> None:
    """Time this engine against the usual one, on the same weights and threads, in turns.

    Measures the CASEs that are named, or all.

    A ratio says how many times better ours is. A comparison whose results differ is not reported
    as a speed; the command then ends with an error.
    """
    from dask.system import cpu_count

    from genret_dask.bench.run import CASES, run
    from genret_dask.cli.tables import columns, format_table
    from genret_dask.errors import InputError
    from genret_dask.specs.registry import names_of

    cases = (*named, *cases)
    if "list" in cases:
        for name, (_, about) in CASES.items():
            click.echo(f"{name:12} {about}")
        return
    installed = names_of("families")
    for what, names, known in (("benchmark", cases, CASES), ("family", families, installed)):
        if unknown := [name for name in names if name not in known]:
            raise InputError(
                f"no {what} is called {', '.join(unknown)}", expected=f"some of {', '.join(known)}"
            )
    if json_file and not json_file.parent.is_dir():
        raise InputError(f"{json_file.parent} is not a folder", fix="make it, or write elsewhere")
    found = []
    threads = threads or cpu_count()
    for measurement in run(
        cases or tuple(CASES),
        families or ("llama", "t5"),
        quick,
        provider,
        threads,
        runs,
        documents,
        text,
    ):
        found.append(measurement.record())
        ratio = "differs!" if measurement.ratio is None else f"{measurement.ratio:.3g}x"
        click.echo(f"{ratio:>10}  {measurement.measure}: {measurement.case}", err=True)
        if json_file:
            json_file.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    click.echo(format_table(found, columns("measure; case; ours; peer; unit; ratio; target")))
    differing = [record for record in found if not record["equal"]]
    for record in differing:
        click.echo(f"results differ: {record['measure']}, {record['case']}", err=True)
    context.exit(1 if differing else 0)
