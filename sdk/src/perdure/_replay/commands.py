"""What workflow code issues: each call takes a position, is matched with the record, and else becomes a command."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from hashlib import blake2b
from typing import TYPE_CHECKING, TypeVar

from perdure._replay.code import RunContext
from perdure._replay.futures import Deferred, Path
from perdure._replay.history import INLINE_MARK
from perdure._replay.positions import Positions
from perdure.errors import DefinitionError
from perdure.failures import exception_from_failure
from perdure_schemas.common import (
    BuildPolicy,
    ClosePolicy,
    Command,
    CommandKind,
    Failure,
    Payload,
    RunOptions,
    TaskOptions,
)
from perdure_schemas.events import UpdateReceived

if TYPE_CHECKING:
    from perdure._replay.loop import ReplayLoop

T = TypeVar("T")

_DIGEST_BYTES = 8
"""Tells changed arguments at one position from equal ones; not a defence against forgery."""


def digest(kind: str, name: str, data: bytes) -> str:
    """Of what must be equal in replay."""
    return blake2b(f"{kind}\x1f{name}\x1f".encode() + data, digest_size=_DIGEST_BYTES).hexdigest()


class Commands(Positions):
    """Issues commands for the loop it belongs to."""

    def __init__(self, context: RunContext, *, match_args: bool, failure: Callable[[BaseException], Failure]) -> None:
        super().__init__(context)
        self.out: list[Command] = []
        self.patches: list[str] = []
        self.recorded_patches: frozenset[str] = frozenset()
        self._patched: dict[str, bool] = {}
        self._match_args = match_args
        self._failure = failure

    # --- commands with an outcome -------------------------------------------------------------------

    def issue_task(
        self, name: str, args: Payload, options: TaskOptions, decode: Callable[[Payload | None], T]
    ) -> Deferred[T]:
        """Dispatch a task."""
        position = self.path().take()
        mark = digest("task", name, args.data if self._match_args else b"")
        id, _, recorded = self.claim(position, "task", name, mark, args=args)
        if not recorded:
            self.out.append(
                Command(id=id, position=position, kind="task", name=name, digest=mark, args=args, task=options)
            )
        return self._deferred(id, position, "task", name=name, decode=decode)

    def issue_child(
        self,
        name: str,
        args: Payload,
        decode: Callable[[Payload | None], T],
        *,
        child_id: str = "",
        close_policy: ClosePolicy = "cancel",
        build_policy: BuildPolicy = "current",
        build: str | None = None,
        run: RunOptions | None = None,
    ) -> Deferred[T]:
        """Start a child workflow. An empty `child_id` leaves it to the engine."""
        position = self.path().take()
        mark = digest("child", name, args.data if self._match_args else b"")
        id, _, recorded = self.claim(position, "child", name, mark, args=args)
        if not recorded:
            self.out.append(
                Command(
                    id=id,
                    position=position,
                    kind="child",
                    name=name,
                    digest=mark,
                    args=args,
                    child_id=child_id,
                    close_policy=close_policy,
                    build_policy=build_policy,
                    build=build,
                    run=run,
                )
            )
        return self._deferred(id, position, "child", name=name, decode=decode)

    def issue_timer(self, due_ms: int) -> Deferred[None]:
        """A timer that can be combined like any Deferred. `due_ms`: epoch milliseconds."""
        position, id = self.timer_command(due_ms, (due_ms - self.now_ms) * 1000)
        return self._deferred(id, position, "timer", name="", decode=None)

    now_ms: int = 0
    """Epoch milliseconds of the event being applied."""

    def timer_command(self, due_ms: int, delay_us: int) -> tuple[str, str]:
        """The position and id of a timer. Its digest covers the delay: the due time differs in no replay, but
        by milliseconds where code is changed."""
        position = self.path().take()
        mark = digest("timer", "", b"%d" % delay_us)
        id, old, recorded = self.claim(position, "timer", "", mark)
        if not recorded:
            due_at = due_ms if old is None or old.due_at is None else old.due_at
            self.out.append(Command(id=id, position=position, kind="timer", digest=mark, due_at=due_at))
        return position, id

    def _deferred(
        self, id: str, position: str, kind: str, *, name: str, decode: Callable[[Payload | None], T] | None
    ) -> Deferred[T]:
        deferred: Deferred[T] = Deferred(_loop(self), id, position=position, kind=kind, name=name, decode=decode)
        self.pending[id] = deferred
        return deferred

    # --- commands without one -----------------------------------------------------------------------

    def issue_cancel(self, position: str, target: str, name: str) -> None:
        """Cancel the command issued at `position`. It takes no position of its own, so it shifts none."""
        self._plain(position + "!", "cancel", name=name, target=target)
        self.pending.pop(target, None)

    def issue_signal(self, workflow_id: str, channel: str, payload: Payload) -> None:
        """Send a signal to another run."""
        data = workflow_id.encode() + b"\x1f" + (payload.data if self._match_args else b"")
        self._plain(self.path().take(), "signal", name=channel, target=workflow_id, args=payload, data=data)

    def set_attributes(self, payload: Payload) -> None:
        """Replace the run's search attributes by a JSON object."""
        self._plain(self.path().take(), "attributes", args=payload, data=payload.data if self._match_args else b"")

    def complete_update(self, update: UpdateReceived, payload: Payload | None, failure: Failure | None = None) -> None:
        """Answer an update: the command's name is the topic that awaits the answer."""
        id = update.update_id
        self._plain(f"u.{id}=", "update-result", name=update.reply_topic, target=id, args=payload, failure=failure)

    def _plain(
        self,
        position: str,
        kind: CommandKind,
        *,
        name: str = "",
        target: str = "",
        args: Payload | None = None,
        failure: Failure | None = None,
        data: bytes = b"",
    ) -> None:
        mark = digest(kind, name, data)
        id, _, recorded = self.claim(position, kind, name, mark, args=args)
        if not recorded:
            self.out.append(
                Command(
                    id=id,
                    position=position,
                    kind=kind,
                    name=name,
                    digest=mark,
                    target=target,
                    args=args,
                    failure=failure,
                )
            )

    def inline(self, fn: Callable[[], T], encode: Callable[[T], Payload], decode: Callable[[Payload], T]) -> T:
        """Run a plain function once; in replay its recorded value is the result.

        What it raises is raised as RemoteError, live and in replay alike.
        """
        position = self.path().take()
        name = getattr(fn, "__name__", "")
        mark = digest("inline", name, b"")
        id, old, recorded = self.claim(position, "inline", name, mark)
        args, failure, error = None, None, None
        if recorded and old is not None:
            args, failure = old.args, old.failure
            self.record.skip_inside(position)
        else:
            try:
                args = encode(self._run_inline(fn, position))
            except Exception as raised:
                failure, error = self._failure(raised), raised
        if not recorded:
            self.out.append(
                Command(id=id, position=position, kind="inline", name=name, digest=mark, args=args, failure=failure)
            )
        if failure is not None:
            raise exception_from_failure(failure) from error
        assert args is not None
        return decode(args)

    def _run_inline(self, fn: Callable[[], T], position: str) -> T:
        guarded, self.guarded = self.guarded, False
        try:
            with self.aside(Path(position + INLINE_MARK)):
                value = fn()
        finally:
            self.guarded = guarded
        if hasattr(value, "__await__"):
            if asyncio.iscoroutine(value):
                value.close()
            raise self.noted(
                DefinitionError(
                    "inline(fn) runs a plain function at once and cannot wait for anything: "
                    "await in the workflow, or make it a @task."
                )
            )
        return value

    def patched(self, id: str) -> bool:
        """Whether this run issues what the patch brought. One answer per run; no position."""
        answer = self._patched.get(id)
        if answer is None:
            answer = id in self.recorded_patches or not self.replaying
            if self.querying:  # what a query asks first must not decide for the code
                return answer
            self._patched[id] = answer
            if answer and not self.replaying:
                self.patches.append(id)
        return answer


def _loop(commands: Commands) -> ReplayLoop:
    return commands  # type: ignore[return-value]  # the one class this is mixed into
