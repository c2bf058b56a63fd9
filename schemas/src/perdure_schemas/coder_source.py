"""Python source of the functions that write and read Avro records, made from the schemas.

A straight line of code per record gives the bytes of a library that interprets the schema several times faster.
Names in the source: `v` is the struct to write; `data` are the bytes to read, `latin` the same bytes as text of one
character each (cheaper to slice than bytes are to decode), `at` is the position, `n` a byte or size just read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from perdure_schemas.schema import Schema

Field: TypeAlias = dict[str, Any]
Fields: TypeAlias = Sequence[Field]
"""Fields of a record, as its schema has them."""

_WRITERS = {"string": "text", "bytes": "octets", "long": "integer", "double": "double"}
_READERS = {"string": "read_text", "long": "read_long"}


def records_in(fields: Fields) -> set[str]:
    """Names of the records that the fields hold."""
    return {name for each in fields if (name := _record_in(each["type"])) is not None}


def _record_in(schema: Schema) -> str | None:
    match schema:
        case ["null", inner] | {"type": "array", "items": inner}:
            return _record_in(inner)
        case str(name) if name not in {*_WRITERS, "boolean", "int"}:
            return name
        case _:
            return None


# --- writing -------------------------------------------------------------------------------------


def record_writer(name: str, fields: Fields, *, default: bool) -> str:
    """`write_{name}(v)`; with `default`, `DEFAULT_{name}` is known by sight."""
    nests = name in records_in(fields)
    prepared, pieces = _pieces(fields, "v", name)
    return _function(
        f"write_{name}(v, depth=NESTING_MAX)" if nests else f"write_{name}(v)",
        [
            *([f"if v == DEFAULT_{name}: return BYTES_{name}"] if default else []),
            *([f"if depth == 0: too_deep({name!r})"] if nests else []),
            *prepared,
            f"return join(({', '.join(pieces)},))",
        ],
    )


def message_writer(name: str, header: Fields, *, attributes: Mapping[str, str]) -> str:
    """`write(v)`: a `Message` whose body is a `name`.

    `attributes`: what `Message` calls a field of the header, where it is not the field's name.
    """
    prepared, pieces = _pieces(header, "v", "", attributes)
    return _function(
        "write(v)", [*prepared, f"return join((BEGIN, {', '.join(pieces)}, BEFORE, write_{name}(v.body), AFTER))"]
    )


def _pieces(
    fields: Fields, of: str, owner: str, attributes: Mapping[str, str] | None = None
) -> tuple[list[str], list[str]]:
    """Statements, then expressions whose values joined are the bytes of the fields."""
    prepared: list[str] = []
    pieces: list[str] = []
    for each in fields:
        name, schema = each["name"], each["type"]
        value, local = f"{of}.{(attributes or {}).get(name, name)}", f"f_{name}"
        if "symbols" in each:
            pieces.append(f"SYMBOLS_{owner}_{name}[{value}]")
        elif schema in ("string", "bytes"):
            prepared.append(f"{local} = {value}.encode()" if schema == "string" else f"{local} = {value}")
            pieces += [f"INTEGERS[n] if (n := len({local})) < SMALL else integer(n)", local]
        elif schema == "long":
            pieces.append(f"INTEGERS[n] if 0 <= (n := {value}) < SMALL else integer(n)")
        else:
            pieces.append(_expression(schema, value, owner))
    return prepared, pieces


def _expression(schema: Schema, value: str, owner: str) -> str:
    match schema:
        case "boolean":
            return f"b'\\x01' if {value} else b'\\x00'"
        case ["null", inner]:
            return f"b'\\x00' if (n := {value}) is None else b'\\x02' + ({_expression(inner, 'n', owner)})"
        case {"type": "array", "items": items}:
            return f"array(n, {_WRITERS.get(items, f'write_{items}')}) if (n := {value}) else b'\\x00'"
        case str(name):
            deeper = ", depth - 1" if name == owner else ""
            return f"{_WRITERS.get(name, f'write_{name}')}({value}{deeper})"
        case _:
            raise TypeError(f"no code for {schema!r}")


# --- reading -------------------------------------------------------------------------------------


def record_reader(name: str, fields: Fields, *, known: set[str], default: bool) -> str:
    """`read_{name}(data, latin, at)`: the struct and the position after it. Fields that are not `known` are skipped."""
    nests = name in records_in(fields)
    arguments = ", ".join(f"{each['name']}=f_{each['name']}" for each in fields if each["name"] in known)
    return _function(
        f"read_{name}(data, latin, at, depth=NESTING_MAX)" if nests else f"read_{name}(data, latin, at)",
        [
            *([f"if data.startswith(BYTES_{name}, at): return DEFAULT_{name}, at + {name}_SIZE"] if default else []),
            *([f"if depth == 0: too_deep({name!r})"] if nests else []),
            *(line for each in fields for line in _field_lines(each, name)),
            f"return {name}({arguments}), at",
        ],
    )


def message_reader(name: str, header: Fields, *, attributes: Mapping[str, str]) -> str:
    """`read(data)`: the `Message`, whose body is a `name`."""
    arguments = ", ".join(f"{attributes.get(each['name'], each['name'])}=f_{each['name']}" for each in header)
    return _function(
        "read(data)",
        [
            "latin = data.decode('latin-1'); at = len(BEGIN)",
            *(line for each in header for line in _field_lines(each, "header")),
            "if not data.startswith(BEFORE, at): other_member(TYPE)",
            f"body, at = read_{name}(data, latin, at + len(BEFORE))",
            "if at + len(AFTER) != len(data) or not data.endswith(AFTER): check_end(data, at, TYPE)",
            f"return Message(body=body, {arguments})",
        ],
    )


def _field_lines(each: Field, owner: str) -> Iterator[str]:
    """Statements that read one field into its local name."""
    local = f"f_{each['name']}"
    yield from _lines(each["type"], local, owner)
    if "symbols" in each:
        where = f"{owner}_{each['name']}"
        unknown = f"UNKNOWN_{where}" if "unknown" in each else f"refuse('{owner}.{each['name']}', {local})"
        yield f"{local} = SYMBOL_{where}.get({local}) or {unknown}"


def _lines(schema: Schema, target: str, owner: str) -> Iterator[str]:
    """Statements that set `target` to the value at `at`, and `at` to the position after it."""
    match schema:
        case "string" | "bytes":
            yield "n = SHORT_SIZES[data[at]]; at += 1"
            yield "if n < 0: n, at = read_size(data, at - 1)"
            if schema == "bytes":
                yield f"{target} = data[at:(at := at + n)]"
            else:
                yield f"{target} = latin[at:(at := at + n)]"
                yield f"if not {target}.isascii(): {target} = data[at - n:at].decode()"
        case "long":
            yield "n = data[at]; at += 1"
            yield f"if n < 0x80: {target} = SHORT_INTEGERS[n]"
            yield f"else: {target}, at = read_integer(data, at - 1)"
        case "double":
            yield f"{target}, = read_double(data, at); at += 8"
        case "boolean":
            yield f"{target} = BOOLEANS[data[at]]; at += 1"
        case ["null", inner]:
            yield "n = data[at]; at += 1"
            yield f"if n == 0: {target} = None"
            yield "elif n == 2:"
            yield from (f"    {line}" for line in _lines(inner, target, owner))
            yield f"else: refuse('{owner}: a branch of a union', n >> 1)"
        case {"type": "array", "items": items}:
            yield f"if data[at] == 0: {target} = []; at += 1"
            yield f"else: {target}, at = read_array(data, latin, at, {_READERS.get(items, f'read_{items}')})"
        case str(name):
            deeper = ", depth - 1" if name == owner else ""
            yield f"{target}, at = read_{name}(data, latin, at{deeper})"
        case _:
            raise TypeError(f"no code for {schema!r}")


def _function(signature: str, lines: Sequence[str]) -> str:
    return "\n".join([f"def {signature}:", *(f"    {line}" for line in lines), ""])
