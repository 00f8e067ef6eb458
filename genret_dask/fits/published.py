"""The points that the study published, to lay beside one's own."""

from __future__ import annotations

import numpy as np

from genret_dask.fits.points import Points

SOURCE = "arXiv 2503.18941: MINDER, Natural Questions test, 256 negatives"
"""Cai et al., SIGIR 2025; values of the fitting scripts that were released with it."""

_CGL = {
    "t5": {
        44057088: 0.003739327519766013,
        198229248: 0.00365354820880983,
        704769024: 0.003618691318817766,
        2818699264: 0.0035889147738936734,
        11274422272: 0.003575122915571207,
    },
    "llama": {
        6607343616: 0.003349998694460214,
        12852024320: 0.003293957555899526,
        68714504192: 0.0032800482437811704,
    },
}
"""Family, then non-embedding parameters, to mean CGL."""


def published_points() -> list[Points]:
    """Give L(N) of each family as it was published; the series and the fact `source` say so.

    Data set, identifiers and negatives are the study's: values of another data set differ for
    that reason alone.

    Examples
    --------
    >>> [points.series for points in published_points()]
    ['published: MINDER t5', 'published: MINDER llama']
    """
    return [
        Points(
            "L(N)",
            f"published: MINDER {family}",
            "cgl",
            ("n",),
            np.array(list(values), dtype=np.float64)[:, None],
            np.array(list(values.values())),
            facts={"source": SOURCE, "family": family},
        )
        for family, values in _CGL.items()
    ]
