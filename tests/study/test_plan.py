"""The plan of a study is what is executed: the same models, shards, sizes and rows."""

from __future__ import annotations

import pytest

from genret_dask import open_cube
from genret_dask.inference.session import open_session
from genret_dask.kinds import CodesIdentifiers
from genret_dask.specs.grid import cells_of
from genret_dask.study.estimate import estimate, planned_architecture, planned_groups
from genret_dask.study.origins import Origins
from tests.runs import make_spec


@pytest.fixture(scope="module")
def origins(toy) -> Origins:
    return Origins(make_spec(toy), toy / "serial" / "toy")


@pytest.fixture(scope="module")
def tree(toy):
    return open_cube(toy / "serial" / "toy")


def test_models_and_shards_are_those_of_the_plan(origins, tree):
    plan = estimate(origins.spec, origins.loaded)
    markers = list(origins.layout.markers.glob("*.json"))
    assert plan.shards == tree.attrs["shards"] == len(markers)
    for kind in origins.spec.identifiers:
        for part in ("search", "contrast"):
            assert tree[f"{kind.kind}/{part}"]["model"].values.tolist() == plan.models
        folder = origins.layout.model(kind.kind)
        assert sorted(path.name for path in folder.iterdir()) == sorted(plan.models)
    trained = [cell for cell in cells_of(origins.spec)]
    assert plan.train_tasks == len(trained)
    assert all(origins.layout.checkpoint(cell.kind, cell.name).is_dir() for cell in trained)


def test_every_dimension_of_a_group_is_the_planned_one(origins, tree):
    """But that of steps, of which codes have one less where the quantised ones differ."""
    groups = planned_groups(origins.spec, origins.loaded)
    assert set(groups) == set(tree.children) - {"baselines"}
    for kind, group in groups.items():
        found = {**tree[f"{kind}/search"].sizes, **tree[f"{kind}/contrast"].sizes}
        planned = dict(group.sizes)
        steps, most = found.pop("step"), planned.pop("step")
        assert found == planned
        assert steps == most if kind == "ngrams" else most - 1 <= steps <= most
        for part, variables in group.variables.items():
            dims = {name: tree[f"{kind}/{part}"][name].dims for name in variables}
            assert dims == {name: variable.dims for name, variable in variables.items()}


def test_vocabulary_and_decoding_are_within_the_plan(origins, tree):
    """But for the level that makes codes unique, which only the documents tell."""
    spec, collection, layout = origins.spec, origins.loaded, origins.layout
    for cell in cells_of(spec):
        kind, codes = cell.identifiers, isinstance(cell.identifiers, CodesIdentifiers)
        folder = origins.space(kind, cell.model).folder
        planned, _ = planned_architecture(spec, cell, len(collection))
        session = open_session(layout.model(cell.kind, cell.name))
        documents = tree[f"{cell.kind}/contrast"]["doc"].values
        decoder = kind.decoder(session, kind.open(folder), spec.inference.beams, documents, None)
        found = decoder.decoding
        most = kind.plan(planned, collection, spec.inference.beams)
        unique = found.blocks[kind.levels] if codes and len(found.blocks) > kind.levels else 0
        expected = planned.vocab_size - (1 if codes else 0) + unique
        assert session.manifest.architecture.vocab_size == expected
        levels = kind.levels if codes else len(most.blocks)
        assert len(found.blocks) <= len(most.blocks)
        for here, planned_here in (
            (found.blocks[:levels], most.blocks),
            (found.nodes[: levels + 1], most.nodes),
        ):
            assert all(one <= bound for one, bound in zip(here, planned_here, strict=False))
        assert (found.identifiers, found.results) == (most.identifiers, most.results)
        assert found.whole_vocabulary == most.whole_vocabulary
