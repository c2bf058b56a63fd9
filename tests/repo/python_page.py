"""docs/reference/python.md, made from the docstrings. `python -m tests.repo.python_page` writes it."""

from __future__ import annotations

import builtins
import inspect
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import perdure
from perdure import Client, _options, errors, flow, payloads, sync, testing
from perdure._duration import Duration
from perdure._replay.code import RunContext
from perdure._replay.guard.reports import Mode as Guard
from perdure.task import Mode
from perdure_schemas import common, events
from perdure_schemas.messages import RunChanged, TaskChanged, TaskStatus
from tests.repo import python_docs as docs

PAGE = Path(__file__).parents[2] / "docs/reference/python.md"
INTRODUCTION = """\
# The Python API

Made from the docstrings by `python -m tests.repo.python_page`; a test compares.

Names are of the module `perdure`, but for those that begin with it.
What a field means is left out where its name says it.
"""
SECTIONS = {
    "Declaring": "task workflow query update service method service_stub workflow_of Retry",
    "Options": "TaskDeclared TaskCalled WorkflowDeclared Started StartedAndWaited WorkflowChanged",
    "In workflow code": (
        "Task Workflow Deferred all_of any_of completed branch timer sleep inline now random uuid4 logger patched info "
        "RunContext set_attributes Channel channel signal continue_as_new"
    ),
    "In tasks": "current_task TaskContext RetryLater NonRetryable",
    "Clients": (
        "Client Handle TaskHandle RunFilter RunPage RunChanged TaskChanged Recorded Failure Payload "
        "perdure.sync.SyncClient"
    ),
    "Workers": "Worker Registry",
    "Testing": (
        "perdure.testing.WorkflowEnvironment perdure.testing.Mock perdure.testing.RunStuck perdure.testing.NothingComes"
    ),
    "Payloads": "perdure.payloads.Payloads perdure.payloads.PayloadKeysError",
}
"""What stands where; errors follow."""
ELSEWHERE = {
    "RunContext": RunContext,
    "RunChanged": RunChanged,
    "TaskChanged": TaskChanged,
    "Recorded": events.Recorded,
    "Failure": common.Failure,
    "Payload": common.Payload,
    "perdure.sync.SyncClient": sync.SyncClient,
    "perdure.testing.WorkflowEnvironment": testing.WorkflowEnvironment,
    "perdure.testing.Mock": testing.Mock,
    "perdure.testing.RunStuck": testing.RunStuck,
    "perdure.testing.NothingComes": testing.NothingComes,
    "perdure.payloads.Payloads": payloads.Payloads,
    "perdure.payloads.PayloadKeysError": payloads.PayloadKeysError,
}
"""What `perdure` itself does not have. The first six are told for their fields; nobody makes them."""
OURS = {
    "Deferred": "add_done_callback remove_done_callback forgotten lost regained",
    "Channel": "encode decode compile",
    "Task": "bound_to signature mode task_options",
    "Workflow": "run_by channels encode_signal code signature target queries updates run_options",
    "Retry": "policy",
    "TaskContext": "cancel delegated",
    "Mock": "call",
    "Registry": "add_module overlooked",
    "Payloads": "encode decode seal unseal",
    "RunChanged": "version first_seq events",
    "TaskChanged": "version workflow",
    "Failure": "next_delay_ms",
}
"""Members without an underscore that are for Perdure's own modules."""
TYPES = {
    "Duration": Duration,
    "Mode": Mode,
    "Match": _options.Match,
    "Wait": _options.Wait,
    "Guard": Guard,
    "ConflictPolicy": common.ConflictPolicy,
    "ReusePolicy": common.ReusePolicy,
    "ClosePolicy": common.ClosePolicy,
    "BuildPolicy": common.BuildPolicy,
    "RunStatus": events.RunStatus,
    "TaskStatus": TaskStatus,
    "Event": events.Event,
}


def page() -> str:
    parts = [INTRODUCTION, "| Type | Is one of |\n| --- | --- |", *_types(), ""]
    for title, names in SECTIONS.items():
        parts.append(f"## {title}\n")
        parts += [line for name in names.split() for line in _entry(name)]
    parts += ["## Errors\n", *_errors()]
    return "\n".join(parts).rstrip() + "\n"


def documented() -> set[str]:
    """Names of `perdure` that the page has."""
    return {name for names in SECTIONS.values() for name in names.split()} | set(_error_names())


def _types() -> Iterator[str]:
    for name, kind in TYPES.items():
        values = (repr(each) if isinstance(each, str) else each.__name__ for each in typing.get_args(kind))
        yield f"| `{name}` | {', '.join(f'`{value}`' for value in values)} |"


def _entry(name: str) -> Iterator[str]:
    found = ELSEWHERE.get(name) or getattr(perdure, name, None) or getattr(_options, name)
    yield f"### {name}\n"
    if name in VARIABLES:
        yield VARIABLES[name] + "\n"
    elif isinstance(found, type):
        yield from _class(found)
    else:
        yield f"```py\n{docs.signature(name, found)}\n```\n\n{docs.text(found, name)}\n"


VARIABLES = docs.variables(flow)


def _class(cls: type) -> Iterator[str]:
    if docs.is_made_by_users(cls):
        yield f"```py\n{docs.signature(cls.__name__, vars(cls)['__init__'], bound=True)}\n```\n"
    yield docs.text(cls, cls.__name__) + "\n"
    if docs.is_made_by_users(cls) and vars(cls)["__init__"].__doc__:
        yield docs.text(vars(cls)["__init__"], cls.__name__) + "\n"
    yield from _fields(cls)
    for name, member in docs.methods(cls):
        if name not in OURS.get(cls.__name__, "").split():
            yield from _method(cls, name, member)
    if cls is sync.SyncClient:
        names = [name for name, member in docs.methods(Client) if inspect.isfunction(member)]
        yield f"Its methods: {', '.join(f'`{name}`' for name in names)}. See [Client](#client).\n"


def _fields(cls: type) -> Iterator[str]:
    bases = docs.data_bases(cls)
    kept = [base for base in bases if base.__name__.startswith("_")]
    ours = OURS.get(cls.__name__, "").split()
    found = [each for kind in (*kept, cls) for each in docs.fields(kind) if each.name not in ours]
    rows = [each for each in found if each.meaning or docs.is_data(cls)]
    if rows:
        yield from _table(rows, defaults=docs.is_data(cls) and any(each.default for each in rows))
        yield ""
    if inherited := [f"`{base.__name__}`" for base in bases if base not in kept]:
        yield f"Those of {' and of '.join(inherited)}, too.\n"


def _table(rows: list[docs.Field], *, defaults: bool) -> Iterator[str]:
    columns = ["Field", *(["Type"] if any(each.type for each in rows) else []), *(["Default"] if defaults else [])]
    yield f"| {' | '.join([*columns, 'Meaning'])} |"
    yield f"| {' | '.join('---' for _ in [*columns, 'Meaning'])} |"
    for each in rows:
        cells = {"Field": each.name, "Type": each.type.replace("|", "\\|"), "Default": each.default}
        shown = [f"`{cells[column]}`" if cells[column] else "" for column in columns]
        yield f"| {' | '.join([*shown, each.meaning])} |"


def _method(cls: type, name: str, member: Any) -> Iterator[str]:
    full = f"{cls.__name__}.{name}"
    fn = member if inspect.isfunction(member) else member.__func__
    called = name if inspect.isfunction(member) else full
    yield f"#### {full}\n\n```py\n{docs.signature(called, fn, bound=True)}\n```\n\n{docs.text(fn, full)}\n"


def _error_names() -> list[str]:
    """Those of `errors` first, which are ordered by whose fault they are."""
    listed = {name for names in SECTIONS.values() for name in names.split()}
    public = [name for name in perdure.__all__ if name not in listed and _is_error(getattr(perdure, name))]
    order = list(vars(errors))
    return sorted(public, key=lambda name: order.index(name) if name in order else len(order))


def _is_error(found: Any) -> bool:
    return isinstance(found, type) and issubclass(found, BaseException)


def _told_base(found: type) -> str:
    """The nearest one that users can name."""
    bases = (base.__name__ for base in found.__mro__[1:])
    return next(name for name in bases if name in perdure.__all__ or name in dir(builtins))


def _errors() -> Iterator[str]:
    yield "| Error | Is a | Meaning |\n| --- | --- | --- |"
    for name in _error_names():
        found = getattr(perdure, name)
        yield f"| `{name}` | `{_told_base(found)}` | {' '.join(docs.text(found, name).split())} |"
    yield "\nThose that derive from `WorkflowError` end a run `failed` if workflow code lets them out."


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
