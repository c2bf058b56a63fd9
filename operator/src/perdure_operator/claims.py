"""Which of several Workflows has the workflow that they name: there is one routing record for it, and one writes it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from perdure_operator.connecting import Connections, Link
from perdure_operator.objects import Key, Object
from perdure_operator.ports import Kubernetes
from perdure_operator.resources import Rejected


@dataclass(frozen=True, slots=True)
class _Claim:
    """Of one resource. A claim comes after those that are older, and of those of one second by their names."""

    key: Key
    uid: str
    created: str
    workflow: str
    connection: str

    @property
    def place(self) -> tuple[str, str, str]:
        return self.created, self.key.namespace, self.key.name


class Claims:
    """Of all Workflows, as they were last listed.

    They are listed again for one that is not among them as it is now: a list that has it has all that are older. So
    nothing is listed while nothing changes, but for those that are refused.
    """

    def __init__(self, kubernetes: Kubernetes, connections: Connections, namespace: str) -> None:
        """`namespace`: whose resources are followed."""
        self._kubernetes = kubernetes
        self._connections = connections
        self._namespace = namespace
        self._claims: Mapping[Key, _Claim] = {}
        self._listing = asyncio.Lock()

    async def check(self, item: Object, link: Link) -> None:
        """Raises Rejected if another one has its workflow, and Unavailable."""
        mine = _claim(item)
        if await self._is_free(mine, link):
            return
        async with self._listing:
            if not await self._is_free(mine, link):  # after a start all come at once, and one list is enough for them
                found = await self._kubernetes.list("Workflow", self._namespace, {})
                claims = [_claim(each) for each in found if not each["metadata"].get("deletionTimestamp")]
                self._claims = {each.key: each for each in claims}
        older = await self._older(mine, link)
        if older is not None:
            raise Rejected(
                "WorkflowTaken",
                f"Workflow {older.key.name!r} in namespace {older.key.namespace!r} is older and has workflow"
                f" {mine.workflow!r} of the same API: delete one of the two, or let this one use another connection",
            )

    async def _is_free(self, mine: _Claim, link: Link) -> bool:
        return self._claims.get(mine.key) == mine and await self._older(mine, link) is None

    async def _older(self, mine: _Claim, link: Link) -> _Claim | None:
        for each in self._claims.values():
            if each.workflow == mine.workflow and each.place < mine.place and await self._meets(each, mine, link):
                return each
        return None

    async def _meets(self, other: _Claim, mine: _Claim, link: Link) -> bool:
        """Whether both are of one Perdure. Who has no connection that can be used writes nothing there."""
        if (other.key.namespace, other.connection) == (mine.key.namespace, mine.connection):
            return True
        try:
            theirs = (await self._connections.link(other.key.namespace, other.connection)).connection
        except Rejected:
            return False
        ours = link.connection
        return (theirs.api.url.rstrip("/"), theirs.namespace) == (ours.api.url.rstrip("/"), ours.namespace)


def _claim(item: Object) -> _Claim:
    """Of a spec that may be wrong in other ways: who cannot be followed now keeps what it has."""
    metadata, spec = item["metadata"], item.get("spec") or {}
    return _Claim(
        key=Key("Workflow", metadata["namespace"], metadata["name"]),
        uid=metadata["uid"],
        created=metadata.get("creationTimestamp", ""),
        workflow=spec.get("workflow", ""),
        connection=spec.get("connection", "default"),
    )
