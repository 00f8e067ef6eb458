"""What may be shown of a text: no credentials of a URL, and nothing that steers a terminal."""

from __future__ import annotations

import json
import re
from typing import Any

MASK = "***"

_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^\s/?#'\"]+@")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def has_credentials(text: str) -> bool:
    """Whether a text holds a URL with a user or a password, as ``s3://key:secret@bucket``."""
    return bool(_CREDENTIALS.search(text))


def redact(text: str) -> str:
    """Mask the credentials in a text's URLs.

    Examples
    --------
    >>> redact("cannot reach s3://AKIA:hunter22@bucket/run")
    'cannot reach s3://***@bucket/run'
    """
    return _CREDENTIALS.sub(rf"\g<scheme>{MASK}@", text)


def printable(text: str) -> str:
    """Replace the characters that steer a terminal; tabs and line breaks stay.

    Examples
    --------
    >>> printable("red\\x1b[31m")
    'red�[31m'
    """
    return _CONTROL.sub("�", text)


def printable_json(value: Any) -> str:
    """JSON with the same characters as escapes, which every reader of JSON takes back.

    Examples
    --------
    >>> print(printable_json(["café\\x9b"]))
    [
     "café\\u009b"
    ]
    """
    text = json.dumps(value, indent=1, ensure_ascii=False)
    return _CONTROL.sub(lambda found: json.dumps(found.group())[1:-1], text)
