"""Many tasks at once: calling a task dispatches it, awaiting it waits.

Run it: python examples/parallel.py
"""

from __future__ import annotations

import asyncio

from perdure import Client, all_of, any_of, task, timer, workflow


@task
async def count_words(text: str) -> int:
    return len(text.split())


@task
async def ask_mirror(name: str, seconds: float) -> str:
    await asyncio.sleep(seconds)
    return name


@workflow
async def total_words(texts: list[str]) -> int:
    """All of them run at the same time; one turn of the workflow collects all results."""
    counts = await all_of(*[count_words(text) for text in texts])
    return sum(counts)


@workflow
async def fastest_mirror(mirrors: dict[str, float]) -> str:
    """The first answer wins, and nobody waits longer than two seconds."""
    answers = [ask_mirror(name, seconds) for name, seconds in mirrors.items()]
    return await any_of(*answers, timer(2)) or "nobody"


async def main() -> None:
    async with Client.embedded(count_words, ask_mirror, total_words, fastest_mirror) as client:
        print(await client.execute(total_words, ["to last", "to last a little", "to outlast"]), "words")
        print(await client.execute(fastest_mirror, {"oslo": 0.4, "turin": 0.05}), "was the fastest")


if __name__ == "__main__":
    asyncio.run(main())
