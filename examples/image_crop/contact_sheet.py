"""All published pictures on one, to look at."""

from __future__ import annotations

from pathlib import Path

from app import Album
from PIL import Image

MARGIN = 12
PAPER = (248, 246, 240)


def write_contact_sheet(target: Path, albums: list[Album], uploaded: Path) -> Path:
    """One row of large pictures per album, its thumbnails below, at their true sizes."""
    rows = [row for album in albums for row in (album.large, album.thumbnails[10:], album.thumbnails[:10])]
    pictures = [[Image.open(uploaded / Path(url).name) for url in row] for row in rows]
    width = max(sum(picture.width + MARGIN for picture in row) for row in pictures) + MARGIN
    height = sum(max(picture.height for picture in row) + MARGIN for row in pictures) + MARGIN
    sheet = Image.new("RGB", (width, height), PAPER)
    top = MARGIN
    for row in pictures:
        left, tallest = MARGIN, max(picture.height for picture in row)
        for picture in row:
            sheet.paste(picture, (left, top + tallest - picture.height))
            left += picture.width + MARGIN
        top += tallest + MARGIN
    sheet.save(target)
    return target
