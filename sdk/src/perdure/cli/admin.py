"""`perdure admin`: what Pulsar and Cassandra need before services start, and what somebody must look after."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.markup import escape

from perdure._extras import needed
from perdure.cli import session as cli
from perdure.cli.output import ExitCode, Problem, plain_table, print_one, print_rows, stderr
from perdure_runtime.errors import StorageUnavailable

if TYPE_CHECKING:
    from rich.table import Table

    from perdure_runtime.ports import Delivery, Undeliverable
    from perdure_runtime.service.settings import ServiceSettings

T = TypeVar("T")

admin = typer.Typer(name="admin", help="Prepare and look after a cluster's servers.", no_args_is_help=True)
dlq = typer.Typer(name="dlq", help="Messages that could not be handled.", no_args_is_help=True)
admin.add_typer(dlq)

LETTERS_MAX = 10_000
"""Looked through for one id."""
_SHOWN_BYTES = 512
"""Of a message that cannot be read."""
PULSAR_HINT = "PERDURE_PULSAR_URL, PERDURE_PULSAR_ADMIN_URL and PERDURE_PULSAR_TOKEN say where Pulsar is, and who asks"
CASSANDRA_HINT = (
    "PERDURE_CASSANDRA_HOSTS, _PORT, _DATACENTER, _USERNAME and _PASSWORD say where Cassandra is, and who asks"
)


@admin.command()
def init(*, namespace: cli.Namespace = cli.DEFAULT_NAMESPACE, output: cli.Output = None) -> None:
    """Make what there must be in Pulsar. Changes nothing that is there.

    That is the tenant, namespaces, policies, topics, subscriptions and schemas.
    """
    settings = _settings(namespace)

    async def work() -> dict[str, Any]:
        from perdure_runtime.adapters.pulsar.admin import open_admin

        async with open_admin(settings.pulsar()) as pulsar:
            await pulsar.init(namespace)
            return {
                "tenant": settings.pulsar_tenant,
                "namespace": namespace,
                "topics": await pulsar.topics(namespace),
            }

    made = _run(work, PULSAR_HINT)
    print_one(made, output, lambda: _lines(made))


@admin.command()
def migrate(*, namespace: cli.Namespace = cli.DEFAULT_NAMESPACE, output: cli.Output = None) -> None:
    """Make Cassandra's keyspace and bring its tables up to date. May be repeated, and run by many at once.

    Tables of a newer release stay as they are: exit code 0 if this release can use them, else 1.
    """
    settings = _settings(namespace)

    async def work() -> tuple[int, int]:
        from perdure_runtime.adapters.cassandra import migrate as bring_up_to_date
        from perdure_runtime.adapters.cassandra.migrations import LATEST, WrongSchema

        try:
            return await bring_up_to_date(settings.cassandra()), LATEST
        except WrongSchema as error:  # whoever waits for the store by exit code 5 would wait for ever
            raise Problem(str(error)) from error

    version, ours = _run(work, CASSANDRA_HINT)
    if version > ours:
        stderr().print(
            f"a newer release made these tables; this one, of schema version {ours}, can use them: nothing was changed"
        )
    reached = {"keyspace": settings.cassandra_keyspace, "version": version}
    print_one(reached, output, lambda: _lines(reached))


@admin.command()
def recount(*, namespace: cli.Namespace = cli.DEFAULT_NAMESPACE, output: cli.Output = None) -> None:
    """Count the listed runs anew and put the counts right. Prints what differed, which is nothing.

    Counts of one build are told with it; "build" is null in those of all.
    """
    settings = _settings(namespace)

    async def work() -> list[dict[str, Any]]:
        from perdure_runtime.adapters.cassandra.recount import recount as count

        return [
            {
                "name": each.name,
                "build": each.build,
                "status": each.status,
                "counted": each.counted,
                "found": each.found,
            }
            for each in await count(settings.cassandra(), namespace)
        ]

    different = _run(work, CASSANDRA_HINT)
    if not different:
        stderr().print("the counts were right")
    print_rows(different, output, lambda: _table(different, "name", "build", "status", "counted", "found"))


@dlq.command("list")
def list_letters(
    *,
    limit: Annotated[int, typer.Option("--limit", "-l", min=1, help="At most so many.")] = 50,
    namespace: cli.Namespace = cli.DEFAULT_NAMESPACE,
    output: cli.Output = None,
) -> None:
    """List messages that could not be handled, newest first."""
    rows = [_row(letter) for letter in _letters(namespace, limit)]
    print_rows(rows, output, lambda: _table(rows, "id", "topic", "type", "key", "problem"))


@dlq.command()
def show(
    letter: Annotated[str, typer.Argument(metavar="LETTER", help="Its id, as `dlq list` prints it.")],
    *,
    namespace: cli.Namespace = cli.DEFAULT_NAMESPACE,
    output: cli.Output = None,
) -> None:
    """Show one such message."""
    from perdure_runtime.adapters.pulsar.replays import letter_id
    from perdure_runtime.ports import Delivery

    found = next((each for each in _letters(namespace, LETTERS_MAX) if letter_id(each) == letter), None)
    if found is None:
        raise _no_letter([letter])
    message = repr(found.message.body) if isinstance(found, Delivery) else repr(found.data[:_SHOWN_BYTES])
    row = _row(found) | {"message": message}
    print_one(row, output, lambda: _lines(row))


@dlq.command()
def replay(
    letters: Annotated[list[str] | None, typer.Argument(metavar="[LETTER]...", help="Their ids.")] = None,
    *,
    every: Annotated[bool, typer.Option("--all", help="All there are.")] = False,
    namespace: cli.Namespace = cli.DEFAULT_NAMESPACE,
    output: cli.Output = None,
) -> None:
    """Send such messages again, once what they failed of is mended."""
    if bool(letters) == every:
        raise Problem("say which letters: their ids, or --all", hint="perdure admin dlq list", code=ExitCode.usage)
    settings = _settings(namespace)

    async def work() -> tuple[list[str], list[str]]:
        from perdure_runtime.adapters.pulsar import PulsarBroker
        from perdure_runtime.adapters.pulsar.admin import open_admin
        from perdure_runtime.adapters.pulsar.replays import replay as send_home

        broker = PulsarBroker(settings.pulsar())
        try:
            async with open_admin(settings.pulsar()) as pulsar:
                return await send_home(broker, pulsar, namespace, None if every else set(letters or ()))
        finally:
            await broker.close()

    gone, unreadable = _run(work, PULSAR_HINT)
    rows = [{"id": each, "outcome": "replayed"} for each in gone]
    rows += [{"id": each, "outcome": "stays: this release cannot read it"} for each in unreadable]
    print_rows(rows, output, lambda: _table(rows, "id", "outcome"))
    missing = sorted(set(letters or ()) - {*gone, *unreadable})
    if missing:
        raise _no_letter(missing)


def _letters(namespace: str, limit: int) -> list[Delivery | Undeliverable]:
    settings = _settings(namespace)

    async def work() -> list[Delivery | Undeliverable]:
        from perdure_runtime.adapters.pulsar.admin import open_admin
        from perdure_runtime.adapters.pulsar.letters import newest

        async with open_admin(settings.pulsar()) as pulsar:
            return list(await newest(pulsar, namespace, limit))

    return _run(work, PULSAR_HINT)


def _row(letter: Delivery | Undeliverable) -> dict[str, Any]:
    from perdure_runtime.adapters.pulsar.replays import home, letter_id
    from perdure_runtime.ports import Delivery

    row: dict[str, Any] = {"id": letter_id(letter), "topic": home(letter)}
    if isinstance(letter, Delivery):
        return row | {"type": type(letter.message.body).__name__, "key": letter.message.key, "problem": ""}
    return row | {"type": "", "key": "", "problem": letter.error}


def _no_letter(ids: list[str]) -> Problem:
    return Problem(f"there is no dead letter {', '.join(ids)}", hint="perdure admin dlq list", code=ExitCode.not_found)


def _settings(namespace: str) -> ServiceSettings:
    """Raises NotInstalled where what speaks to servers is not there."""
    with needed("cluster", "perdure admin"):
        from perdure_runtime.service.settings import ServiceSettings, read_settings

    return read_settings(ServiceSettings, namespace=namespace)


def _run(work: Callable[[], Awaitable[T]], hint: str) -> T:
    async def guarded() -> T:
        try:
            return await work()
        except StorageUnavailable as error:
            told = "" if "perdure admin" in str(error) or "newer release" in str(error) else hint
            raise Problem(str(error), hint=told, code=ExitCode.unavailable) from error

    return cli.run(guarded)


def _table(rows: list[dict[str, Any]], *columns: str) -> Table:
    table = plain_table(*(column.upper() for column in columns))
    for row in rows:
        table.add_row(*(escape(str(row[column])) for column in columns))
    return table


def _lines(value: dict[str, Any]) -> Table:
    table = plain_table("", "")
    table.show_header = False
    for name, what in value.items():
        table.add_row(name, escape(", ".join(what) if isinstance(what, list) else str(what)))
    return table
