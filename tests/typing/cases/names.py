"""All public names come with a star, for those who want that."""

from __future__ import annotations

from typing import Any, assert_type

from perdure import *  # noqa: F403


@task  # noqa: F405
async def charge(cents: int) -> str:
    return str(cents)


@workflow  # noqa: F405
class Order:
    stop: Channel[None] = Channel()  # noqa: F405
    tips: Channel[int] = Channel()  # noqa: F405

    async def run(self, cents: int) -> str:
        try:
            return await charge(cents)
        except TaskFailed as error:  # noqa: F405
            return error.failure.name
        except ChildFailed as error:  # noqa: F405
            return error.failure.message


async def talk(run: Handle[str]) -> None:  # noqa: F405
    await run.signal(Order.stop)
    await run.signal(Order.stop, None)
    await run.signal(Order.tips, 5)
    await run.signal("tips", 5)
    await run.signal("stop")
    try:
        await run.result()
    except RunFailed as error:  # noqa: F405
        assert_type(error.failure.name, str)

    await run.signal(Order.tips)  # E
    await run.signal(Order.tips, None)  # E
    await run.signal(Order.stop, 1)  # E


def talk_blocking(client: Client) -> None:  # noqa: F405
    with client.sync as blocking:
        run = blocking.handle(Order, "o-1")
        run.signal(Order.stop)
        run.signal(Order.stop, None)
        run.signal(Order.tips)  # E
        assert_type(blocking.handle("o-1").result(), Any)
