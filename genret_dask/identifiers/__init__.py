"""What kinds of identifier are made of: codes, tries, suffix arrays, embeddings and spans.

The kinds themselves are in `genret_dask.kinds`; a new one goes there.
"""

from genret_dask.identifiers.codes import Codes, build_cells, read_codes, write_codes
from genret_dask.identifiers.trie import Trie

__all__ = ["Codes", "Trie", "build_cells", "read_codes", "write_codes"]
