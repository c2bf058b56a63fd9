"""Waiting for people: signals, a time limit, and a query that shows the state meanwhile.

Run it: python examples/approval.py
"""

from __future__ import annotations

import asyncio

from perdure import Channel, Client, any_of, query, timer, workflow


@workflow
class Approval:
    """Two people must agree before the time is up."""

    votes: Channel[str] = Channel()

    def __init__(self) -> None:
        self.approvers: list[str] = []

    async def run(self, document: str, seconds: float) -> str:
        deadline = timer(seconds)
        while len(self.approvers) < 2:
            vote = await any_of(self.votes.receive(), deadline)
            if vote is None:
                return f"{document}: expired with {len(self.approvers)} of 2 votes"
            self.approvers.append(vote)
        return f"{document}: approved by {' and '.join(self.approvers)}"

    @query
    def so_far(self) -> list[str]:
        return self.approvers


async def main() -> None:
    async with Client.embedded(Approval) as client:
        budget = await client.start(Approval, "budget", 60.0, id="budget-2027")
        await budget.signal(Approval.votes, "Ada")
        print("votes so far:", await budget.query(Approval.so_far))
        await budget.signal(Approval.votes, "Grace")
        print(await budget.result())

        print(await client.execute(Approval, "party", 0.2))


if __name__ == "__main__":
    asyncio.run(main())
