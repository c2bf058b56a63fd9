"""What is told of a Pulsar that cannot be used."""

from __future__ import annotations

import asyncio
from pathlib import Path

from perdure_runtime.adapters.pulsar.greeting import trouble
from perdure_runtime.adapters.pulsar.settings import PulsarSettings


def test_a_certificate_that_is_not_there_is_not_told_as_a_broker_that_is_away(tmp_path: Path) -> None:
    settings = PulsarSettings(url="pulsar+ssl://127.0.0.1:6651", tls_ca=str(tmp_path / "ca.pem"))
    told = asyncio.run(trouble(settings))
    assert "cannot be reached" not in told
    assert "PERDURE_PULSAR_TLS_CA" in told
