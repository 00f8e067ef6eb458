"""One page that shows a run: laws, comparisons, the frontier, queries, and where it comes from."""

from genret_dask.report.page import is_reported, page_of, write_report

__all__ = ["is_reported", "page_of", "write_report"]
