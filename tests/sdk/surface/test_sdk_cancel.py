"""What a cancel of a run does to the attempts that are under way."""

from __future__ import annotations

import asyncio

import pytest

from perdure import Client, RunCanceled, task, workflow

began: list[str] = []
stopped: list[str] = []


@task(heartbeat_timeout=30)
async def declared() -> None:
    await _until_canceled("declared")


@task
async def plain() -> None:
    await _until_canceled("plain")


async def _until_canceled(name: str) -> None:
    began.append(name)
    try:
        await asyncio.Event().wait()
    except asyncio.CancelledError:
        stopped.append(name)
        raise


@workflow
async def both() -> None:
    await asyncio.gather(declared(), plain())


async def _named(names: list[str], *expected: str) -> None:
    while set(names) < set(expected):  # noqa: ASYNC110 - filled by the worker's own loop
        await asyncio.sleep(0.01)


def test_a_cancel_reaches_an_attempt_with_a_heartbeat_time_out_at_any_age(monkeypatch: pytest.MonkeyPatch) -> None:
    """The other one is told of when it is old enough, which it never is here."""

    async def main() -> None:
        monkeypatch.setattr("perdure._worker.attempts.LONG_SECONDS", 3_600.0)
        async with asyncio.timeout(60), Client.embedded(both, declared, plain) as client:
            run = await client.start(both, id="b")
            await _named(began, "declared", "plain")
            await run.cancel()
            with pytest.raises(RunCanceled):
                await run.result()
            await _named(stopped, "declared")
            assert stopped == ["declared"]

    asyncio.run(main())
