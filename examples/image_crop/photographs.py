"""Landscapes drawn with Pillow, so that the demo has photographs to work on without any download.

The same seed draws the same picture, byte for byte.
"""

from __future__ import annotations

import io
import math
from random import Random

from PIL import Image, ImageChops, ImageDraw, ImageFilter

Colour = tuple[int, int, int]

WIDTH, HEIGHT = 1200, 800
LEVELS = range(256)
"""Of a channel."""
HORIZON = int(HEIGHT * 0.62)
SKIES: list[tuple[Colour, Colour, Colour]] = [  # zenith, horizon, the far hills
    ((38, 84, 160), (214, 226, 232), (142, 164, 186)),  # noon
    ((44, 38, 92), (250, 164, 96), (150, 104, 122)),  # dusk
    ((70, 110, 150), (252, 220, 190), (168, 158, 172)),  # morning
]


def photograph(seed: int) -> bytes:
    """A JPEG of WIDTH x HEIGHT: sky, sun, clouds, four ranges of hills, a lake, a forest, film grain."""
    random = Random(seed)
    zenith, glow, far = SKIES[seed % len(SKIES)]
    picture = _gradient(zenith, glow)
    _sun(picture, random)
    _clouds(picture, random)
    for depth in range(4):
        _hills(picture, random, depth, far)
    _lake(picture, random)
    _forest(picture, random)
    grain = Image.frombytes("L", (WIDTH, HEIGHT), random.randbytes(WIDTH * HEIGHT))
    noise = grain.point([value // 14 for value in LEVELS])
    grained = ImageChops.add(picture, Image.merge("RGB", (noise, noise, noise)), 1, -9)
    buffer = io.BytesIO()
    grained.save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _mix(a: Colour, b: Colour, share: float) -> Colour:
    red, green, blue = (round(x + (y - x) * share) for x, y in zip(a, b, strict=True))
    return red, green, blue


def _gradient(top: Colour, bottom: Colour) -> Image.Image:
    mask = Image.linear_gradient("L").resize((WIDTH, HORIZON))
    picture = Image.new("RGB", (WIDTH, HEIGHT), bottom)
    picture.paste(Image.composite(Image.new("RGB", mask.size, bottom), Image.new("RGB", mask.size, top), mask))
    return picture


def _sun(picture: Image.Image, random: Random) -> None:
    x, y = random.randint(WIDTH // 6, WIDTH * 5 // 6), random.randint(HEIGHT // 6, HORIZON - 150)
    halo = Image.radial_gradient("L").resize((900, 900)).point([max(0, 190 - value * 2) for value in LEVELS])
    picture.paste((255, 238, 200), (x - 450, y - 450), halo)
    ImageDraw.Draw(picture).ellipse((x - 42, y - 42, x + 42, y + 42), fill=(255, 250, 232))


def _clouds(picture: Image.Image, random: Random) -> None:
    layers = [Image.frombytes("L", (n, n), random.randbytes(n * n)) for n in (10, 22, 55)]
    size = (WIDTH, HORIZON)
    mask = layers[0].resize(size, Image.Resampling.BICUBIC)
    for layer in layers[1:]:
        mask = Image.blend(mask, layer.resize(size, Image.Resampling.BICUBIC), 0.35)
    picture.paste((255, 252, 246), (0, 0), mask.point([max(0, min(200, (value - 140) * 4)) for value in LEVELS]))


def _hills(picture: Image.Image, random: Random, depth: int, far: Colour) -> None:
    """One range: the nearer, the lower, rougher and greener."""
    near = (34, 58, 40)
    base = HORIZON - 130 + depth * 48
    waves = [
        (random.uniform(50, 90) * 0.6**octave, 2**octave * random.uniform(0.7, 1.3), random.uniform(0, math.tau))
        for octave in range(7)
    ]
    ridge = [
        (x, base - sum(height * math.sin(x / WIDTH * math.tau * freq + phase) for height, freq, phase in waves) * 0.6)
        for x in range(0, WIDTH + 4, 4)
    ]
    ImageDraw.Draw(picture).polygon([(0, HEIGHT), *ridge, (WIDTH, HEIGHT)], fill=_mix(far, near, depth / 3.4))


def _lake(picture: Image.Image, random: Random) -> None:
    """The lower part mirrors what stands above the shore, darkened, blurred and rippled."""
    shore = HEIGHT - 170
    mirror = picture.crop((0, shore - 170, WIDTH, shore)).transpose(Image.Transpose.FLIP_TOP_BOTTOM)
    water = Image.blend(mirror.filter(ImageFilter.GaussianBlur(3)), Image.new("RGB", mirror.size, (30, 62, 92)), 0.45)
    draw = ImageDraw.Draw(water)
    for _ in range(260):
        y = int(water.height * random.random() ** 0.7)
        x, length = random.randint(-60, WIDTH), random.randint(10, 30 + y)
        draw.line((x, y, x + length, y), fill=_mix((70, 108, 138), (190, 208, 216), random.random() * 0.6))
    picture.paste(water, (0, shore))


def _forest(picture: Image.Image, random: Random) -> None:
    draw = ImageDraw.Draw(picture)
    for x in sorted(range(-20, WIDTH + 20, 9), key=lambda _: random.random()):
        edge = abs(x - WIDTH / 2) / (WIDTH / 2)
        if random.random() > edge**2:
            continue
        height, foot = random.randint(60, 130) * (0.5 + edge), HEIGHT - 150 + 180 * edge**3
        green = _mix((14, 30, 22), (36, 66, 38), random.random())
        for level in range(5):
            top, wide = foot - height + level * height / 6, (level + 1.5) * height / 26
            draw.polygon([(x, top), (x - wide, top + height / 3), (x + wide, top + height / 3)], fill=green)
