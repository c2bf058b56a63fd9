"""A value arrives as it was given, or is refused where it is given: never as another value or class."""

from __future__ import annotations

import datetime as dt
import enum
import uuid
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Annotated, Any, Literal, NamedTuple, TypedDict

import msgspec
import pydantic
import pytest

from perdure import Channel, DefinitionError, SerializationError, convert, workflow
from perdure.registry import Registry
from perdure.signature import Signature


@dataclass
class Charge:
    order: str
    cents: int


@dataclass
class Refund:
    order: str
    cents: int


@dataclass
class Voucher:
    order: str
    code: str


@dataclass
class Opened:
    at: str
    kind: Literal["opened"] = "opened"


@dataclass
class Closed:
    at: str
    kind: Literal["closed"] = "closed"


@dataclass
class Number:
    value: int


@dataclass
class Text:
    value: str


@dataclass
class Base:
    x: int


@dataclass
class More(Base):
    y: int = 0


@dataclass
class Same(Base):
    pass


@dataclass
class Reading:
    at: int
    degrees: float | None = None
    notes: dict[str, Any] = field(default_factory=dict)
    next: Reading | None = None


class Pair(NamedTuple):
    x: int
    y: int


class Size(TypedDict, total=False):
    width: float | None


class Cat(pydantic.BaseModel):
    kind: Literal["cat"] = "cat"
    name: str


class Dog(pydantic.BaseModel):
    kind: Literal["dog"] = "dog"
    name: str


class Even(pydantic.BaseModel):
    number: int


class Odd(pydantic.BaseModel):
    number: int


def parity(value: Any) -> str:
    number = value["number"] if isinstance(value, dict) else value.number
    return "odd" if number % 2 else "even"


class Plain(pydantic.BaseModel):
    x: float | None


class Open(pydantic.BaseModel, extra="allow"):
    x: int


class Extended(Plain):
    y: int = 0


class Secret(pydantic.BaseModel):
    word: pydantic.SecretStr


class Cached(pydantic.BaseModel):
    x: int
    cache: list[int] = pydantic.Field(default=[], exclude=True)


class Raw(pydantic.BaseModel):
    data: bytes


class Held(msgspec.Struct):
    x: float | None = None


class Held2(Held):
    y: int = 0


class Colour(enum.StrEnum):
    red = "red"


class Shade(enum.Enum):
    dark = "dark"


INF, NAN = float("inf"), float("nan")
NOW = dt.datetime(2026, 1, 2, tzinfo=dt.UTC)
BY_PARITY = Annotated[
    Annotated[Even, pydantic.Tag("even")] | Annotated[Odd, pydantic.Tag("odd")], pydantic.Discriminator(parity)
]
PETS = Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]


def take(value: Any, hint: Any) -> Signature:
    def takes(value: Any) -> Any: ...

    takes.__annotations__.update({"value": hint, "return": hint})
    return Signature(takes, "takes")


REFUSED: list[tuple[Any, Any, str]] = [
    (Base, More(3, 4), "would arrive as Base, not as More"),
    (Base, Same(3), "would arrive as Base, not as Same"),
    (list[Base], [Base(1), More(3, 4)], r"at `.*\[1\]`"),
    (dict[str, Base | None], {"a": More(3, 4)}, r"at `.*\['a'\]`"),
    (tuple[int, Base], (1, More(1)), r"at `.*\[1\]`"),
    (Charge | str, Refund("o-1", 5), "would arrive as Charge, not as Refund"),
    (float | None, INF, "JSON has no inf"),
    (float | None, NAN, "JSON has no nan"),
    (int | float | None, INF, "JSON has no inf"),
    (list[float | None], [1.0, INF], r"at `.*\[1\]`"),
    (set[float | None], {INF}, "JSON has no inf"),
    (Reading, Reading(1, INF), r"at `.*\.degrees`"),
    (Reading, Reading(1, next=Reading(1, notes={"a": [NAN]})), r"at `.*\.next\.notes\['a'\]\[0\]`"),
    (Size, {"width": INF}, r"at `.*\['width'\]`"),
    (Size, {"width": 1.0, "height": 1.0}, "no field 'height'"),
    (Held, Held(INF), r"at `.*\.x`"),
    (Held, Held2(1.0, 2), "not as Held2"),
    (list, [1, INF], r"at `.*\[1\]`"),
    (Any, INF, "JSON has no inf"),
    (Any, [NAN], "JSON has no nan"),
    (dict, {3: 4}, "the key 3 would come back as '3'"),
    (dict[str, Any], {"a": {3: 4}}, r"the key 3 .*at `.*\['a'\]`.*type hint"),
    (dict[Any, int], {3: 4}, "the key 3"),
    (dict[int | str, int], {3: 4}, "the key 3"),
    (dict[str, int], {uuid.UUID(int=1): 1}, "the key"),
    (Any, b"x", "type bytes.*type hint"),
    (object, NOW, "type datetime.*type hint"),
    (Any, Pair(1, 2), "type Pair.*type hint"),
    (Any, (1, NOW), r"type datetime.*at `.*\[1\]`"),
    (Any, {1}, "type set"),
    (Any, Decimal(1), "type Decimal"),
    (Any, Colour.red, "type Colour"),
    (Any, Base(1), "type Base"),
    (Any, defaultdict(int), "type defaultdict"),
    (Any, Plain(x=1), "type Plain"),
    (str, uuid.UUID(int=1), "would arrive as str, not as UUID"),
    (str, b"x", "not as bytes"),
    (list[str], ["a", NOW], r"at `.*\[1\]`"),
    (int | str, NOW, "not as datetime"),
    (int, None, "NoneType, cannot travel as int"),
    (Plain, Plain(x=INF), r"at `.*\.x`"),
    (Plain, Extended(x=1, y=3), "would arrive as Plain, not as Extended"),
    (list[Plain], [Extended(x=1, y=3)], r"at `.*\[0\]`"),
    (dict[str, Plain], {"a": Plain(x=NAN)}, r"at `.*\['a'\]\.x`"),
    (Secret, Secret(word=pydantic.SecretStr("no")), r"another value - at `.*\.word`"),
    (Open, Open(x=1, at=NOW), r"would arrive as str, not as datetime - at `.*\.at`"),  # type: ignore[call-arg]
    (Raw, Raw(data=b"\xff"), "ser_json_bytes='base64', val_json_bytes='base64'"),
]


@pytest.mark.parametrize(("hint", "value", "told"), REFUSED)
def test_what_would_arrive_changed_is_refused_where_it_is_given(hint: Any, value: Any, told: str) -> None:
    takes = take(value, hint)
    with pytest.raises(SerializationError, match=f"argument 'value' of takes.*{told}"):
        takes.bind((value,), {})
    with pytest.raises(SerializationError, match=f"the result of takes.*{told}"):
        takes.encode_result(value)


TAKEN: list[tuple[Any, Any]] = [
    (Number | Text, Text("1")),
    (Opened | Closed, Closed("now")),
    (list[Opened | Closed], [Closed("now"), Opened("then")]),
    (Charge | Voucher, Voucher("o-1", "x")),
    (Charge | None, None),
    (int | float | None, 1.0),
    (int | float | None, 1),
    (Base | list[int] | str, [1]),
    (list[int] | dict[str, int], {"a": 1}),
    (list[int] | list[str], ["1"]),
    (Literal["a"] | str, "b"),
    (Literal["a"] | Shade, Shade.dark),
    (Reading, Reading(1, 1.5, {"a": [1, None, {"b": "c"}]}, Reading(2))),
    (dict[int, float | None], {1: None}),
    (dict[str, Any], {"a": [True, 1.5, {"b": None}]}),
    (Any, [1, "x", None, 1.5, {"a": []}]),
    (PETS, Dog(name="Rex")),
    (list[PETS], [Dog(name="Rex"), Cat(name="Tom")]),
    (Cat | Dog, Dog(name="Rex")),
    (list[BY_PARITY], [Odd(number=1), Even(number=2)]),
    (Cached, Cached(x=1)),
    (Open, Open(x=1, y="z")),  # type: ignore[call-arg]
    (set[int | str], {1, "a"}),
    (Mapping[str, int | None], {"a": 1}),
    (Size, {"width": 1.0}),
]


@pytest.mark.parametrize(("hint", "value"), TAKEN)
def test_what_arrives_as_it_was_given_is_taken(hint: Any, value: Any) -> None:
    takes = take(value, hint)
    (back,) = takes.decode(takes.bind((value,), {}))
    assert (type(back), back) == (type(value), value)
    assert takes.decode_result(takes.encode_result(value)) == value


@pytest.mark.parametrize(
    ("hint", "value", "arrives"),
    [
        (str, Colour.red, "red"),
        (list[int], (1, 2), [1, 2]),
        (Sequence[int] | None, (1, 2), [1, 2]),
        (Any, [(1, 2)], [[1, 2]]),
        (float, 1, 1.0),
        (dt.datetime, "2026-01-02T00:00:00Z", NOW),
        (Base, {"x": 1}, Base(1)),
        (Cached, Cached(x=1, cache=[1]), Cached(x=1)),
    ],
)
def test_a_value_becomes_what_its_hint_says(hint: Any, value: Any, arrives: Any) -> None:
    takes = take(value, hint)
    assert takes.decode(takes.bind((value,), {})) == [arrives]


AMBIGUOUS: list[tuple[Any, str]] = [
    (Charge | Refund, "Charge and Refund apart.*Literal differs.*discriminated union"),
    (list[Charge | Refund], "Charge and Refund"),
    (dict[str, Refund | Charge | None], "Refund and Charge"),
    (Base | More | Same, "Base and More"),
    (dt.datetime | str, "datetime and str apart.*Take one of them"),
    (dt.date | dt.datetime | None, "date and datetime"),
    (bytes | str, "bytes and str"),
    (Shade | str, "Shade and str"),
    (list[int] | tuple[int, ...], r"list\[int\] and tuple"),
    (dict[str, int] | Base, "Base"),
]


@pytest.mark.parametrize(("hint", "told"), AMBIGUOUS)
def test_a_union_that_json_cannot_tell_apart_is_no_hint(hint: Any, told: str) -> None:
    with pytest.raises(DefinitionError, match=rf"parameter 'value' of takes is .*{told}"):
        take(None, hint).compile()
    with pytest.raises(DefinitionError, match=told):
        convert.encode("x", hint)


@workflow
class Books:
    entries: Channel[Charge | Refund] = Channel()

    async def run(self) -> None: ...


def test_a_channel_s_union_is_looked_at_where_a_worker_is_made() -> None:
    with pytest.raises(
        DefinitionError, match=rf"{__file__}:\d+: Books: the type of channel entries.*Charge and Refund"
    ):
        Registry([Books])
    with pytest.raises(DefinitionError, match="Charge and Refund"):
        Books.entries.encode(Charge("o-1", 5))


def test_a_field_s_union_is_looked_at_too() -> None:
    @dataclass
    class Entry:
        change: Any

    Entry.__annotations__["change"] = Charge | Refund
    with pytest.raises(DefinitionError, match="Charge and Refund"):
        take(None, list[Entry]).compile()


@pytest.mark.parametrize("value", [INF, [NAN], {"a": {"b": INF}}, Reading(1, INF), Plain(x=INF)])
def test_by_name_too_no_number_becomes_none(value: Any) -> None:
    with pytest.raises(SerializationError, match=r"argument 2 of order.* JSON has no (inf|nan)"):
        convert.encode_arguments([1, value], "order")
    with pytest.raises(SerializationError, match="JSON has no"):
        convert.encode_attributes({"a": value})


def test_by_name_a_value_has_its_json_form_for_whatever_hint_reads_it() -> None:
    payload = convert.encode_arguments([NOW, b"x", {3: 4}, (1, 2), Base(1)], "order")
    assert payload.data == b'["2026-01-02T00:00:00Z","eA==",{"3":4},[1,2],{"x":1}]'
