"""Kinds of identifier, one file each: the entry points of `genret_dask.identifiers`."""

from genret_dask.kinds.base import Kind
from genret_dask.kinds.codes import CodesIdentifiers
from genret_dask.kinds.fixed import FixedLength
from genret_dask.kinds.ngrams import NgramsIdentifiers

__all__ = ["CodesIdentifiers", "FixedLength", "Kind", "NgramsIdentifiers"]
