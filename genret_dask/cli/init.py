"""genret-dask init: a study's YAML to begin with."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from genret_dask.datasets import Dataset

_HEAD = """{title}: every key with its default, apart from name and dataset; leave out what
you do not change.

    genret-dask sweep --cluster cluster_specs/local.yaml --config {file} --dry-run
"""


@click.command()
@click.option("--dataset", "kind", default="pydoc", show_default=True, help="Kind of collection.")
@click.argument("values", nargs=-1, metavar="[PATH] [KEY=VALUE]...")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False, allow_dash=True),
    default=Path("study.yaml"),
    show_default=True,
    help="The file to write, or - for the terminal.",
)
@click.option("--force", is_flag=True, help="Write over a file that is there.")
def init(kind: str, values: tuple[str, ...], output: Path, force: bool) -> None:
    """Write the YAML of a study of a collection, with every key explained.

    PATH is the first key that the kind needs: a beir dataset's folder, a dpr dataset's passages, an
    id of ir_datasets. Others are given as KEY=VALUE; `genret-dask datasets list` shows them.
    """
    from genret_dask.errors import InputError
    from genret_dask.specs import SweepSpec
    from genret_dask.specs.written import written

    if str(output) != "-" and output.exists() and not force:
        raise InputError(f"{output} is there", expected="a new file", fix="--force writes over it")
    dataset = _dataset(kind, values)
    dataset.fingerprint()  # says what of its files is missing
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", _name(dataset)).lstrip(".-")[:64] or kind
    text = written(
        SweepSpec(name=name, dataset=dataset),
        _HEAD.format(
            title=f"A study of {dataset.title}", file="FILE" if str(output) == "-" else output
        ),
    )
    if str(output) == "-":
        click.echo(text, nl=False)
        return
    try:
        output.write_text(text, encoding="utf-8")
    except OSError as error:
        raise InputError(
            f"{output} cannot be written: {error.strerror}", expected="a folder that is there"
        ) from error
    click.echo(f"wrote {output}; see what it will do:")
    click.echo(
        f"  genret-dask sweep --cluster cluster_specs/local.yaml --config {output} --dry-run"
    )


def _dataset(kind: str, values: tuple[str, ...]) -> Dataset:
    """The dataset of a kind by the words of the command line."""
    import yaml

    from genret_dask.errors import InputError
    from genret_dask.specs.registry import entry
    from genret_dask.specs.validation import validate

    record: type[Dataset] = entry("datasets", kind)
    needed = [name for name, field in record.model_fields.items() if field.is_required()]
    found: dict[str, object] = {"documents": 2000} if kind == "pydoc" else {}
    for value in values:
        key, is_key, text = value.partition("=")
        if is_key and key in record.model_fields:
            found[key] = yaml.safe_load(text)
        elif needed and needed[0] not in found:
            found[needed[0]] = value
        else:
            raise InputError(
                f"{value!r} is no key of a {kind} dataset with its value",
                expected=f"KEY=VALUE of {', '.join(list(record.model_fields)[1:])}",
            )
    if missing := [name for name in needed if name not in found]:
        raise InputError(
            f"a {kind} dataset needs {', '.join(missing)}",
            expected=record.needs,
            fix=f"give it, as genret-dask init --dataset {kind} "
            + " ".join("PATH" if name == needed[0] else f"{name}=..." for name in needed),
        )
    dataset: Dataset = validate(record, {"kind": kind, **found}, source="--dataset")
    return dataset


def _name(dataset: Dataset) -> str:
    """What the run is called: by the folder of the collection, where it has one."""
    place = getattr(dataset, "path", None)
    return place.resolve().name if isinstance(place, Path) else dataset.title
