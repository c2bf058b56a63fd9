"""`make up` and `make down`: a whole cluster as processes of this machine, on a real Pulsar and a real Cassandra.

What runs is known by process id and the moment it started, so that nothing else is ever ended. Data and logs stay.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from tests.servers.provision import free_port

SCRIPTS = Path(__file__).parent
ROLES = ("workflow_engine", "task_engine", "timer", "projector", "api")
API_PORT = int(os.environ.get("PERDURE_API_PORT", "8420"))
GIVEN = "PERDURE_PULSAR_URL" in os.environ
"""The environment says which servers to use: neither Pulsar nor Cassandra is started, nor ended."""
READY_S = 120.0
"""A service is ready in 2 s on a quiet machine; one that is not by then says why in its log."""
DRAIN_S = 30.0
"""What services have to drain before they are killed: their own grace time is 25 s."""
_POLL_S = 0.1
_STARTED_FIELD = 19
"""Of /proc/PID/stat, counted after the name: when the process started, in ticks since the boot."""


class Trouble(Exception):
    """The cluster cannot be brought up; the text says what to do."""


@dataclass(frozen=True, slots=True)
class Running:
    """A process that we started."""

    role: str
    pid: int
    started: str
    log: str
    url: str
    """Where it tells whether it is ready."""

    @property
    def alive(self) -> bool:
        return started_at(self.pid) == self.started


def home() -> Path:
    """Where data, logs and the list of processes are."""
    state = os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state"
    return Path(os.environ.get("PERDURE_UP_DIR") or Path(state) / "perdure/up")


def started_at(pid: int) -> str:
    """Tells this process from a later one of the same number; empty: there is none, or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else fields[_STARTED_FIELD]


def servers(verb: str, place: Path) -> None:
    """Both at once.

    Raises:
        Trouble: one did not do it; its own words stand on the terminal.
    """
    environment = {"PULSAR_DATA": str(place / "pulsar"), "CASSANDRA_DATA": str(place / "cassandra"), **os.environ}
    running = {
        name: subprocess.Popen([SCRIPTS / name, verb], env=environment, stdout=subprocess.DEVNULL)
        for name in ("pulsar.sh", "cassandra.sh")
    }
    failed = [name for name, process in running.items() if process.wait()]
    if failed:
        raise Trouble(f"{verb} of {' and '.join(failed)} failed; logs are below {place}")


def settings(role: str, probe_port: int) -> dict[str, str]:
    return {
        "PERDURE_CASSANDRA_REPLICATION": "1",
        **os.environ,
        "PERDURE_INSTANCE": role.replace("_", "-"),
        "PERDURE_PROBE_PORT": str(probe_port),
        "PERDURE_API_PORT": str(API_PORT),
    }


def busy(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def prepared() -> None:
    """Topics and tables."""
    for verb in ("init", "migrate"):
        command = [sys.executable, "-m", "perdure.cli", "admin", verb]
        done = subprocess.run(command, env=settings("admin", 0), capture_output=True, text=True, check=False)
        if done.returncode:
            raise Trouble(f"perdure admin {verb} failed: {done.stderr.strip()}")


def start(place: Path, role: str) -> Running:
    log, port = place / f"{role}.log", free_port()
    environment = settings(role, port)
    with log.open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", f"perdure_{role}"], env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip
    url = f"http://127.0.0.1:{port}/readyz"
    return Running(role, process.pid, started_at(process.pid), str(log), url)


def answers(url: str) -> bool:
    """Whether a probe says yes."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def wait_ready(running: list[Running]) -> None:
    deadline = time.monotonic() + READY_S
    while not all(answers(each.url) for each in running):
        for each in running:
            if not each.alive:
                raise Trouble(f"{each.role} ended by itself; the end of {each.log}:\n{tail(each.log)}")
        if time.monotonic() > deadline:
            slow = next(each for each in running if not answers(each.url))
            raise Trouble(f"{slow.role} is not ready after {READY_S:.0f} s; the end of {slow.log}:\n{tail(slow.log)}")
        time.sleep(_POLL_S)


def tail(log: str) -> str:
    return "\n".join(Path(log).read_text(errors="replace").splitlines()[-5:])


def known(place: Path) -> list[Running]:
    """What was started last; it may have ended."""
    path = place / "running.json"
    return [Running(**each) for each in json.loads(path.read_text())] if path.exists() else []


def steps(place: Path) -> Iterator[str]:
    """Bring everything up; yields what is being done.

    Raises:
        Trouble: and what was started is ended again by `down`.
    """
    if not GIVEN:
        yield "install Pulsar and Cassandra (once; some minutes)"
        servers("install", place)
        yield "start Pulsar and Cassandra"
        servers("start", place)
        servers("wait", place)
    yield "make topics and tables"
    prepared()
    yield "start the services"
    running: list[Running] = []
    for role in ROLES:
        running.append(start(place, role))
        (place / "running.json").write_text(json.dumps([asdict(each) for each in running]))
    wait_ready(running)


def up(console: Console) -> int:
    place = home()
    if any(each.alive for each in known(place)):
        console.print("Perdure is up already: [bold]make down[/] ends it.")
        return 1
    if busy(API_PORT):
        console.print(
            f"Port {API_PORT}, which is the API's, is taken: end what listens there, or set PERDURE_API_PORT."
        )
        return 1
    place.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    try:
        for step in steps(place):
            console.print(f"{time.monotonic() - began:6.1f} s  {step}")
    except Trouble as trouble:
        console.print(f"[red]{trouble}[/]")
        down(console)
        return 1
    console.print(f"{time.monotonic() - began:6.1f} s  [green]ready[/]")
    show(console, known(place))
    return 0


def show(console: Console, running: list[Running]) -> None:
    table = Table("service", "process", "state", "probes", box=None)
    for each in running:
        state = "[green]ready" if answers(each.url) else "[yellow]not ready" if each.alive else "[red]ended"
        table.add_row(each.role.replace("_", "-"), str(each.pid), state, each.url)
    console.print(table)
    console.print(
        f"\nLogs are in {home()}.\nNow, with .venv/bin on the PATH:\n"
        "  PERDURE_PROBE_PORT=0 PYTHONHASHSEED=0 perdure worker examples/hello.py &\n"
        f"  export PERDURE_URL=http://127.0.0.1:{API_PORT}\n"
        "  perdure start hello '\"Ada\"' --wait\n"
        "  perdure list"
    )


def down(console: Console) -> int:
    """End what we started, the services first: they drain."""
    place = home()
    running = [each for each in known(place) if each.alive]
    for each in running:
        os.kill(each.pid, signal.SIGTERM)
    deadline = time.monotonic() + DRAIN_S
    while any(each.alive for each in running) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
    for each in running:
        if each.alive:
            console.print(f"{each.role} did not drain in {DRAIN_S:.0f} s: killed")
            os.kill(each.pid, signal.SIGKILL)
    if not GIVEN:
        servers("stop", place)
    (place / "running.json").unlink(missing_ok=True)
    console.print(f"Perdure is down. Its data and logs stay in {place}.")
    return 0


def status(console: Console) -> int:
    running = known(home())
    if not running:
        console.print("Perdure is down: [bold]make up[/] starts it.")
        return 3
    show(console, running)
    return 0


if __name__ == "__main__":
    sys.exit({"up": up, "down": down, "status": status}[sys.argv[1]](Console(highlight=False)))
