"""Why a broker cannot be used: the library tells of nearly everything as "TimeOut", and that after half a minute.

So we greet a broker as any client does (a CONNECT of Pulsar's binary protocol), and read what it answers.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import struct
from urllib.parse import urlsplit

from perdure_runtime.adapters.pulsar.settings import PulsarSettings

_ANSWER_SECONDS = 5.0
"""To connect and to answer; a broker that takes longer counts as away."""
_FRAME_MAX = 64 * 1024
"""Bytes; a greeting's answer has some dozens. More is not Pulsar."""
_PROTOCOL = 19
"""Every broker since 2.10 speaks it, and newer ones still do."""
_CONNECT, _ERROR = 2, 14
_MESSAGE = 3
_CODE = 2
_REFUSALS = (3, 4)
"""Codes of errors about who we are: authentication, authorization."""
_ADDRESS = "PERDURE_PULSAR_URL"
_CERTIFICATES = "PERDURE_PULSAR_TLS_CA, PERDURE_PULSAR_TLS_CERTIFICATE, PERDURE_PULSAR_TLS_KEY"


async def trouble(settings: PulsarSettings) -> str:
    """What is wrong, with the server's address and the setting to look at, and never a secret; empty: nothing is.

    Of several brokers one that takes us is enough; one that refuses us tells more than one that is away. What OAuth2
    would answer is not asked for.
    """
    tls = settings.url.startswith("pulsar+ssl")
    try:
        context = _context(settings) if tls else None
    except OSError as error:  # ssl.SSLError is one
        return f"Pulsar's certificates cannot be used: {_words(error)} (see {_CERTIFICATES})"
    found = refusal = ""
    for host, port in _addresses(settings.url, tls):
        where = f"Pulsar at {host}:{port}"
        try:
            async with asyncio.timeout(_ANSWER_SECONDS):
                answer = await _greet(host, port, _hello(settings), context)
        except TimeoutError:
            found = f"{where} does not answer within {_ANSWER_SECONDS:.0f} s (see {_ADDRESS})"
        except ssl.SSLError as error:
            found = f"{where} and we do not agree about TLS: {error} (see {_ADDRESS}, PERDURE_PULSAR_TLS_CA)"
        except OSError as error:
            found = f"{where} cannot be reached: {_words(error)} (see {_ADDRESS})"
        except (asyncio.IncompleteReadError, ValueError):
            found = f"{where} does not answer as Pulsar does (see {_ADDRESS})"
        else:
            refused = None if settings.oauth2 else _refusal(answer)
            if refused is None:
                return ""
            shown = "our token" if settings.token else "us without a token"
            refusal = f"{where} refuses {shown}: {refused} (see PERDURE_PULSAR_TOKEN)"
    return refusal or found


def _words(error: OSError) -> str:
    """As the operating system says it; asyncio's own words name a call of its own."""
    if error.errno is not None and error.errno > 0:  # those of failed look-ups of names are below
        return os.strerror(error.errno)
    return error.strerror or str(error)


def _addresses(url: str, tls: bool) -> list[tuple[str, int]]:
    """Of `pulsar://host:port,host:port`."""
    scheme, _, rest = url.partition("://")
    places = [urlsplit(f"{scheme}://{place.strip()}") for place in rest.split("/")[0].split(",")]
    return [(place.hostname or "", place.port or (6651 if tls else 6650)) for place in places]


def _context(settings: PulsarSettings) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=settings.tls_ca or None)
    if settings.tls_certificate:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key or None)
    return context


async def _greet(host: str, port: int, hello: bytes, context: ssl.SSLContext | None) -> bytes:
    reader, writer = await asyncio.open_connection(host, port, ssl=context)
    try:
        writer.write(hello)
        size, command = struct.unpack(">II", await reader.readexactly(8))
        if not 0 < command <= size <= _FRAME_MAX:
            raise ValueError("no frame of Pulsar's")
        return await reader.readexactly(command)
    finally:
        writer.close()


def _hello(settings: PulsarSettings) -> bytes:
    shown = _field(5, b"token") + _field(3, settings.token.encode()) if settings.token else b""
    connect = _field(1, b"perdure") + _number(4, _PROTOCOL) + shown
    command = _number(1, _CONNECT) + _field(_CONNECT, connect)
    return struct.pack(">II", len(command) + 4, len(command)) + command


def _refusal(answer: bytes) -> str | None:
    """The broker's words; nothing: it takes us, or what it says is not about that."""
    error = _read(answer).get(_ERROR)
    if not isinstance(error, bytes):
        return None
    told = _read(error)
    code, words = told.get(_CODE), told.get(_MESSAGE)
    if not isinstance(code, int) or code not in _REFUSALS:
        return None
    return words.decode(errors="replace") if isinstance(words, bytes) else "no reason given"


# -- as much of Protocol Buffers as that needs --------------------------------------------------------


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _number(tag: int, number: int) -> bytes:
    return _varint(tag << 3) + _varint(number)


def _field(tag: int, data: bytes) -> bytes:
    return _varint(tag << 3 | 2) + _varint(len(data)) + data


def _read(data: bytes) -> dict[int, int | bytes]:
    """Fields by tag: numbers and bytes, which is all that there is here.

    Raises:
        ValueError: it is something else.
    """
    fields: dict[int, int | bytes] = {}
    at = 0
    while at < len(data):
        key, at = _take(data, at)
        value, at = _take(data, at)
        match key & 7:
            case 0:
                fields[key >> 3] = value
            case 2:
                fields[key >> 3] = data[at : at + value]
                at += value
            case _:
                raise ValueError("no answer of a broker's")
    return fields


def _take(data: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    number = shift = 0
    while at < len(data):
        byte = data[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return number, at
    raise ValueError("an answer that ends early")
