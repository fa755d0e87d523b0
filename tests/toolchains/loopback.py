"""A web server on 127.0.0.1 that misbehaves as told, and archives to serve from it."""

from __future__ import annotations

import contextlib
import io
import socket
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Site:
    """What the server answers; ``plan`` is used up by one request each, then all is well.

    In ``plan``: an int cuts the connection after so many bytes of body, "404" or "503"
    answers that, "no-length" leaves the length out, "shifted" starts at the wrong byte.
    """

    body: bytes = b""
    ranges: bool = True
    etag: str | None = '"one"'
    plan: list[int | str] = field(default_factory=list)
    seen: list[str | None] = field(default_factory=list)  # the Range header of every request
    url: str = ""


@contextlib.contextmanager
def serving(site: Site) -> Iterator[Site]:
    """Serve ``site`` until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self, site)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    site.url = f"http://127.0.0.1:{server.server_port}/release/ncc.tar.xz"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def answer(handler: BaseHTTPRequestHandler, site: Site) -> None:
    asked = handler.headers.get("Range")
    site.seen.append(asked)
    deed = site.plan.pop(0) if site.plan else "well"
    if deed in ("404", "503"):
        handler.send_error(int(deed))
        return
    start = 0
    same = handler.headers.get("If-Range") in (None, site.etag)
    if asked and site.ranges and same:
        start = int(asked.removeprefix("bytes=").removesuffix("-"))
        if start >= len(site.body):
            handler.send_response(416)
            handler.send_header("Content-Range", f"bytes */{len(site.body)}")
            handler.end_headers()
            return
        shift = 1 if deed == "shifted" else 0
        handler.send_response(206)
        handler.send_header(
            "Content-Range", f"bytes {start - shift}-{len(site.body) - 1}/{len(site.body)}"
        )
    else:
        handler.send_response(200)
    if deed != "no-length":
        handler.send_header("Content-Length", str(len(site.body) - start))
    if site.etag:
        handler.send_header("ETag", site.etag)
    handler.end_headers()
    body = site.body[start:]
    if isinstance(deed, int):
        handler.wfile.write(body[:deed])
        handler.wfile.flush()
        with contextlib.suppress(OSError):
            handler.connection.shutdown(socket.SHUT_RDWR)  # a real cut, not a short answer
        return
    handler.wfile.write(body)


def tar(entries: dict[str, bytes | tarfile.TarInfo], *, mode: int = 0o644) -> bytes:
    """A .tar.xz of files (name -> content), or of entries made by hand."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:xz") as archive:
        for name, content in entries.items():
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
                continue
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), mode
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()
