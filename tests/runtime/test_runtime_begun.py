"""A run id is begun once, whoever asks for it again; and a commit that cannot be made holds nobody up."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from perdure import Client, RunFailed, WorkflowError, workflow
from perdure_runtime import poison
from perdure_runtime.errors import StorageContradiction
from perdure_runtime.ports import Delivery
from perdure_runtime.workflow_driver import WorkflowEngine
from perdure_schemas import topics
from perdure_schemas.common import NULL, RunOptions
from perdure_schemas.events import Started
from perdure_schemas.messages import StartReply, StartWorkflow
from tests.runtime.parts import NAMESPACE, World, hooked


@workflow
async def child(n: int) -> int:
    if n == 1:
        raise WorkflowError("no")
    return n


@workflow
async def parent() -> int:
    return await child.options(id="c")(1)


@pytest.mark.parametrize("db", ["file", "memory"])
def test_a_child_whose_id_was_used_since_is_not_begun_again(db: str, tmp_path: Path) -> None:
    async def scenario() -> None:
        where = str(tmp_path / "db.sqlite") if db == "file" else ":memory:"
        async with asyncio.timeout(20), Client.embedded(child, parent, db=where) as client:
            handle = await client.start(parent, id="p")
            with pytest.raises(RunFailed):
                await handle.result()
            first = await client.handle("c").history()
            run_id = next(record.event.run_id for record in first if isinstance(record.event, Started))
            assert await client.execute(child, 5, id="c") == 5
            await handle.resume()
            with pytest.raises(RunFailed, match="no"):
                await handle.result()
            assert await client.handle("c", run_id=run_id).history() == first
            assert await client.handle("c").result() == 5

    asyncio.run(scenario())


def start(workflow_id: str) -> StartWorkflow:
    return StartWorkflow(
        workflow_id=workflow_id, run_id=workflow_id, name="n", args=NULL, options=RunOptions(), reply_topic="inbox"
    )


def test_what_no_commit_can_record_goes_to_the_dead_letters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(poison, "FAILED_DELAY_MS", 1)

    async def scenario() -> None:
        world, broken = World(), [True]

        async def before(name: str, args: tuple[Any, ...]) -> None:
            if name == "commit" and broken and args[0].key.workflow_id == "bad":
                raise StorageContradiction("it is there")

        letters, inbox = await world.open(topics.dead_letters(topics.WORKFLOW_ENGINE)), await world.open("inbox")
        async with world.running(WorkflowEngine(hooked(world.ports, "store", before), NAMESPACE, "one").run()):
            sent = await world.send(topics.WORKFLOW_ENGINE, "bad", start("bad"))
            await world.send(topics.WORKFLOW_ENGINE, "good", start("good"))
            assert (await inbox.body(StartReply)).workflow_id == "good"
            letter = await letters.next()
            assert isinstance(letter, Delivery)
            assert letter.message.id == sent
            broken.clear()
            await world.send(topics.WORKFLOW_ENGINE, "bad", start("bad"))
            assert (await inbox.body(StartReply)).workflow_id == "bad"

    asyncio.run(scenario())
