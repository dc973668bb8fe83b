"""A local stand-in of the Hugging Face hub: makes datasets, takes commits and tags, in memory.

It answers the requests of huggingface_hub 2.4.0 for small files: create, preupload, commit, tag.
The hub itself also stores large files by another protocol, which is not here.
"""

import base64
import json
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TOKEN = "hf_test"


class Hub:
    """What was sent: files by repository, tags, names of private repositories, all requests."""

    def __init__(self):
        self.files, self.tags, self.private, self.requests = {}, {}, set(), []

    def answer(self, path, body, token):
        """Status and JSON of a POST."""
        self.requests.append(path)
        if token != f"Bearer {TOKEN}":
            return 401, {"error": "Invalid username or password."}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if path == "/api/repos/create":
            asked = json.loads(body)
            name = f"{asked.get('organization', 'me')}/{asked['name']}"
            known = name in self.files
            self.files.setdefault(name, {})
            self.private |= {name} if asked.get("visibility") == "private" else set()
            url = f"{self.address}/datasets/{name}"
            return (409 if known else 200), {"url": url, "name": name}
        owner, name, what = path.removeprefix("/api/datasets/").split("/")[:3]
        repository = f"{owner}/{name}"
        if what == "preupload":
            asked = json.loads(body)["files"]
            return 200, {
                "files": [
                    {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for one in asked
                ]
            }
        if what == "commit":
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    content = base64.b64decode(entry["value"]["content"])
                    self.files[repository][entry["value"]["path"]] = content
                if entry["key"] == "deletedFile":
                    del self.files[repository][entry["value"]["path"]]
            url = f"{self.address}/datasets/{repository}/commit/1"
            return 200, {"commitOid": "1" * 40, "commitUrl": url}
        if what == "tree":
            listed = [
                {"type": "file", "path": path, "oid": "0" * 40, "size": len(content)}
                for path, content in self.files[repository].items()
            ]
            return 200, listed
        if what == "tag":
            tags, tag = self.tags.setdefault(repository, []), json.loads(body)["tag"]
            if tag in tags:
                return 409, {"error": f"the tag {tag} exists"}
            tags.append(tag)
            return 200, {}
        return 404, {"error": f"no {path}"}


@contextmanager
def running():
    """A stand-in on the loopback, with its ``address``."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.do_POST()

        def do_POST(self):
            body = self.rfile.read(int(self.headers.get("content-length") or 0))
            status, told = hub.answer(self.path, body, self.headers.get("authorization"))
            content = json.dumps(told).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(timeout=10)
