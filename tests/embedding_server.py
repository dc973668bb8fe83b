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

from sidmill.embed.backends.openai import PROBE

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
            if fault is None and not probe and len(body["input"]) > server.takes:
                fault = (server.refuses, {})
            if fault is None and any(len(line) > server.longest for line in body["input"]):
                fault = (400, {})
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
        elif fault == "spent":
            status, answer = 429, {"error": {"code": "insufficient_quota", "message": "pay"}}
        elif fault == "page":
            answer, headers = b"<html>no service here</html>", {"Content-Type": "text/html"}
        elif fault == "half":
            answer, headers = b'{"data": [', {"Content-Type": "application/json"}
        elif fault:
            FAULTS[fault](rows, answer)
        told = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
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


def say(answer, **error):
    answer.clear()
    answer["error"] = error


FAULTS = {  # such as pass
    "slow": lambda rows, answer: time.sleep(0.6),
    "permuted": lambda rows, answer: rows.reverse(),
    "count": lambda rows, answer: rows.pop(),
    "more": lambda rows, answer: rows.append(dict(rows[0])),
    "twice": lambda rows, answer: rows[-1].update(index=0),
    "nan": lambda rows, answer: rows[0]["embedding"].__setitem__(2, float("nan")),
    "null": lambda rows, answer: rows[0]["embedding"].__setitem__(2, None),
    "busy": lambda rows, answer: say(answer, code=429, message="rate limit"),
}
SHAPES = {  # answers that no further try makes better, and what a message says of them
    "wide": (lambda rows, answer: [row["embedding"].append(1.0) for row in rows], "of 7 values"),
    "ragged": (lambda rows, answer: rows[0]["embedding"].append(1.0), "of 6, 7 values"),
    "empty": (lambda rows, answer: [row.update(embedding=[]) for row in rows], "of 0 values"),
    "base64": (lambda rows, answer: rows[0].update(embedding="AAAA"), "base64"),
    "nested": (lambda rows, answer: rows[0].update(embedding=[[1.0]]), "no list of numbers"),
    "words": (lambda rows, answer: rows[0].update(embedding=["1.0"] * WIDTH), "no list of numbers"),
    "huge": (lambda rows, answer: rows[0].update(embedding=[10**400] * WIDTH), "no float holds"),
    "no embedding": (lambda rows, answer: rows[0].pop("embedding"), "no list of numbers"),
    "no list": (lambda rows, answer: answer.clear(), "no list 'data'"),
    "bare": (lambda rows, answer: answer.update(data=[1, 2]), "no list 'data'"),
    "error": (lambda rows, answer: say(answer, message="no such model"), "no such model"),
    "code": (lambda rows, answer: say(answer, code="model_not_found"), "model_not_found"),
}
FAULTS |= {name: fault for name, (fault, _) in SHAPES.items()}
INDEXES = {  # ways to number the vectors, all of which say the same
    "none": lambda rows: [row.pop("index") for row in rows],
    "index null": lambda rows: [row.update(index=None) for row in rows],
    "no zero": lambda rows: rows[0].pop("index"),
    "no zero, permuted": lambda rows: (rows[0].pop("index"), rows.reverse()),
}
FAULTS |= {
    name: lambda rows, answer, change=change: change(rows) for name, change in INDEXES.items()
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
    path, headers and body of each request, ``most`` how many came at once. More than ``takes``
    texts are answered with the status ``refuses``, and texts above ``longest`` characters with 400.
    """
    server = _Server(("127.0.0.1", 0), _Handler)
    server.lock, server.asked, server.faults = threading.Lock(), [], []
    server.at_once = server.most = 0
    server.takes, server.refuses, server.longest = 10**6, 413, 10**6
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
