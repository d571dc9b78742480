"""A server on this machine, which answers as it is told."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler], None]


@contextmanager
def serving(answer: Answer) -> Iterator[str]:
    """The address of a server that calls ``answer`` for every request; set ``no_proxy`` around it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def send(handler: BaseHTTPRequestHandler, content: bytes, length: int | None, status: int = 200, first: int = 0) -> None:
    """An answer whose header declares ``length`` bytes (None: does not say); one with status 206, those from byte ``first`` on."""
    handler.send_response(status)
    if status == 206 and length is not None:
        handler.send_header("Content-Range", f"bytes {first}-{first + length - 1}/{first + length}")
    if length is not None:
        handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(content)


def start_of(handler: BaseHTTPRequestHandler) -> int:
    """The byte that the request's Range header begins at; 0 without one."""
    return int(handler.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
