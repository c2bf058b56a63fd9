"""Whether data written with one Avro schema can be read with another: the rule that brokers enforce."""

from __future__ import annotations

from typing import Any

from perdure_schemas.schema import Schema

_PROMOTIONS = {
    "int": {"long", "float", "double"},
    "long": {"float", "double"},
    "float": {"double"},
    "string": {"bytes"},
    "bytes": {"string"},
}


def full_breaks(one: Schema, other: Schema) -> list[str]:
    """What stands in the way of reading each with the other; empty: FULL compatible. Schemas are self-contained."""
    forward = [f"new reader, old data: {reason}" for reason in read_breaks(reader=other, writer=one)]
    return forward + [f"old reader, new data: {reason}" for reason in read_breaks(reader=one, writer=other)]


def read_breaks(*, reader: Schema, writer: Schema) -> list[str]:
    """What stands in the way of reading data of `writer` with `reader`."""
    comparison = _Comparison(_named(reader, {}), _named(writer, {}))
    comparison.compare(reader, writer, "")
    return comparison.breaks


class _Comparison:
    def __init__(self, reader_types: dict[str, Any], writer_types: dict[str, Any]) -> None:
        self.breaks: list[str] = []
        self._reader_types = reader_types
        self._writer_types = writer_types
        self._seen: set[str] = set()

    def compare(self, reader: Schema, writer: Schema, path: str) -> None:
        reader, writer = _resolve(reader, self._reader_types), _resolve(writer, self._writer_types)
        if isinstance(writer, list):
            for branch in writer:
                self.compare(reader, branch, path)
        elif isinstance(reader, list):
            self._compare_branches(reader, writer, path)
        elif _kind(reader) != _kind(writer):
            if _kind(reader) not in _PROMOTIONS.get(_kind(writer), ()):
                self.breaks.append(f"{path}: {_kind(writer)} is read as {_kind(reader)}")
        elif _kind(reader) == "array":
            self.compare(reader["items"], writer["items"], f"{path}[]")
        elif _kind(reader) == "record":
            self._compare_records(reader, writer, path)

    def _compare_branches(self, branches: list[Schema], writer: Schema, path: str) -> None:
        """The reader's union must have a branch of the writer's kind, and name where it has one."""
        for branch in branches:
            resolved = _resolve(branch, self._reader_types)
            same_kind = _kind(resolved) == _kind(writer) or _kind(resolved) in _PROMOTIONS.get(_kind(writer), ())
            if same_kind and _name(resolved) == _name(writer):
                self.compare(resolved, writer, path)
                return
        self.breaks.append(f"{path}: no branch for {_name(writer) or _kind(writer)}")

    def _compare_records(self, reader: dict[str, Any], writer: dict[str, Any], path: str) -> None:
        if _name(reader) != _name(writer):
            self.breaks.append(f"{path}: {_name(writer)} is read as {_name(reader)}")
            return
        if _name(reader) in self._seen:
            return
        self._seen.add(_name(reader))
        written = {field["name"]: field for field in writer["fields"]}
        for field in reader["fields"]:
            where = f"{_name(reader)}.{field['name']}"
            if field["name"] in written:
                self.compare(field["type"], written[field["name"]]["type"], where)
                self._compare_symbols(field, written[field["name"]], where)
            elif "default" not in field:
                self.breaks.append(f"{where}: not written, and has no default")

    def _compare_symbols(self, reader: dict[str, Any], writer: dict[str, Any], where: str) -> None:
        """Our addition to the rule: enums are strings, whose values stand in `symbols`."""
        if "symbols" in reader and "unknown" not in reader:
            for symbol in writer.get("symbols", ["any text"]):
                if symbol not in reader["symbols"]:
                    self.breaks.append(f"{where}: {symbol!r} is refused")


def _kind(schema: Schema) -> str:
    return schema if isinstance(schema, str) else str(schema["type"])


def _name(schema: Schema) -> str:
    return "" if isinstance(schema, str) else str(schema.get("name", "")).rpartition(".")[2]


def _resolve(schema: Schema, types: dict[str, Any]) -> Schema:
    return types.get(schema.rpartition(".")[2], schema) if isinstance(schema, str) else schema


def _named(schema: Schema, into: dict[str, Any]) -> dict[str, Any]:
    """Every record of a schema by its name."""
    if isinstance(schema, list):
        for branch in schema:
            _named(branch, into)
    elif isinstance(schema, dict) and schema["type"] == "array":
        _named(schema["items"], into)
    elif isinstance(schema, dict) and schema["type"] == "record":
        into[_name(schema)] = schema
        for field in schema["fields"]:
            _named(field["type"], into)
    return into
