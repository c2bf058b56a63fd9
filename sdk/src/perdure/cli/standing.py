"""Whether the worker of a `perdure dev` serves its app, and what of it: commands and clients are told."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import msgspec

from perdure._worker.supervision import Broken, Ready
from perdure.cli import declared
from perdure.cli.declared import Declared
from perdure.cli.supervisor import Notice
from perdure_runtime.announced import Announced

if TYPE_CHECKING:
    from perdure_runtime.adapters.queues import QueueBroker
    from perdure_runtime.ports import Ports


class Standing:
    """Of one app, for as long as its `perdure dev` runs."""

    def __init__(self, app: str, database: Path) -> None:
        self._database = database
        self._told = False
        """Something of the worker that was started last."""
        self._known = False
        """Something of any worker: until then, what was there before."""
        self.declared = Declared(app=app, folder=str(Path.cwd()), workflows=[], tasks=[])
        """While it is broken: what the worker had before."""

    def on(self, notice: Notice) -> None:
        """What happened to the worker."""
        match notice.told:
            case Ready(workflows=workflows, tasks=tasks, left_out=left_out):
                self._now(workflows=workflows, tasks=tasks, left_out=left_out, broken="")
            case Broken(reason=reason):
                self._now(broken=f"{self.declared.app} cannot be loaded: {reason}")
            case None if notice.event == "started":
                self._told = False
            case None if notice.event == "exited" and not self._told:
                self._now(broken=f"the worker ends before it has loaded {self.declared.app}: exit code {notice.code}")
            case None:
                pass

    def _now(self, **changes: Any) -> None:
        self._told = self._known = True
        self.declared = msgspec.structs.replace(self.declared, **changes)
        declared.write(self._database, self.declared)

    async def announced(self, ports: Ports, namespace: str) -> Announced:
        """With the workers of other programs, which may work for this engine too."""
        broker = cast("QueueBroker", ports.broker)
        if not self._known:
            return await broker.announced(namespace)
        others, own = await broker.served(namespace), self.declared
        return Announced(
            workflows=sorted({*others.workflows, *own.workflows}),
            tasks=sorted({*others.tasks, *own.tasks}),
            broken=own.broken,
            left_out=own.left_out,
            database=str(self._database.resolve()),
        )
