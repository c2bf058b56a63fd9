"""What a cluster is made of, and what can be done to each: processes, servers, and the connections between them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

SERVERS = Path(__file__).parents[1] / "servers"


@dataclass
class Cut:
    """A proxy in front of one server for one process. While it is cut, nothing passes and nobody is told."""

    target: int
    port: int = 0
    severed: bool = False
    _server: asyncio.Server | None = None
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _mended: asyncio.Event = field(default_factory=asyncio.Event)

    async def open(self) -> None:
        self._mended.set()
        self._server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)

    def sever(self) -> None:
        self.severed = True
        self._mended.clear()

    def mend(self) -> None:
        """What was connected stays broken, as after a real partition: connections are aborted now."""
        self.severed = False
        self._mended.set()
        for writer in self._writers:
            writer.transport.abort()

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self.mend()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._mended.wait()
            there, back = await asyncio.open_connection("127.0.0.1", self.target)
        except OSError:
            writer.transport.abort()
            return
        self._writers |= {writer, back}
        try:
            await asyncio.gather(self._pipe(reader, back), self._pipe(there, writer))
        finally:
            self._writers -= {writer, back}

    async def _pipe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65_536):
                await self._mended.wait()
                writer.write(data)
                await writer.drain()
        except (ConnectionError, OSError):
            pass
        finally:
            writer.transport.abort()


class Member:
    """One process of the cluster."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str], log: Path) -> None:
        self.name = name
        self._command = command
        self._environment = environment
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self.stopped = False
        self.down = True
        """Meant not to run: what does not run without being meant to has died by itself."""
        self.cuts: dict[str, Cut] = {}

    def start(self) -> None:
        if self.alive:
            return
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command, env=self._environment, stdout=log, stderr=log, stdin=subprocess.DEVNULL
            )
        self.down = False

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL, also of a stopped process."""
        self.down = True
        if self._process is not None and self.alive:
            self._process.kill()
            self._process.wait()
        self.stopped = False

    def freeze(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        self.stopped = True

    def thaw(self) -> None:
        if self._process is not None and self.stopped and self.alive:
            self._process.send_signal(signal.SIGCONT)
        self.stopped = False

    async def roll(self, grace_s: float = 15.0) -> None:
        """SIGTERM, wait for the drain, start anew."""
        self.down = True
        if self._process is not None and self.alive:
            self._process.terminate()
            try:
                await asyncio.to_thread(self._process.wait, grace_s)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self.start()


class Server:
    """Pulsar or Cassandra, through the project's own script."""

    def __init__(self, name: str, environment: dict[str, str]) -> None:
        self.name = name
        patience = {"PULSAR_WAIT": "300", "CASSANDRA_WAIT": "300"}  # of a machine that does much else
        self._environment = {**patience, **os.environ, **environment}
        self._frozen: int | None = None

    def freeze(self) -> None:
        """SIGSTOP; of one that is frozen or down already: nothing."""
        pid_file = Path(self._environment[f"{self.name.upper()}_DATA"]) / f"{self.name}.pid"
        text = pid_file.read_text().strip() if pid_file.exists() else ""
        if self._frozen is None and text and Path(f"/proc/{text}").exists():
            self._frozen = int(text)
            os.kill(self._frozen, signal.SIGSTOP)

    def thaw(self) -> None:
        frozen, self._frozen = self._frozen, None
        if frozen is not None and Path(f"/proc/{frozen}").exists():
            os.kill(frozen, signal.SIGCONT)

    async def run(self, verb: str) -> None:
        process = await asyncio.create_subprocess_exec(
            str(SERVERS / f"{self.name}.sh"), verb, env=self._environment, stdout=subprocess.DEVNULL
        )
        if await process.wait():
            raise RuntimeError(f"{self.name}.sh {verb} failed")
