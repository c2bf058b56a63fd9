"""The API's own client of the engines: turns a request into a message, and waits for the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from perdure._client import answers
from perdure._client.ends import RunEnd
from perdure._client.requests import Requests, any_run
from perdure._client.signals import Signals, kept
from perdure._client.unknown import Known
from perdure._http.checks import checked
from perdure._http.endpoints import Endpoint
from perdure._http.expected import ExpectedEnds
from perdure._http.forms import MalformedJson, of_plain
from perdure_schemas import ids
from perdure_schemas.messages import (
    CommandReply,
    DispatchTask,
    Message,
    QueryResult,
    QueryRun,
    ResumeRun,
    RunResult,
    SendSignal,
    StartReply,
    StartWorkflow,
    UpdateResult,
    UpdateRun,
    WaitForResult,
)

_NO_ARGUMENTS: list[Any] = []


class Asker:
    """Asks for what requests want. One for all requests: its inbox is where all answers come."""

    def __init__(self, requests: Requests, signals: Signals, known: Known) -> None:
        self._requests = requests
        self._known = known
        self._signals = signals
        self._expected = ExpectedEnds(requests)

    def message(self, endpoint: Endpoint, given: Mapping[str, Any], path: Mapping[str, str], key: str) -> Message:
        """The message of a request.

        Raises:
            MalformedJson: an unknown field, a missing one, or a wrong type.
        """
        unknown = given.keys() - endpoint.fields
        if unknown:
            raise MalformedJson(
                f"unknown: {', '.join(sorted(unknown))}; known here: {', '.join(sorted(endpoint.fields))}"
            )
        if "position" in endpoint.fields and not given.get("position"):  # to an engine it would be a resume
            raise MalformedJson("position: a reset needs one, such as '4' or '2.1'")
        fields = {**given, **endpoint.fixed, **path}
        body = checked(of_plain(endpoint.body, self._completed(endpoint, fields, key)), fields)
        message = self._requests.message(_key(body), body)
        if not key or isinstance(body, UpdateRun):  # by its update id it is done once, and answered again, whoever asks
            return message
        return msgspec.structs.replace(message, id=key)

    def _completed(self, endpoint: Endpoint, fields: dict[str, Any], key: str) -> dict[str, Any]:
        """With what only the API knows, and with defaults: ids that follow from the key are the same in a repetition,
        and are not the message's own, by which its answer is known."""
        inbox = self._requests.reply_topic
        if endpoint.body is StartWorkflow:
            run_id = fields.get("run_id") or self._made("run", key, fields)
            fields = {"args": _NO_ARGUMENTS, **fields, "run_id": run_id}
            fields.setdefault("workflow_id", run_id)
            options = fields.get("options")
            if isinstance(options, dict) and "retention_ms" in options:  # 7 days, too, if somebody asks for them
                fields["options"] = {"retention_given": True, **options}
        elif endpoint.body is QueryRun:
            query = {
                "query_id": fields.pop("query_id", None) or self._requests.new_id(),
                "name": fields.pop("name"),
                "args": fields.pop("args", _NO_ARGUMENTS),
                "reply_to": {"topic": inbox, "key": ""},
            }
            fields["query"] = query
        elif endpoint.body is UpdateRun:
            fields = {"args": _NO_ARGUMENTS, "update_id": self._made("update", key, fields), **fields}
        elif endpoint.body is SendSignal:
            fields = {"payload": None, "sender": "", "number": 0, **fields}
        elif endpoint.body is DispatchTask:
            fields = {"task_id": self._made("task", key, fields), "args": _NO_ARGUMENTS, "options": {}, **fields}
            fields["answer_to"] = [{"topic": inbox, "key": fields["task_id"]}]
            fields["dispatched"] = False
        return {**fields, "reply_topic": inbox}

    def _made(self, kind: str, key: str, fields: Mapping[str, Any]) -> str:
        """Of what is asked, too: a key that two callers chose, or one for two targets, stands for two things."""
        if not key:
            return self._requests.new_id()
        return ids.derive_id(key, kind, fields.get("workflow_id", ""), fields.get("name", ""))

    async def warning(self, message: Message, answer: Struct | None) -> str:
        """What to tell who starts what no worker has announced, or signals where there is no run; else empty."""
        match message.body:
            case SendSignal(workflow_id=workflow_id, channel=channel) if isinstance(answer, CommandReply):
                return kept(answer, workflow_id, channel)
            case StartWorkflow(name=name):
                return await self._known.lacking("workflow", name)
            case DispatchTask(name=name):
                return await self._known.lacking("task", name)
            case _:
                return ""

    def detail(self, message: Message, answer: Struct | None) -> str:
        """Why there is no result, in the words of clients; empty: the answer itself says it."""
        match message.body, answer:
            case UpdateRun(name=name, workflow_id=workflow_id), UpdateResult(failure=None, status=status):
                return "" if status == "ok" else str(answers.update_error(answer, name, workflow_id))
            case QueryRun(query=query, workflow_id=workflow_id), QueryResult(failure=None, status=status):
                return "" if status == "ok" else str(answers.query_error(answer, query.name, workflow_id))
            case _:
                return ""

    async def ask(self, endpoint: Endpoint, message: Message, wait_seconds: float, follow: bool) -> Struct | None:
        """The answer; `None` if it did not come in time.

        Raises:
            Unavailable, PayloadTooLarge: it could not be asked for.
        """
        body = message.body
        try:
            async with asyncio.timeout(wait_seconds):
                if isinstance(body, WaitForResult):
                    expected = self._expected.take(body.workflow_id, body.run_id)
                    end = RunEnd(self._requests, body.workflow_id, expected)
                    return await (end.wait(body.run_id) if follow else end.next(body.run_id))
                if isinstance(body, SendSignal) and not body.sender:
                    return await self._signals.send(body.workflow_id, body.channel, body.payload, body.run_id)
                if isinstance(body, StartWorkflow):
                    self._expected.expect(body.workflow_id, body.run_id)
                elif isinstance(body, ResumeRun):
                    self._expected.forget(body.workflow_id)
                answer: Struct = await self._requests.ask(endpoint.topic, message, *_keys(body))
                return answer
        except TimeoutError:
            return None

    async def end_of_start(self, message: Message, answer: Struct, wait_seconds: float) -> RunResult | None:
        """How the run ended that a message has started; `None` if it began none, or did not end in time."""
        body = message.body
        assert isinstance(body, StartWorkflow)
        if not isinstance(answer, StartReply) or answer.status != "ok" or answer.run_id != body.run_id:
            return None
        end = RunEnd(self._requests, body.workflow_id, self._expected.take(body.workflow_id, body.run_id))
        try:
            async with asyncio.timeout(wait_seconds):
                return await end.next(body.run_id)
        except TimeoutError:
            return None


def _key(body: Any) -> str:
    """What the message is keyed by."""
    key: str = body.task_id if hasattr(body, "task_id") else body.workflow_id
    return key


def _keys(body: Any) -> tuple[str, ...]:
    """What else than the message id its answer is known by."""
    match body:
        case WaitForResult():
            return (body.run_id or any_run(body.workflow_id),)
        case QueryRun():
            return (body.query.query_id,)
        case UpdateRun():
            return (body.update_id,)
        case _:
            return (body.task_id,) if hasattr(body, "task_id") else ()
