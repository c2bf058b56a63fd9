"""`perdure show` of a task whose worker is killed: it runs no more once that is known."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from perdure import Client
from tests.cli.dev_process import ENVIRONMENT, Dev, running_dev, until

SHOP = """
from typing import Protocol
from perdure import service, service_stub, workflow

@service
class Payments(Protocol):
    async def charge(self, cents: int) -> str: ...

payments = service_stub(Payments)

@workflow
async def order(cents: int) -> str:
    return await payments.charge(cents)
"""
BANK = """
import asyncio, sys
from pathlib import Path
from perdure import Worker
from shop import Payments

class Bank(Payments):
    async def charge(self, cents: int) -> str:
        if not Path("goes-on").exists():
            await asyncio.sleep(1000)
        return "paid"

asyncio.run(Worker.connect(sys.argv[1], services=[Bank()]).run())
"""


def table(dev: Dev) -> str:
    command = [sys.executable, "-m", "perdure.cli", "show", "o", "-o", "table", "--db", str(dev.database)]
    environment = {**ENVIRONMENT, "COLUMNS": "160"}
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=90).stdout


def test_a_task_of_a_worker_that_is_killed_waits_for_another(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SHOP)
    (tmp_path / "bank.py").write_text(BANK)
    with (
        running_dev(tmp_path / "shop.py", tmp_path / "dev.sqlite") as dev,
        Client.connect(dev.database).sync as client,
    ):

        def bank() -> subprocess.Popen[bytes]:
            return subprocess.Popen([sys.executable, "bank.py", str(dev.database)], cwd=tmp_path, env=ENVIRONMENT)

        run = client.start("order", 5, id="o")
        first = bank()
        try:
            until(lambda: [task.status for task in run.tasks()] == ["running"])
            (task,) = run.tasks()
            assert task.worker
            told = table(dev)
            assert "attempt 1 running" in told
            assert f"on {task.worker}" in told
        finally:
            first.kill()
            first.wait()
        until(lambda: [task.status for task in run.tasks()] == ["queued"])
        assert f"attempt 1 waits for another worker: {task.worker} is gone" in table(dev)
        (tmp_path / "goes-on").touch()
        second = bank()
        try:
            assert run.result() == "paid"
        finally:
            second.terminate()
            second.wait()
