"""How to reach a Pulsar cluster."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PulsarSettings:
    url: str = "pulsar://127.0.0.1:6650"
    """Of the brokers or a proxy; `pulsar+ssl://` for TLS."""
    admin_url: str = "http://127.0.0.1:8080"
    """Of the REST API: asked by `perdure admin` alone."""
    listener: str = ""
    """Which of the brokers' advertised addresses to use, where they have several; empty: their own."""
    tenant: str = "perdure"
    """Each Perdure namespace is a Pulsar namespace of this tenant, and one more for its inboxes."""
    token: str = ""
    """A token (JWT) to authenticate with; empty: none."""
    oauth2: str = ""
    """JSON of the client's OAuth2 parameters (issuer_url, private_key, audience, scope); empty: none."""
    tls_ca: str = ""
    """File of the certificate authority that signed the brokers' certificates; empty: the system's."""
    tls_certificate: str = ""
    tls_key: str = ""

    def __repr__(self) -> str:
        """Without the secrets: a repr ends in logs."""
        return f"PulsarSettings(url={self.url!r}, tenant={self.tenant!r})"
