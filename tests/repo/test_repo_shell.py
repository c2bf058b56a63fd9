"""Shell scripts are what shellcheck takes for sound."""

from __future__ import annotations

from tests.repo import commands, tree

FOLDERS = ("tests/cluster", "services")
SCRIPTS = [path for folder in FOLDERS for path in sorted((tree.ROOT / folder).glob("*.sh"))]


def test_shell_scripts_are_sound() -> None:
    assert SCRIPTS
    commands.check(["shellcheck", "--external-sources", *SCRIPTS])
