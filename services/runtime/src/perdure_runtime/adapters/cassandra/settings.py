"""How to reach a Cassandra cluster."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class CassandraSettings:
    hosts: tuple[str, ...] = ("127.0.0.1",)
    """Contact points; the driver finds the other nodes through them."""
    port: int = 9042
    datacenter: str = "datacenter1"
    """The local data center: quorums are of it alone."""
    keyspace: str = "perdure"
    replication: int = 3
    """Copies per data center, used only when `migrate` makes the keyspace. One node needs 1."""
    username: str = ""
    """Empty: no authentication."""
    password: str = ""
    tls_ca: str = ""
    """File of the certificate authority that signed the nodes' certificates; empty: no TLS."""
    tls_certificate: str = ""
    """The client's own certificate, where the nodes ask for one."""
    tls_key: str = ""
    request_timeout_s: float = 10.0
    """After that a read failed, and the outcome of a conditional write is unknown."""

    def __repr__(self) -> str:
        """Without the password: a repr ends in logs."""
        return f"CassandraSettings(hosts={self.hosts}, port={self.port}, keyspace={self.keyspace!r})"
