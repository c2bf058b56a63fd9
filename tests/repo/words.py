"""What no text of the repository may say. The patterns are put together here, so that they do not match themselves."""

from __future__ import annotations

import re
from collections.abc import Iterator

_REGISTRIES = [
    ("pypi", "org"),
    ("pythonhosted", "org"),
    ("npmjs", "org"),
    ("npmjs", "com"),
    ("yarnpkg", "com"),
    ("proxy", "golang.org"),
    ("registry.k8s", "io"),
    ("docker", "io"),
    ("quay", "io"),
    ("ghcr", "io"),
    ("repo", "maven.apache.org"),
    ("crates", "io"),
]
_PATTERNS = {
    "names a registry": [
        *(re.escape(f"{name}.{top}") for name, top in _REGISTRIES),
        "--(extra-)?" + "index-url",
        "artifactory" + r"\.",
        r"https?://\S+/" + r"simple\b",
    ],
    "is a path of one machine": [
        r"(?<![\w.$)])/" + r"(work|root|Users|home/\w+)/",
        r"(?<![\w.$)])/" + r"tmp/(?!\W)\w+",
        r"\b[A-Z]:" + r"\\\\?Users",
    ],
    "leads out of the repository": [
        r"\.\./" + "shared",
        r"\bshared/" + r"(design|reference|servers|cluster|prototypes)",
    ],
}
_PREBUILT = ("tests/cluster/kube.sh", "/../" + "shared/" + "cluster/prebuilt")
"""The one place that may look beside the repository: binaries that only save a build, wherever they happen to be."""
_COMPILED = {what: re.compile("|".join(patterns)) for what, patterns in _PATTERNS.items()}


def violations(name: str, text: str) -> Iterator[str]:
    if name == _PREBUILT[0]:
        text = text.replace(_PREBUILT[1], "", 1)
    for what, pattern in _COMPILED.items():
        for match in pattern.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            yield f"{name}:{line}: {match.group()!r} {what}"
