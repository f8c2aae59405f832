"""Addresses of places for files, said without what is secret in them; and how places refuse."""

from __future__ import annotations

import re
import urllib.parse

from cpu_pipeline.errors import RecipeError, TryAgain

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
    """Write an address without what may be secret in it: user, password, query."""
    if not protocol_of(url):
        return url
    return re.sub(r"://[^/\s]*@", "://", re.split(r"[?#]", url, maxsplit=1)[0])


def scrub(text: str, url: str) -> str:
    """Take what may be secret in an address out of what a library says, and make it one line."""
    parts = urllib.parse.urlsplit(url)
    userinfo = parts.netloc.rpartition("@")[0]
    hidden = {userinfo, userinfo.partition(":")[2], parts.query, parts.fragment}
    hidden |= {value for _, value in urllib.parse.parse_qsl(parts.query)}
    hidden |= {change(each) for each in hidden for change in (urllib.parse.unquote, urllib.parse.quote)}
    for secret in sorted(filter(None, hidden), key=len, reverse=True):
        text = text.replace(secret, "***")
    return " ".join(text.split())[:300]
