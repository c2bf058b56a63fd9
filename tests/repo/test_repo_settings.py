"""The page of settings is what the classes say; mistakes are told all at once."""

from __future__ import annotations

import pytest

from perdure_runtime.service.settings import EXIT_SETTINGS, ServiceSettings, read_settings
from tests.repo.settings_page import PAGE, page


def test_the_page_is_what_the_classes_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run: python -m tests.repo.settings_page"


def test_every_mistake_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("PERDURE_NAMESPACE", "Not A Label")
    monkeypatch.setenv("PERDURE_PROBE_PORT", "many")
    with pytest.raises(SystemExit) as ended:
        read_settings(ServiceSettings)
    assert ended.value.code == EXIT_SETTINGS
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["PERDURE_NAMESPACE", "PERDURE_PROBE_PORT"]


def test_hosts_have_commas_between_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PERDURE_CASSANDRA_HOSTS", "a, b")
    assert read_settings(ServiceSettings).cassandra().hosts == ("a", "b")
