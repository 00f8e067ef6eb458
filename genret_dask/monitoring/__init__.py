"""Watching a run: what its work takes, its log, its workers, and where it stands."""
