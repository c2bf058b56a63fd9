"""Values survive the way to JSON and back by their type hints, or say at the call why they cannot."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any, Literal, NamedTuple, TypedDict
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from perdure import convert
from perdure.errors import DefinitionError, PayloadTooLarge, SerializationError
from perdure.signature import Signature
from perdure_schemas.common import NULL, Payload


class Colour(Enum):
    red = "red"
    blue = "blue"


class Point(NamedTuple):
    x: int
    y: int


class Options(TypedDict, total=False):
    width: int
    name: str


@dataclass
class Node:
    value: int
    children: list[Node] = field(default_factory=list)


@dataclass
class Secretive:
    _hidden: int = 1
    shown: int = 2


@dataclass
class Derived:
    base: int
    twice: int = field(init=False)

    def __post_init__(self) -> None:
        self.twice = 2 * self.base


class Address(BaseModel):
    street: str = Field(alias="streetName")
    zip: int


@dataclass
class Customer:
    name: str
    address: Address
    since: date


VALUES: list[tuple[Any, Any]] = [
    (int, 2**70),
    (float, 1),
    (str, "é\u2028\U0001f600"),
    (bytes, b"\x00\xff"),
    (bool, True),
    (datetime, datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)),
    (date, date(2026, 1, 2)),
    (time, time(3, 4, 5)),
    (timedelta, timedelta(days=2, microseconds=3)),
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=7)),
    (Colour, Colour.blue),
    (Literal["a", 1], 1),
    (tuple[int, str], (1, "a")),
    (tuple[int, ...], (1, 2, 3)),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (dict[str, list[int | None]], {"a": [1, None]}),
    (dict[int, str], {1: "a"}),
    (int | None, None),
    (int | str, "1"),
    (Point, Point(1, 2)),
    (Options, {"width": 1}),
    (Node, Node(1, [Node(2), Node(3, [Node(4)])])),
    (Secretive, Secretive(_hidden=5, shown=6)),
    (Derived, Derived(3)),
    (Address, Address(streetName="High", zip=1)),
    (list[Address], [Address(streetName="High", zip=1)]),
    (dict[str, Address | None], {"a": None, "b": Address(streetName="High", zip=1)}),
    (Customer, Customer("Ada", Address(streetName="High", zip=1), date(2026, 1, 2))),
    (Node | Address, Address(streetName="High", zip=1)),
]


@pytest.mark.parametrize(("hint", "value"), VALUES, ids=[str(hint) for hint, _ in VALUES])
def test_a_value_comes_back_equal_and_of_its_type(hint: Any, value: Any) -> None:
    payload = convert.encode(value, hint)
    back = convert.decode(payload, hint)
    assert back == value
    assert type(back) is type(value) or hint is float
    if payload.encoding == "json":
        msgspec.json.decode(payload.data)
        assert type(value).__name__.encode() not in payload.data


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_json_like_values_come_back_without_hints(value: Any) -> None:
    assert convert.decode(convert.encode(value)) == value


def sample(a: int, b: Node, c: Decimal = Decimal("1.5"), *, d: Colour = Colour.red) -> bytes:
    return b""


SAMPLE = Signature(sample, "sample")


def test_arguments_are_one_array_in_declaration_order_with_defaults() -> None:
    payload = SAMPLE.bind((1,), {"b": Node(2)})
    assert payload == Payload("json", b'[1,{"value":2,"children":[]},"1.5","red"]')
    assert SAMPLE.decode(payload) == [1, Node(2), Decimal("1.5"), Colour.red]


def test_keyword_only_arguments_are_passed_by_name() -> None:
    def spread(a: int, *, b: int) -> tuple[int, int]:
        return a, b

    signature = Signature(spread, "spread")
    assert signature.call(spread, signature.decode(signature.bind((1,), {"b": 2}))) == (1, 2)


def test_arguments_that_an_older_caller_did_not_send_take_their_default() -> None:
    assert SAMPLE.decode(Payload("json", b'[1,{"value":2}]')) == [1, Node(2), Decimal("1.5"), Colour.red]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"[1]", "takes \\d arguments?, but 1 was given: 'b' is missing, and has no default"),
        (b'[1,{"value":2},"1","red",5]', "takes 4 arguments, but 5"),
        (b'["x",{"value":2}]', "'a' of sample cannot be read as int"),
        (b"{}", "no JSON array"),
        (b"[1", "no JSON array"),
    ],
)
def test_wrong_arrays_are_told_by_parameter(data: bytes, told: str) -> None:
    with pytest.raises(SerializationError, match=told):
        SAMPLE.decode(Payload("json", data))


@pytest.mark.parametrize(
    ("args", "told"),
    [
        (("x", Node(1)), "argument 'a' of sample, an object of type str, cannot travel as int"),
        ((True, Node(1)), "argument 'a' of sample, an object of type bool"),
        ((1, object()), "argument 'b' of sample, an object of type object, cannot travel as Node"),
        ((1, Node("x")), "argument 'b' of sample"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_travel_is_told_at_the_call(args: tuple[Any, ...], told: str) -> None:
    with pytest.raises(SerializationError, match=told):
        SAMPLE.bind(args, {})


def test_not_a_number_is_no_json() -> None:
    with pytest.raises(SerializationError):
        convert.encode(float("nan"), float)


def test_a_deferred_as_argument_says_to_await_it() -> None:
    async def pass_future() -> None:
        with pytest.raises(SerializationError, match="await it first"):
            convert.encode([asyncio.get_running_loop().create_future()])

    asyncio.run(pass_future())


def test_wrong_calls_are_type_errors_that_name_the_function() -> None:
    with pytest.raises(TypeError, match=r"sample\(.*missing a required argument: 'b'"):
        SAMPLE.bind((1,), {})


def test_of_arguments_without_a_signature_the_one_at_fault_is_named() -> None:
    with pytest.raises(SerializationError, match="argument 2 of order, an object of type list, cannot travel as JSON"):
        convert.encode_arguments([1, [object()]], "order")


def test_too_large_names_what_and_the_way_out() -> None:
    with pytest.raises(PayloadTooLarge, match=r"the arguments of take: 16,777,2.*pass a reference"):
        Signature(lambda blob: None, "take").bind(("x" * convert.PAYLOAD_BYTES_MAX,), {})
    with pytest.raises(PayloadTooLarge):
        convert.encode(b"x" * (convert.PAYLOAD_BYTES_MAX + 1), bytes)
    assert convert.encode(b"x" * convert.PAYLOAD_BYTES_MAX, bytes).encoding == "bytes"


def test_none_is_null() -> None:
    assert convert.encode(None, int | None) == NULL
    assert convert.decode(NULL, int | None) is None
    assert convert.decode(None) is None


def test_star_arguments_are_refused_with_line_and_remedy() -> None:
    def many(*values: int) -> None: ...
    def options(**values: int) -> None: ...

    for fn in (many, options):
        with pytest.raises(DefinitionError, match=rf"{__file__}:\d+: .*Declare each parameter by name"):
            Signature(fn, fn.__name__)


def test_a_hint_without_json_form_is_refused_with_its_parameter() -> None:
    class Opaque: ...

    def take(a: int, b: Any) -> None: ...

    take.__annotations__["b"] = Opaque
    with pytest.raises(DefinitionError, match=r"parameter 'b' of take is .*Opaque"):
        Signature(take, "take").compile()


def test_pydantic_is_not_imported_for_plain_hints() -> None:
    program = (
        "import sys; from dataclasses import dataclass; from perdure import task\n"
        "@dataclass\nclass A:\n    x: int\n"
        "@task\nasync def f(a: A, b: list[str]) -> A: ...\n"
        "f.signature.bind((A(1), ['x']), {})\n"
        "assert 'pydantic' not in sys.modules, 'pydantic was imported'"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
