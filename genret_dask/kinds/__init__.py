"""Kinds of identifier, one file each, and the classes that they are made from.

A kind is found by the entry-point group `genret_dask.identifiers` of `pyproject.toml`; the names
here are for code that makes a study in Python.
"""

from genret_dask.kinds.atomic import AtomicIdentifiers
from genret_dask.kinds.base import Kind, Source
from genret_dask.kinds.codes import CodesIdentifiers
from genret_dask.kinds.file import FileIdentifiers
from genret_dask.kinds.fixed import FixedLength
from genret_dask.kinds.listed import Listed
from genret_dask.kinds.ngrams import NgramsIdentifiers
from genret_dask.kinds.numbers import NumbersIdentifiers
from genret_dask.kinds.titles import TitlesIdentifiers

__all__ = [
    "AtomicIdentifiers",
    "CodesIdentifiers",
    "FileIdentifiers",
    "FixedLength",
    "Kind",
    "Listed",
    "NgramsIdentifiers",
    "NumbersIdentifiers",
    "Source",
    "TitlesIdentifiers",
]
