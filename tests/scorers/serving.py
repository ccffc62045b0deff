"""A real HTTP server on a loopback socket, whose answers a test writes."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Reply:
    """What is sent back: a JSON-able body, or bytes as they are."""

    body: Any = None
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    pieces: Iterator[bytes] | None = None  # sent one by one until the connection closes


@dataclass
class Served:
    """The server's address and what reached it."""

    port: int
    bodies: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"


@contextmanager
def serving(answer: Callable[[Any], Reply | Any], host: str = "127.0.0.1") -> Iterator[Served]:
    """Serve POSTs with what `answer` makes of the JSON body (a `Reply`, or the body of a 200)."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                served.bodies.append(body)
                served.headers.append(dict(self.headers))
            made = answer(body)
            reply = made if isinstance(made, Reply) else Reply(made)
            data = reply.body if isinstance(reply.body, bytes) else json.dumps(reply.body).encode()
            self.send_response(reply.status)
            for name, value in reply.headers.items():
                self.send_header(name, value)
            if reply.pieces is None:
                self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            try:
                for piece in reply.pieces if reply.pieces is not None else [data]:
                    self.wfile.write(piece)
                    self.wfile.flush()
            except OSError:
                pass  # the client has hung up, as it should

        def log_message(self, *_: object) -> None:
            """Quiet."""

    lock = threading.Lock()
    server = ThreadingHTTPServer((host, 0), Handler)
    server.daemon_threads = True
    served = Served(server.server_port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
