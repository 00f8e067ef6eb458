"""One page that shows a run: laws, comparisons, the frontier, queries, and where it comes from."""

from genret_dask.report.page import is_reported, write_report

__all__ = ["is_reported", "write_report"]
