"""All published pictures on one, to look at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from app import Album
from PIL import Image, ImageDraw, ImageFont

MARGIN = 12
PAPER, INK = (248, 246, 240), (60, 60, 58)
TITLE_PIXELS = 32


def write_contact_sheet(target: Path, albums: list[Album], uploaded: Path) -> Path:
    """Per album its name, the large pictures, the largest first, and the thumbnails, all at their true sizes."""
    blocks = [_block(album, uploaded) for album in albums]
    size = max(block.width for block in blocks), sum(block.height for block in blocks)
    sheet = Image.new("RGB", size, PAPER)
    top = 0
    for block in blocks:
        sheet.paste(block, (0, top))
        top += block.height
    sheet.save(target)
    return target


def _block(album: Album, uploaded: Path) -> Image.Image:
    """The small thumbnails go where the smaller ones of the large pictures leave room."""
    large, middle, small = (
        [Image.open(uploaded / Path(url).name) for url in row]
        for row in (album.large[::-1], album.thumbnails[10:], album.thumbnails[:10])
    )
    width = max(_width(large), _width(middle))
    bottom = MARGIN + large[0].height
    block = Image.new("RGB", (width, bottom + MARGIN + middle[-1].height + MARGIN), PAPER)
    beside = MARGIN + large[0].width
    _paste(block, large, 0, bottom)
    _paste(block, small, beside, MARGIN + TITLE_PIXELS + MARGIN + small[-1].height)
    _paste(block, middle, 0, block.height - MARGIN)
    font = ImageFont.load_default(TITLE_PIXELS)
    name = Path(album.large[0]).stem.rpartition("-")[0]
    ImageDraw.Draw(block).text((beside + MARGIN, MARGIN), name, INK, font)
    return block


def _width(row: Sequence[Image.Image]) -> int:
    return MARGIN + sum(picture.width + MARGIN for picture in row)


def _paste(sheet: Image.Image, row: Sequence[Image.Image], left: int, bottom: int) -> None:
    for picture in row:
        left += MARGIN
        sheet.paste(picture, (left, bottom - picture.height))
        left += picture.width
