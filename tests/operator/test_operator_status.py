"""What is told of a pool."""

from __future__ import annotations

from perdure_operator.resources import Rejected, Unfollowed
from perdure_operator.status import Condition, conditions, rejected, timestamp

FIRST, LATER = 0, 60_000


def test_a_condition_keeps_its_time_until_its_status_changes() -> None:
    begun = conditions([Condition("Available", "True", "PodsAvailable", "")], [], 1, FIRST)
    told = conditions([Condition("Available", "True", "ScaledToZero", "asleep")], begun, 2, LATER)
    assert [(c["reason"], c["observedGeneration"], c["lastTransitionTime"]) for c in told] == [
        ("ScaledToZero", 2, timestamp(FIRST))
    ]
    changed = conditions([Condition("Available", "False", "NoPodAvailable", "")], told, 2, LATER)
    assert changed[0]["lastTransitionTime"] == timestamp(LATER)


def test_what_is_rejected_says_why_and_keeps_the_rest() -> None:
    before = {"replicas": 3, "conditions": conditions([Condition("Available", "True", "PodsAvailable", "")], [], 1, 0)}
    unfollowed = Unfollowed(Rejected("InvalidSpec", "no image"), 2)
    told = rejected(unfollowed, before, LATER)
    assert (told["replicas"], told["observedGeneration"]) == (3, 2)
    assert {c["type"]: (c["status"], c["reason"], c["message"]) for c in told["conditions"]} == {
        "Available": ("True", "PodsAvailable", ""),
        "Accepted": ("False", "InvalidSpec", "no image"),
    }
    assert [c["observedGeneration"] for c in told["conditions"]] == [1, 2]
    assert rejected(unfollowed, told, LATER + 5) == told
