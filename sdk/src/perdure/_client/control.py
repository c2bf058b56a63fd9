"""Steering a run: what people do to it from outside."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from perdure._client import answers
from perdure._client.edits import check, check_position, edits_of, signatures_at
from perdure._client.ends import RunEnd
from perdure._client.looking import Looking
from perdure.errors import Refused, RunNotFound
from perdure_core.workflow_engine.moves import MOVE_CHECK_MAX_MS
from perdure_schemas import topics
from perdure_schemas.events import Edit
from perdure_schemas.messages import CommandReply, ControlAction, ControlRun, MoveRun, ResumeRun

MOVE_SECONDS_MAX = MOVE_CHECK_MAX_MS / 1_000 + 2.0
"""After it no engine moves the run for this question any more: two seconds later than it says."""


class Steering(Looking):
    """The part of a run's handle that changes where the run goes."""

    _end: RunEnd

    async def _check(self, reply: CommandReply, what: str) -> None:
        """Raises RunNotFound or Refused unless the command was accepted."""
        try:
            answers.check_reply(reply, what, self.id)
        except RunNotFound as error:
            raise await self._told(error) from None

    async def cancel(self, reason: str = "", *, actor: str = "") -> None:
        """Ask the run to end: its code sees `asyncio.CancelledError`, and may tidy up.

        Raises, as do the others:
            RunNotFound: there is no such run. One whose start was answered is always found; one that was started with
                wait="sent" may not be there yet.
            Refused: it does not apply to the run's state; the message says why.
        """
        await self._control("cancel", reason, actor)

    async def terminate(self, reason: str = "", *, actor: str = "") -> None:
        """End the run at once; its code gets no word."""
        await self._control("terminate", reason, actor)

    async def pause(self, reason: str = "", *, actor: str = "") -> None:
        """Take no further decisions; tasks under way go on."""
        await self._control("pause", reason, actor)

    async def unpause(self, reason: str = "", *, actor: str = "") -> None:
        """Undo `pause`."""
        await self._control("unpause", reason, actor)

    async def _control(self, action: ControlAction, reason: str, actor: str) -> None:
        run_id, topic = await self._addressed(), self._requests.reply_topic
        body = ControlRun(
            workflow_id=self.id, action=action, reason=reason, actor=actor, run_id=run_id, reply_topic=topic
        )
        reply = await self._requests.ask_engine(topics.WORKFLOW_ENGINE, self._requests.message(self.id, body))
        await self._check(reply, action)

    async def resume(
        self,
        *,
        reason: str = "",
        actor: str = "",
        edits: Mapping[str, Sequence[Any]] | None = None,
        skips: Mapping[str, Any] | None = None,
        only: bool = False,
        anyway: bool = False,
    ) -> int:
        """Go on from just before the failure of a failed or stuck run; what succeeded is not done again.

        Args:
            edits: other arguments, all of them, for tasks, by position.
            skips: results instead of tasks, by position.
            only: leave the parent that took this run's failure alone.
            anyway: though the code has done tasks after the failure, such as a refund. They stay done, and the code
                that goes on from before the failure does not know of them.

        Returns:
            The generation of the run from here on.

        Raises:
            Refused: also when such tasks have completed and `anyway` is not given; the message names them.
            SerializationError: an edit or skip is of another type, where that can be known: by a client whose own
                worker is the only one. Elsewhere a wrong skip makes the run stuck, until a resume with another one.
        """
        both = await self._checked(edits or {}, skips or {})
        body = ResumeRun(workflow_id=self.id, reason=reason, actor=actor, edits=both, only=only, anyway=anyway)
        return await self._rewind(body)

    async def reset(
        self,
        to: str,
        *,
        reason: str = "",
        actor: str = "",
        edits: Mapping[str, Sequence[Any]] | None = None,
        skips: Mapping[str, Any] | None = None,
        anyway: bool = False,
    ) -> int:
        """Go on from just before the command at position `to`; also of a run that has ended well.

        Args:
            to: it, and all after it, is done anew.
            edits: as for `resume`; of a child too, since it is started anew.
            skips: as for `resume`.
            anyway: though tasks or children after `to` have completed, such as a refund. They are done again where the
                code asks for them; what they did is not taken back.

        Returns:
            The generation of the run from here on.

        Raises:
            Refused: also when such tasks have completed and `anyway` is not given; the message names them. What `to`,
                `edits` and `skips` name does not count.
        """
        both = await self._checked(edits or {}, skips or {})
        check_position(to)
        body = ResumeRun(workflow_id=self.id, reason=reason, actor=actor, position=to, edits=both, anyway=anyway)
        return await self._rewind(body)

    async def _checked(self, edits: Mapping[str, Sequence[Any]], skips: Mapping[str, Any]) -> list[Edit]:
        both, registry = edits_of(edits, skips), self._requests.backend.registry
        if both and registry is not None:
            check(both, signatures_at(await self.history(), registry))
        return both

    async def _rewind(self, body: ResumeRun) -> int:
        body = msgspec.structs.replace(body, run_id=await self._addressed(), reply_topic=self._requests.reply_topic)
        message = self._requests.message(self.id, body)
        reply: CommandReply = await self._requests.ask_engine(topics.WORKFLOW_ENGINE, message)
        await self._check(reply, "resume" if not body.position else "reset")
        self._end.drop_expected()
        self._end.generation = max(self._end.generation, reply.generation)
        return reply.generation

    async def move(self, build: str | None, *, reason: str = "", actor: str = "") -> None:
        """Pin the run to another build, once a worker of it has replayed the history; `None` lets it run on any.

        Raises:
            Refused: the build cannot replay it, or no worker of the build answered within 30 seconds. The run stays
                where it is.
        """
        run_id, topic = await self._addressed(), self._requests.reply_topic
        body = MoveRun(workflow_id=self.id, build=build, reason=reason, actor=actor, run_id=run_id, reply_topic=topic)
        message = self._requests.message(self.id, body)
        try:
            async with asyncio.timeout(MOVE_SECONDS_MAX):
                reply = await self._requests.ask(topics.WORKFLOW_ENGINE, message)
        except TimeoutError:
            which = "worker" if build is None else f"worker of build {build!r}"
            raise Refused(
                f"move {self.id!r}: no {which} has replayed the run within {MOVE_CHECK_MAX_MS // 1_000} s: "
                "is one running? The run stays where it is"
            ) from None
        await self._check(reply, "move")
