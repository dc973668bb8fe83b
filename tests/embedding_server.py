"""A local OpenAI-compatible embeddings server that answers wrongly when it is told to."""

import json
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

from sidmill.embed.openai import PROBE

WIDTH = 6


def vector(line):
    return np.random.default_rng(list(line.encode())).standard_normal(WIDTH).tolist()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        server = self.server
        with server.lock:
            server.asked.append((time.monotonic(), self.path, dict(self.headers), body))
            server.at_once += 1
            server.most = max(server.most, server.at_once)
            probe = body["input"][0].endswith(PROBE)
            fault = server.faults.pop(0) if server.faults and not probe else None
        try:
            self.reply(body, fault)
        finally:
            with server.lock:
                server.at_once -= 1

    def reply(self, body, fault):
        rows = [{"index": n, "embedding": vector(line)} for n, line in enumerate(body["input"])]
        answer = {"data": rows, "usage": {"prompt_tokens": 3 * len(rows)}}
        status, headers = 200, {}
        if fault == "cut":
            self.hang_up()
            return
        if fault == "torn":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"data": [')
            self.hang_up()
            return
        if isinstance(fault, tuple):
            status, headers = fault
            answer = {"error": f"no, {self.headers.get('Authorization')} at {self.path}"}
        elif fault:
            FAULTS[fault](rows, answer)
        told = json.dumps(answer).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(told)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(told)

    def hang_up(self):
        """End the connection at once: close() alone leaves it open while files on it are."""
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, *arguments):
        pass


FAULTS = {
    "slow": lambda rows, answer: time.sleep(0.6),
    "permuted": lambda rows, answer: rows.reverse(),
    "count": lambda rows, answer: rows.pop(),
    "more": lambda rows, answer: rows.append(dict(rows[0])),
    "twice": lambda rows, answer: rows[-1].update(index=0),
    "wide": lambda rows, answer: [row["embedding"].append(1.0) for row in rows],
    "ragged": lambda rows, answer: rows[0]["embedding"].append(1.0),
    "nan": lambda rows, answer: rows[0]["embedding"].__setitem__(2, float("nan")),
    "null": lambda rows, answer: rows[0]["embedding"].__setitem__(2, None),
    "word": lambda rows, answer: rows[0].update(embedding="AAAA"),
    "no list": lambda rows, answer: answer.clear(),
}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Show what goes wrong here, but for clients that went away."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serving() -> Iterator[ThreadingHTTPServer]:
    """Run a server on a free port of this machine.

    Its ``faults`` are taken one by one by the requests that ask for texts; ``asked`` holds moment,
    path, headers and body of each request, ``most`` how many came at once.
    """
    server = _Server(("127.0.0.1", 0), _Handler)
    server.lock, server.asked, server.faults = threading.Lock(), [], []
    server.at_once = server.most = 0
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
