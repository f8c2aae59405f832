"""Places that are far: any address that fsspec can open.

What goes wrong there becomes our errors, and no message holds what is secret in an address.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import urllib.parse
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal, Self

from cpu_pipeline.core.errors import BackendMissing, PipelineError, RecipeError
from cpu_pipeline.core.files import at_home
from cpu_pipeline.store.remote.transport_folder import FolderTransport, Transport, pump
from cpu_pipeline.store.remote.urls import FLAT, PACKAGES, Denied, Unreachable, ambiguous, protocol_of, scrub, shown

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

BLOCK = 16 << 20
"""Bytes asked for at once, where a protocol reads in ranges."""
CONNECT, SILENCE = 30.0, 60.0
"""Seconds that an HTTP server may take to be reached, and to say the next thing."""
REFUSALS = {400, 401, 403, 404, 405, 409, 411, 501}
"""HTTP answers that trying again will not change."""
REDIRECTS = {301, 302, 303, 307, 308}
_BUCKET = re.compile(r"/[0-9a-f]{2}/?$")


def open_transport(url: str) -> Transport:
    """Open a transport; nothing is read or written yet.

    Raises:
        BackendMissing: the package that the protocol takes is not installed.
        RecipeError: no such protocol, or a wrong address.
    """
    protocol = protocol_of(url)
    if not protocol:
        return FolderTransport(at_home(Path(url)).absolute())
    if protocol in ("file", "local"):
        host, slash, path = url.partition("://")[2].partition("/")
        if host.lower() not in ("", "localhost"):
            raise RecipeError(f"{shown(url)}: names another machine; write file:///PATH, or the path alone")
        return FolderTransport(Path(slash + path).absolute())
    if ambiguous(url):
        # Whoever opens it would take the beginning of the password for the host, and talk to that.
        message = "its user or password holds `/`, `?` or `#`; write them as %2F, %3F, %23, or hand it over otherwise"
        raise RecipeError(f"{shown(url)}: {message}")
    try:
        urllib.parse.urlsplit(url)
    except ValueError as error:
        raise RecipeError(f"{shown(url)}: not an address: {scrub(str(error), url)}") from error
    return HttpTransport(url) if protocol in ("http", "https") else FsspecTransport(url)


class FsspecTransport:
    """Whatever else fsspec can open: object stores, file servers, memory."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.fs, self.base = self._open()

    def read(self, name: str, limit: int, write: Callable[[bytes], object]) -> int | None:
        """Hand a file to `write`."""
        try:
            with _Asking(self.url):
                source = self._reader(f"{self.base}/{name}")
            try:
                return pump(source, limit, write, _Asking(self.url))
            finally:
                with _Asking(self.url):
                    source.close()
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
            return None

    def send(self, source: Path | bytes, name: str) -> None:
        """Put a file or some bytes there."""
        place = f"{self.base}/{name}"
        with _Asking(self.url, "written"):
            if protocol_of(self.url) not in FLAT:
                self.fs.makedirs(place.rpartition("/")[0], exist_ok=True)
            if isinstance(source, bytes):
                self.fs.pipe_file(place, source)
            else:
                self.fs.put_file(str(source), place)

    def sizes(self, folder: str, names: Iterable[str]) -> dict[str, int]:
        """Say how many bytes these files have."""
        try:
            with _Asking(self.url):
                there = self.fs.find(f"{self.base}/{folder}", detail=True)
        except (FileNotFoundError, NotADirectoryError):
            return {}
        about = {path.partition(f"/{folder}/")[2]: said.get("size") for path, said in there.items()}
        return {name: about[name] for name in names if about.get(name) is not None}

    def buckets(self, folder: str) -> list[str]:
        """List the files of a folder."""
        try:
            with _Asking(self.url):
                if protocol_of(self.url) in FLAT:
                    paths = self.fs.find(f"{self.base}/{folder}")
                else:
                    buckets = self.fs.ls(f"{self.base}/{folder}", detail=False)
                    wanted = [bucket for bucket in buckets if _BUCKET.search(bucket)]  # pages link elsewhere, too
                    paths = [path for bucket in wanted for path in self.fs.ls(bucket, detail=False)]
        except (FileNotFoundError, NotADirectoryError):
            return []
        return ["/".join(path.rstrip("/").split("/")[-2:]) for path in paths]

    def _open(self) -> tuple[AbstractFileSystem, str]:
        return _open_fsspec(self.url, {"use_listings_cache": False} if protocol_of(self.url) in FLAT else {})

    def _reader(self, path: str) -> Any:
        return self.fs.open(path, "rb", block_size=BLOCK)


class HttpTransport(FsspecTransport):
    """An HTTP server: read as it streams, written with PUT where it takes that, listed where it shows its folders."""

    def _open(self) -> tuple[AbstractFileSystem, str]:
        try:
            import aiohttp
        except ImportError:
            raise _missing(self.url, "aiohttp") from None
        parts = urllib.parse.urlsplit(self.url)
        # fsspec's own limit of five minutes for a whole file is less than a big model takes.
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT, sock_read=SILENCE)
        self.query = f"?{parts.query}" if parts.query else ""
        plain = parts._replace(query="", fragment="").geturl()
        options = {"timeout": limits, "trust_env": True, "middlewares": (_answered,)}
        return _open_fsspec(plain, {"client_kwargs": options})

    def send(self, source: Path | bytes, name: str) -> None:
        """Put a file or some bytes there."""
        given = io.BytesIO(source) if isinstance(source, bytes) else str(source)
        with _Asking(self.url, "written"):
            self.fs.put_file(given, self._address(name), method="put")

    def sizes(self, folder: str, names: Iterable[str]) -> dict[str, int]:
        """Say how many bytes these files have."""
        found = {}
        for name in names:
            with _Asking(self.url), contextlib.suppress(FileNotFoundError):
                size = self.fs.info(self._address(f"{folder}/{name}"))["size"]
                if size is not None:
                    found[name] = size
        return found

    def buckets(self, folder: str) -> list[str]:
        """List the files of a folder, two levels of links."""
        if self.query:
            raise Denied(f"{shown(self.url)} can't be listed with a query in its address; name recipes with --recipe")
        return super().buckets(folder)

    def _reader(self, path: str) -> Any:
        # Without blocks fsspec streams one answer; asked for the size first, it takes a dead server for an absent file.
        return self.fs.open(self._address(path.removeprefix(f"{self.base}/")), "rb", block_size=0, size=1)

    def _address(self, name: str) -> str:
        return f"{self.base}/{urllib.parse.quote(name)}{self.query}"


async def _answered(request: Any, handler: Any) -> Any:
    """Bound how long a server takes for the head of an answer, and let it redirect within its own host alone.

    A head that comes byte by byte is never silent. Another host may be one that only this machine reaches.

    Raises:
        TimeoutError: it takes longer.
        ConnectionError: it redirects elsewhere, or from https to http.
    """
    import asyncio

    # What is sent takes as long as it is.
    async with asyncio.timeout(None if request.method == "PUT" else SILENCE):
        answer = await handler(request)
    if answer.status in REDIRECTS and (target := answer.headers.get("Location") or answer.headers.get("URI")):
        there = urllib.parse.urlsplit(urllib.parse.urljoin(str(request.url), target))
        safe = there.scheme == "https" or there.scheme == request.url.scheme
        if not safe or there.hostname != request.url.host:
            answer.close()
            raise ConnectionError(
                f"it redirects to {there.scheme}://{there.hostname}; name that address if it is meant"
            )
    return answer


class _Asking:
    """Turns errors of a library into ours; on reading, that a file is absent passes through.

    Each protocol has errors of its own, so any error that is neither Python's nor ours is the place's.
    """

    def __init__(self, url: str, to_be: Literal["read", "written", "opened"] = "read") -> None:
        self.url, self.to_be = url, to_be

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not isinstance(error, Exception) or isinstance(error, PipelineError):
            return
        if isinstance(error, FileNotFoundError | IsADirectoryError | NotADirectoryError) and self.to_be == "read":
            return
        foreign = type(error).__module__.partition(".")[0] not in ("builtins", "cpu_pipeline")
        if not foreign and not isinstance(error, OSError | EOFError | ValueError | NotImplementedError):
            return
        status = getattr(error, "status", getattr(error, "code", None))
        # aiohttp says 400 of an answer that it can't read.
        malformed = type(error.__cause__).__module__ == "aiohttp.http_exceptions"
        message = f"{type(error).__name__}: {scrub(str(error), self.url)}"
        if (
            isinstance(error, PermissionError | FileNotFoundError | ValueError | NotImplementedError)
            or "Credential" in type(error).__name__
            or (str(status).isdigit() and int(str(status)) in REFUSALS and not malformed)
        ):
            raise Denied(f"{shown(self.url)} does not let itself be {self.to_be}: {message}") from error
        raise Unreachable(f"{shown(self.url)} can't be reached: {message}; try again later") from error


def _open_fsspec(url: str, options: dict[str, Any]) -> tuple[AbstractFileSystem, str]:
    import fsspec

    protocol = protocol_of(url)
    for name in {"fsspec", *PACKAGES.values()}:
        # With nobody to take their logs, Python prints them: tracebacks of what our one line says, addresses and all.
        logging.getLogger(name).addHandler(logging.NullHandler())
    with _Asking(url, "opened"):
        try:
            fs, base = fsspec.core.url_to_fs(url, skip_instance_cache=True, **options)
        except ImportError as error:
            raise _missing(url, PACKAGES.get(protocol, error.name or "its package")) from error
        except ValueError as error:
            raise RecipeError(f"{shown(url)}: not an address that fsspec opens: {scrub(str(error), url)}") from error
    return fs, base.rstrip("/")


def _missing(url: str, package: str) -> BackendMissing:
    message = f"{shown(url)}: {package} is not installed, and {protocol_of(url)}:// takes it"
    return BackendMissing(f"{message}; pip install {package}")
