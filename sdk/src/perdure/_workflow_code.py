"""A declared workflow as the replay loop sees it: it implements `perdure._replay.code.WorkflowCode`."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any

from perdure.errors import InvalidArguments, SerializationError, UnknownName
from perdure.failures import failure_from_exception
from perdure_schemas.common import Failure, Payload

if TYPE_CHECKING:
    from perdure._options import Match
    from perdure.workflow import Handler, Workflow


class Code:
    """Runs what `@workflow` was put on. All values pass as payloads."""

    def __init__(self, workflow: Workflow[..., Any]) -> None:
        self._workflow = workflow
        self._signature = workflow.signature
        self._target = workflow.target
        self.name = workflow.name
        self.match: Match = workflow.match

    def create(self) -> Any:
        return self._target() if isinstance(self._target, type) else None

    def main(self, instance: Any, args: Payload) -> Coroutine[Any, Any, Any]:
        try:
            values = self._signature.decode(args)
        except SerializationError as error:
            return _refuse(error)
        coroutine: Coroutine[Any, Any, Any] = self._signature.call(
            self._target if instance is None else instance.run, values
        )
        return coroutine

    def encode_result(self, value: Any) -> Payload:
        return self._signature.encode_result(value)

    def encode_args(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Payload:
        return self._signature.bind(args, kwargs)

    def query(self, instance: Any, name: str, args: Payload) -> Payload:
        handler = _handler(self._workflow.queries, name, f"{self.name} has no query")
        values = handler.signature.decode(args)
        return handler.signature.encode_result(handler.signature.call(functools.partial(handler.fn, instance), values))

    async def update(self, instance: Any, name: str, args: Payload) -> Payload:
        handler = _handler(self._workflow.updates, name, f"{self.name} has no update")
        values = handler.signature.decode(args)
        result = await handler.signature.call(functools.partial(handler.fn, instance), values)
        return handler.signature.encode_result(result)

    def failure(self, exc: BaseException) -> Failure:
        return failure_from_exception(exc)


async def _refuse(error: SerializationError) -> None:
    """Nobody can mend what a run was started with. But if it began well, the new code is what does not fit: stuck."""
    if getattr(asyncio.get_running_loop(), "replaying", False):
        raise error
    raise InvalidArguments(str(error)) from error


def _handler(handlers: Mapping[str, Handler], name: str, problem: str) -> Handler:
    found = handlers.get(name)
    if found is None:
        raise UnknownName(f"{problem} {name!r}; it has {', '.join(sorted(handlers)) or 'none'}")
    return found
