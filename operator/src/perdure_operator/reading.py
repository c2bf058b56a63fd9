"""What the API says of one pool. What it does not say now is not known, and changes nothing."""

from __future__ import annotations

from collections.abc import Awaitable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from msgspec import structs

from perdure_operator.builds import is_build
from perdure_operator.facts import Facts, Failed, Open, Waiting
from perdure_operator.ports import Perdure, Unavailable
from perdure_operator.resources import Pool
from perdure_operator.status import ERRORS_MAX

T = TypeVar("T")
_TROUBLED = ("failed", "stuck")


@dataclass(slots=True)
class Known:
    """The last errors, and the counts they were read at: while these are the same, so are those."""

    counts: tuple[int, ...] | None = None
    failed: Sequence[Failed] = field(default_factory=tuple)


async def read_facts(perdure: Perdure, pool: Pool, known: Known) -> Facts:
    """What is to be known for a pool's decisions and status."""
    if perdure.silence:
        return Facts(problem=perdure.silence)
    problems: list[str] = []
    backlog = await _asked(perdure.backlog(), problems)
    ours = None if backlog is None else [*of_pool(pool, backlog)]
    if pool.kind == "Worker":
        return Facts(backlog=ours, problem="; ".join(problems))
    found = await _asked(perdure.builds(), problems)
    builds = None if found is None else [each for each in found if each.name == pool.spec.workflow]
    routing = await _asked(perdure.routing(pool.spec.workflow), problems)
    failed = None if builds is None else await _asked(_failed(perdure, pool.spec.workflow, builds, known), problems)
    return Facts(
        backlog=ours, builds=builds, routing=routing, failed=failed, problem="; ".join(dict.fromkeys(problems))
    )


def of_pool(pool: Pool, backlog: Iterable[Waiting]) -> Iterator[Waiting]:
    """What is for a pool's names, for any build or for one of the operator's."""
    names = set(pool.names)
    for each in backlog:
        for name, build in meanings(each):
            if each.kind == pool.served and name in names:
                yield structs.replace(each, name=name, build=build)
                break


def meanings(told: Waiting) -> Sequence[tuple[str, str | None]]:
    """Name and build that a topic may be of.

    The API was not asked by names, so it cannot know where one with dots ends: it tells of `image.resize` as of build
    `resize` of `image`, if that is a name as well. But it leaves nothing out, and the operator's builds are known.
    """
    whole = told.name if told.build is None else f"{told.name}.{told.build}"
    name, _, build = whole.rpartition(".")
    return [(whole, None), (name, build)] if is_build(build) else [(whole, None)]


async def _failed(perdure: Perdure, workflow: str, builds: Sequence[Open], known: Known) -> Sequence[Failed]:
    counts = tuple(sum(each.counts.get(status, 0) for each in builds) for status in _TROUBLED)
    if known.counts != counts:
        known.failed = await perdure.failed(workflow, ERRORS_MAX) if any(counts) else ()
        known.counts = counts
    return known.failed


async def _asked(question: Awaitable[T], problems: list[str]) -> T | None:
    try:
        return await question
    except Unavailable as error:
        problems.append(str(error))
        return None
