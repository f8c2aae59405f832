"""Addresses of remote stores, shown without their secrets; and the errors of a remote store."""

from __future__ import annotations

import re
import urllib.parse
from collections.abc import Iterator

from cpu_pipeline.core.errors import RecipeError, TryAgain
from cpu_pipeline.core.redaction import userinfo

PACKAGES = {
    "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp",
    "abfs": "adlfs", "az": "adlfs", "sftp": "paramiko", "ssh": "paramiko", "smb": "smbprotocol",
}  # fmt: skip
"""Protocol -> the package to install for it, where fsspec alone is not enough."""
FLAT = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "oci", "oss"})
"""Protocols without folders: making one there would make a bucket, or nothing."""


class Unreachable(TryAgain):
    """The place did not answer; it may do so later."""


class Denied(RecipeError):
    """The place answers that it will not."""


def protocol_of(url: str) -> str:
    """Name the protocol of an address; a plain path has none."""
    before, mark, _ = url.partition("://")
    return before.rpartition("::")[2].lower() if mark else ""


def shown(url: str) -> str:
    """Write an address without what may be secret in it: user, password, query; in every part of a chained one."""
    return "::".join(f"{before}{parts}" for before, _, parts, _ in _parts(url)) if protocol_of(url) else url


def scrub(text: str, url: str) -> str:
    """Take what may be secret in an address out of a library's message, and make it one line."""
    hidden = set[str]()
    for _, user, _, query in _parts(url):
        hidden |= {user, user.partition(":")[2], query, *query.split("#")}
        hidden |= {pair.partition("=")[2] for pair in re.split("[&#]", query)}
        # A library may have cut it elsewhere. Shorter pieces tell little, and might stand anywhere in the text.
        hidden |= {piece for piece in re.split(r"[/?#:@]", user) if len(piece) > 2}
    changes = (urllib.parse.unquote, urllib.parse.quote, lambda each: repr(each)[1:-1])
    hidden |= {change(each) for each in hidden for change in changes}
    for secret in sorted(filter(None, hidden), key=len, reverse=True):
        text = text.replace(secret, "***")
    return " ".join(text.split())[:300]


def ambiguous(url: str) -> bool:
    """Say whether a user or password holds `/`, `?` or `#` as it is: libraries take what is before for the host."""
    for _, user, _, _ in _parts(url):
        host = re.split("[/?#]", user, maxsplit=1)[0]
        if host != user and "@" not in host and not re.fullmatch(r"([^:]*|\[.*\])(:\d*)?", host):
            return True
    return False


def _parts(url: str) -> Iterator[tuple[str, str, str, str]]:
    """Cut each part of a chained address in four: the protocol, user and password, the place, query and fragment."""
    for part in re.split(r"::(?=[\w.+-]+://)", url):
        protocol, mark, rest = part.partition("://")
        user = userinfo(rest)
        parts, *query = re.split("[?#]", rest[len(user) :].removeprefix("@"), maxsplit=1)
        yield f"{protocol}{mark}", user, parts, "".join(query)
