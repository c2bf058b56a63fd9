"""Where a topic of Perdure lies in Pulsar, and who reads it."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import quote

from perdure_runtime.ports import SubscriptionType
from perdure_schemas import topics

_INBOX = topics.inbox("")
_DEAD_LETTERS = topics.dead_letters("")
LETTERS_SUBSCRIPTION = "dead-letters"
BEGUN = "worker-begun"
"""Where workers tell each other what they began; see `begun`."""
_WORKERS = "workers"


@dataclass(frozen=True, slots=True)
class Family:
    """What topics of one kind have in common."""

    subscription: str
    """The one that must not miss what is published before its first consumer comes; empty: nobody has to."""
    type: SubscriptionType
    keyed: bool
    """One key's messages go to one consumer: batches hold one key each."""
    prefetch: int
    """Messages a consumer has in store. 0: it asks for one at a time: what it cannot begin waits for another."""
    fetchers: int = 1
    """Consumers that one process has of the topic, if its subscription has few: so many messages can be asked for at a
    time."""
    batched: bool = True
    """A consumer that asks for one at a time cannot take batches; nor can who looks at what waits, one by one."""

    @property
    def deadly(self) -> bool:
        """Whether user code runs on its messages, which may kill who runs it."""
        return self.subscription == _WORKERS


_ENGINE_PREFETCH = 1_000
_FAMILIES: dict[str, Family] = {
    topics.WORKFLOW_ENGINE: Family("workflow-engine", "key-shared", True, _ENGINE_PREFETCH),
    topics.TASK_ENGINE: Family("task-engine", "key-shared", True, _ENGINE_PREFETCH),
    topics.TIMERS: Family("timers", "failover", False, _ENGINE_PREFETCH),
    topics.WORKFLOW_EVENTS: Family("projector", "failover", False, _ENGINE_PREFETCH),
    topics.TASK_EVENTS: Family("projector", "failover", False, _ENGINE_PREFETCH),
    topics.WORKER_HELLO: Family("", "exclusive", False, 100),
    BEGUN: Family("", "exclusive", False, 0),
}
_INBOXES = Family("", "exclusive", False, 100)
_LETTERS = Family(LETTERS_SUBSCRIPTION, "shared", False, 100, batched=False)
_TURNS = Family(_WORKERS, "key-shared", True, 100)
_ATTEMPTS = Family(_WORKERS, "shared", False, 0, fetchers=8, batched=False)


def family(topic: str) -> Family:
    """Raises ValueError for a topic of no known kind."""
    found = _FAMILIES.get(topic)
    if found is not None:
        return found
    for prefix, kind in (
        (_INBOX, _INBOXES), (_DEAD_LETTERS, _LETTERS),
        (topics.workflow_run(""), _TURNS), (topics.task_run(""), _ATTEMPTS),
    ):  # fmt: skip
        if topic.startswith(prefix):
            return kind
    raise ValueError(f"{topic!r} is no topic of Perdure")


def is_letters(topic: str) -> bool:
    return topic.startswith(_DEAD_LETTERS)


def is_inbox(topic: str) -> bool:
    return topic.startswith(_INBOX)


def address(tenant: str, namespace: str, topic: str) -> str:
    """The topic's name in Pulsar. Inboxes have a Pulsar namespace of their own, whose empty topics vanish."""
    place = inbox_namespace(namespace) if is_inbox(topic) else namespace
    return f"persistent://{tenant}/{place}/{quote(topic, safe='-._~')}"


def inbox_namespace(namespace: str) -> str:
    return f"{namespace}.inboxes"
