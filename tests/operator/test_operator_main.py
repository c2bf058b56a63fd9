"""The process: what it says of its settings."""

from __future__ import annotations

import pytest

from perdure_operator.__main__ import EXIT_SETTINGS, main


def test_every_mistake_in_the_settings_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PERDURE_OPERATOR_NAMESPACE", "Not A Label")
    monkeypatch.setenv("PERDURE_OPERATOR_REPLICAS", "none")
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == EXIT_SETTINGS
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["PERDURE_OPERATOR_NAMESPACE", "PERDURE_OPERATOR_REPLICAS"]
