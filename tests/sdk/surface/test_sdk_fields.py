"""A key that is no field of a dataclass is refused where it is given, and passed over where it was recorded."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Annotated, Any

import msgspec
import pydantic
import pytest

from perdure import Channel, Client, task, workflow
from perdure.cli import declared
from perdure.cli.output import Problem
from perdure.errors import SerializationError
from perdure.signature import Signature
from perdure_schemas.common import Payload


@dataclass
class Street:
    name: str
    number: int | None = None


@dataclass
class Person:
    name: str
    streets: list[Street] = field(default_factory=list)
    by_label: dict[int, Street] = field(default_factory=dict)
    home: Street | str | None = None


@dataclass
class Renamed:
    x: Annotated[int, pydantic.Field(alias="xx")]
    y: int = pydantic.Field(default=1, alias="yy")


@dataclass
class Lenient:
    __pydantic_config__ = pydantic.ConfigDict(extra="ignore")
    name: str


class Model(pydantic.BaseModel):
    name: str


class Strict(pydantic.BaseModel, extra="forbid"):
    name: str


class Struct(msgspec.Struct):
    name: str


@task
async def greet(person: Person) -> str:
    return person.name


@workflow
async def greets(person: Person, others: tuple[Person, ...] = ()) -> str:
    return await greet(person)


@workflow
class Waits:
    people: Channel[Person] = Channel()

    async def run(self) -> str:
        return (await self.people.receive()).name


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"name": "Ann", "nome": "Anna"}, "Person has no field 'nome'; do you mean 'name'?"),
    ({"name": "Ann", "streets": [{"name": "High"}, {"name": "Low", "zip": 1}]}, "no field 'zip'; it has name, number"),
    ({"name": "Ann", "by_label": {"1": {"name": "High", "zip": 1}}}, "Street has no field 'zip'"),
    ({"name": "Ann", "home": {"name": "High", "zip": 1}}, "Street has no field 'zip'"),
]
RIGHT: list[dict[str, Any]] = [
    {"name": "Ann"},
    {"streets": [{"number": 3, "name": "High"}], "name": "Ann", "home": "none", "by_label": {"1": {"name": "a"}}},
]


@pytest.mark.parametrize(("given", "told"), WRONG)
def test_an_unknown_key_is_refused_at_the_edge(given: dict[str, Any], told: str) -> None:
    called: Any = (greet, greets)

    async def main() -> None:
        async with asyncio.timeout(60), Client.embedded(greet, greets, Waits) as client:
            calls: list[Callable[[], Awaitable[Any]]] = [
                lambda: client.start(called[1], given),
                lambda: client.start("greets", given),
                lambda: client.start("greets", {"name": "Ann"}, [given]),
                lambda: client.run(called[0], given),
                lambda: client.run("greet", given),
            ]
            for refused in calls:
                with pytest.raises(SerializationError, match=r"argument '(person|others)' of greets?") as caught:
                    await refused()
                assert told in str(caught.value)
            run = await client.start(Waits)
            with pytest.raises(SerializationError, match="the signal to people") as caught:
                await run.signal("people", given)
            assert told in str(caught.value)

    asyncio.run(main())
    with pytest.raises(Problem) as problem:
        declared.check_arguments(greets, [given])
    assert told in str(problem.value)


@pytest.mark.parametrize("given", RIGHT)
def test_known_keys_in_any_order_are_taken(given: dict[str, Any]) -> None:
    async def main() -> None:
        async with asyncio.timeout(60), Client.embedded(greet, greets, Waits) as client:
            assert await client.execute("greets", given) == "Ann"
            assert await client.run("greet", given) == "Ann"
            run = await client.start(Waits)
            await run.signal("people", given)
            assert await run.result() == "Ann"

    asyncio.run(main())
    declared.check_arguments(greets, [given, [given]])


def test_a_field_that_is_gone_since_it_was_recorded_is_passed_over() -> None:
    recorded = Payload("json", b'[{"name":"Ann","maiden_name":"Lee"}]')
    assert greet.signature.decode(recorded) == [Person("Ann")]


def other(hint: Any) -> Signature:
    async def takes(value: Any) -> None: ...

    takes.__annotations__["value"] = hint
    return Signature(takes, "takes")


@pytest.mark.parametrize("hint", [Lenient, Model, Struct, list[Model], dict[str, Any]])
def test_other_models_say_themselves_what_they_do_with_unknown_keys(hint: Any) -> None:
    given: Any = {"name": "Ann", "nome": "Anna"}
    given = [given] if hint == list[Model] else given
    other(hint).check(Payload("json", msgspec.json.encode([given])))


def test_what_a_model_forbids_is_refused() -> None:
    with pytest.raises(SerializationError, match="nome"):
        other(Strict).check(Payload("json", b'[{"name":"Ann","nome":"Anna"}]'))


def test_names_that_pydantic_gives_are_known() -> None:
    other(Renamed).check(Payload("json", b'[{"xx":1,"yy":2}]'))
    with pytest.raises(SerializationError, match="no field 'zz'"):
        other(Renamed).check(Payload("json", b'[{"xx":1,"zz":2}]'))
