"""Pools of workers: what waits for the workers of one workflow or task, and of one build, and what they have."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from typing import Literal, TypeAlias

from msgspec import Struct

from perdure_schemas import topics

Kind: TypeAlias = Literal["task", "workflow"]
_TOPICS: dict[Kind, Callable[[str, str | None], str]] = {"task": topics.task_run, "workflow": topics.workflow_run}


class TopicBacklog(Struct, frozen=True):
    """Of one topic of workers."""

    topic: str
    waiting: int
    """Messages that no worker has; those that are to come later do not count."""
    in_flight: int
    """Messages that workers have, and have not acknowledged."""


class PoolBacklog(Struct, frozen=True, kw_only=True):
    """Of one pool."""

    kind: Kind
    name: str
    build: str | None
    """`None`: what any build may do."""
    waiting: int
    in_flight: int


Backlog: TypeAlias = Callable[[], Awaitable[Sequence[TopicBacklog]]]
"""Reads what waits for workers now, of every topic of theirs."""

MakePools: TypeAlias = Callable[[Sequence[str]], Awaitable[None]]
"""Makes these topics of workers, so that what is sent there waits for the first worker. May be repeated."""


def topics_of(kind: Kind, names: Iterable[str], build: str | None) -> list[str]:
    """Of a pool whose workers have this build: of each name the topic for any build, and the one for theirs."""
    builds = [None] if build is None else [None, build]
    return [_TOPICS[kind](name, each) for name in names for each in builds]


def is_of_workers(topic: str) -> bool:
    return any(topic.startswith(of("", None)) for of in _TOPICS.values())


def by_pool(backlogs: Iterable[TopicBacklog], kind: str | None, names: Collection[str]) -> list[PoolBacklog]:
    """Those of a kind, if one is asked for, and of these names, if any are.

    Names and builds may have dots, and a topic does not tell where one ends. So of the longest name that is asked for,
    all that follows it and a dot is the build; where none is asked for, the shortest name that has a topic of its own
    counts.
    """
    found = list(backlogs)
    known = {each.topic for each in found}
    return [
        PoolBacklog(kind=of, name=named, build=build, waiting=each.waiting, in_flight=each.in_flight)
        for of, topic in _TOPICS.items()
        if kind in (None, of)
        for each in found
        if each.topic.startswith(prefix := topic("", None))
        for named, build in [_split(each.topic.removeprefix(prefix), prefix, known, names)]
        if not names or named in names
    ]


def _split(rest: str, prefix: str, known: set[str], names: Collection[str]) -> tuple[str, str | None]:
    """Name and build."""
    if rest in names:
        return rest, None
    ends = [at for at, character in enumerate(rest) if character == "."]
    if names:
        ends = [at for at in reversed(ends) if rest[:at] in names]
    else:
        ends = [at for at in ends if f"{prefix}{rest[:at]}" in known]
    return (rest[: ends[0]], rest[ends[0] + 1 :]) if ends else (rest, None)
