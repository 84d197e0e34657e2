"""A proxy before the S3 server of the tests that fails as real networks and stores do, by a plan or at random."""

from __future__ import annotations

import http.client
import random
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["500", "503", "cut", "drop before", "drop after", ""]
"""That status, without any effect; a body that is cut; a connection that is dropped before, or after, the request took effect."""

FAULTS: list[Fault] = ["500", "503", "cut", "drop before", "drop after"]
Plan = Callable[[str, str, str], Fault]
"""Gives the fault of a request by its method, path and query."""


def at_random(seed: int, share: float) -> Plan:
    """Faults of all kinds for that share of the requests."""
    draw = random.Random(seed)
    return lambda method, path, query: draw.choice(FAULTS) if draw.random() < share else ""


def first(n: int, fault: Fault, method: str, end: str) -> Plan:
    """That fault for the first `n` requests of the method whose path ends so."""
    left = [n]

    def plan(used: str, path: str, query: str) -> Fault:
        if used != method or not path.endswith(end) or not left[0]:
            return ""
        left[0] -= 1
        return fault

    return plan


class FaultyProxy:
    """What the proxy does.

    Attributes:
        plan: gives the fault of each request.
        late: seconds for which a list does not show a new object.
        faults: number of faults so far.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self.plan: Plan = lambda method, path, query: ""
        self.late = 0.0
        self.faults = 0
        self.born: dict[str, float] = {}

    def without_new(self, listing: bytes) -> bytes:
        """A list without the objects that are too new for it."""

        def kept(entry: re.Match[bytes]) -> bytes:
            key = re.search(rb"<Key>(.*?)</Key>", entry[0])
            assert key, entry[0]
            return b"" if time.monotonic() - self.born.get(key[1].decode(), -1e9) < self.late else entry[0]

        return re.sub(rb"<Contents>.*?</Contents>", kept, listing, flags=re.DOTALL)


@contextmanager
def faulty(server: str) -> Iterator[tuple[str, FaultyProxy]]:
    """The HOST:PORT of a proxy before `server`, and what it does, for the length of the body."""
    proxy = FaultyProxy(server)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_one_request(self) -> None:
            try:
                super().handle_one_request()
            except (ConnectionError, ValueError):  # the client has gone
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

        def _pass_on(self) -> None:
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            fault = proxy.plan(self.command, path, query)
            proxy.faults += bool(fault)
            if fault in ("500", "503"):
                self._answer(
                    int(fault), [], b"<Error><Code>SlowDown</Code><Message>Please try again.</Message></Error>"
                )
            elif fault == "drop before":
                self._drop()
            else:
                self._ask(path, query, body, fault)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on

        def _ask(self, path: str, query: str, body: bytes, fault: Fault) -> None:
            host, port = proxy.server.rsplit(":", 1)
            connection = http.client.HTTPConnection(host, int(port), timeout=60)
            try:
                connection.request(self.command, self.path, body, dict(self.headers))
                answer = connection.getresponse()
                data = answer.read()
            finally:
                connection.close()
            if self.command in ("PUT", "POST") and answer.status == 200:
                proxy.born.setdefault(path.strip("/").partition("/")[2], time.monotonic())
            if "list-type" in query:
                data = proxy.without_new(data)
            if fault == "drop after":
                self._drop()
                return
            kept = [
                (name, value)
                for name, value in answer.getheaders()
                if name.lower() not in ("content-length", "connection", "transfer-encoding", "date", "server")
            ]
            length = answer.getheader("Content-Length") if self.command == "HEAD" else None
            self._answer(answer.status, kept, data, cut=fault == "cut", length=length)

        def _answer(
            self, status: int, headers: list[tuple[str, str]], data: bytes, cut: bool = False, length: str | None = None
        ) -> None:
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", length or str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.wfile.flush()
                self._drop()

        def _drop(self) -> None:
            self.close_connection = True
            self.connection.shutdown(socket.SHUT_RDWR)

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listening.server_port}", proxy
    finally:
        listening.shutdown()
        listening.server_close()
        thread.join()
