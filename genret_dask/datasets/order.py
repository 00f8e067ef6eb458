"""A random order of 0 .. size that nobody holds: which number stands at a place is computed.

A Feistel network over the next power of four at or above the size, walked until it lands below the
size (Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002): a permutation, of
which a place costs a few multiplications.
"""

from __future__ import annotations

import numpy as np

_ROUNDS = 6


def in_random_order(places: np.ndarray, size: int, key: tuple[int, ...]) -> np.ndarray:
    """Return the numbers at some places of a random order of 0 .. size.

    Parameters
    ----------
    places : int64[n]
        From 0, below `size`.
    key : tuple of int
        Names the order; not below 0.

    Returns
    -------
    int64[n]

    Examples
    --------
    >>> sorted(in_random_order(np.arange(5), 5, (0,)).tolist())
    [0, 1, 2, 3, 4]
    """
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    keys = np.random.SeedSequence(key).generate_state(_ROUNDS, np.uint64)
    found = np.asarray(places).astype(np.uint64)
    wrong = np.ones(found.shape, dtype=bool)
    while wrong.any():
        found[wrong] = _mixed(found[wrong], half, keys)
        wrong = found >= size
    return found.astype(np.int64)


def sample_rows(size: int, most: int, key: tuple[int, ...]) -> np.ndarray:
    """Return `most` numbers below `size` in ascending order, or all where they are fewer; int64."""
    if size <= most:
        return np.arange(size)
    return np.sort(in_random_order(np.arange(most), size, key))


def hashed(numbers: np.ndarray, key: tuple[int, ...]) -> np.ndarray:
    """Return 64 random bits of each number, the same wherever they are asked for: uint64[n].

    Parameters
    ----------
    numbers : int64[n]
    key : tuple of int
        Names the draw; not below 0.
    """
    (salt,) = np.random.SeedSequence(key).generate_state(1, np.uint64)
    return _hash(_hash(np.asarray(numbers).astype(np.uint64) + salt) + salt)


def _mixed(numbers: np.ndarray, half: np.uint64, keys: np.ndarray) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = numbers >> half, numbers & mask
    for key in keys:
        left, right = right, left ^ (_hash(right + key) & mask)
    return (left << half) | right


def _hash(values: np.ndarray) -> np.ndarray:
    """Mix the bits of 64-bit numbers (the finaliser of SplitMix64; Steele et al., 2014)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
