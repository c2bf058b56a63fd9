"""Which workflows and tasks workers have announced: each subscribes to the topics of what it has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TypeAlias

from msgspec import Struct

from perdure_schemas import topics


class Announced(Struct, frozen=True):
    """Names, in order. What follows them is known of a `perdure dev` alone, which has one app."""

    workflows: list[str]
    tasks: list[str]
    broken: str = ""
    """Why no worker can serve the app now; empty: one does."""
    left_out: dict[str, str] = {}
    """Workflows that its worker refuses to serve, and why."""
    database: str = ""
    """The file that its engine is on."""


Announcements: TypeAlias = Callable[[], Awaitable[Announced | None]]
"""Reads what has been announced so far; nothing if that is not known now."""


def of_topics(subscribed: Iterable[str]) -> Announced:
    """What the topics that workers have subscribed to stand for."""
    known = list(subscribed)
    return Announced(_names(topics.workflow_run(""), known), _names(topics.task_run(""), known))


def _names(prefix: str, subscribed: Iterable[str]) -> list[str]:
    """A worker has a topic for the name, which may have dots, and one for the name and its build: `name.build`."""
    found = {topic.removeprefix(prefix) for topic in subscribed if topic.startswith(prefix)}
    begun = {each[:at] for each in found for at, character in enumerate(each) if character == "."}
    return sorted(found & begun)
