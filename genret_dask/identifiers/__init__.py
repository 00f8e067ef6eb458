"""Document identifiers and the constraints that keep generation inside them."""

from genret_dask.identifiers.codes import Codes, build_cells, read_codes, write_codes
from genret_dask.identifiers.trie import Trie

__all__ = ["Codes", "Trie", "build_cells", "read_codes", "write_codes"]
