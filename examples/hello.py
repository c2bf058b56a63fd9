"""The smallest workflow: one task, awaited.

Run it: python examples/hello.py
"""

from __future__ import annotations

import asyncio

from perdure import Client, task, workflow


@task
async def greet(name: str) -> str:
    return f"Hello, {name}!"


@workflow
async def hello(name: str) -> str:
    return await greet(name)


async def main() -> None:
    async with Client.embedded(greet, hello) as client:
        print(await client.execute(hello, "world"))


if __name__ == "__main__":
    asyncio.run(main())
