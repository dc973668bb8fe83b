"""profiles/s3 as it is shipped, against an S3 server on this machine: results in a bucket.

Skipped without the plugin and the server: ``make recipes`` installs them and runs this.
"""

import logging
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

moto = pytest.importorskip("moto", reason="make recipes installs the S3 server and the plugin")
pytest.importorskip("snakemake_storage_plugin_s3", reason="make recipes installs it")

import boto3  # noqa: E402
from moto.moto_server.werkzeug_app import (  # noqa: E402
    DomainDispatcherApplication,
    create_backend_app,
)
from werkzeug.serving import make_server  # noqa: E402

pytestmark = pytest.mark.workflow

BUCKET = "my-bucket"  # of the profile
PREFIX = "sidmill/results/"
TINY = ("--configfile", "tests/configs/tiny.yaml")
PROFILE = ("--profile", "profiles/s3", "--workflow-profile", "none")
SIDS = "results/pid2sid.parquet"
HELD_SECONDS = 120
SECRET = "secret-that-no-file-may-hold"


class Server:
    """An S3 server that can hold an upload until its sender is gone."""

    def __init__(self) -> None:
        self.held_key = ""
        self.is_held, self.go_on = threading.Event(), threading.Event()
        self.uploads: list[str] = []
        self._app = DomainDispatcherApplication(create_backend_app)
        self._server = make_server("127.0.0.1", 0, self, threaded=True)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        if environ["REQUEST_METHOD"] == "PUT":
            if self.held_key and path.endswith(self.held_key):
                self.is_held.set()
                self.go_on.wait(HELD_SECONDS)
                start_response("503 Slow Down", [])  # to a sender that was killed
                return [b""]
            self.uploads.append(path)
        return self._app(environ, start_response)

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    opened = Server()
    client(opened).create_bucket(Bucket=BUCKET)
    yield opened
    opened.close()


def client(server):
    keys = {"aws_access_key_id": "key", "aws_secret_access_key": SECRET}
    return boto3.client("s3", endpoint_url=server.url, region_name="us-east-1", **keys)


def stored(server) -> dict[str, str]:
    """Tags, which are digests, of all results in the bucket, by name below results/."""
    pages = client(server).get_paginator("list_objects_v2").paginate(Bucket=BUCKET)
    found = [entry for page in pages for entry in page.get("Contents", ())]
    assert all(entry["Key"].startswith(PREFIX) for entry in found)
    return {entry["Key"].removeprefix(PREFIX): entry["ETag"] for entry in found}


def content(server, name: str) -> bytes:
    return client(server).get_object(Bucket=BUCKET, Key=PREFIX + name)["Body"].read()


def command(workflow, server, *arguments: str) -> dict:
    made = workflow.command(*arguments, *PROFILE, "--storage-s3-endpoint-url", server.url, *TINY)
    secrets = {"ACCESS_KEY": "key", "SECRET_KEY": SECRET}
    made["env"] |= {f"SNAKEMAKE_STORAGE_S3_{name}": value for name, value in secrets.items()}
    made["env"]["PYTHONPATH"] = str(Path(moto.__file__).parents[1])
    return made


def run(workflow, server, *arguments: str) -> str:
    done = subprocess.run(
        **command(workflow, server, *arguments), capture_output=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_results_live_in_the_bucket_and_a_killed_upload_is_made_again(server, make_workflow):
    """The upload of a job's second output dies with the run; the next run makes both again."""
    workflow, local = make_workflow(), make_workflow()
    server.held_key = "items/rejects.parquet"
    process = subprocess.Popen(
        **command(workflow, server, SIDS), stdout=subprocess.DEVNULL, start_new_session=True
    )
    try:
        while not server.is_held.wait(1):
            assert process.poll() is None, "the run ended before it was killed"
    finally:
        os.killpg(process.pid, 9)
        process.wait()
    server.held_key = ""
    server.go_on.set()
    assert "items/text.parquet" in stored(server)
    assert "items/rejects.parquet" not in stored(server)  # nothing of it, not a part

    run(workflow, server)
    local.run(SIDS, *TINY)
    for name in ("pid2sid.parquet", "index.json", "rqkmeans/quantizer.safetensors"):
        assert content(server, name) == local.bytes(name), name
    assert {"quality.json", "explorer.html", "items/rejects.parquet"} <= set(stored(server))
    assert not (workflow.folder / "results/pid2sid.parquet").exists()

    files = [path for path in workflow.folder.rglob("*") if path.is_file()]
    assert [path for path in files if SECRET.encode() in path.read_bytes()] == []

    # A second run, of another clone too, has nothing to do, and uploads nothing.
    before, n_uploads = stored(server), len(server.uploads)
    for clone in (workflow, make_workflow()):
        assert "Nothing to be done" in run(clone, server)
    assert (stored(server), len(server.uploads)) == (before, n_uploads)
