"""The net that reads: what it finds in code, with its line, and what it leaves alone."""

from __future__ import annotations

import os
import re
import time
from os import environ
from pathlib import Path
from typing import Any

import pytest

from perdure import DefinitionError, inline, workflow, workflow_of
from perdure._replay.guard import check, install, mode_of, source
from perdure._replay.guard.rules import Finding
from perdure.worker import Worker
from perdure_runtime.adapters.memory import memory_ports
from perdure_runtime.clock import SystemClock
from tests.sdk.guard import careless

LINES = Path(careless.__file__).read_text().splitlines()


def findings(target: Any) -> list[Finding]:
    return source.check(target).findings


def expected_of(first: str, last: str) -> list[tuple[int, str]]:
    """Line and name of what is marked by a comment between two lines."""
    begin, end = LINES.index(first), LINES.index(last)
    marked = [(n + 1, re.search(r"# ((?:\w+\.)*\w+\(\))$", line)) for n, line in enumerate(LINES[begin:end], begin)]
    return [(line, found.group(1)) for line, found in marked if found]


def test_every_careless_call_is_found_with_its_line_and_what_to_write_instead() -> None:
    found = findings(careless.careless.target)
    direct = [each for each in found if "helper" not in LINES[each.line - 1]]
    assert [(each.line, each.what.split(" ")[0]) for each in direct] == expected_of(
        "async def careless(names: list[str]) -> Any:", "class Careless:"
    )
    assert all(each.certain for each in found)
    assert all(each.remedy and each.file == careless.__file__ for each in found)
    by_name = {each.what.split(" ")[0]: each.remedy for each in found}
    assert "perdure.now()" in by_name["datetime.now()"]
    assert "perdure.random()" in by_name["random.choice()"]
    assert "perdure.uuid4()" in by_name["uuid.uuid4()"]
    assert "@task" in by_name["open()"]
    assert "perdure.sleep" in by_name["time.sleep()"]


def test_helpers_of_the_same_package_are_read_too() -> None:
    (found,) = [each for each in findings(careless.careless.target) if "# helper" in LINES[each.line - 1]]
    assert found.what.startswith("time.monotonic()")


def test_all_methods_of_a_class_are_read() -> None:
    assert [(each.line, each.what.split(" ")[0]) for each in findings(careless.Careless)] == expected_of(
        "class Careless:", "async def doubtful(names: list[str]) -> list[str]:"
    )


def test_what_only_may_differ_is_told_apart() -> None:
    found = findings(careless.doubtful.target)
    assert not any(each.certain for each in found)
    told = [(LINES[each.line - 1].strip(), each.what) for each in found]
    assert [line for line, what in told if "order of a set" in what] == [
        "for name in frozenset(names):",
        "found += [name for name in chosen]",
        'found += list(chosen | {"c"})',
        "found += [*chosen]",
        "total = sum([await double(len(name)) for name in chosen])",
        'total += sum(await all_of(double(len(name)) for name in {"a", "b"}))',
    ]
    assert [line for line, what in told if "order of a set" not in what] == [
        "global SHARED",
        "total += await double.fn(total)",
        "except BaseException:",
    ]
    (body,) = [each for each in found if "nothing records" in each.what]
    assert (body.what.split(" ")[0], body.remedy) == ("double.fn(...)", "Call double(...).")


def test_careful_code_is_left_alone() -> None:
    assert findings(careless.careful.target) == []
    assert findings(careless.outside.fn), "but as a workflow the body of a task would not do"


def test_a_worker_refuses_careless_code_and_names_every_line(caplog: pytest.LogCaptureFixture) -> None:
    broker = memory_ports(SystemClock()).broker
    with pytest.raises(DefinitionError) as raised:
        Worker(broker, [careless.careless, careless.doubtful], guard="error")
    message = str(raised.value)
    assert message.startswith("workflow careless would come out differently in replay:")
    assert message.count("\n") == len(findings(careless.careless.target))
    assert re.search(
        r"careless\.py:\d+: time\.time\(\) comes out differently in replay\. Use perdure\.now\(\)", message
    )
    assert not caplog.records
    Worker(broker, [careless.Careless, careless.doubtful], guard="warn")
    assert len(caplog.records) == 2 + 9
    Worker(broker, [careless.Careless, careless.doubtful], guard="warn")
    assert len(caplog.records) == 2 + 9, "each line is told once"
    Worker(broker, [careless], guard="off")
    assert len(caplog.records) == 2 + 9


def test_all_careless_workflows_are_named_at_once() -> None:
    with pytest.raises(DefinitionError) as raised:
        Worker(memory_ports(SystemClock()).broker, [careless.careless, careless.Careless], guard="error")
    heads = [line for line in str(raised.value).splitlines() if not line.startswith("  ")]
    assert heads == [f"workflow {name} would come out differently in replay:" for name in ("careless", "Careless")]


def test_the_environment_says_what_a_worker_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    broker = memory_ports(SystemClock()).broker
    assert mode_of(None) == "error"
    monkeypatch.setenv("PERDURE_GUARD", "off")
    Worker(broker, [careless])
    assert mode_of("warn") == "warn"
    monkeypatch.setenv("PERDURE_GUARD", "sometimes")
    with pytest.raises(ValueError, match="error, warn, off, not 'sometimes'"):
        Worker(broker, [careless])


@workflow
async def reading_the_environment() -> list[Any]:
    by_inline = inline(lambda: os.environ["PERDURE_A"])
    known = environ
    return [os.environ["PERDURE_A"], os.getenv("PERDURE_A"), os.environ.get("PERDURE_A"), known, by_inline, os.sep]


def test_what_the_environment_says_may_differ() -> None:
    found = findings(reading_the_environment.target)
    assert [each.what.split(" ")[0] for each in found] == ["environ", "os.environ", "os.getenv"]
    assert not any(each.certain for each in found)
    assert all("inline" in each.remedy for each in found)


@workflow
async def by_name() -> float:
    return bound_before()


bound_before = time.time


def test_a_function_that_was_imported_by_name_before_it_was_replaced_is_found() -> None:
    before = time.time
    install("error", [])
    assert time.time is not before or hasattr(before, "__perdure_trap__")
    (found,) = findings(by_name.target)
    assert found.what.startswith("time.time()")


def test_code_without_source_is_not_refused() -> None:
    space: dict[str, Any] = {"workflow": workflow, "__name__": "made_up"}
    exec("@workflow\nasync def made() -> None:\n    pass\n", space)
    check("error", [space["made"]])


def test_a_workflow_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    definition = workflow_of(careless.Careless)
    assert source.check(definition.target) is source.check(definition.target)
    monkeypatch.setattr(source, "_read", None)
    check("off", [definition])
    check("warn", [definition])
