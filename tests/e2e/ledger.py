"""In a pod: POST adds its body as a line to the file. It outlives the workers that tell what they do."""

from __future__ import annotations

import sys
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path


class Ledger(BaseHTTPRequestHandler):
    file: Path

    def do_GET(self) -> None:
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()

    def do_POST(self) -> None:
        line = self.rfile.read(int(self.headers["Content-Length"]))
        with self.file.open("ab") as ledger:
            ledger.write(line + b"\n")
        self.send_response(HTTPStatus.NO_CONTENT)
        self.end_headers()


if __name__ == "__main__":
    Ledger.file = Path(sys.argv[2])
    ThreadingHTTPServer(("", int(sys.argv[1])), Ledger).serve_forever()
