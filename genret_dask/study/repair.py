"""Repair of a run directory: what is damaged is removed, and what is missing is computed again."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genret_dask.cube.store import restore_template, unseal_cube
from genret_dask.identifiers.ngrams import INDEX
from genret_dask.run.verification import Damage, verify_run
from genret_dask.shards.ledger import Ledger
from genret_dask.storage.places import remove

if TYPE_CHECKING:
    from genret_dask.study.sweep import Study

logger = logging.getLogger(__name__)


def repair_run(study: Study, damages: Sequence[Damage]) -> None:
    """Remove what is damaged and run the study's stages for what is then missing.

    Parameters
    ----------
    study : Study
        Of the run directory's own spec.
    damages : sequence of Damage
        Of `genret_dask.run.verification.verify_run`.

    Raises
    ------
    StaleError
        What was made again differs from what the cube was made from; the cube stays unsealed.
    """
    for damage in damages:
        if damage.kind in ("artefact", "leftover"):
            logger.info("removing %s", damage.place)
            place = study.folder / damage.place
            _remove(place)
            _remove(place.parent / INDEX)  # it vouches for its parts
    if any(damage.kind == "seal" for damage in damages):
        restore_template(study.cube, study.make_template())
        damages = verify_run(study.folder)
    if shards := [damage.shard for damage in damages if damage.shard is not None]:
        unseal_cube(study.cube)
        ledger = Ledger(study.layout.markers)
        for shard in shards:
            logger.info("shard %s is to be computed again", shard.key)
            ledger.drop(shard)
    study.search()


def _remove(place: Path) -> None:
    if place.is_file():
        place.unlink()
    else:
        remove(place)
