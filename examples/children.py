"""Workflows that call workflows: each child has a history of its own, is found by its own id, and fails alone.

Run it: python examples/children.py
"""

from __future__ import annotations

import asyncio

from perdure import ChildFailed, Client, all_of, branch, task, workflow


@task
async def measure(river: str, station: int) -> float:
    if river == "Lethe":
        raise LookupError(f"nobody remembers {river}")
    return len(river) + station / 10


@workflow
async def survey(river: str, stations: int) -> float:
    """The mean level of one river."""
    levels = await all_of(*[measure(river, station) for station in range(stations)])
    return sum(levels) / stations


@workflow
async def report(rivers: list[str]) -> dict[str, str]:
    async def one(river: str) -> str:
        try:
            return f"{await survey(river, 4):.2f} m"
        except ChildFailed:
            return "unknown"

    levels = await all_of(*[branch(one(river)) for river in rivers])
    return dict(zip(rivers, levels, strict=True))


async def main() -> None:
    async with Client.embedded(measure, survey, report) as client:
        print(await client.execute(report, ["Rhine", "Lethe", "Loire"]))


if __name__ == "__main__":
    asyncio.run(main())
