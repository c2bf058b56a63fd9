"""Compression and encryption of payloads: round trips, and what is told of bytes that cannot be read."""

from __future__ import annotations

import base64
import contextlib
import json
import pickle
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from perdure._payloads.edge import Edge
from perdure.convert import Unreadable, decode
from perdure.errors import PayloadUnreadable
from perdure.payloads import AES, PLAIN_BYTES_MAX, PayloadKeysError, Payloads
from perdure_schemas.common import NULL, Command, Failure, Payload, RunOptions
from perdure_schemas.messages import StartWorkflow, TaskOutcome

OLD, NEW = bytes(range(32)), bytes(range(32, 64))
LONG = Payload("json", b'["' + b"carpet " * 500 + b'"]')


def ring(current: str = "new", **keys: bytes) -> Payloads:
    return Payloads(keys=keys or {"old": OLD, "new": NEW}, current=current)


@given(data=st.binary(max_size=5_000), base=st.sampled_from(["json", "bytes"]), compress=st.sampled_from([None, 0, 64]))
def test_what_was_encoded_is_decoded(data: bytes, base: str, compress: int | None) -> None:
    plain = Payload(base, data)
    for payloads in (Payloads(compress_from=compress), Payloads(keys={"k": OLD}, current="k", compress_from=compress)):
        assert payloads.decode(payloads.encode(plain, "shop"), "shop") == plain


@given(data=st.binary(min_size=1, max_size=2_000), cut=st.integers(0, 4_000))
def test_what_is_cut_off_is_an_error(data: bytes, cut: int) -> None:
    for payloads in (ring(), Payloads(compress_from=0)):
        coded = payloads.encode(Payload("bytes", data * 3), "shop")
        if coded.encoding == "bytes":  # it would not have become smaller
            continue
        short = Payload(coded.encoding, coded.data[: cut % len(coded.data)])
        with pytest.raises(PayloadUnreadable):
            payloads.decode(short, "shop")


@given(
    junk=st.binary(max_size=300),
    layers=st.sampled_from(["json+zstd", "json+aes256gcm", "json+zstd+aes256gcm", "json+rot13"]),
)
def test_any_bytes_are_an_error_at_worst(junk: bytes, layers: str) -> None:
    with contextlib.suppress(PayloadUnreadable):  # any other error is a crash
        ring().decode(Payload(layers, junk), "shop")


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_one_changed_bit_is_noticed(at: int, bit: int) -> None:
    coded = ring().encode(LONG, "shop")
    data = bytearray(coded.data)
    data[at % len(data)] ^= 1 << bit
    with pytest.raises(PayloadUnreadable):
        ring().decode(Payload(coded.encoding, bytes(data)), "shop")


def test_the_encoding_names_the_layers_inner_first() -> None:
    assert ring().encode(LONG, "shop").encoding == "json+zstd+aes256gcm"
    assert ring().encode(Payload("json", b"[1]"), "shop").encoding == "json+aes256gcm"
    assert Payloads().encode(LONG, "shop").encoding == "json+zstd"
    assert Payloads().encode(Payload("json", b"[1]"), "shop").encoding == "json"
    assert ring().encode(NULL, "shop") is NULL


def test_layers_are_put_on_once() -> None:
    once = ring().encode(LONG, "shop")
    assert ring("old").encode(once, "shop") is once


def test_a_key_is_replaced_while_values_of_the_old_one_are_about() -> None:
    before = ring("old").encode(LONG, "shop")
    after = ring("new").encode(LONG, "shop")
    assert ring("new").decode(before, "shop") == ring("old").decode(after, "shop") == LONG
    with pytest.raises(PayloadUnreadable, match="'old', which is not here; there are: new") as refused:
        ring("new", new=NEW).decode(before, "shop")
    assert refused.value.elsewhere, "another worker may have it"


def test_another_key_of_the_same_id_is_told() -> None:
    with pytest.raises(PayloadUnreadable, match="another key of id") as refused:
        ring("new", new=OLD).decode(ring().encode(LONG, "shop"), "shop")
    assert refused.value.elsewhere, "another worker may have the right one"


def test_a_value_of_another_namespace_or_encoding_is_refused() -> None:
    coded = ring().encode(Payload("json", b"[1]"), "shop")
    with pytest.raises(PayloadUnreadable):
        ring().decode(coded, "bank")
    with pytest.raises(PayloadUnreadable):
        ring().decode(Payload(f"bytes+{AES}", coded.data), "shop")


def test_one_value_is_never_encrypted_alike() -> None:
    assert ring().encode(LONG, "shop").data != ring().encode(LONG, "shop").data


def test_what_decompresses_to_too_much_is_refused() -> None:
    bomb = zstandard.compress(bytes(PLAIN_BYTES_MAX + 1))
    unsized = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(PLAIN_BYTES_MAX + 1))
    for data in (bomb, unsized):
        with pytest.raises(PayloadUnreadable) as refused:
            Payloads().decode(Payload("bytes+zstd", data), "shop")
        assert not refused.value.elsewhere


def test_every_payload_of_a_message_is_coded_but_search_attributes() -> None:
    edge = Edge(ring(), "shop")
    secret, shown = Payload("json", b'["secret"]'), Payload("json", b'{"city":"Porto"}')
    start = StartWorkflow(
        workflow_id="w", run_id="r", name="n", args=secret, options=RunOptions(attributes=shown, memo=secret)
    )
    seen = edge.outgoing(start)
    assert seen.args.encoding == f"json+{AES}"
    assert seen.options.memo is not None
    assert seen.options.memo.encoding == f"json+{AES}"
    assert seen.options.attributes is shown
    assert edge.incoming(seen) == start
    command = Command(id="1", position="1", kind="attributes", args=shown)
    assert edge.outgoing(command).args is shown


def test_details_of_causes_are_coded_too() -> None:
    edge = Edge(ring(), "shop")
    secret = Payload("json", b'{"card":"4111"}')
    failure = Failure(name="A", message="", cause=Failure(name="B", message="", details=secret))
    outcome = TaskOutcome(
        workflow_id="w", run_id="r", command_id="c", generation=0, attempt=1, outcome="failed", failure=failure
    )
    seen = edge.outgoing(outcome)
    assert b"4111" not in repr(seen).encode()
    assert edge.incoming(seen) == outcome


def test_digests_of_arguments_tell_nothing() -> None:
    edge = Edge(ring(), "shop")
    command = Command(id="1", position="1", kind="task", name="charge", args=LONG, digest="00ff")
    seen = edge.outgoing(command)
    assert "00ff" not in seen.digest
    assert edge.incoming(seen) == command
    assert edge.outgoing(seen) == seen


def test_a_message_without_layers_is_passed_on_as_it_is() -> None:
    outcome = TaskOutcome(
        workflow_id="w", run_id="r", command_id="c", generation=0, attempt=1, outcome="completed", result=LONG
    )
    assert Edge(ring(), "shop").incoming(outcome) is outcome


def test_what_cannot_be_read_says_so_where_it_is_used_and_goes_back_as_it_came() -> None:
    coded = ring("old").encode(LONG, "shop")
    edge = Edge(ring("new", new=NEW), "shop")
    kept = edge.incoming(coded)
    assert isinstance(kept, Unreadable)
    with pytest.raises(PayloadUnreadable, match="the result cannot be read: it is encrypted with key 'old'") as refused:
        decode(kept, what="the result")
    assert refused.value.elsewhere
    assert (edge.outgoing(kept).encoding, edge.outgoing(kept).data) == (coded.encoding, coded.data)
    with pytest.raises(PayloadUnreadable, match="PERDURE_PAYLOAD_KEYS_FILE"):
        decode(coded)


def test_keys_come_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "keys.json"
    file.write_text(json.dumps({"current": "new", "keys": {"new": base64.b64encode(NEW).decode()}}))
    monkeypatch.setenv("PERDURE_PAYLOAD_KEYS_FILE", str(file))
    read = Payloads.from_environment()
    assert read is not None
    assert read.decode(ring().encode(LONG, "shop"), "shop") == LONG


@pytest.mark.parametrize(
    "text",
    [
        '{"current": "a", "keys": {"a": "c2VjcmV0LXNlY3JldA=="}}',
        '{"current": "b", "keys": {"a": "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="}}',
        '{"current": "a", "keys": {"a": "!secret!"}}',
        '{"current": "a", "keys": ["c2VjcmV0LXNlY3JldA=="]}',
        '{"current": "a", "key": "c2VjcmV0LXNlY3JldA=="}',
        "secret",
    ],
)
def test_a_wrong_file_is_told_without_its_keys(tmp_path: Path, text: str) -> None:
    file = tmp_path / "keys.json"
    file.write_text(text)
    with pytest.raises(PayloadKeysError) as raised:
        Payloads.from_file(file)
    told = f"{raised.value!r} {raised.value.__cause__!r}"
    assert "AAECAwQF" not in told
    assert "c2VjcmV0" not in told
    assert "secret" not in told.replace(str(file), "")


def test_keys_are_neither_shown_nor_pickled() -> None:
    payloads = ring()
    shown = repr(payloads) + str(payloads) + repr(vars(payloads)) + repr(Edge(payloads, "shop"))
    for key in (OLD, NEW):
        assert repr(key)[2:-1] not in shown
        assert key.hex() not in shown
        assert base64.b64encode(key).decode() not in shown
    assert repr(payloads) == "Payloads(key ids: old, new (current); compress_from=1024)"
    with pytest.raises(TypeError):
        pickle.dumps(payloads)
