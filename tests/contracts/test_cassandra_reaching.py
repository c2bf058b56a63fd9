"""Why there is no session of a Cassandra, where no Cassandra is needed to see it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from perdure_runtime.adapters.cassandra.reaching import open_session
from perdure_runtime.adapters.cassandra.settings import CassandraSettings
from perdure_runtime.errors import StorageUnavailable


def test_a_certificate_that_cannot_be_read_is_told_with_its_setting(tmp_path: Path) -> None:
    settings = CassandraSettings(tls_ca=str(tmp_path / "missing.pem"))
    with pytest.raises(StorageUnavailable, match=r"No such file.*PERDURE_CASSANDRA_TLS_CA"):
        asyncio.run(open_session(settings))
    (tmp_path / "no.pem").write_text("no certificate")
    with pytest.raises(StorageUnavailable, match=r"by TLS.*PERDURE_CASSANDRA_TLS_CA"):
        asyncio.run(open_session(CassandraSettings(tls_ca=str(tmp_path / "no.pem"))))
