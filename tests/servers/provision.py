"""A real Pulsar and a real Cassandra for one test session, started by the first test that needs them.

PERDURE_TEST_PULSAR_URL (with PERDURE_TEST_PULSAR_ADMIN_URL) and PERDURE_TEST_CASSANDRA (host:port) name servers that
run already. Otherwise both are started from Maven coordinates, on ports of their own, and ended with the session.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

SCRIPTS = Path(__file__).parent
_PLACE = "PERDURE_TEST_SERVERS_DIR"
"""Where the session's servers live; set by the first process, inherited by its workers."""
_OWNER = "PERDURE_TEST_SERVERS_OWNER"
"""Process id of who chose that place: when it is gone, however it ended, its servers go too."""
_REQUIRED = "PERDURE_TEST_SERVERS_REQUIRED"
"""Set where a skip is a failure."""
_PORTS = {
    "pulsar": ("PULSAR_PORT", "PULSAR_HTTP_PORT", "PULSAR_BK_PORT"),
    "cassandra": ("CASSANDRA_PORT", "CASSANDRA_STORAGE_PORT"),
}


_LISTENING = range(12_000, 32_000)
"""Below what Linux gives to connections (32,768 and above): a port from there can be taken before its server starts."""
_WAIT = {"PULSAR_WAIT": "400", "CASSANDRA_WAIT": "400"}
"""Seconds: a start takes 12 on a quiet machine, minutes where everybody else works."""
_GUARD = """
while kill -0 "$0" 2>/dev/null; do sleep 2; done
test -e "$1" || exit 0
"$2/pulsar.sh" stop; "$2/cassandra.sh" stop; rm -rf "$1"
"""


class NoServers(Exception):
    """Neither addresses of servers nor what starts them."""


@dataclass(frozen=True, slots=True)
class Servers:
    pulsar_url: str
    pulsar_admin_url: str
    cassandra_host: str
    cassandra_port: int


def required() -> bool:
    return bool(os.environ.get(_REQUIRED))


def missing_tools() -> list[str]:
    """Without which no server can be started here."""
    return [tool for tool in ("java", "mvn", "curl") if shutil.which(tool) is None]


def check_tools() -> None:
    """Raises NoServers, with the one line that says what is missing, where no server can be started."""
    missing = missing_tools()
    if missing:
        raise NoServers(
            f"{', '.join(missing)} not found: tests on real servers need them, or PERDURE_TEST_PULSAR_URL and "
            "PERDURE_TEST_CASSANDRA"
        )


def servers() -> Servers:
    """Those of this session; started now if they were not.

    Raises:
        NoServers: with the one line that says what is missing.
        RuntimeError: they could not be started, now or before: no test tries again.
    """
    given = _given()
    if given is not None:
        return given
    check_tools()
    with _locked() as place:
        known = place / "servers.json"
        if known.exists():
            return Servers(**json.loads(known.read_text()))
        failed = place / "failed"
        if failed.exists():
            raise RuntimeError(failed.read_text())
        try:
            started = _start(place)
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            failed.write_text(str(error))
            _stop(place)
            raise
        known.write_text(json.dumps(asdict(started)))
        return started


def prepare() -> bool:
    """Choose the place that this session's processes share; whether it was chosen now: who chose it ends it."""
    if _PLACE in os.environ:
        return False
    os.environ[_PLACE] = tempfile.mkdtemp(prefix="perdure-servers-")
    os.environ[_OWNER] = str(os.getpid())
    return True


def stop() -> None:
    """End what was started, and forget its data."""
    place = Path(os.environ.pop(_PLACE))
    _stop(place)
    shutil.rmtree(place, ignore_errors=True)


def _stop(place: Path) -> None:
    if (place / "env.json").exists():
        environment = {**os.environ, **json.loads((place / "env.json").read_text())}
        for script in ("pulsar.sh", "cassandra.sh"):
            subprocess.run([SCRIPTS / script, "stop"], env=environment, check=False, timeout=90)


def script(name: str, verb: str) -> None:
    """Run a verb of the session's own pulsar.sh or cassandra.sh: faults are made of them."""
    environment = {**os.environ, **json.loads((Path(os.environ[_PLACE]) / "env.json").read_text())}
    subprocess.run([SCRIPTS / name, verb], env=environment, check=True, timeout=180)


def _given() -> Servers | None:
    pulsar, cassandra = os.environ.get("PERDURE_TEST_PULSAR_URL"), os.environ.get("PERDURE_TEST_CASSANDRA")
    if not pulsar or not cassandra:
        return None
    host, _, port = cassandra.partition(":")
    admin = os.environ.get("PERDURE_TEST_PULSAR_ADMIN_URL", "http://127.0.0.1:8080")
    return Servers(pulsar, admin, host, int(port or 9042))


@contextmanager
def alone() -> Iterator[None]:
    """Of all processes of this session's tests, only one is here: who measures, or loads the machine with a cluster."""
    with _locked("alone"):
        yield


@contextmanager
def _locked(name: str = "lock") -> Iterator[Path]:
    place = Path(os.environ[_PLACE])
    place.mkdir(parents=True, exist_ok=True)
    with (place / name).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield place


def _start(place: Path) -> Servers:
    ports = {name: str(free_port()) for names in _PORTS.values() for name in names}
    own = {**_WAIT, **ports, "PULSAR_DATA": str(place / "pulsar"), "CASSANDRA_DATA": str(place / "cassandra")}
    (place / "env.json").write_text(json.dumps(own))
    environment = {**os.environ, **own}
    apart = 'setsid /bin/sh -c "$0" "$@" </dev/null >/dev/null 2>&1 &'
    subprocess.run(["/bin/sh", "-c", apart, _GUARD, os.environ[_OWNER], place, SCRIPTS], env=environment, check=True)
    for verb in ("install", "start", "wait"):  # side by side where they only wait
        running = [
            subprocess.Popen([SCRIPTS / name, verb], env=environment, stdout=subprocess.DEVNULL)
            for name in ("pulsar.sh", "cassandra.sh")
        ]
        failed = [process.args for process in running if process.wait(timeout=600)]
        if failed:
            raise RuntimeError(f"{failed} failed; its console.log is below {place}")
    return Servers(
        f"pulsar://127.0.0.1:{ports['PULSAR_PORT']}", f"http://127.0.0.1:{ports['PULSAR_HTTP_PORT']}",
        "127.0.0.1", int(ports["CASSANDRA_PORT"]),
    )  # fmt: skip


def free_port() -> int:
    """One that nobody listens on now, and that no outgoing connection will be given meanwhile."""
    for port in random.SystemRandom().sample(_LISTENING, len(_LISTENING)):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("every port is taken")
