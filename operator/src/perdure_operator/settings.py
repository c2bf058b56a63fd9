"""Settings of the operator, from environment variables named PERDURE_OPERATOR_…."""

from __future__ import annotations

import socket

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict


class OperatorSettings(BaseSettings):
    """What the operator has to be told: the rest is in the resources."""

    model_config = SettingsConfigDict(
        env_prefix="PERDURE_OPERATOR_", extra="ignore", frozen=True, use_attribute_docstrings=True
    )

    namespace: str = Field("", pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$")
    """Whose resources are followed; empty: those of all namespaces, which needs a ClusterRole."""
    replicas: int = Field(1, ge=1)
    """How many operators run. If several, one leads and the others wait: see lease_namespace."""
    lease_namespace: str = "default"
    """Where the Lease `perdure-operator` is by which they agree on who leads: the operator's own namespace."""
    instance: str = Field(default_factory=socket.gethostname, min_length=1)
    """Names this process among them; a pod's name."""
    probe_host: str = "127.0.0.1"
    """Where /metrics, /healthz and /readyz listen; 0.0.0.0 in a pod."""
    probe_port: int = Field(9464, ge=0, le=65_535)
    """0: any free port, which is logged."""
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    """Lines of JSON on standard error, from this level on."""
    concurrency: int = Field(16, ge=1)
    """Resources that are looked at at a time; as many again of those that are in the midst of something, and
    of those that take long, since somebody does not answer."""
