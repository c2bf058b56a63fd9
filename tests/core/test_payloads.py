"""Every payload of a message is found, and replaced, but for search attributes."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from perdure_core.blobs import in_transit, lends, lent, owned, referred
from perdure_core.payloads import found, replaced
from perdure_schemas import schema
from perdure_schemas.blobs import Blob, blob_of, made_of, reference
from perdure_schemas.common import Command, Failure, Payload, RunOptions
from perdure_schemas.events import Recorded, SignalReceived
from perdure_schemas.messages import ChildOutcome, Message, StartWorkflow
from tests.schemas.strategies import messages_of

OTHER = Payload("json", b"other")


def everything(_: Payload) -> bool:
    return True


@given(st.sampled_from([body for bodies in schema.BODIES.values() for body in bodies]).flatmap(messages_of))
def test_what_is_found_is_what_is_replaced(message: Message) -> None:
    before = found(message, everything)
    seen: list[Payload] = []

    def note(payload: Payload) -> Payload:
        seen.append(payload)
        return OTHER

    after = replaced(message, note)
    assert seen == before
    assert found(after, everything) == [OTHER] * len(before)
    assert replaced(message, lambda payload: payload) is message


def test_search_attributes_are_not_touched() -> None:
    options = RunOptions(attributes=Payload("json", b"{}"), memo=OTHER)
    start = StartWorkflow(workflow_id="w", run_id="r", name="n", args=OTHER, options=options)
    assert found(start, everything) == [OTHER, OTHER]
    shown = Command(id="c", position="0", kind="attributes", args=Payload("json", b"{}"))
    assert found(shown, everything) == []
    assert found(replace(shown, kind="task", failure=Failure(name="E", message="", details=OTHER)), everything) == [
        shown.args,
        OTHER,
    ]


IN_TRANSIT = made_of("b", b"data")
OWN = replace(IN_TRANSIT, workflow_id="w", run_id="r")


def referring(*blobs: Blob) -> list[Payload]:
    return [reference("json+zstd", blob) for blob in blobs]


def test_what_is_recorded_becomes_the_runs_own_under_the_same_id() -> None:
    other = replace(OWN, run_id="other")
    payloads = [*referring(IN_TRANSIT, OWN, other), Payload("json", b"1"), Payload("json+blob", b"damaged")]
    after = owned(payloads, "w", "r")
    assert referred(after) == [OWN, OWN, other], "what is of another run stays so: nobody may send it"
    assert after[3:] == payloads[3:]
    assert in_transit(OWN) == IN_TRANSIT
    assert after[0].encoding == "json+zstd+blob"


@pytest.mark.parametrize("id", ["m-1", "m-2"])
def test_what_another_run_is_sent_is_in_transit_under_an_id_of_the_message(id: str) -> None:
    (own, moving, known) = referring(OWN, replace(OWN, id="b-2"), IN_TRANSIT)
    signal = Recorded(seq=1, at=1, cause="c", event=SignalReceived(channel="", payload=moving, sender="s", number=1))
    options = RunOptions(memo=known)
    start = StartWorkflow(workflow_id="c", run_id="cr", name="n", args=own, options=options, signals=[signal])
    message = Message(id=id, namespace="ns", key="c", at=1, body=start)
    assert lends(message)
    sent, copies = lent(message)
    assert (sent, copies) == lent(message), "made again, it is the same"
    assert [source for source, _ in copies] == [OWN, replace(OWN, id="b-2")]
    assert sorted(referred(sent), key=str) == sorted([IN_TRANSIT, *(target for _, target in copies)], key=str)
    assert all(not target.run_id and target.sha256 == OWN.sha256 for _, target in copies)
    assert len({target.id for _, target in copies} | {"b", "b-2"}) == 4


def test_what_goes_to_workers_and_clients_is_the_runs_own() -> None:
    body: Any = ChildOutcome(workflow_id="w", run_id="r", command_id="c", generation=0, outcome="completed")
    assert not lends(Message(id="m", namespace="ns", key="w", at=1, body=body))
    assert blob_of(Payload("json", b"{}")) is None
