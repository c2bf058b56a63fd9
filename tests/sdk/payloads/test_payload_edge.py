"""Which values are stored beside the messages, and how often."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

from perdure._payloads import edge
from perdure._payloads.edge import Edge
from perdure.convert import OFFLOAD_ABOVE_BYTES, encode
from perdure.payloads import Payloads
from perdure_schemas.blobs import Blob
from perdure_schemas.common import Payload
from perdure_schemas.messages import Message, TaskOutcome

LARGE = "x" * (2 * OFFLOAD_ABOVE_BYTES)


class Counting:
    """A store that tells how many are at it at once, and what was put."""

    def __init__(self) -> None:
        self.put_ids: list[str] = []
        self.now = self.most = 0

    async def put(self, blob: Blob, data: bytes) -> None:
        self.put_ids.append(blob.id)
        self.now += 1
        self.most = max(self.most, self.now)
        await asyncio.sleep(0.01)
        self.now -= 1

    async def get(self, blob: Blob) -> bytes | None:
        return None


def outcomes(results: Sequence[Payload]) -> list[Message]:
    bodies = [
        TaskOutcome(
            workflow_id="w", run_id="r", command_id=f"c-{number}", generation=0, attempt=1, outcome="completed",
            result=result,
        )
        for number, result in enumerate(results)
    ]  # fmt: skip
    return [Message(id=f"m-{n}", namespace="default", key="w", at=1, body=body) for n, body in enumerate(bodies)]


def test_a_value_of_several_messages_is_stored_once_and_several_side_by_side() -> None:
    async def scenario() -> None:
        store = Counting()
        sealing = Edge(None, "default", lambda: store).seal(outcomes([encode(LARGE)] * 2))
        assert sealing is not None
        first, second = [cast("TaskOutcome", message.body).result for message in await sealing()]
        assert first == second
        assert len(store.put_ids) == 1
        sealing = Edge(None, "default", lambda: store).seal(outcomes([encode(LARGE + str(n)) for n in range(9)]))
        assert sealing is not None
        await sealing()
        assert store.most == edge._AT_ONCE

    asyncio.run(scenario())


def test_a_message_without_a_large_value_is_passed_on_as_the_object_it_is() -> None:
    (message,) = outcomes([encode("x" * (OFFLOAD_ABOVE_BYTES - 2))])
    plain = Edge(None, "default", Counting)
    assert plain.seal([message]) is None
    assert plain.open(message) is None
    assert plain.outgoing(message) is message
    assert plain.incoming(message) is message
    (larger,) = outcomes([encode("x" * (OFFLOAD_ABOVE_BYTES - 1))])
    assert plain.seal([larger]) is not None


def test_what_compression_makes_small_goes_in_the_message() -> None:
    async def scenario() -> None:
        store = Counting()
        sealing = Edge(Payloads(), "default", lambda: store).seal(outcomes([encode(LARGE)]))
        assert sealing is not None
        (message,) = await sealing()
        result = cast("TaskOutcome", message.body).result
        assert result is not None
        assert result.encoding == "json+zstd"
        assert not store.put_ids

    asyncio.run(scenario())
