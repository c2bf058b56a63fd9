"""What reconciliation asks of the world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Protocol

from perdure_operator.facts import Failed, Open, Routing, Waiting, Work
from perdure_operator.objects import Key, Kind, Object


class Unavailable(Exception):
    """Who was asked did not answer, or not as agreed. The message says who, and what it said."""


class Silent(Unavailable):
    """Who was asked did not answer in time."""


class Forbidden(Unavailable):
    """The operator has not the rights to do this: those who gave it too few can change that."""


class NotServed(Unavailable):
    """Kubernetes does not know objects of this kind, or not in this namespace: their definition is not installed."""


class Refused(Exception):
    """Kubernetes does not take an object: the message says why."""


class Changed(Exception):
    """The object is not as it was looked at: look again."""


class Kubernetes(Protocol):
    """Objects of the cluster. Every method raises Unavailable."""

    async def get(self, kind: Kind, namespace: str, name: str) -> Object | None: ...

    async def list(self, kind: Kind, namespace: str, labels: Mapping[str, str]) -> Sequence[Object]: ...

    async def apply(self, item: Object) -> Object:
        """Server-side apply; returns what is stored then.

        An object that is there already comes with the `resourceVersion` that was looked at.

        Raises:
            Refused: it is wrong.
            NotServed: there are no objects of its kind.
            Changed: it was changed meanwhile.
        """
        ...

    async def apply_status(self, key: Key, status: Object) -> None: ...

    async def set_replicas(self, key: Key, replicas: int) -> None:
        """Of a resource, through its scale subresource. One that is gone is no error."""
        ...

    async def scale(self, namespace: str, deployment: str, replicas: int, version: str) -> None:
        """Raises Changed if `version` is not the Deployment's resource version any more."""
        ...

    async def annotate(self, namespace: str, pod: str, annotation: str, value: str | None) -> None:
        """None takes it away. A pod that is gone is no error."""
        ...

    async def delete(self, kind: Kind, namespace: str, name: str) -> None:
        """With all that belongs to it. One that is gone is no error."""
        ...


class Perdure(Protocol):
    """The API of one Perdure. Every method raises Unavailable."""

    @property
    def silence(self) -> str:
        """What is wrong if the last question for the backlog was not answered in time; else empty.

        While it is silent, nothing but that question is worth the wait, and who wakes pools asks it.
        """
        ...

    async def backlog(self) -> Sequence[Waiting]: ...

    async def builds(self) -> Sequence[Open]: ...

    async def failed(self, name: str, limit: int) -> Sequence[Failed]:
        """The newest runs of a workflow that are failed or stuck."""
        ...

    async def routing(self, workflow: str) -> Routing: ...

    async def route(self, workflow: str, routing: Routing) -> None: ...

    async def ensure(self, kind: Literal["task", "workflow"], names: Sequence[str], build: str) -> None:
        """What is sent to these names, for any build or for this one, waits for a worker from now on."""
        ...


class Workers(Protocol):
    """The probes of workers."""

    async def work(self, ip: str) -> Work | None:
        """None: it cannot be said."""
        ...

    async def drain(self, ip: str, token: str) -> None:
        """Raises Unavailable."""
        ...

    async def resume(self, ip: str, token: str) -> None:
        """Raises Unavailable."""
        ...
