"""Numbers and names as a reader wants them: in the page, in the figures, in their captions."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

_PREFIXES = ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_NOT_XML = re.compile("[^\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def decimal(value: float | None, digits: int = 4) -> str:
    """Write a number with few digits; a dash where there is none.

    Examples
    --------
    >>> decimal(0.00345678), decimal(1.5e-9), decimal(None)
    ('0.003457', '1.5×10⁻⁹', '–')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value == 0:
        return "0"
    if 1e-3 <= abs(value) < 1e4:
        return f"{value:.{digits}g}"
    mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
    mantissa = mantissa.rstrip("0").rstrip(".") if "." in mantissa else mantissa
    return f"{mantissa}×10{str(int(exponent)).translate(_SUPERSCRIPTS)}"


def short(value: float | None) -> str:
    """Write a large number with a prefix, as 1.3M.

    Examples
    --------
    >>> short(1250), short(20_000_000), short(12)
    ('1.25k', '20M', '12')
    """
    if value is None or not math.isfinite(value):
        return "–"
    for size, prefix in _PREFIXES:
        if 0.9995 * size <= abs(value) < 1000 * _PREFIXES[0][0]:
            return f"{value / size:.3g}{prefix}"
    return decimal(value, 3)


def estimate(record: Mapping[str, Any] | None) -> str:
    """Write a value and its interval; ∞ where the interval is open to that side.

    Examples
    --------
    >>> estimate({"value": 0.5, "low": 0.25, "high": 0.75})
    '0.5 [0.25, 0.75]'
    >>> estimate({"value": 0.5, "low": None, "high": None})
    '0.5, no interval'
    """
    value = None if record is None else record.get("value", record.get("mean"))
    if record is None or value is None:
        return "–"
    low, high = record["low"], record["high"]
    if low is None and high is None:
        return f"{decimal(value, 3)}, no interval"
    start = "−∞" if low is None else decimal(low, 3)
    end = "∞" if high is None else decimal(high, 3)
    return f"{decimal(value, 3)} [{start}, {end}]"


def share(record: Mapping[str, Any]) -> str:
    """Write a mean of counts and its interval, without the rounding errors of its sums.

    Examples
    --------
    >>> share({"value": 0.25, "low": 2.2e-16, "high": 0.5})
    '0.25 [0, 0.5]'
    """
    return estimate({key: None if one is None else round(one, 9) for key, one in record.items()})


def cut(text: str, length: int) -> str:
    """Shorten a text to so many characters, with an ellipsis in its middle.

    Examples
    --------
    >>> cut("a-very-long-name", 9)
    'a-ve…name'
    """
    text = clean(text)
    if len(text) <= length:
        return text
    tail = (length - 1) // 2
    return f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def clean(text: str) -> str:
    """Put a text on one line, and replace the characters that XML cannot hold."""
    return _NOT_XML.sub("\ufffd", " ".join(str(text).split()))


def upper_first(text: str) -> str:
    """Begin a text with a capital letter."""
    return text[:1].upper() + text[1:]


def seconds(value: float | None) -> str:
    """Write a duration.

    Examples
    --------
    >>> seconds(4.2), seconds(125), seconds(7260)
    ('4.2 s', '2 min 5 s', '2 h 1 min')
    """
    if value is None or not math.isfinite(value):
        return "–"
    if value < 60:
        return f"{value:.2g} s" if value < 10 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
