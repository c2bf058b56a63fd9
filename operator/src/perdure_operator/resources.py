"""What users declared, as closed types. What the schema of a CRD cannot check is refused here, with a reason."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct, structs

from perdure_operator.objects import CONTAINER, GROUP, Key, Object, PoolKind

Provider = Literal["builtin", "none", "keda"]
Reason = Literal[
    "InvalidSpec", "ConnectionNotFound", "ConnectionInvalid", "SecretNotFound", "SecretForbidden",
    "RejectedByKubernetes", "KedaNotInstalled", "KedaForbidden", "WorkflowTaken",
]  # fmt: skip


class Rejected(Exception):
    """A declaration that cannot be followed; the message says what to change."""

    def __init__(self, reason: Reason, message: str) -> None:
        super().__init__(message)
        self.reason: Reason = reason


@dataclass(frozen=True, slots=True)
class Unfollowed:
    """Why a declaration is not followed, and which generation of it."""

    error: Rejected
    generation: int


class SecretKey(Struct, frozen=True):
    name: str
    key: str


class _Pulsar(Struct, frozen=True, rename="camel"):
    url: str
    tenant: str = "perdure"
    """Whose namespaces hold the topics."""
    token_secret: SecretKey | None = None
    oauth2_secret: SecretKey | None = None
    """Of JSON, as PERDURE_PULSAR_OAUTH2 takes it."""
    ca_secret: SecretKey | None = None


class _Api(Struct, frozen=True, rename="camel"):
    url: str
    token_secret: SecretKey
    """Workers let nobody drain them without one."""


class Connection(Struct, frozen=True):
    """How workers and the operator reach one Perdure."""

    pulsar: _Pulsar
    api: _Api
    namespace: str = "default"


class Scaling(Struct, frozen=True, rename="camel"):
    min: int = 0
    max: int = 10
    provider: Provider = "builtin"
    target_utilization: int = 80
    """Percent of the slots that should be in use."""
    cooldown_seconds: int = 300


class Defaults(Struct, frozen=True, rename="camel"):
    """Of runs whose start gives none of its own."""

    run_timeout_seconds: int | None = None
    retention_seconds: int | None = None


class _Spec(Struct, frozen=True, rename="camel"):
    tasks: tuple[str, ...] = ()
    workflow: str = ""
    connection: str = "default"
    app: str = "app.py"
    image: str | None = None
    template: dict[str, Any] | None = None
    image_pull_policy: str | None = None
    slots: int = 100
    resources: dict[str, Any] | None = None
    env: tuple[dict[str, Any], ...] = ()
    env_from: tuple[dict[str, Any], ...] = ()
    replicas: int | None = None
    scaling: Scaling = Scaling()
    rollout: Literal["pinned", "auto-upgrade"] = "pinned"
    defaults: Defaults = Defaults()
    drain_timeout_seconds: int = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """A `Worker` or a `Workflow`: pods that serve some names."""

    key: Key
    uid: str
    generation: int
    spec: _Spec

    @property
    def kind(self) -> PoolKind:
        return self.key.kind

    @property
    def served(self) -> Literal["task", "workflow"]:
        """As the API calls it."""
        return "task" if self.kind == "Worker" else "workflow"

    @property
    def names(self) -> tuple[str, ...]:
        """Of the tasks, or of the one workflow."""
        return self.spec.tasks if self.kind == "Worker" else (self.spec.workflow,)

    @property
    def pinned(self) -> bool:
        """Runs stay on the build that they began on."""
        return self.kind == "Workflow" and self.spec.rollout == "pinned"


def scaled_as(pool: Pool, item: Object) -> Pool:
    """With the number of pods that another scaler has written: it goes on while the rest cannot be followed."""
    replicas = (item.get("spec") or {}).get("replicas")
    return replace(pool, spec=structs.replace(pool.spec, replicas=replicas if isinstance(replicas, int) else None))


def unread_pool(key: Key, item: Object) -> Pool:
    """What is known of a declaration that cannot be followed: whose it is, and its connection."""
    connection = (item.get("spec") or {}).get("connection")
    spec = _Spec(connection=connection) if isinstance(connection, str) else _Spec()
    metadata = item["metadata"]
    return Pool(key=key, uid=metadata["uid"], generation=metadata.get("generation", 1), spec=spec)


def pool_of(key: Key, item: Object) -> Pool:
    """Raises Rejected."""
    try:
        spec = msgspec.convert(item.get("spec") or {}, _Spec)
    except msgspec.ValidationError as error:
        raise Rejected("InvalidSpec", f"spec: {error}") from error
    _check_spec(key.kind, spec)
    metadata = item["metadata"]
    return Pool(key=key, uid=metadata["uid"], generation=metadata.get("generation", 1), spec=spec)


_LABEL = "[A-Za-z0-9_]([-A-Za-z0-9_]{0,61}[A-Za-z0-9_])?"
API_URL = (
    rf"^https?://({_LABEL}(\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]+\])(:[0-9]{{1,5}})?(/[-A-Za-z0-9._~%!$&'()*+,;=:@/]*)?$"
)
"""As the definition of Connections has it: what is asked is appended, and user and password would be in messages."""


def connection_of(item: Object) -> Connection:
    """Raises Rejected."""
    try:
        connection = msgspec.convert(item.get("spec") or {}, Connection)
    except msgspec.ValidationError as error:
        raise _invalid(item, f"spec: {error}") from error
    if not _is_api_url(connection.api.url):  # it is not shown: there may be a password in it
        raise _invalid(
            item,
            "spec.api.url: write http:// or https://, a host, and where needed :port and /path; no user or password,"
            " query, fragment, space or empty part of a name",
        )
    return connection


def _invalid(item: Object, what: str) -> Rejected:
    return Rejected("ConnectionInvalid", f"Connection {item['metadata']['name']!r}: {what}")


def _is_api_url(url: str) -> bool:
    try:
        return re.fullmatch(API_URL, url) is not None and urlsplit(url).port != 0
    except ValueError:  # a port above 65535
        return False


NAME = r"^[A-Za-z_][A-Za-z0-9_.\-]{0,199}$"
"""Of a task or workflow, as the API and the definitions of resources have it."""


def _check_spec(kind: PoolKind, spec: _Spec) -> None:
    if (spec.image is None) == (spec.template is None):
        raise Rejected("InvalidSpec", "spec: give exactly one of image and template")
    if kind == "Worker" and not spec.tasks:
        raise Rejected("InvalidSpec", "spec.tasks: name at least one task")
    if kind == "Workflow" and not spec.workflow:
        raise Rejected("InvalidSpec", "spec.workflow: name the workflow")
    for name in spec.tasks or (spec.workflow,):
        if re.fullmatch(NAME, name) is None:
            raise Rejected(
                "InvalidSpec",
                f"{name!r} is no name of a {'task' if spec.tasks else 'workflow'}: 1 to 200 of A-Z, a-z, 0-9, _ . and -"
                " are one, of which the first is a letter or _",
            )
    if spec.template is not None:
        _check_template(spec.template)
    _check_env(spec)


def _check_template(template: dict[str, Any]) -> None:
    pod = template.get("spec")
    containers = pod.get("containers") if isinstance(pod, dict) else None
    if not isinstance(containers, list) or not all(isinstance(each, dict) for each in containers):
        raise Rejected("InvalidSpec", "spec.template.spec.containers: a list of containers is expected")
    ours = [each for each in containers if each.get("name") == CONTAINER]
    if len(ours) != 1:
        raise Rejected("InvalidSpec", f"spec.template: exactly one container must be named {CONTAINER!r}")
    if not ours[0].get("image"):
        raise Rejected("InvalidSpec", f"spec.template: container {CONTAINER!r} needs an image")
    if pod is not None and pod.get("restartPolicy", "Always") != "Always":
        raise Rejected("InvalidSpec", "spec.template.spec.restartPolicy: workers are restarted Always")
    labels = (template.get("metadata") or {}).get("labels") or {}
    if taken := sorted(name for name in labels if name.startswith(f"{GROUP}/")):
        raise Rejected("InvalidSpec", f"spec.template.metadata.labels: {taken[0]} is given by the operator")


def _check_env(spec: _Spec) -> None:
    """The operator says where a worker connects and what it serves; a user's word would be overridden silently."""
    given = list(spec.env)
    for each in ((spec.template or {}).get("spec") or {}).get("containers", []):
        if each.get("name") == CONTAINER:
            given += each.get("env") or []
    for entry in given:
        if entry.get("name") in RESERVED:
            raise Rejected("InvalidSpec", f"env: {entry['name']} is set by the operator; leave it out")


RESERVED = frozenset(
    {
        "PERDURE_APP", "PERDURE_BUILD", "PERDURE_TASKS", "PERDURE_WORKFLOWS", "PERDURE_SLOTS", "PERDURE_GRACE_SECONDS",
        "PERDURE_NAMESPACE", "PERDURE_PULSAR_URL", "PERDURE_PULSAR_TENANT", "PERDURE_PULSAR_TOKEN",
        "PERDURE_PULSAR_OAUTH2", "PERDURE_PULSAR_TLS_CA", "PERDURE_URL", "PERDURE_TOKEN", "PERDURE_PROBE_HOST",
        "PERDURE_PROBE_PORT", "PERDURE_INSTANCE", "PERDURE_DELETION_COST", "PYTHONHASHSEED",
    }
)  # fmt: skip
"""Variables of a worker which are the operator's to set."""
