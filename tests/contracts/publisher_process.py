"""Publishes and commits for ever, and says on stdout what was confirmed: to be killed."""

from __future__ import annotations

import asyncio
import sys

from perdure_runtime.adapters.sqlite import open_sqlite
from perdure_runtime.clock import SystemClock
from perdure_runtime.ports import Commit, Head, RunKey
from perdure_schemas.events import CancelRequested, Recorded
from perdure_schemas.messages import CancelTimer, Message


async def main(path: str) -> None:
    opened = await open_sqlite(path, SystemClock())
    publisher, store = opened.ports.broker.publisher(), opened.ports.store
    await opened.ports.broker.subscribe("ns", ["t"], "s", "failover")
    key = RunKey("ns", "w")
    for number in range(1, 1_000_000):
        message = Message(id=str(number), namespace="ns", key="k", at=1, body=CancelTimer(timer_id=""))
        event = Recorded(seq=number, at=1, cause=str(number), event=CancelRequested(reason="", actor=""))
        head = Head(version=number, run_id="r", seq=number, runs=1)
        before = "r" if number > 1 else ""
        write = Commit(
            key=key, expected_version=number - 1, expected_run=before, head=head, events=[event], commit_id=str(number)
        )
        await asyncio.gather(store.commit(write), publisher.publish([("t", message)]))
        sys.stdout.write(f"{number}\n")
        sys.stdout.flush()


asyncio.run(main(sys.argv[1]))
