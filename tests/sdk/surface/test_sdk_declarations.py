"""What can be declared, what is refused with line and remedy, and what an app's registry finds."""

from __future__ import annotations

import asyncio
import math
import os
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, Protocol

import msgspec
import pytest

import perdure
from perdure import (
    ChildCanceled,
    DefinitionError,
    NotInWorkflow,
    Registry,
    RemoteError,
    Retry,
    RunTerminated,
    TaskCanceled,
    channel,
    method,
    query,
    service,
    service_stub,
    task,
    update,
    workflow,
    workflow_of,
)
from perdure.errors import UnknownName
from perdure.failures import exception_from_failure, failure_from_exception
from perdure.retry import NonRetryable, RetryLater
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.clock import SystemClock
from perdure_schemas.common import Failure, RetryPolicy, RunOptions, TaskOptions


@task
async def charge(order: str, cents: int = 5) -> str:
    """Takes money."""
    return f"{order}:{cents}"


@task(mode="process", name="shop.resize", timeout=2, retry=Retry(attempts=3, max=timedelta(seconds=9)), tags=["cpu"])
def resize(pixels: bytes) -> bytes:
    return pixels


@workflow(timeout=60, tags=["shop"])
async def buy(order: str) -> str:
    return await charge(order)


@workflow(name="cart")
class Cart:
    def __init__(self) -> None:
        self.items: list[str] = []

    async def run(self, owner: str) -> list[str]:
        return [owner, *self.items]

    @query
    def count(self, factor: int = 1) -> int:
        return factor * len(self.items)

    @update(name="put")
    async def add(self, item: str) -> int:
        self.items.append(item)
        return len(self.items)


@service(timeout=3)
class Payments(Protocol):
    @method(retry=Retry(attempts=2))
    async def charge(self, order: str, cents: int) -> str: ...

    async def refund(self, order: str) -> None: ...


class Bank(Payments):
    def __init__(self, name: str = "bank") -> None:
        self.name = name

    async def charge(self, order: str, cents: int) -> str:
        return f"{self.name} {order} {cents}"

    async def refund(self, order: str) -> None: ...


def test_options_travel() -> None:
    assert charge.task_options == TaskOptions()
    assert (charge.name, charge.mode, charge.__doc__) == ("charge", "async", "Takes money.")
    assert (resize.name, resize.mode) == ("shop.resize", "process")
    policy = RetryPolicy(attempts_max=3, delay_max_ms=9_000)
    assert resize.task_options == TaskOptions(attempt_timeout_ms=2_000, retry=policy, tags=["cpu"])
    changed = resize.options(queue_timeout=0.0004)
    assert changed.task_options.queue_timeout_ms == 1, "a positive duration is never none"
    assert resize.task_options.queue_timeout_ms is None, "options change a copy"
    assert buy.run_options == RunOptions(run_timeout_ms=60_000, tags=["shop"])
    assert (buy.options(id="o-1").id, buy.id) == ("o-1", None)


@pytest.mark.parametrize(
    ("changes", "error", "told"),
    [
        (
            {"conflict": "reuse"},
            ValueError,
            "conflict is one of 'use-existing', 'fail', 'terminate-existing', not 'reuse'",
        ),
        ({"reuse": "once"}, ValueError, "reuse is one of 'always', 'after-failure', 'never', not 'once'"),
        ({"close_policy": "kill"}, ValueError, "close_policy is one of 'abandon', 'cancel', 'terminate', not 'kill'"),
        ({"build_policy": 5}, ValueError, "build_policy is one of 'current', 'inherit', not 5"),
        ({"match": ""}, ValueError, "match is one of 'args', 'name', not ''"),
        ({"timeout": "5s"}, TypeError, r"a duration is seconds \(5\), or a timedelta .* not '5s'"),
    ],
)
def test_an_option_of_no_meaning_is_refused_with_those_that_have_one(
    changes: dict[str, Any], error: type[Exception], told: str
) -> None:
    with pytest.raises(error, match=told):
        buy.options(**changes)


def test_a_retry_that_is_none_is_refused_with_the_line() -> None:
    with pytest.raises(
        DefinitionError, match=r"test_sdk_declarations\.py:\d+.* is a Retry, as Retry\(attempts=5\), not 5"
    ):
        charge.options(retry=5)  # type: ignore[arg-type]  # wrong on purpose


def test_outside_a_workflow_a_call_names_both_ways_out() -> None:
    with pytest.raises(NotInWorkflow, match=r"charge\.fn\(\.\.\.\).*client\.run\(charge, \.\.\.\)"):
        charge("o-1")
    with pytest.raises(NotInWorkflow, match=r"client\.execute\(buy, \.\.\.\)"):
        buy("o-1")
    with pytest.raises(NotInWorkflow, match=r"client\.run\(Payments\.charge"):
        asyncio.run(service_stub(Payments).charge("o-1", 5))
    assert asyncio.run(charge.fn("o-1")) == "o-1:5"


async def a_coroutine() -> None: ...


def a_function(a: int) -> int:
    return a


def a_generator() -> Any:
    yield 1


class WithoutRun: ...


class Needy:
    def __init__(self, limit: int) -> None:
        self.limit = limit

    async def run(self) -> int:
        return self.limit


class SyncContract:
    def charge(self) -> None: ...


@pytest.mark.parametrize(
    ("declare", "told"),
    [
        (lambda: task(name="a b")(a_coroutine), "cannot name a task"),
        (lambda: task(mode="thread")(a_coroutine), "cannot have mode='thread'. Leave mode out"),
        (lambda: task(mode="async")(a_function), 'Use mode="thread"'),
        (lambda: task(a_generator), "cannot be a generator"),
        (lambda: task(charge), "declared a task twice"),
        (lambda: workflow(a_function), "is an `async def`"),  # type: ignore[arg-type]
        (lambda: workflow(WithoutRun), "has no `async def run"),
        (
            lambda: workflow(Needy),
            "missing a required argument: 'limit'), and the worker gives it none: let `run` take",
        ),
        (lambda: workflow(buy), "declared a workflow twice"),  # type: ignore[arg-type]
        (lambda: query(a_coroutine), "is `async def`; a query answers at once"),
        (lambda: update(a_function), "is not `async def`"),
        (lambda: service(SyncContract), "write `async def`"),
        (lambda: service(WithoutRun), "has no method"),
        (lambda: service_stub(WithoutRun), "Put @service above it"),
        (lambda: workflow_of(WithoutRun), "Put @workflow above"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_work_is_refused_with_a_remedy(declare: Any, told: str) -> None:
    with pytest.raises(DefinitionError) as refused:
        declare()
    assert told in str(refused.value)


@workflow
class Bare:
    async def run(self, number: int) -> int:
        return number


@workflow
class Filled:
    def __init__(self, limit: int = 3) -> None:
        self.limit = limit

    async def run(self) -> int:
        return self.limit


def test_who_calls_a_workflow_class_is_told_what_to_call() -> None:
    for call in (lambda: Bare(1), lambda: Filled(1, 2), lambda: Filled(number=1)):  # type: ignore[call-arg]
        with pytest.raises(TypeError, match=r"workflow_of\((Bare|Filled)\)\(\.\.\.\) begins a child"):
            call()
    with pytest.raises(TypeError, match=r"workflow_of\(Bare\)"):
        asyncio.run(asyncio.wait_for(Bare(), 1))  # type: ignore[arg-type]
    assert (Filled().limit, Filled(4).limit, Filled(limit=5).limit) == (3, 4, 5)
    assert isinstance(Bare(), Bare)


@pytest.mark.parametrize(
    ("policy", "told"),
    [({"attempts": -1}, "attempts"), ({"factor": 0.5}, "factor"), ({"jitter": 2}, "jitter"), ({"initial": -1}, "neg")]
    + [({"initial": seconds}, "at most 3153600000000 seconds") for seconds in (1e18, math.inf, math.nan)],
)
def test_retry_policies_that_make_no_sense(policy: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        Retry(**policy).policy()


def module_of(**members: Any) -> ModuleType:
    module = ModuleType("shop")
    vars(module).update(members)
    for member in members.values():
        if isinstance(member, type):
            member.__module__ = "shop"
    return module


def test_a_module_gives_its_tasks_workflows_and_implementations() -> None:
    registry = Registry([module_of(charge=charge, buy=buy, Cart=Cart, Payments=Payments, Bank=Bank, other=1)])
    assert sorted(registry.tasks) == ["Payments.charge", "Payments.refund", "charge"]
    assert sorted(registry.workflows) == ["buy", "cart"]
    options = registry.tasks["Payments.charge"].task_options
    assert (options.attempt_timeout_ms, options.retry.attempts_max) == (3_000, 2)
    assert asyncio.run(registry.tasks["Payments.charge"].fn("o", 1)) == "bank o 1"


def test_of_what_an_app_has_some_can_be_chosen_by_name() -> None:
    registry = Registry([charge, resize, buy, Cart])
    chosen = registry.only(["charge"], ["cart"])
    assert (sorted(chosen.tasks), sorted(chosen.workflows)) == (["charge"], ["cart"])
    assert chosen.elsewhere == {"charge", "shop.resize", "buy", "cart"}
    assert not registry.only([], ["buy"]).tasks, "nothing of the other kind"
    with pytest.raises(LookupError, match="no task resize, cart; it has: charge, shop"):
        registry.only(["charge", "resize", "cart"], [])


class LooksLikePayments:
    """Fits the Protocol, so that type checkers let it pass, but is not derived from it."""

    async def charge(self, order: str, cents: int) -> str:
        return f"{order} {cents}"

    async def refund(self, order: str) -> None: ...


def test_a_worker_tells_at_its_start_of_what_only_looks_like_an_implementation(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = ModuleType("app")
    LooksLikePayments.__module__ = "app"
    app.__dict__.update(Payments=Payments, LooksLikePayments=LooksLikePayments)
    perdure.Worker(memory_ports(SystemClock()).broker, [app])
    (told,) = [record.getMessage() for record in caplog.records if "service_not_implemented" in record.getMessage()]
    assert "write class LooksLikePayments(Payments)" in told
    assert Registry([app], services=[Bank("other")]).overlooked() == []


def test_a_given_implementation_runs_the_service() -> None:
    registry = Registry([charge], services=[Bank("other")])
    assert asyncio.run(registry.tasks["Payments.charge"].fn("o", 1)) == "other o 1"


def test_what_is_half_implemented_twice_named_or_no_definition_is_refused() -> None:
    class Half(Payments):
        async def charge(self, order: str, cents: int) -> str:
            return ""

    @task(name="charge")
    async def another() -> None: ...

    with pytest.raises(DefinitionError, match="does not implement 'refund'"):
        Registry(services=[Half()])  # type: ignore[abstract]
    with pytest.raises(DefinitionError, match=r"two tasks are named 'charge'.*\.py:\d+ and .*\.py:\d+"):
        Registry([charge, another])
    with pytest.raises(DefinitionError, match="is no module, task or workflow"):
        Registry([a_function])
    Registry([charge, charge.options(timeout=1), buy, buy])


def test_the_replay_loop_gets_a_workflow_as_payloads() -> None:
    code = workflow_of(Cart).code
    cart = code.create()
    args = code.encode_args(("Ada",), {})
    assert asyncio.run(code.main(cart, args)) == ["Ada"]
    put = workflow_of(Cart).updates["put"].signature.bind(("pear",), {})
    assert asyncio.run(code.update(cart, "put", put)).data == b"1"
    assert code.query(cart, "count", workflow_of(Cart).queries["count"].signature.bind((), {"factor": 3})).data == b"3"
    with pytest.raises(UnknownName, match="cart has no query 'size'; it has count"):
        code.query(cart, "size", args)
    assert buy.code.create() is None


class Declined(Exception):
    def __init__(self, code: int, secret: object) -> None:
        super().__init__(f"declined with {code}")
        self.code = code
        self.secret = secret


def test_failures_keep_name_message_stack_attributes_and_causes() -> None:
    try:
        try:
            raise OSError(5, "disk")
        except OSError as error:
            raise Declined(51, object()) from error
    except Declined as error:
        failure = failure_from_exception(error)
    assert (failure.name, failure.message, failure.retryable) == ("Declined", "declined with 51", True)
    assert "raise Declined(51" in failure.stack
    assert failure.details is not None
    assert failure.details.data == b'{"code":51}'
    assert failure.cause is not None
    assert failure.cause.name == "OSError"
    back = exception_from_failure(failure)
    assert str(back) == "Declined: declined with 51"
    assert back.details == {"code": 51}
    assert str(back.__cause__) == "OSError: [Errno 5] disk"
    again = failure_from_exception(back)
    assert (again.name, again.message, again.details) == (failure.name, failure.message, failure.details)


def test_a_failure_can_be_sent_whatever_half_characters_its_texts_have() -> None:
    try:
        raise ValueError("no such picture: " + os.fsdecode(b"\xff.jpg")) from RemoteError("\ud800", "\udfff")
    except ValueError as error:
        vars(error)["\udcff"] = 1
        failure = failure_from_exception(error)
    assert failure.message == "no such picture: \\udcff.jpg"
    assert failure.cause is not None
    assert (failure.cause.name, failure.cause.message) == ("\\ud800", "\\udfff")
    assert msgspec.convert(msgspec.json.decode(msgspec.json.encode(failure)), Failure) == failure


def call(change: Callable[..., object], *values: Any) -> object:
    """As careless code calls it, which no checker has seen."""
    return change(*values)


@pytest.mark.parametrize(
    ("careless", "problem"),
    [
        (lambda: call(channel, 7), "the name of a channel must be a str, not 7"),
        (lambda: call(channel, "\udcff"), "the name of a channel must be text that has a UTF-8 form"),
        (lambda: charge.options(tags=[5]), "a tag must be a str, not 5"),  # type: ignore[list-item]
        (lambda: charge.options(tags="cpu"), r"a list of str, such as \['cpu'\]"),
        (lambda: charge.options(build=7), "build must be a str"),  # type: ignore[arg-type]
        (lambda: buy.options(tags=["\udcff"]), "a tag must be text that has a UTF-8 form"),
        (lambda: buy.options(build=7), "build must be a str"),  # type: ignore[arg-type]
    ],
)
def test_what_no_message_can_hold_is_refused_where_it_is_given(careless: Callable[[], object], problem: str) -> None:
    with pytest.raises((TypeError, ValueError), match=problem):
        careless()


def test_tasks_decide_about_their_retries() -> None:
    later = failure_from_exception(RetryLater(timedelta(minutes=2)))
    assert (later.retryable, later.next_delay_ms) == (True, 120_000)
    assert not failure_from_exception(NonRetryable("no")).retryable
    assert not failure_from_exception(FileNotFoundError("x"), non_retryable=["OSError"]).retryable
    assert failure_from_exception(ValueError("x"), non_retryable=["OSError"]).retryable


def test_endless_causes_and_broken_messages_end() -> None:
    class Broken(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    error: BaseException = Broken()
    for _ in range(50):
        wrapped = ValueError("again")
        wrapped.__cause__ = error
        error = wrapped
    depth, failure = 0, failure_from_exception(error)
    while failure.cause is not None:
        depth, failure = depth + 1, failure.cause
    assert depth == 10
    assert "cannot be made" in failure_from_exception(Broken()).message


@pytest.mark.parametrize("kind", [TaskCanceled, ChildCanceled, RunTerminated])
def test_an_error_that_nothing_was_raised_for_tells_itself(
    kind: type[TaskCanceled | ChildCanceled | RunTerminated],
) -> None:
    error = kind("it was ended")
    assert (error.failure.name, error.failure.message) == (kind.__name__, "it was ended")
    assert failure_from_exception(error).cause is None


def test_public_names_are_the_same_for_checkers_and_at_run_time() -> None:
    source = Path(perdure.__file__).read_text()
    block = source.split("if TYPE_CHECKING:")[1].split("_MODULES")[0]
    named = {tuple(line.split()[1::2][:2]) for line in block.splitlines() if line.strip()}
    assert named == {(f"perdure.{module}", name) for name, module in perdure._HOME.items()}
    at_once = set(re.findall(r"^from perdure\.\w+ import \w+ as (\w+)$", source, re.MULTILINE))
    assert sorted(perdure.__all__) == sorted({*perdure._HOME, *at_once})
    for name in ("task", "workflow", "service"):
        assert callable(getattr(perdure, name)), "the decorator, not the module"
        assert f"perdure.{name}" in sys.modules
