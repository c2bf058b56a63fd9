"""Publish a photograph in many sizes.

Five tasks do the work; one workflow says in which order. Whatever is killed meanwhile, the workflow
goes on where it was: a task that has an outcome is not dispatched again.
"""

from __future__ import annotations

import fcntl
import io
import os
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from perdure import Retry, all_of, branch, current_task, task, workflow

PATIENT = Retry(attempts=5, initial=0.2)
"""For what talks to a server: up to five attempts, 0.2 s, 0.4 s, … apart."""


@dataclass
class Album:
    """What the workflow returns."""

    large: list[str]
    thumbnails: list[str]


def studio() -> Path:
    """Where the pictures in work lie. Tasks pass names, not pixels: what goes through the history stays small."""
    return Path(os.environ.get("IMAGE_CROP_FOLDER", "build/demo"))


@task(retry=PATIENT, timeout=10)
def download(url: str, album: str) -> str:
    with urllib.request.urlopen(url, timeout=5) as response:
        return _keep(f"{album}.jpg", response.read())


@task
def crop(picture: str) -> str:
    """The largest square in the middle."""
    with Image.open(studio() / picture) as image:
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return _keep(picture.replace(".jpg", "-square.jpg"), _jpeg(image.crop((left, top, left + side, top + side))))


@task
def resize(picture: str, size: int) -> str:
    with Image.open(studio() / picture) as image:
        return _keep(picture.replace("-square.jpg", f"-{size}.jpg"), _jpeg(image.resize((size, size))))


@task(retry=PATIENT, timeout=10)
def upload(picture: str, server: str) -> str:
    url = f"{server}/{picture}"
    request = urllib.request.Request(url, (studio() / picture).read_bytes(), method="PUT")
    with urllib.request.urlopen(request, timeout=5):
        return url


@task
def save(url: str) -> None:
    """Adds a line to the ledger, once.

    An attempt may run twice when its worker dies before it could tell the outcome. So what must not happen
    twice is keyed by the task's id, which all attempts share.
    """
    with (studio() / "ledger.txt").open("a+") as ledger:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        ledger.seek(0)
        entry = f"{current_task().id} {url}\n"
        if entry not in ledger:
            ledger.write(entry)


@workflow
async def publish_photograph(url: str, server: str, album: str) -> Album:
    square = await crop(await download(url, album))

    async def publish(size: int) -> str:
        link = await upload(await resize(square, size), server)
        await save(link)
        return link

    # Three sizes in three branches: each goes at its own pace.
    large = await all_of(branch(publish(320)), branch(publish(480)), branch(publish(640)))

    # Then every size from 10 to 200.
    thumbnails = await all_of(*[branch(publish(size)) for size in range(10, 201, 10)])
    return Album(list(large), list(thumbnails))


def _keep(name: str, data: bytes) -> str:
    """Writes whole files only, so that a kill leaves the old one or the new one, never half of one."""
    partial = studio() / f"{name}.{os.getpid()}.part"
    partial.write_bytes(data)
    partial.replace(studio() / name)
    return name


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()
