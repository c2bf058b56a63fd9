"""`make up` and `make down`, as the README tells them: a run from the command line through every service."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from uuid import uuid4

import pytest

from perdure import Client
from tests.repo import doc_blocks, tree
from tests.repo.test_repo_docs import ON_SERVERS
from tests.servers import clean
from tests.servers.provision import free_port

pytestmark = pytest.mark.timeout(600)
LARGE = 3_000_000
APP = Path(__file__).parents[2] / "examples/hello.py"


def cluster_environment(api_port: int) -> dict[str, str]:
    """Of processes on this session's real servers, with a tenant and a keyspace of their own."""
    found, settings = clean.real_servers(), clean.pulsar_settings()
    return {
        "PYTHONHASHSEED": "0",
        "PERDURE_PULSAR_URL": settings.url,
        "PERDURE_PULSAR_ADMIN_URL": settings.admin_url,
        "PERDURE_PULSAR_TENANT": settings.tenant,
        "PERDURE_CASSANDRA_PORT": str(found.cassandra_port),
        "PERDURE_CASSANDRA_KEYSPACE": f"test_{uuid4().hex[:16]}",  # pages list what is there: nothing of other tests
        "PERDURE_CASSANDRA_REPLICATION": "1",
        "PERDURE_PROBE_PORT": "0",
        "PERDURE_API_PORT": str(api_port),
        "PERDURE_URL": f"http://127.0.0.1:{api_port}",
    }


@pytest.mark.parametrize("name", sorted(ON_SERVERS))
def test_a_page_about_servers_is_true(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, value in cluster_environment(free_port()).items():
        monkeypatch.setenv(variable, value)
    found = list(doc_blocks.problems((tree.ROOT / name).read_text("utf-8"), tmp_path))
    assert not found, "\n".join(found)


def test_what_make_up_starts_runs_a_workflow_and_make_down_ends_it(tmp_path: Path) -> None:
    environment = {**os.environ, **cluster_environment(free_port()), "PERDURE_UP_DIR": str(tmp_path / "up")}

    def local(verb: str, code: int = 0) -> str:
        command = [sys.executable, "-m", "tests.servers.local", verb]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    def perdure(*arguments: str) -> str:
        command = [sys.executable, "-m", "perdure.cli", *arguments]
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout

    local("status", 3)
    try:
        assert "ready" in local("up")
        assert "up already" in local("up", 1)
        worker = subprocess.Popen(
            [sys.executable, "-m", "perdure.cli", "worker", str(APP)],
            env=environment,
            stderr=subprocess.DEVNULL,
        )
        try:
            assert json.loads(perdure("start", "hello", '"Ada"', "--id", "ada", "--wait")) == "Hello, Ada!"
            assert asyncio.run(greeted(environment["PERDURE_URL"])) == len("Hello, !") + LARGE
            while True:  # the projector is a process of its own
                runs = json.loads(perdure("list", "--workflow", "hello"))
                if [(run["id"], run["status"]) for run in runs] == [("large", "completed"), ("ada", "completed")]:
                    break
        finally:
            worker.terminate()
            assert worker.wait(60) == 0
    finally:
        assert "is down" in local("down")
    processes = [each for each in Path("/proc").glob("[0-9]*/environ") if belongs(each, str(tmp_path / "up"))]
    assert not processes


async def greeted(url: str) -> int:
    """By a name that is stored beside the messages, as the greeting is: the API has the only way to the store."""
    async with asyncio.timeout(120), Client.connect(url) as client:
        return len(await client.execute("hello", "x" * LARGE, id="large"))


def belongs(environ: Path, place: str) -> bool:
    try:
        return f"PERDURE_UP_DIR={place}".encode() in environ.read_bytes()
    except OSError:
        return False
