"""Compression and encryption of what users' values become on their way: engines, brokers and stores see only that.

    keys = Payloads(keys={"2026-11": secret}, current="2026-11")
    Client.connect(url, payloads=keys)      # and Worker.connect(…, payloads=keys)

Programs that are told nothing take the file that PERDURE_PAYLOAD_KEYS_FILE names. The bytes stand in
docs/reference/wire.md, for workers in other languages.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Self

import msgspec

from perdure._extras import needed
from perdure.errors import PayloadUnreadable, PerdureError
from perdure_schemas.common import Payload

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

FILE_VARIABLE = "PERDURE_PAYLOAD_KEYS_FILE"
ZSTD = "zstd"
AES = "aes256gcm"
SEPARATOR = "+"
"""Between the layers of an encoding, the inner first: `json+zstd+aes256gcm`."""

KEY_BYTES = 32
KEY_ID_BYTES_MAX = 255
"""Its length is one byte."""
NONCE_BYTES = 12
"""What GCM is made for. Random ones stay apart for 2**32 values under one key (NIST SP 800-38D): rotate before."""
TAG_BYTES = 16

COMPRESS_FROM_BYTES = 1_024
"""Below, the bytes saved cost more time than their way through broker and store."""
ZSTD_LEVEL = 3
PLAIN_BYTES_MAX = 16 * 1024 * 1024
"""Of what is decompressed: far above what a payload may be, far below what hurts a worker."""


class PayloadKeysError(PerdureError):
    """The keys, or the file that holds them, are not as they must be. The message never shows a key."""


class _File(msgspec.Struct, forbid_unknown_fields=True):
    current: str
    keys: dict[str, str]
    compress_from: int = COMPRESS_FROM_BYTES


class Payloads:
    """What is done to payloads. Encrypts with the current key, decrypts with every one it has."""

    def __init__(
        self,
        *,
        keys: Mapping[str, bytes] | None = None,
        current: str = "",
        compress_from: int | None = COMPRESS_FROM_BYTES,
    ) -> None:
        """Without keys nothing is encrypted.

        Args:
            keys: 32 bytes by key id. Ids are no secret, keys are.
            current: the id of the key to encrypt with. To rotate, first give all programs the new key, then make it the
                current one, and keep the old one for as long as runs have values under it.
            compress_from: bytes from which on a value is compressed; None: never.

        Raises:
            PayloadKeysError: a key is not one, or the current one is not among them.
            NotInstalled: the extra `payloads` is missing.
        """
        self._ciphers = {id: _cipher(id, key) for id, key in (keys or {}).items()}
        if self._ciphers and current not in self._ciphers:
            raise PayloadKeysError(f"the current key {current!r} is not among the keys: {', '.join(self._ciphers)}")
        self.current = current if self._ciphers else ""
        self.compress_from = compress_from
        if compress_from is not None:
            _zstd()

    @classmethod
    def from_file(cls, path: str | Path) -> Self:
        """From JSON: `{"current": id, "keys": {id: base64 of 32 bytes}}`, and `compress_from` if wanted.

        Raises:
            PayloadKeysError: as the constructor, or the file is not readable as that.
            NotInstalled: as the constructor.
        """
        try:
            told = msgspec.json.decode(Path(path).read_bytes(), type=_File)
            keys = {id: base64.b64decode(key, validate=True) for id, key in told.keys.items()}
        except OSError as error:
            raise PayloadKeysError(f"the file of payload keys cannot be read: {error}") from None
        except binascii.Error:
            raise PayloadKeysError(f"a key in {path} is not base64") from None
        except msgspec.MsgspecError as error:  # it tells types and fields, never their values
            raise PayloadKeysError(f"{path} is no file of payload keys: {error}") from None
        return cls(keys=keys, current=told.current, compress_from=told.compress_from)

    @classmethod
    def from_environment(cls) -> Self | None:
        """From the file that PERDURE_PAYLOAD_KEYS_FILE names; nothing if it names none."""
        path = os.environ.get(FILE_VARIABLE, "")
        return cls.from_file(path) if path else None

    def __repr__(self) -> str:
        ids = ", ".join(f"{id} (current)" if id == self.current else id for id in self._ciphers)
        return f"Payloads(key ids: {ids or 'none'}; compress_from={self.compress_from})"

    def __reduce__(self) -> str:
        raise TypeError("payload keys are not pickled: give each process its own")

    def encode(self, payload: Payload, namespace: str) -> Payload:
        """The payload as it travels. One that already has layers, and null, are left as they are."""
        encoding, data = payload.encoding, payload.data
        if encoding == "null" or is_layered(encoding):
            return payload
        if self.compress_from is not None and len(data) >= self.compress_from:
            smaller = _zstd().compress(data, ZSTD_LEVEL)
            if len(smaller) < len(data):
                encoding, data = f"{encoding}{SEPARATOR}{ZSTD}", smaller
        if self.current:
            encoding = f"{encoding}{SEPARATOR}{AES}"
            data = self.seal(data, f"{namespace}\n{encoding}")
        return payload if encoding == payload.encoding else Payload(encoding, data)

    def decode(self, payload: Payload, namespace: str) -> Payload:
        """The plain payload.

        Raises:
            PayloadUnreadable: its key is not here, or it is damaged, of another namespace, or of an unknown layer.
        """
        encoding, data = payload.encoding, payload.data
        while is_layered(encoding):
            inner, _, layer = encoding.rpartition(SEPARATOR)
            match layer:
                case "aes256gcm":
                    data = self.unseal(data, f"{namespace}\n{encoding}")
                case "zstd":
                    data = _decompress(data)
                case _:
                    raise PayloadUnreadable(
                        f"it has a layer {layer!r}, which this release does not know", elsewhere=True
                    )
            encoding = inner
        return payload if encoding == payload.encoding else Payload(encoding, data)

    def seal(self, data: bytes, about: str) -> bytes:
        """Encrypted with the current key, and bound to `about`: nobody can pass it off as something else."""
        id = self.current.encode()
        header = bytes((len(id),)) + id
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed: bytes = self._ciphers[self.current].encrypt(nonce, data, header + about.encode())
        return header + nonce + sealed

    def unseal(self, data: bytes, about: str) -> bytes:
        """What `seal` was given.

        Raises:
            PayloadUnreadable: there is no such key, or it was not sealed so.
        """
        from cryptography.exceptions import InvalidTag

        id = key_id(data)
        if id not in self._ciphers:
            known = ", ".join(self._ciphers) or "none"
            raise PayloadUnreadable(
                f"it is encrypted with key {id!r}, which is not here; there are: {known}", elsewhere=True
            )
        begin = 1 + len(id.encode())
        nonce, sealed = data[begin : begin + NONCE_BYTES], data[begin + NONCE_BYTES :]
        if len(sealed) < TAG_BYTES:
            raise PayloadUnreadable(f"it is encrypted with key {id!r}, and cut off")
        try:
            plain: bytes = self._ciphers[id].decrypt(nonce, sealed, data[:begin] + about.encode())
        except InvalidTag:
            raise PayloadUnreadable(
                f"it is encrypted with another key of id {id!r} than is here, or damaged, or of another namespace",
                elsewhere=True,
            ) from None
        return plain


def is_layered(encoding: str) -> bool:
    """Whether something was done to the value beyond its JSON or bytes."""
    return SEPARATOR in encoding


def key_id(data: bytes) -> str:
    """Which key encrypted this.

    Raises:
        PayloadUnreadable: it is too short, or no text.
    """
    length = data[0] if data else 0
    try:
        id = data[1 : 1 + length].decode()
    except UnicodeDecodeError:
        id = ""
    if not id or len(data) <= length:
        raise PayloadUnreadable("it says that it is encrypted, but is cut off or damaged: it names no key")
    return id


def _cipher(id: str, key: bytes) -> AESGCM:
    if not 0 < len(id.encode()) <= KEY_ID_BYTES_MAX:
        raise PayloadKeysError(f"a key id has 1 to {KEY_ID_BYTES_MAX} bytes")
    if len(key) != KEY_BYTES:
        raise PayloadKeysError(f"key {id!r} has {len(key)} bytes, not {KEY_BYTES}")
    with needed("payloads", "encryption"):
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    return AESGCM(key)


def _zstd() -> ModuleType:
    with needed("payloads", "compression"):
        import zstandard
    return zstandard


def _decompress(data: bytes) -> bytes:
    zstandard = _zstd()
    try:
        size = zstandard.frame_content_size(data)
        if size > PLAIN_BYTES_MAX:
            raise PayloadUnreadable(
                f"it says that it has {size:,} bytes decompressed; at most {PLAIN_BYTES_MAX:,} are read"
            )
        plain: bytes = zstandard.ZstdDecompressor().decompress(
            data, max_output_size=PLAIN_BYTES_MAX, allow_extra_data=False
        )
    except zstandard.ZstdError as error:
        raise PayloadUnreadable(f"its compressed data is damaged: {error}") from None
    return plain
