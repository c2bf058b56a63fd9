"""What is wrong in a value is told by the names of arguments and keys, and without Perdure's own frames."""

from __future__ import annotations

import dataclasses
from typing import Any

import msgspec
import pydantic
import pytest

from perdure import SerializationError, convert
from perdure._located import KEYS_TRIED_MAX
from perdure.failures import failure_from_exception
from perdure.signature import Signature
from perdure_schemas.common import Payload


@dataclasses.dataclass
class Line:
    sku: str
    count: int


class Checked(pydantic.BaseModel):
    count: int

    @pydantic.field_validator("count")
    @classmethod
    def at_least_one(cls, count: int) -> int:
        return 100 // count


def order(prices: dict[str, int], lines: dict[str, list[Line]]) -> None: ...


def check(checked: Checked) -> None: ...


ORDER = Signature(order, "order")


@pytest.mark.parametrize(
    ("prices", "lines", "told"),
    [
        ({"tea": 1, "rum": "x"}, {}, "at `prices['rum']`"),
        ({"tea": "x"}, {}, "at `prices['tea']`"),
        ({}, {"a": [], "b": [{"sku": "s", "count": 1}, {"sku": "s", "count": "2"}]}, "at `lines['b'][1].count`"),
        ({}, {"a": [{"sku": "s"}]}, "missing required field `count` - at `lines['a'][0]`"),
        ([], {}, "argument 'prices' of order cannot be read as dict[str, int]: Expected `object`, got `array`"),
    ],
)
def test_a_wrong_part_of_an_argument_is_told_by_its_names(prices: Any, lines: Any, told: str) -> None:
    with pytest.raises(SerializationError) as raised:
        ORDER.check(Payload("json", msgspec.json.encode([prices, lines])))
    assert told in str(raised.value)


def test_a_caller_s_wrong_value_is_told_alike() -> None:
    with pytest.raises(SerializationError, match=r"at `prices\['rum'\]`"):
        ORDER.bind(({"tea": 1, "rum": "x"}, {}), {})
    with pytest.raises(SerializationError, match=r"at `value\['rum'\]`"):
        convert.encode({"rum": "x"}, dict[str, int])
    with pytest.raises(SerializationError, match=r"at `value\['rum'\]`"):
        convert.decode(Payload("json", b'{"rum": "x"}'), dict[str, int])


def test_of_very_many_keys_none_is_looked_for() -> None:
    many = {str(number): "x" for number in range(KEYS_TRIED_MAX + 1)}
    with pytest.raises(SerializationError, match=r"at `prices\[\.\.\.\]`"):
        ORDER.check(Payload("json", msgspec.json.encode([many, {}])))


def test_a_wrong_value_s_failure_shows_no_frame_of_ours() -> None:
    with pytest.raises(SerializationError) as raised:
        convert.decode(Payload("json", b'"x"'), int, "the result of parse")
    failure = failure_from_exception(raised.value.with_traceback(raised.value.__traceback__.tb_next))  # type: ignore[union-attr]
    assert failure.message == "the result of parse cannot be read as int: Expected `int`, got `str`"
    assert (failure.stack, failure.cause) == ("", None)


def test_what_the_user_s_own_validator_raised_is_shown() -> None:
    with pytest.raises(SerializationError) as raised:
        Signature(check, "check").check(Payload("json", b'[{"count": 0}]'))
    cause = failure_from_exception(raised.value).cause
    assert cause is not None
    assert "at_least_one" in cause.stack
