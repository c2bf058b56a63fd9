"""The client against scripted engines: what it sends, how it reads answers, what it does when they are lost."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from perdure import (
    AlreadyStarted,
    Client,
    PerdureError,
    QueryFailed,
    Refused,
    RemoteError,
    ResultTimeout,
    RunCanceled,
    RunFailed,
    RunNotFound,
    SerializationError,
    TaskFailed,
    UpdateFailed,
    task,
    workflow,
)
from perdure._client import outbox, requests
from perdure.retry import Retry
from perdure.sync import SyncHandle
from perdure_runtime.errors import MessageTooLarge, StorageUnavailable
from perdure_schemas.common import Failure, Payload
from perdure_schemas.messages import (
    Body,
    CancelTask,
    CommandReply,
    CompleteTask,
    ControlRun,
    DispatchTask,
    Message,
    QueryResult,
    QueryRun,
    ResumeRun,
    RunResult,
    SendSignal,
    StartReply,
    StartWorkflow,
    TaskOutcome,
    TaskResult,
    UpdateResult,
    UpdateRun,
    WaitForResult,
)
from tests.contracts.test_contract_records import changed
from tests.sdk.surface.engine_double import EngineDouble, Script, end

FAILURE = Failure(name="ValueError", message="bad", cause=Failure(name="OSError", message="disk"))


@task(retry=Retry(attempts=4))
async def double(a: int) -> int:
    return 2 * a


@workflow(tags=["declared"])
async def order(sku: str, id: int = 3) -> int:
    return len(sku) * id


def with_double(script: Script, work: Callable[[Client, EngineDouble], Awaitable[None]]) -> EngineDouble:
    """Run `work` with a client of scripted engines."""
    double = EngineDouble(script)

    async def run() -> None:
        async with asyncio.timeout(60), double, double.client() as client:
            await work(client, double)

    asyncio.run(run())
    return double


def accept(body: StartWorkflow) -> StartReply:
    return StartReply(workflow_id=body.workflow_id, run_id=body.run_id, status="ok")


def completes(message: Message) -> Iterator[Body]:
    """Accepts starts and completes the runs at once."""
    body = message.body
    match body:
        case StartWorkflow():
            yield accept(body)
            yield end(body.workflow_id, body.run_id, b"7")
        case WaitForResult():
            yield end(body.workflow_id, body.run_id or "some-run", b"8")
        case SendSignal() | ControlRun() | ResumeRun() | CancelTask() | CompleteTask():
            yield CommandReply(status="ok", generation=1)
        case _:
            return


def test_execute_sends_one_message_and_returns_the_result() -> None:
    async def work(client: Client, double: EngineDouble) -> None:
        assert await client.execute(order, "pear") == 7
        (start,) = double.bodies(StartWorkflow)
        assert (start.name, start.args.data, start.conflict_policy) == ("order", b'["pear",3]', "fail")
        assert start.reply_topic == f"inbox.{client.id}"
        assert start.options.tags == ["declared"]
        assert len(double.seen) == 1
        assert not client._opened().requests._open, "nothing is waited for any more"

    with_double(completes, work)


def test_the_end_of_a_started_run_is_kept_until_it_is_asked_for() -> None:
    async def work(client: Client, double: EngineDouble) -> None:
        handle = await client.start(order, "pear", tags=["given"])
        await asyncio.sleep(0.01)
        assert await handle.result() == 7
        assert await handle.result() == 8, "asked again, the engine tells"
        assert len(double.bodies(StartWorkflow)) == 1
        assert double.bodies(StartWorkflow)[0].options.tags == ["given"]
        del handle
        assert not client._opened().requests._expected

    with_double(completes, work)


def test_options_and_parameters_of_one_name_must_be_told_apart() -> None:
    async def work(client: Client, double: EngineDouble) -> None:
        with pytest.raises(TypeError, match=r"parameters \['id'\], which are options too"):
            await client.start(order, "pear", id="o-1")
        await client.start(order.options(id="o-1"), "pear", 9)
        (start,) = double.bodies(StartWorkflow)
        assert (start.workflow_id, start.args.data) == ("o-1", b'["pear",9]')

    with_double(completes, work)


def test_by_name_a_workflow_needs_no_code() -> None:
    async def work(client: Client, double: EngineDouble) -> None:
        handle = await client.start("anything", 1, {"a": None}, id="o-1", conflict="use-existing", wait="sent")
        assert await handle.result() == 7
        (start,) = double.bodies(StartWorkflow)
        assert (start.name, start.args.data) == ("anything", b'[1,{"a":null}]')
        assert (start.workflow_id, start.conflict_policy) == ("o-1", "use-existing")

    with_double(completes, work)


def test_a_refused_start_is_an_error_for_start_and_execute() -> None:
    def conflicts(message: Message) -> Iterator[Body]:
        assert isinstance(message.body, StartWorkflow)
        yield StartReply(workflow_id=message.body.workflow_id, run_id="other", status="conflict")

    async def work(client: Client, double: EngineDouble) -> None:
        with pytest.raises(AlreadyStarted) as refused:
            await client.start("order", id="o-1")
        assert refused.value.run_id == "other"
        with pytest.raises(AlreadyStarted):
            await client.execute("order", id="o-1")

    with_double(conflicts, work)


def test_use_existing_gives_the_run_in_force() -> None:
    def existing(message: Message) -> Iterator[Body]:
        match message.body:
            case StartWorkflow() as body:
                yield StartReply(workflow_id=body.workflow_id, run_id="other", status="ok", detail="open")
            case WaitForResult() as body:
                yield end(body.workflow_id, body.run_id, b"5")
            case _:
                raise AssertionError(message)

    async def work(client: Client, double: EngineDouble) -> None:
        handle = await client.start(order.options(id="o-1", conflict="use-existing"), "a")
        assert handle.run_id == "other"
        assert await handle.result() == 5
        assert await client.execute(order.options(id="o-1", conflict="use-existing"), "a") == 5

    with_double(existing, work)


def test_execute_asks_again_which_run_has_the_id_if_that_answer_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "ASK_AGAIN_SECONDS_FIRST", 0.02)
    seen: list[str] = []

    def forgetful(message: Message) -> Iterator[Body]:
        match message.body:
            case StartWorkflow() as body:
                seen.append(message.id)
                if len(seen) > 1:
                    yield StartReply(workflow_id=body.workflow_id, run_id="other", status="ok", detail="ended")
            case WaitForResult(run_id="other") as body:
                yield end(body.workflow_id, body.run_id, b"5")
            case WaitForResult() as body:
                yield RunResult(workflow_id=body.workflow_id, run_id=body.run_id, status="not-found")

    async def work(client: Client, double: EngineDouble) -> None:
        assert await client.execute("order", id="o-1", conflict="use-existing", reuse="never") == 5
        assert double.bodies(StartWorkflow)[0].reuse_policy == "never"
        assert len(set(seen)) == 1, "the same start"

    with_double(forgetful, work)


@pytest.mark.parametrize(("status", "error"), [("failed", RunFailed), ("canceled", RunCanceled)])
def test_an_end_other_than_completed_raises_with_its_causes(status: Any, error: type[RunFailed]) -> None:
    def fails(message: Message) -> Iterator[Body]:
        body = message.body
        assert isinstance(body, StartWorkflow)
        yield RunResult(workflow_id=body.workflow_id, run_id=body.run_id, status=status, failure=FAILURE)

    async def work(client: Client, double: EngineDouble) -> None:
        with pytest.raises(error, match=f"'o-1' ended {status}: ValueError: bad") as raised:
            await client.execute("order", id="o-1")
        assert raised.value.workflow_id == "o-1"
        cause = raised.value.__cause__
        assert isinstance(cause, RemoteError)
        assert str(cause.__cause__) == "OSError: disk"

    with_double(fails, work)


def test_lost_answers_are_asked_for_again_under_the_same_id(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "ASK_AGAIN_SECONDS_FIRST", 0.02)
    lost: set[str] = set()

    def forgetful(message: Message) -> Iterator[Body]:
        if type(message.body).__name__ not in lost:
            lost.add(type(message.body).__name__)
            return
        yield from completes(message)

    async def work(client: Client, double: EngineDouble) -> None:
        handle = await client.start(order, "pear", wait="accepted")
        first, second = (message for message in double.seen if isinstance(message.body, StartWorkflow))
        assert first == second
        await handle.signal("channel", 1)
        assert len({message.id for message in double.seen if isinstance(message.body, SendSignal)}) == 1
        assert len(double.bodies(SendSignal)) == 2

    with_double(forgetful, work)


def test_execute_asks_for_an_end_that_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "ASK_AGAIN_SECONDS_FIRST", 0.02)

    def silent(message: Message) -> Iterator[Body]:
        if isinstance(message.body, WaitForResult):
            yield end(message.body.workflow_id, message.body.run_id, b"9")

    async def work(client: Client, double: EngineDouble) -> None:
        assert await client.execute(order, "pear") == 9
        assert len(double.bodies(StartWorkflow)) == 1

    with_double(silent, work)


def test_result_follows_continue_as_new_and_ignores_ends_before_a_resume() -> None:
    answers = iter(["continued", "old", "old", "new"])

    def continues(message: Message) -> Iterator[Body]:
        body = message.body
        if isinstance(body, ResumeRun):
            yield CommandReply(status="ok", generation=2)
        if not isinstance(body, WaitForResult):
            return
        match next(answers):
            case "continued":
                yield RunResult(workflow_id="w", run_id="r1", status="continued-as-new", next_run_id="r2")
            case "old":
                yield end("w", body.run_id, b"1", generation=0)
            case _:
                yield end("w", body.run_id, b"2", generation=2)

    async def work(client: Client, double: EngineDouble) -> None:
        assert await client.handle("w", run_id="r1").result() == 1
        assert [body.run_id for body in double.bodies(WaitForResult)] == ["r1", "r2"]
        handle = client.handle("w")
        assert await handle.resume(edits={"1": [5]}, skips={"2.0": "x"}) == 2
        assert await handle.result() == 2
        (resume,) = double.bodies(ResumeRun)
        assert [(e.position, e.args, e.result) for e in resume.edits] == [
            ("1", Payload("json", b"[5]"), None),
            ("2.0", None, Payload("json", b'"x"')),
        ]

    with_double(continues, work)


def test_a_result_that_does_not_come_in_time_leaves_nothing_behind() -> None:
    async def work(client: Client, double: EngineDouble) -> None:
        handle = client.handle("w")
        with pytest.raises(ResultTimeout, match="'w' is still open"):
            await handle.result(timeout=0.02)
        assert not client._opened().requests._open

    with_double(lambda _: (), work)


def test_signals_of_one_client_name_the_one_before_while_it_is_on_its_way() -> None:
    async def work(client: Client, double: EngineDouble) -> None:
        handle = client.handle("w")
        await asyncio.gather(*(handle.signal("channel", n) for n in range(5)))
        await handle.signal("channel", 5)
        sent = double.bodies(SendSignal)
        assert [body.payload.data for body in sent] == [b"0", b"1", b"2", b"3", b"4", b"5"]
        assert [body.number for body in sent] == [1, 2, 3, 4, 5, 6]
        assert [body.after_number for body in sent] == [0, 1, 2, 3, 4, 0], "what is recorded needs no naming"
        assert {body.sender for body in sent} == {client.id}
        with pytest.raises(SerializationError, match="the signal to channel"):
            await handle.signal("channel", object())

    with_double(completes, work)


def test_commands_that_do_not_apply_say_why() -> None:
    def refuses(message: Message) -> Iterator[Body]:
        body = message.body
        match body:
            case ControlRun(action="pause"):
                yield CommandReply(status="refused", detail="the run has completed")
            case ControlRun() | SendSignal():
                yield CommandReply(status="not-found")
            case WaitForResult():
                yield RunResult(workflow_id=body.workflow_id, run_id=body.run_id, status="not-found")
            case QueryRun():
                yield QueryResult(query_id=body.query.query_id, status="refused", failure=FAILURE)
            case UpdateRun(name="gone"):
                yield UpdateResult(update_id=body.update_id, status="refused")
            case UpdateRun():
                yield UpdateResult(update_id=body.update_id, status="ok", failure=FAILURE)
            case _:
                raise AssertionError(body)

    async def work(client: Client, double: EngineDouble) -> None:
        handle = client.handle("w")
        with pytest.raises(Refused, match="pause 'w': the run has completed"):
            await handle.pause("why", actor="ada")
        assert (double.bodies(ControlRun)[0].reason, double.bodies(ControlRun)[0].actor) == ("why", "ada")
        for call in (handle.cancel(), handle.terminate(), handle.signal("c"), handle.result(), handle.describe()):
            with pytest.raises(RunNotFound):
                await call
        with pytest.raises(QueryFailed, match="query 'q' of 'w': ValueError: bad"):
            await handle.query("q")
        with pytest.raises(UpdateFailed, match="ValueError: bad"):
            await handle.update("u")
        with pytest.raises(Refused, match="before it answered"):
            await handle.update("gone")

    with_double(refuses, work)


def test_stand_alone_tasks() -> None:
    def runs(message: Message) -> Iterator[Body]:
        body = message.body
        match body:
            case DispatchTask(name="double"):
                yield TaskResult(task_id=body.task_id, outcome="completed", result=Payload("json", b"4"))
            case DispatchTask(name="by outcome"):
                yield TaskOutcome(
                    workflow_id="", run_id="", command_id=body.task_id, generation=0, attempt=2, outcome="skipped"
                )
            case DispatchTask():
                yield TaskResult(task_id=body.task_id, outcome="failed", failure=FAILURE)
            case _:
                yield from completes(message)

    async def work(client: Client, double: EngineDouble) -> None:
        assert await client.run(globals()["double"], 2) == 4
        (sent,) = double.bodies(DispatchTask)
        assert (sent.args.data, sent.dispatched, sent.options.retry.attempts_max) == (b"[2]", False, 4)
        assert [address.topic for address in sent.answer_to] == [f"inbox.{client.id}"]
        assert await client.run("by outcome") is None
        with pytest.raises(TaskFailed, match="task other failed: ValueError: bad") as failed:
            await client.run("other")
        assert isinstance(failed.value.__cause__, RemoteError)
        handle = await client.start_task("double", 1, id="t-1")
        assert handle.id == "t-1"
        await client.task("t-1").cancel("enough")
        await client.task("t-1").fail(ValueError("bad"))
        assert double.bodies(CompleteTask)[0].failure.name == "ValueError"

    with_double(runs, work)


class FlakyPublisher:
    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.batches: list[list[str]] = []

    async def publish(self, batch: Any) -> None:
        await asyncio.sleep(0)
        ids = [message.id for _, message in batch]
        if "huge" in ids:
            raise MessageTooLarge("2 MB")
        if self.failures:
            self.failures -= 1
            raise StorageUnavailable("not now")
        self.batches.append(ids)

    async def publish_raw(self, topic: str, namespace: str, data: bytes, reason: str) -> None:
        raise NotImplementedError


def test_the_outbox_batches_retries_and_singles_out_what_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "RETRY_SECONDS_FIRST", 0.001)

    def message(id: str) -> Message:
        return Message(id=id, namespace="n", key="", at=0, body=WaitForResult(workflow_id="w", reply_topic=""))

    async def run() -> None:
        publisher = FlakyPublisher(failures=2)
        box = outbox.Outbox(publisher)
        await asyncio.gather(*(box.post("t", message(id)) for id in "abc"))
        assert publisher.batches == [["a", "b", "c"]]
        results = await asyncio.gather(
            *(box.post("t", message(id)) for id in ("d", "huge", "e")), return_exceptions=True
        )
        assert [type(result).__name__ for result in results] == ["NoneType", "PayloadTooLarge", "NoneType"]
        assert publisher.batches[1:] == [["d"], ["e"]]
        monkeypatch.setattr(outbox, "PUBLISH_SECONDS_MAX", 0.0)
        publisher.failures = 1
        with pytest.raises(PerdureError, match="not confirmed"):
            await box.post("t", message("f"))

    asyncio.run(run())


def test_who_waits_for_an_engine_that_takes_nothing_is_told_why_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(outbox, "RETRY_SECONDS_FIRST", 0.06)
    monkeypatch.setattr(outbox, "TELL_SECONDS", 0.1)

    async def run() -> None:
        message = Message(id="a", namespace="n", key="", at=0, body=WaitForResult(workflow_id="w", reply_topic=""))
        await outbox.Outbox(FlakyPublisher(failures=4)).post("t", message)

    asyncio.run(run())
    (told,) = (record.getMessage() for record in caplog.records)
    seconds = re.fullmatch(r"not taken within ([0-9.]+) s: not now; it is tried for 30 s at most", told)
    assert seconds is not None, told
    assert 0.1 <= float(seconds[1]) < 30, "the time that was waited"


def test_a_closed_client_says_so() -> None:
    with pytest.raises(PerdureError, match="async with"):
        EngineDouble(completes).client().handle("w")


def test_the_blocking_face_has_whatever_the_async_one_has() -> None:
    client = (double := EngineDouble(completes)).client()

    async def backend_open(*args: Any) -> None:
        await double.__aenter__()
        await plain_open(*args)

    async def backend_close() -> None:
        await plain_close()
        await double.__aexit__()

    backend: Any = client._backend
    plain_open, plain_close = backend.open, backend.close
    backend.open, backend.close = backend_open, backend_close
    with client.sync as blocking:
        assert blocking.execute(order, "pear") == 7
        handle = blocking.start(order, "pear")
        assert isinstance(handle, SyncHandle)
        assert handle.result(timeout=5) in {7, 8}
        assert handle.id == handle.run_id
        handle.signal("channel", 1)
        assert blocking.handle("w").result() == 8
        assert not blocking.list().runs

        async def inside_a_loop() -> None:
            with pytest.raises(PerdureError, match="would block this event loop"):
                blocking.execute(order, "pear")

        asyncio.run(inside_a_loop())


def test_a_run_whose_result_was_told_is_found_once_the_read_model_knows_it() -> None:
    """On a cluster the projector is another process, which may be behind."""

    def script(_: Message) -> Iterator[Body]:
        yield end("w", "r")

    async def work(client: Client, double: EngineDouble) -> None:
        handle = client.handle("w")
        assert await handle.result() == 1
        looking = asyncio.create_task(handle.describe())
        await asyncio.sleep(0.1)
        assert not looking.done()
        await double.ports.read_model.apply([("default", changed("w", 1, "completed"))])
        assert (await looking).status == "completed"

    with_double(script, work)
