"""The tests' embeddings server is silent about clients that leave, and about nothing else."""

import json
import socket
import struct
import threading
import time

import pytest
from embedding_server import FAULTS, serving

BODY = json.dumps({"model": "any", "input": ["kettle"]}).encode()
REQUEST = b"POST /embeddings HTTP/1.1\r\nHost: here\r\nContent-Length: %d\r\n\r\n" % len(BODY)
AT_ONCE = struct.pack("ii", 1, 0)  # close() cuts the connection


def wait_for_answers():
    for thread in threading.enumerate():
        if "process_request_thread" in thread.name:
            thread.join(10)


@pytest.mark.parametrize(("after", "said"), [(lambda: None, ""), (lambda: 1 / 0, "by zero")])
def test_only_clients_that_leave_pass_in_silence(capfd, monkeypatch, after, said):
    left = threading.Event()
    monkeypatch.setitem(FAULTS, "late", lambda rows, answer: (left.wait(120), after()))
    with serving() as server:
        server.faults.append("late")
        with socket.create_connection(server.server_address) as client:
            client.sendall(REQUEST + BODY)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, AT_ONCE)
            deadline = time.monotonic() + 120
            while not server.asked:
                assert time.monotonic() < deadline
                left.wait(0.01)
        left.set()
        wait_for_answers()
    told = capfd.readouterr().err
    assert said in told
    assert bool(told) == bool(said)
