"""Functions that write and read one type of message each: compiled from generated source when first wanted."""

from __future__ import annotations

import linecache
from collections.abc import Callable
from struct import Struct as Layout
from types import SimpleNamespace
from typing import Any, NoReturn

import msgspec
from msgspec import Struct

from perdure_schemas import coder_source, common, events, messages, primitives, schema
from perdure_schemas.primitives import CodecError, text

Write = Callable[[Any], bytes]
Read = Callable[[bytes, str, int], tuple[Any, int]]
"""Of the bytes, the same bytes as Latin-1 text, and a position: the value and the position after it."""

STRUCTS: dict[str, type[Struct]] = {
    name: value
    for module in (common, events, messages)
    for name, value in vars(module).items()
    if isinstance(value, type) and issubclass(value, Struct) and value is not Struct
}
"""The Python form of each record."""

_DOUBLE = Layout("<d")
_ATTRIBUTES = {"message_id": "id", "emitted_at": "at"}
"""Fields of the header that `Message` has under a shorter name."""
_CONSTANT = ("v", "type")
"""Fields of the header that are the same in every message of a type."""


class Coders:
    """The writers and readers of one set of schemas: today's, or those of whoever wrote the bytes."""

    def __init__(self, records: Callable[[str], schema.Schema], version: int) -> None:
        self._records = records
        self._version = primitives.integer(version)
        self._built: dict[str, tuple[Write, Read]] = {}
        self._scope: dict[str, Any] = {
            **{name: value for name, value in vars(primitives).items() if not name.startswith("_")},
            "join": b"".join,
            "double": _DOUBLE.pack,
            "read_double": _DOUBLE.unpack_from,
            "too_deep": _too_deep,
            "other_member": _other_member,
            "check_end": check_end,
        }

    def of_message(self, name: str, family: schema.Family) -> tuple[Callable[[Any], bytes], Callable[[bytes], Any]]:
        """`encode` and `decode` of whole messages whose body is a `name`."""
        self.of_record(name)
        fields = self._records(schema.ENVELOPES[family])["fields"]
        header = [each for each in fields if schema.member_type(each) is None and each["name"] not in _CONSTANT]
        before, after = _around(fields, name)
        scope = self._scope | {
            "BEGIN": self._version + text(name),
            "BEFORE": before,
            "AFTER": after,
            "TYPE": name,
            "Message": messages.Message,
        }
        source = coder_source.message_writer(name, header, attributes=_ATTRIBUTES)
        source += coder_source.message_reader(name, header, attributes=_ATTRIBUTES)
        made = _compile(f"message {name}", source, scope)
        return made.write, made.read

    def of_record(self, name: str) -> tuple[Write, Read]:
        """The writer and the reader of one record."""
        if name not in self._built:
            record = self._records(name)
            made = self._union(record) if name in schema.UNIONS else self._record(record)
            self._scope[f"write_{name}"], self._scope[f"read_{name}"] = made
            self._built[name] = made  # last: another thread may already use what is built
        return self._built[name]

    def _record(self, record: schema.Schema) -> tuple[Write, Read]:
        name, fields, struct = record["name"], record["fields"], STRUCTS[record["name"]]
        for inner in coder_source.records_in(fields) - {name}:
            self.of_record(inner)
        known = {each.name for each in msgspec.structs.fields(struct)}
        scope = self._scope
        scope[name] = struct
        for each in fields:
            scope |= _symbols(f"{name}_{each['name']}", each)
        default = all("default" in each for each in fields)
        if default:
            self._learn_default(name, fields, struct)
        source = coder_source.record_writer(name, fields, default=default)
        source += coder_source.record_reader(name, fields, known=known, default=default)
        _compile(name, source, scope)
        return scope[f"write_{name}"], scope[f"read_{name}"]

    def _learn_default(self, name: str, fields: coder_source.Fields, struct: type[Struct]) -> None:
        """Options are mostly as they are by default: they are known by sight."""
        scope = self._scope
        _compile(f"default {name}", coder_source.record_writer(name, fields, default=False), scope)
        default = struct()
        data = scope[f"write_{name}"](default)
        scope |= {f"DEFAULT_{name}": default, f"BYTES_{name}": data, f"{name}_SIZE": len(data)}

    def _union(self, record: schema.Schema) -> tuple[Write, Read]:
        """A record of a type name and one member per type, of which one is set."""
        members = {
            text(name).decode("latin-1"): (STRUCTS[name], *_around(record["fields"], name))
            for each in record["fields"]
            if (name := schema.member_type(each)) in STRUCTS
        }
        begin = {kind: size_and_name.encode() + before for size_and_name, (kind, before, _) in members.items()}
        end = {kind: after for kind, _, after in members.values()}
        built = self._built

        def write(value: Any) -> bytes:
            kind = type(value)
            member, _ = built.get(kind.__name__) or self.of_record(kind.__name__)
            return begin[kind] + member(value) + end[kind]

        def read(data: bytes, latin: str, at: int) -> tuple[Any, int]:
            size_and_name = latin[at : (at := at + 1 + (data[at] >> 1))]
            if size_and_name not in members:
                primitives.refuse(f"{record['name']}.type", size_and_name[1:])
            kind, before, after = members[size_and_name]
            if not data.startswith(before, at):
                _other_member(kind.__name__)
            _, member = built.get(kind.__name__) or self.of_record(kind.__name__)
            value, at = member(data, latin, at + len(before))
            if not data.startswith(after, at):
                _other_member(kind.__name__)
            return value, at + len(after)

        return write, read


def check_end(data: bytes, at: int, name: str) -> None:
    """Nulls at the end say nothing: fewer than ours were written before a type was added to the envelope, more after.

    Raises:
        CodecError: there is something else, or the message goes on beyond the end.
    """
    if at > len(data):
        raise CodecError(f"the bytes end within a {name}")
    if data[at:].strip(b"\x00"):
        raise CodecError(f"bytes after the end of a {name}")


def _around(fields: coder_source.Fields, name: str) -> tuple[bytes, bytes]:
    """The constant bytes before and after the set member of an envelope or union."""
    names = [member for each in fields if (member := schema.member_type(each)) is not None]
    position = names.index(name)
    return b"\x00" * position + b"\x02", b"\x00" * (len(names) - position - 1)


def _symbols(where: str, field: coder_source.Field) -> dict[str, Any]:
    symbols = field.get("symbols")
    if symbols is None:
        return {}
    return {
        f"SYMBOLS_{where}": {symbol: text(symbol) for symbol in symbols},
        f"SYMBOL_{where}": {symbol: symbol for symbol in symbols},
        f"UNKNOWN_{where}": field.get("unknown"),
    }


def _compile(what: str, source: str, scope: dict[str, Any]) -> SimpleNamespace:
    """Tracebacks show the lines of the source, as they do of files."""
    name = f"<coder of {what}>"
    linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
    exec(compile(source, name, "exec"), scope)
    return SimpleNamespace(write=scope.get("write"), read=scope.get("read"))


def _too_deep(name: str) -> NoReturn:
    raise CodecError(f"a {name} nested more than {primitives.NESTING_MAX} deep")


def _other_member(name: str) -> NoReturn:
    raise CodecError(f"a {name} where another member is set")
