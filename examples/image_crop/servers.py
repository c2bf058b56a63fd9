"""The two services the demo works with, on this machine only: one has photographs, one takes uploads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from photographs import photograph

LATENCY_SECONDS = 0.1
"""Of an upload, as if the server were far away."""


class _Handler(BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Requests are not logged: the terminal belongs to the demo."""

    def answer(self, status: HTTPStatus, body: bytes = b"", type: str = "image/jpeg") -> None:
        self.send_response(status)
        self.send_header("Content-Type", type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        try:
            self.wfile.write(body)
        except BrokenPipeError:
            self.close_connection = True  # the worker that asked was killed


def serve_photographs() -> str:
    """Serves /7.jpg, drawn with seed 7. Returns the server's URL."""

    class Photographs(_Handler):
        def do_GET(self) -> None:
            name = self.path.strip("/").removesuffix(".jpg")
            if name.isdigit():
                self.answer(HTTPStatus.OK, photograph(int(name)))
            else:
                self.answer(HTTPStatus.NOT_FOUND)

    return _serve(Photographs)


def serve_uploads(folder: Path) -> str:
    """PUT keeps a picture in `folder`, GET gives it back. Returns the server's URL."""

    class Uploads(_Handler):
        def do_PUT(self) -> None:
            data = self.rfile.read(int(self.headers["Content-Length"]))
            time.sleep(LATENCY_SECONDS)
            target = folder / Path(self.path).name
            partial = target.with_suffix(f".{threading.get_ident()}.part")
            partial.write_bytes(data)
            partial.replace(target)
            self.answer(HTTPStatus.CREATED)

        def do_GET(self) -> None:
            target = folder / Path(self.path).name
            if target.is_file():
                self.answer(HTTPStatus.OK, target.read_bytes())
            else:
                self.answer(HTTPStatus.NOT_FOUND)

    return _serve(Uploads)


class _Server(ThreadingHTTPServer):
    request_queue_size = 128  # with the default of 5 it resets connections when many tasks call at once


def _serve(handler: Callable[..., BaseHTTPRequestHandler]) -> str:
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"
