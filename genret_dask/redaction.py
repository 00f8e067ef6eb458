"""What may be shown of a text or a value: no secret, and nothing that steers a terminal.

A secret is known by its name (password, token, key ...), by its place in a URL (``user:secret@``),
or because an environment variable of such a name holds it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from typing import Any

MASK = "***"

_SECRET_NAME = re.compile(
    r"passw|passphrase|pwd|secret|token(?!i[sz])|credential|private|api_?key|access_?key"
    r"|auth(?!or(?!i[sz]))|(^|[_-])key($|[_-](?!value))",
    re.IGNORECASE,
)
# `max_tokens` and its like count tokens; they are no tokens.
_COUNTS = re.compile(r"_tokens$|^tokens$", re.IGNORECASE)
_CREDENTIALS = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*:/{1,2})[^\s/?#'\"]+@")
_ASSIGNMENT = re.compile(r"(?P<name>\b[A-Za-z_][A-Za-z0-9_-]*)(?P<sign>=)[^\s'\";,&]+")
_SHORTEST = 6  # an environment variable of fewer letters would mask half the text
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def is_secret(name: object) -> bool:
    """Whether a value under this name is not to be shown.

    Examples
    --------
    >>> [is_secret(name) for name in ("HF_TOKEN", "password", "max_tokens", "GIT_AUTHOR_NAME")]
    [True, True, False, False]
    """
    text = str(name)
    return bool(_SECRET_NAME.search(text)) and not _COUNTS.search(text)


def has_credentials(text: str) -> bool:
    """Whether a text holds a URL with a user or a password, as ``s3://key:secret@bucket``."""
    return bool(_CREDENTIALS.search(text))


def redacted(value: Any) -> Any:
    """A plain value as it may be shown: values under secret names, and parts of URLs, masked."""
    if isinstance(value, Mapping):
        # Kubernetes writes a variable as {name: HF_TOKEN, value: ...}.
        named = is_secret(value.get("name"))
        return {
            key: MASK
            if item is not None and (is_secret(key) or (named and key != "name"))
            else redacted(item)
            for key, item in value.items()
        }
    if isinstance(value, list | tuple):
        return type(value)(redacted(item) for item in value)
    return redact(value) if isinstance(value, str) else value


def redact(text: str) -> str:
    """A text without credentials in URLs and assignments, and without the environment's secrets.

    Examples
    --------
    >>> redact("cannot reach s3://AKIA:hunter22@bucket/run")
    'cannot reach s3://***@bucket/run'
    """
    text = _CREDENTIALS.sub(rf"\g<scheme>{MASK}@", text)
    text = _ASSIGNMENT.sub(_masked, text)
    for name, value in os.environ.items():
        if len(value) >= _SHORTEST and value in text and is_secret(name) and not _is_place(value):
            text = text.replace(value, MASK)
    return text


def _is_place(value: str) -> bool:
    """Whether a value is a path on this machine, as PWD's is, and no secret by itself."""
    return os.path.isabs(value) and os.path.exists(value)


def _masked(assignment: re.Match[str]) -> str:
    name, sign = assignment["name"], assignment["sign"]
    return f"{name}{sign}{MASK}" if is_secret(name) else assignment.group()


def printable(text: str) -> str:
    """A text without the characters that steer a terminal; tabs and line breaks stay.

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
