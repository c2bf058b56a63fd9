"""The demo: publish three photographs in many sizes, while the worker and then the engine are killed.

Run it: make demo. It uses this machine only, and ends with exit code 1 if anything was lost or done twice.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
import time
import urllib.request
from pathlib import Path

from app import Album, publish_photograph
from contact_sheet import write_contact_sheet
from engine import Engine
from rich.console import Console
from servers import serve_photographs, serve_uploads
from show import Show

from perdure import Client, Handle

FOLDER = Path("build/demo")
PHOTOGRAPHS = {"noon": 3, "dusk": 1, "morning": 5}
PICTURES = len(PHOTOGRAPHS) * (3 + 20)
KILL_WORKER_AT, KILL_ENGINE_AT = PICTURES // 3, PICTURES * 2 // 3


def ledger() -> list[list[str]]:
    """[task id, URL] of every save so far."""
    path = FOLDER / "ledger.txt"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


async def start_runs(engine: Engine, photographs: str, uploads: str) -> list[str]:
    async with Client.connect(engine.database) as client:
        for name, seed in PHOTOGRAPHS.items():
            await client.start(publish_photograph, f"{photographs}/{seed}.jpg", uploads, name, id=name)
    return list(PHOTOGRAPHS)


async def kill_things(engine: Engine, show: Show) -> None:
    """`kill -9`, twice: nobody gets a chance to tidy up."""
    await show.until(lambda: len(ledger()) >= KILL_WORKER_AT)
    show.say(f"[bold red]kill -9[/] the worker (process {engine.worker}) at {len(ledger())} of {PICTURES} pictures")
    before = engine.worker
    os.kill(before, signal.SIGKILL)
    await show.until(lambda: engine.worker not in {0, before})
    show.say(f"         its supervisor has started another (process {engine.worker})")

    await show.until(lambda: len(ledger()) >= KILL_ENGINE_AT)
    show.say(f"[bold red]kill -9[/] the engine (process {engine.process}) at {len(ledger())} of {PICTURES} pictures")
    engine.kill()
    await engine.start()
    show.say(f"         started again on the same file (process {engine.process})")


async def collect(engine: Engine, ids: list[str]) -> list[Album]:
    async with Client.connect(engine.database) as client:
        handles: list[Handle[Album]] = [client.handle(publish_photograph, id) for id in ids]
        return [await handle.result(timeout=45) for handle in handles]


def problems(albums: list[Album]) -> list[str]:
    """What was lost or done twice; nothing, if Perdure keeps its word."""
    published = [url for album in albums for url in (*album.large, *album.thumbnails)]
    saved = ledger()
    urls, tasks = [url for _, url in saved], [task for task, _ in saved]
    found = []
    if len(published) != PICTURES or len(set(published)) != PICTURES:
        found.append(f"{len(set(published))} pictures published instead of {PICTURES}")
    if missing := set(published) - set(urls):
        found.append(f"{len(missing)} saves lost: {sorted(missing)[:3]}")
    if len(urls) != len(set(urls)) or len(tasks) != len(set(tasks)):
        found.append(f"{len(urls) - len(set(urls))} pictures saved twice")
    for url in published:
        with urllib.request.urlopen(url, timeout=5) as response:
            if not response.read().startswith(b"\xff\xd8"):
                found.append(f"{url} is no picture")
    return found


def summary(albums: list[Album], engine: Engine, sheet: Path, seconds: float) -> str:
    return f"""
[bold green]Nothing lost, nothing doubled:[/] {PICTURES} pictures published, {len(ledger())} saves by \
{len({task for task, _ in ledger()})} tasks, in {seconds:.1f} s
from the start of the engine to the contact sheet; what make installed before is not counted.

  contact sheet   {sheet}
  pictures        {FOLDER / "uploaded"}/   {", ".join(Path(url).name for url in albums[0].large)}, …
  ledger          {FOLDER / "ledger.txt"}

Look at it, and try next:
  [bold]. .venv/bin/activate; export PERDURE_DB={engine.database}[/]
  [bold]perdure dev examples/image_crop/app.py[/]         the engine again, on its file; then, in another terminal:
  [bold]perdure list[/]                                   its runs
  [bold]perdure show noon[/]                              one of them, with its history
  [bold]perdure run examples/hello.py hello '"you"'[/]    a workflow in one process, nothing kept

The workflow is examples/image_crop/app.py; examples/*.py has an idea each."""


async def main() -> int:
    started = time.monotonic()
    console = Console(highlight=False)
    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)
    os.environ["IMAGE_CROP_FOLDER"] = str(FOLDER.resolve())
    uploaded = FOLDER / "uploaded"
    uploaded.mkdir()
    photographs, uploads = serve_photographs(), serve_uploads(uploaded)

    async with Engine(Path(__file__).with_name("app.py"), FOLDER / "perdure.sqlite") as engine:
        with Show(console, PICTURES, lambda: len(ledger())) as show:
            show.say(f"engine (process {engine.process}) and worker (process {engine.worker}) are running")
            ids = await start_runs(engine, photographs, uploads)
            await kill_things(engine, show)
            collected = asyncio.ensure_future(collect(engine, ids))
            await show.until(collected.done, seconds=60)
            albums = await collected
        if found := await asyncio.to_thread(problems, albums):
            console.print("[bold red]FAILED[/]", *found, sep="\n  ")
            return 1
        sheet = write_contact_sheet(FOLDER / "contact-sheet.png", [*albums], uploaded)
        console.print(summary(albums, engine, sheet, time.monotonic() - started), soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
