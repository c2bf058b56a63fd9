"""Settings of the services, from environment variables named PERDURE_…; every mistake is told at once."""

from __future__ import annotations

import socket
import sys
from typing import Annotated, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from perdure_runtime.adapters.cassandra.settings import CassandraSettings
from perdure_runtime.adapters.pulsar.settings import PulsarSettings

_T = TypeVar("_T", bound="BrokerSettings")
_Texts = Annotated[tuple[str, ...], NoDecode]
"""Written with commas between them."""

EXIT_SETTINGS = 78
"""EX_CONFIG of sysexits.h: restarting will not help."""


class BrokerSettings(BaseSettings):
    """How a process reaches Pulsar: all that a worker needs."""

    model_config = SettingsConfigDict(env_prefix="PERDURE_", extra="ignore", frozen=True, use_attribute_docstrings=True)

    namespace: str = Field("default", pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")
    """Whose runs this process serves. A DNS label, since it becomes part of names everywhere."""
    pulsar_url: str = "pulsar://127.0.0.1:6650"
    """Of the brokers or a proxy; pulsar+ssl:// for TLS."""
    pulsar_admin_url: str = "http://127.0.0.1:8080"
    """Of Pulsar's REST API: `perdure admin` and the API's backlog ask it."""
    pulsar_listener: str = ""
    """Which of the brokers' advertised listeners to use; empty: their own address."""
    pulsar_tenant: str = "perdure"
    """Whose namespaces hold the topics."""
    pulsar_token: SecretStr = SecretStr("")
    """A JWT to authenticate with; empty: none."""
    pulsar_oauth2: SecretStr = SecretStr("")
    """JSON of OAuth2 parameters; empty: none."""
    pulsar_tls_ca: str = ""
    """A file of certificates to trust; empty: the system's."""
    pulsar_tls_certificate: str = ""
    """A file, to authenticate by TLS; empty: none."""
    pulsar_tls_key: str = ""
    """The key of that certificate."""
    instance: str = Field(default_factory=socket.gethostname, min_length=1)
    """Names this process among the replicas; a pod's name."""
    probe_host: str = "127.0.0.1"
    """Where /metrics, /healthz and /readyz listen, and /load of a worker; 0.0.0.0 in a pod."""
    probe_port: int = Field(9464, ge=0, le=65_535)
    """0: any free port, which is logged."""
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """Lines of JSON on standard error, from this level on."""
    grace_seconds: float = Field(25.0, gt=0)
    """What SIGTERM gives to work in progress; below a pod's terminationGracePeriodSeconds (30)."""

    def pulsar(self) -> PulsarSettings:
        return PulsarSettings(
            url=self.pulsar_url,
            admin_url=self.pulsar_admin_url,
            listener=self.pulsar_listener,
            tenant=self.pulsar_tenant,
            token=self.pulsar_token.get_secret_value(),
            oauth2=self.pulsar_oauth2.get_secret_value(),
            tls_ca=self.pulsar_tls_ca,
            tls_certificate=self.pulsar_tls_certificate,
            tls_key=self.pulsar_tls_key,
        )


class WorkerSettings(BrokerSettings):
    """What a worker needs besides a broker."""

    build: str = Field("dev", min_length=1)
    """What this image's code is called: runs pinned to it come here."""
    tasks: _Texts = ()
    """Names of the tasks to run, with commas between them, and of no others; empty: all that the app has, but none if
    workflows are named."""
    workflows: _Texts = ()
    """Names of the workflows to run, in the same way; empty: all that the app has, but none if tasks are named."""
    slots: int = Field(100, ge=1)
    """Attempts of tasks at a time."""
    url: str = ""
    """Of the API, where a worker stores and reads values above 256 KB; empty: they travel in messages, up to 990,000
    bytes, and what others have stored cannot be read."""
    token: SecretStr = SecretStr("")
    """What the API asks callers to show, and what the worker asks of who tells it to take no more work; empty: nothing,
    and nobody may tell it."""
    deletion_cost: str = ""
    """The annotation `controller.kubernetes.io/pod-deletion-cost` of its pod, as the operator hands it on. A worker
    that begins with one is in a pod which was chosen to be deleted: it takes no work until it is told to. Empty: it was
    not."""

    @field_validator("tasks", "workflows", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        return _split(value)


class ServiceSettings(BrokerSettings):
    """How a service reaches Pulsar and Cassandra."""

    cassandra_hosts: _Texts = ("127.0.0.1",)
    """Contact points, with commas between them."""
    cassandra_port: int = Field(9042, ge=1, le=65_535)
    """The same on every node."""
    cassandra_datacenter: str = "datacenter1"
    """The local one: its quorum decides."""
    cassandra_keyspace: str = Field("perdure", pattern="^[a-z][a-z0-9_]{0,47}$")
    """Where the tables are."""
    cassandra_replication: int = Field(3, ge=1)
    """Copies, when `perdure admin migrate` makes the keyspace; 1 for a single node."""
    cassandra_username: str = ""
    """Empty: no authentication."""
    cassandra_password: SecretStr = SecretStr("")
    """Of that user."""
    cassandra_tls_ca: str = ""
    """A file of certificates to trust; empty: no TLS."""
    cassandra_tls_certificate: str = ""
    """A file, to authenticate by TLS; empty: none."""
    cassandra_tls_key: str = ""
    """The key of that certificate."""

    @field_validator("cassandra_hosts", mode="before")
    @classmethod
    def _split_hosts(cls, value: object) -> object:
        return _split(value)

    def cassandra(self) -> CassandraSettings:
        return CassandraSettings(
            hosts=self.cassandra_hosts,
            port=self.cassandra_port,
            datacenter=self.cassandra_datacenter,
            keyspace=self.cassandra_keyspace,
            replication=self.cassandra_replication,
            username=self.cassandra_username,
            password=self.cassandra_password.get_secret_value(),
            tls_ca=self.cassandra_tls_ca,
            tls_certificate=self.cassandra_tls_certificate,
            tls_key=self.cassandra_tls_key,
        )


def _split(value: object) -> object:
    return tuple(text.strip() for text in value.split(",") if text.strip()) if isinstance(value, str) else value


def read_settings(kind: type[_T], **given: object) -> _T:
    """The settings of this process's environment, but for those given; ends the process with one line per mistake."""
    try:
        return kind.model_validate(given)
    except ValidationError as error:
        sys.stderr.writelines(f"{mistake}\n" for mistake in mistakes(error))
        raise SystemExit(EXIT_SETTINGS) from None


def mistakes(error: ValidationError) -> list[str]:
    """One line each, with the variable's name and without its value, which may be a secret."""
    return [
        f"{'_'.join(('PERDURE', *(str(part).upper() for part in mistake['loc'])))}: {mistake['msg']}"
        for mistake in error.errors(include_url=False, include_input=False)
    ]
