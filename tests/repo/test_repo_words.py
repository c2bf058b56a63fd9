"""The repository stands alone: it names no registry, no path of one machine and nothing outside itself."""

from __future__ import annotations

import pytest

from tests.repo import tree, words


def test_nothing_forbidden_is_said() -> None:
    found = [violation for name, text in tree.texts() for violation in words.violations(name, text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("see https://py" + "pi.org/project/x", "registry"),
        ("--hash=x # files.python" + "hosted.org", "registry"),
        ("--index" + "-url https://mirror.example", "registry"),
        ("FROM ghcr" + ".io/x/y", "registry"),
        ("cd /ro" + "ot/x", "machine"),
        ("open('/wo" + "rk/main')", "machine"),
        ("/home/" + "ann/.cache", "machine"),
        ("/tm" + "p/x.sqlite", "machine"),
        ("see ../sha" + "red/README.md", "leads out"),
        ("as sha" + "red/design says", "leads out"),
    ],
)
def test_what_is_forbidden_is_found(text: str, expected: str) -> None:
    found = list(words.violations("sample.md", f"first line\n{text}\n"))
    assert found
    assert "sample.md:2" in found[0]
    assert expected in found[0]


@pytest.mark.parametrize(
    "text", ["a network/root/x", "$HOME/work/x", "state is shared/owned", "http://127.0.0.1:8080/"]
)
def test_what_only_looks_alike_passes(text: str) -> None:
    assert not list(words.violations("sample.md", text))
