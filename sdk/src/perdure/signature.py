"""What a task, workflow, query or update takes and gives: its arguments as one payload, in declaration order."""

from __future__ import annotations

import inspect
import linecache
import re
import sys
import typing
from collections.abc import Callable, Mapping, Sequence
from types import FunctionType
from typing import Any

import msgspec

from perdure import convert
from perdure._fields import check_fields, mentions_fields
from perdure._unchanged import Check
from perdure._unions import AmbiguousUnion
from perdure.errors import DefinitionError, SerializationError
from perdure_schemas.common import Payload

_MISSING: Any = inspect.Parameter.empty


class Signature:
    """Encodes calls of one function and decodes them where it runs; made once per function.

    Type hints are resolved at the first use, so that they may name what is defined further down.
    """

    __slots__ = (
        "_checks",
        "_codecs",
        "_decode_all",
        "_encode_all",
        "_fn",
        "_given",
        "_keyed",
        "_keyword_from",
        "_result",
        "name",
        "names",
        "where",
    )

    def __init__(self, fn: Callable[..., Any], name: str, *, method: bool = False) -> None:
        """With `method`, the first parameter (self) is left out.

        Raises:
            DefinitionError: it takes *args or **kwargs.
        """
        self._fn = fn
        self.name = name
        self.where = location(fn)
        parameters = list(inspect.signature(fn).parameters.values())[1 if method else 0 :]
        for parameter in parameters:
            if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
                raise DefinitionError(
                    f"{self.where}: {name} takes {parameter}, which has no place in a JSON array of arguments. "
                    "Declare each parameter by name, or take one list or dict."
                )
        self._given = inspect.Signature(parameters)
        self.names = tuple(p.name for p in parameters)
        self._keyword_from = sum(p.kind is not p.KEYWORD_ONLY for p in parameters)
        self._codecs: tuple[convert.Codec, ...] | None = None
        self._result: Any = Any
        self._keyed = False
        """Whether an argument may be a dataclass, with keys that must be its fields'."""
        self._checks: list[tuple[int, Check]] = []
        """Of the arguments, by number, that could arrive changed."""
        self._encode_all: Callable[[Any], bytes] | None = None
        self._decode_all: Callable[[bytes], Any] | None = None

    def compile(self) -> None:
        """Make the codecs now rather than at the first call.

        Raises:
            DefinitionError: a hint cannot be resolved, or no JSON form is known for it.
        """
        if self._codecs is not None:
            return
        hints = self._hints()
        codecs = tuple(self._codec(name, hints.get(name, Any)) for name in self.names)
        self._result = hints.get("return", Any)
        self._codec("return", self._result)
        self._keyed = any(mentions_fields(codec.hint) for codec in codecs)
        self._checks = [(index, codec.check) for index, codec in enumerate(codecs) if codec.check is not None]
        if all(codec.plain for codec in codecs):
            joined = tuple[tuple(codec.hint for codec in codecs)] if codecs else tuple[()]  # type: ignore[misc]
            try:
                self._decode_all = msgspec.json.Decoder(joined).decode
                self._encode_all = codecs[0].encode if codecs else msgspec.json.encode
            except TypeError:  # cannot happen for hints that msgspec took one by one
                self._decode_all = None
        self._codecs = codecs

    def _hints(self) -> dict[str, Any]:
        try:
            return typing.get_type_hints(inspect.unwrap(self._fn), include_extras=True)
        except Exception as error:
            raise DefinitionError(
                f"{self.where}: a type hint of {self.name} cannot be resolved: {error}. "
                "Import the type at run time, not under TYPE_CHECKING, and define it at module level."
            ) from error

    def _codec(self, name: str, hint: Any) -> convert.Codec:
        try:
            return convert.codec(hint)
        except Exception as error:
            what = "the result" if name == "return" else f"parameter {name!r}"
            ambiguous = isinstance(error, AmbiguousUnion)  # which says itself what to do
            raise DefinitionError(
                f"{self.where}: {what} of {self.name} is {convert.describe(hint)}: {str(error).rstrip('.')}."
                + ("" if ambiguous else " Use JSON-like types, dataclasses or pydantic models.")
            ) from error

    # --- the caller's side --------------------------------------------------------------------------

    def bind(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Payload:
        """The arguments of a call, with defaults applied.

        Raises:
            TypeError: they do not fit the parameters, as in any call.
            SerializationError: one is not of its type, or has no JSON form.
            PayloadTooLarge: together they are too large.
        """
        if self._codecs is None:
            self.compile()
        if kwargs or len(args) != self._keyword_from or len(self.names) != len(args):
            args = self._bound(args, kwargs)
        if self._encode_all is not None and self._decode_all is not None:
            try:
                data = self._encode_all(args if type(args) is tuple else tuple(args))
                values = self._decode_all(data)
                for index, check in self._checks:
                    check(args[index], values[index])
            except Exception:  # the slow way finds out whose fault it is
                data = self._encode_each(args)
        else:
            data = self._encode_each(args)
        payload = Payload("json", data)
        if len(data) > convert.PAYLOAD_BYTES_MAX:
            convert.within_limit(payload, f"the arguments of {self.name}")
        return payload

    def _bound(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, ...]:
        try:
            bound = self._given.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self!r}: {error}") from None
        bound.apply_defaults()
        return tuple(bound.arguments[name] for name in self.names)

    def _encode_each(self, args: Sequence[Any]) -> bytes:
        assert self._codecs is not None
        parts: list[bytes] = []
        for name, codec, value in zip(self.names, self._codecs, args, strict=True):
            data = b""
            try:
                data = codec.encode(value)
                decoded = codec.decode(data)
                if codec.check is not None:
                    codec.check(value, decoded)
            except Exception as error:
                what = f"argument {name!r} of {self.name}"
                raise convert.serialization_error(what, value, codec.hint, error, data=data, root=name) from error
            parts.append(data)
        return b"[" + b",".join(parts) + b"]"

    def decode_result(self, payload: Payload | None) -> Any:
        """What the function returned."""
        if payload is None or payload.encoding == "null":
            return None
        if self._codecs is None:
            self.compile()
        return convert.decode(payload, self._result, f"the result of {self.name}")

    def check(self, payload: Payload) -> None:
        """What a caller gave as JSON must be what the function takes.

        Raises:
            SerializationError: as `decode`, or a dataclass has no field for a key.
        """
        values = self.decode(payload)
        if not self._keyed:
            return
        for name, given, value in zip(self.names, msgspec.json.decode(payload.data), values, strict=False):
            try:
                check_fields(given, value)
            except ValueError as error:
                raise SerializationError(f"argument {name!r} of {self.name}: {error}") from error

    # --- where it runs ------------------------------------------------------------------------------

    def decode(self, payload: Payload) -> list[Any]:
        """The arguments in declaration order. Those that an older caller did not send take their default.

        Raises:
            SerializationError: they are not of their types, or one without default is missing.
        """
        if self._codecs is None:
            self.compile()
        if payload.encoding != "json":
            convert.refuse_layers(payload, f"what {self.name} was given")
        if self._decode_all is not None:
            try:
                return list(self._decode_all(payload.data))
            except msgspec.DecodeError:
                pass  # fewer or more than declared, or wrong: the slow way tells
        return self._decode_each(payload)

    def _decode_each(self, payload: Payload) -> list[Any]:
        assert self._codecs is not None
        try:
            parts = msgspec.json.decode(payload.data, type=list[msgspec.Raw]) if payload.encoding == "json" else []
        except msgspec.DecodeError as error:
            raise SerializationError(f"the arguments of {self.name} are no JSON array: {error}") from error
        if len(parts) > len(self.names):
            raise SerializationError(f"{self.name} takes {_arguments(len(self.names))}, but {_were(len(parts))} given")
        values: list[Any] = []
        for index, parameter in enumerate(self._given.parameters.values()):
            if index < len(parts):
                values.append(self._decode_one(parameter.name, self._codecs[index], bytes(parts[index])))
            elif parameter.default is _MISSING:
                raise SerializationError(
                    f"{self.name} takes {_arguments(len(self.names))}, but {_were(len(parts))} given: "
                    f"{parameter.name!r} is missing, and has no default"
                )
            else:
                values.append(parameter.default)
        return values

    def _decode_one(self, name: str, codec: convert.Codec, data: bytes) -> Any:
        try:
            return codec.decode(data)
        except Exception as error:
            hint = convert.describe(codec.hint)
            why = convert.reason(error, codec.hint, data, name)
            raise SerializationError(f"argument {name!r} of {self.name} cannot be read as {hint}: {why}") from error

    def call(self, fn: Callable[..., Any], values: Sequence[Any]) -> Any:
        """Call `fn` with decoded arguments: positional ones, then keyword-only ones by name."""
        if self._keyword_from == len(self.names):
            return fn(*values)
        split = self._keyword_from
        return fn(*values[:split], **dict(zip(self.names[split:], values[split:], strict=True)))

    def encode_result(self, value: Any) -> Payload:
        """What the function returned, as a payload.

        Raises:
            SerializationError: it is not of the declared type, None included, or has no JSON form.
            PayloadTooLarge: it is too large.
        """
        if self._codecs is None:
            self.compile()
        return convert.encode(value, self._result, f"the result of {self.name}")

    def __repr__(self) -> str:
        """As its author wrote it."""
        written = [_written(each) for each in self._given.parameters.values()]
        if self._keyword_from < len(written):
            written.insert(self._keyword_from, "*")
        return f"{self.name}({', '.join(written)})"


def check_result(signature: Signature, payload: Payload) -> None:
    """What a person gives as JSON instead of a result must be what the function returns.

    Raises:
        SerializationError: it is not.
    """
    value, hint = signature.decode_result(payload), result_hint(signature)
    if payload.encoding == "null" and not convert.admits_none(hint):
        raise SerializationError(f"the result of {signature.name} is {convert.describe(hint)}, not null")
    if payload.encoding == "json" and mentions_fields(hint):
        try:
            check_fields(msgspec.json.decode(payload.data), value)
        except ValueError as error:
            raise SerializationError(f"the result of {signature.name}: {error}") from error


def result_hint(signature: Signature) -> Any:
    """What the function returns, by its type hint."""
    signature.compile()
    return signature._result


def _written(parameter: inspect.Parameter) -> str:
    hint, default = parameter.annotation, parameter.default
    text = parameter.name
    if hint is not _MISSING:
        text += f": {hint if isinstance(hint, str) else convert.describe(hint)}"
    if default is not _MISSING:
        text += f" = {default!r}" if hint is not _MISSING else f"={default!r}"
    return text


def location(fn: Callable[..., Any] | type) -> str:
    """`file:line` of a definition, for messages."""
    code = getattr(inspect.unwrap(fn) if callable(fn) else fn, "__code__", None)
    if code is not None:
        return f"{code.co_filename}:{code.co_firstlineno}"
    module = sys.modules.get(fn.__module__)
    file = getattr(module, "__file__", None)
    return f"{file or fn.__module__}:{_class_line(fn, file) if file and isinstance(fn, type) else 0}"


def _class_line(cls: type, file: str) -> int:
    """Where it begins; 0: it was made at run time.

    Not by `inspect`: before 3.13 that parses the whole file, which CPython 3.11 may fail at; see `guard.source`.
    """
    begins = re.compile(rf"\s*class\s+{re.escape(cls.__name__)}\b")
    lines = [number for number, line in enumerate(linecache.getlines(file), 1) if begins.match(line)]
    codes = [member.__code__ for member in vars(cls).values() if isinstance(member, FunctionType)]
    first = min((code.co_firstlineno for code in codes if code.co_filename == file), default=sys.maxsize)
    return max((number for number in lines if number < first), default=0)


def _were(number: int) -> str:
    return "1 was" if number == 1 else f"{number or 'none'} were"


def _arguments(number: int) -> str:
    return "no argument" if number == 0 else f"{number} argument" + ("" if number == 1 else "s")
