"""Photographs and uploads, in a pod: GET /7.jpg draws one with seed 7, PUT keeps a picture that GET gives back."""

from __future__ import annotations

import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from photographs import photograph  # pyright: ignore[reportMissingImports]  # beside it in the pod

_UPLOADED: dict[str, bytes] = {}


class Pictures(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        name = self.path.strip("/").removesuffix(".jpg")
        if name.isdigit():
            self._answer(HTTPStatus.OK, photograph(int(name)))
        elif self.path in _UPLOADED:
            self._answer(HTTPStatus.OK, _UPLOADED[self.path])
        else:
            self._answer(HTTPStatus.NOT_FOUND, b"")

    def do_PUT(self) -> None:
        _UPLOADED[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
        self._answer(HTTPStatus.CREATED, b"")

    def _answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(sys.argv[1])), Pictures).serve_forever()
