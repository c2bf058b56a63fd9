"""From a call to the message that starts a run or dispatches a task, with every check that needs no engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

from perdure import convert
from perdure._client import answers
from perdure._client.ends import first_of
from perdure._client.requests import Requests
from perdure._client.signals import Signals
from perdure._client.unknown import Kind, Known
from perdure._names import check_text, check_workflow_id
from perdure._options import StartedAndWaited, Wait, check_choice
from perdure.errors import UnknownName
from perdure.handle import Decode, Handle, TaskHandle
from perdure.signature import Signature
from perdure.task import Task
from perdure.workflow import Workflow, workflow_of
from perdure_schemas.common import Address, Payload, RunOptions
from perdure_schemas.messages import DispatchTask, Message, StartReply, StartWorkflow

_TASK_OPTIONS = frozenset({"id"})


class Starts:
    """Makes the starts of one open client."""

    def __init__(self, requests: Requests, signals: Signals) -> None:
        self.requests = requests
        self.signals = signals
        self._known = Known(requests.backend.announced)
        self._telling: set[asyncio.Task[None]] = set()

    def run(
        self, workflow: Any, args: Sequence[Any], kwargs: dict[str, Any]
    ) -> tuple[Handle[Any], Message, Mapping[str, Any]]:
        """The handle of a run to be started, the message that starts it, and the options given with its arguments."""
        requests = self.requests
        if isinstance(workflow, Task):
            name = workflow.name
            raise TypeError(
                f"{name} is a task, not a workflow: use client.run({name}, ...), or client.start_task to start it"
            )
        definition = _NAMED if isinstance(workflow, str) else workflow_of(workflow)
        names = definition.signature.names
        options = _taken(kwargs, StartedAndWaited.__optional_keys__, names, definition.name) if kwargs else kwargs
        if options:
            definition = definition.options(**{key: value for key, value in options.items() if key != "wait"})
            check_choice(options.get("wait"), Wait, "wait")
        name = workflow if isinstance(workflow, str) else definition.name
        known = self._known_workflow(name)
        if isinstance(workflow, str):
            decode: Decode[Any] = convert.decode
            payload = _array(args, workflow, None if known is None else known.signature)
        else:
            known = definition
            decode = definition.signature.decode_result
            payload = definition.signature.bind(args, kwargs)
        run_options = definition.run_options
        if run_options.attributes is not None or run_options.memo is not None:
            _check_together(payload, run_options, name)
        run_id = requests.new_id()
        workflow_id = definition.id or run_id
        body = StartWorkflow(
            workflow_id=workflow_id,
            run_id=run_id,
            name=name,
            args=payload,
            options=run_options,
            conflict_policy=definition.conflict,
            reuse_policy=definition.reuse,
            build=definition.build,
            reply_topic=requests.reply_topic,
        )
        expected = requests.expect(run_id) if requests.backend.pushes_ends else None
        handle: Handle[Any] = Handle(
            requests,
            self.signals,
            workflow_id,
            run_id=run_id,
            first_run_id=run_id,
            decode=decode,
            expected=expected,
            encode_signal=known.encode_signal if known is not None else None,
        )
        return handle, requests.message(workflow_id, body), options

    def tell_unknown(self, message: Message) -> asyncio.Task[None] | None:
        """Look whether a worker has announced what this starts, while the start is under way; tell it if none has.

        None: it is known to be there.
        """
        body = message.body
        if self.requests.backend.registry is not None or not isinstance(body, StartWorkflow | DispatchTask):
            return None
        kind: Kind = "workflow" if isinstance(body, StartWorkflow) else "task"
        if self._known.has(kind, body.name):
            return None
        telling = asyncio.create_task(self._known.tell(kind, body.name), name=f"perdure unknown {kind}")
        self._telling.add(telling)
        telling.add_done_callback(self._telling.discard)
        return telling

    def close(self) -> None:
        """Nobody waits for anything any more."""
        for telling in self._telling:
            telling.cancel()
        self.requests.close()

    def handle(self, id: str, run_id: str = "", workflow: Workflow[..., Any] | None = None) -> Handle[Any]:
        """Of a run that was started elsewhere."""
        id = check_workflow_id(id)
        if workflow is None:
            return Handle(self.requests, self.signals, id, run_id=run_id)
        decode, encode_signal = workflow.signature.decode_result, workflow.encode_signal
        return Handle(self.requests, self.signals, id, run_id=run_id, decode=decode, encode_signal=encode_signal)

    async def accepted(self, handle: Handle[Any], reply: StartReply) -> Handle[Any]:
        """The handle of the run in force: ours, or the one that was there."""
        answers.check_started(reply)
        if reply.run_id == handle.run_id:
            return handle
        return Handle(
            self.requests,
            self.signals,
            handle.id,
            run_id=reply.run_id,
            first_run_id=await first_of(self.requests.backend, handle.id, reply.run_id),
            decode=handle._decode,
            encode_signal=handle._encode_signal,
            existing=True,
        )

    def task(self, task: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> tuple[TaskHandle[Any], Message]:
        """The handle of a task to be run, and the message that dispatches it."""
        requests = self.requests
        options = _BARE_TASK.task_options
        decode: Decode[Any] = convert.decode
        if isinstance(task, str):
            given = _taken(kwargs, _TASK_OPTIONS, (), task)
            name, payload = task, _array(args, task, self._known_task(task))
        elif isinstance(task, Task):
            given = _taken(kwargs, _TASK_OPTIONS, task.signature.names, task.name) if kwargs else {}
            self._known_task(task.name)
            name, payload, options = task.name, task.signature.bind(args, kwargs), task.task_options
            decode = task.signature.decode_result
        else:
            raise TypeError(f"{task!r} is no task: pass what @task declares, a method of a service stub, or a name")
        task_id = check_text(given.get("id") or requests.new_id(), "id")
        body = DispatchTask(
            task_id=task_id,
            name=name,
            args=payload,
            options=options,
            answer_to=[Address(requests.reply_topic, task_id)],
            dispatched=False,
        )
        handle: TaskHandle[Any] = TaskHandle(requests, task_id, name=name, decode=decode)
        return handle, requests.message(task_id, body)

    def _known_workflow(self, name: str) -> Workflow[..., Any] | None:
        """The workflow, where it can be known: it can if the only worker is this client's own.

        Raises:
            UnknownName: that worker has no such workflow.
        """
        registry = self.requests.backend.registry
        if registry is None:
            return None
        found = registry.workflows.get(name)
        if found is None:
            raise _unknown("workflow", name, registry.workflows)
        return found

    def _known_task(self, name: str) -> Signature | None:
        registry = self.requests.backend.registry
        if registry is None:
            return None
        found = registry.tasks.get(name)
        if found is None:
            raise _unknown("task", name, registry.tasks)
        return found.signature


def _unknown(kind: str, name: str, known: Mapping[str, object]) -> UnknownName:
    has = ", ".join(sorted(known)) or "none"
    return UnknownName(
        f"the worker of this client has no {kind} {name!r}; it has {has}. "
        "Pass it, or the module it is in, to Client.embedded(...)"
    )


async def _any_workflow() -> None:
    """Stands for workflows that are known by name only."""


def _any_task() -> None:
    """Stands for tasks that are known by name only."""


_NAMED = Workflow[..., Any](_any_workflow, "named")
_BARE_TASK = Task[..., Any](_any_task, name="named", mode=None)


def _array(args: Sequence[Any], name: str, signature: Signature | None) -> Payload:
    """Raises SerializationError if they are not what the signature says."""
    payload = convert.encode_arguments(args, name)
    if signature is not None:
        signature.check(payload)
    return payload


def _check_together(args: Payload, options: RunOptions, name: str) -> None:
    """Raises PayloadTooLarge: the event that begins the run would not fit into a message, whatever is stored beside."""
    in_message = [part.data[: convert.OFFLOAD_ABOVE_BYTES] for part in (args, options.memo) if part is not None]
    if options.attributes is not None:
        in_message.append(options.attributes.data)
    what = f"what {name} is started with, attributes and memo included"
    convert.within_limit(Payload("json", b"".join(in_message)), what, convert.INLINE_BYTES_MAX)


def _taken(kwargs: dict[str, Any], options: frozenset[str], parameters: Sequence[str], name: str) -> dict[str, Any]:
    """Takes the options of ours out of `kwargs`.

    Raises:
        TypeError: the callee has a parameter called like one of them.
    """
    given = {key: kwargs.pop(key) for key in options & kwargs.keys()}
    if both := given.keys() & set(parameters):
        raise TypeError(
            f"{name} has parameters {sorted(both)}, which are options too: pass arguments by position, and options by "
            f"{name}.options(...)"
        )
    return given
