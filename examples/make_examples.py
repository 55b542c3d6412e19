"""Makes the pictures and masks in paintback/examples/ from the sample photographs in scikit-image's wheel.

    pip install scikit-image
    python examples/make_examples.py

The scratches and the print are part of the damaged photographs: the true pixels are not in this repository, so that
what the demo shows is painted and not peeked at. Their masks are a little wider than the damage, since the JPEG
smears it.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import skimage
from PIL import Image, ImageDraw, ImageFont

from paintback.images import grow, lines

SOURCE = Path(skimage.__file__).parent / "data"
TARGET = Path(__file__).resolve().parent.parent / "paintback" / "examples"
SEED = 7
SMEAR = 2  # pixels by which a mask is wider than the damage
SENTENCE = "Say cheese, Chelsea!\nThe photograph is by\nStefan van der Walt"

# The spoon of coffee.png, drawn by hand, (x, y) in pixels: bowl with its mirror image in the cup, shaft, its end.
SPOON = [
    [(391, 191), (388, 216), (385, 236), (391, 247), (402, 259), (408, 270), (409, 283), (405, 297), (396, 310),
     (385, 320), (373, 326), (358, 329), (344, 325), (334, 316), (328, 305), (324, 290), (324, 272), (327, 262),
     (317, 260), (314, 251), (317, 244), (328, 236), (343, 228), (364, 223), (370, 221), (375, 212), (381, 202)],
    [(406.5, 137), (400, 163), (388.5, 191), (392.5, 193), (404, 163), (412, 128)],
    [(395.5, 70.5), (403, 66), (413, 65), (421.5, 69), (426, 77), (424, 88), (418.5, 106), (414, 122), (409.5, 133),
     (407, 137), (407.5, 130), (408.8, 113), (405, 91), (400, 79)],
]  # fmt: skip


def open_photo(name: str) -> Image.Image:
    return Image.open(SOURCE / name).convert("RGB")


def scratches(photo: Image.Image) -> tuple[Image.Image, np.ndarray]:
    """White scratches, as on an old slide."""
    rng = np.random.default_rng(SEED)
    shape = (photo.height, photo.width)
    damage = lines(shape, rng, width=1.5, count=14) | lines(shape, rng, width=3, count=4)
    pixels = np.asarray(photo).copy()
    pixels[damage] = rng.integers(215, 245, (int(damage.sum()), 1))
    return Image.fromarray(pixels), damage


def print_over(photo: Image.Image) -> tuple[Image.Image, np.ndarray]:
    """A caption across the picture."""
    layer = Image.new("L", photo.size)
    ImageDraw.Draw(layer).multiline_text(
        (photo.width / 2, photo.height / 2), SENTENCE, 255, ImageFont.load_default(30), "mm", spacing=36, align="center"
    )
    return Image.composite(Image.new("RGB", photo.size, "white"), photo, layer), np.asarray(layer) > 0


def spoon(photo: Image.Image) -> np.ndarray:
    """The polygons of `SPOON`, drawn eight times larger for the edges' sake."""
    large = Image.new("L", (photo.width * 8, photo.height * 8))
    for polygon in SPOON:
        ImageDraw.Draw(large).polygon([(8 * x, 8 * y) for x, y in polygon], 255)
    return np.asarray(large.resize(photo.size, Image.Resampling.BOX)) > 0


def save_photo(photo: Image.Image, name: str, quality: int = 92) -> None:
    photo.save(TARGET / f"{name}.jpg", quality=quality, subsampling=0, optimize=True)


def save_mask(mask: np.ndarray, name: str) -> None:
    Image.fromarray(mask).save(TARGET / f"{name}-mask.png", optimize=True)


def main() -> None:
    """Writes all files."""
    TARGET.mkdir(exist_ok=True)
    for name, source, damaged in (("scratches", "astronaut.png", scratches), ("text", "chelsea.png", print_over)):
        photo, damage = damaged(open_photo(source))
        save_photo(photo, name)
        save_mask(grow(damage, SMEAR), name)
    coffee = open_photo("coffee.png")
    save_photo(coffee, "object")
    save_mask(spoon(coffee), "object")
    rocket = open_photo("rocket.jpg").crop((130, 0, 530, 427))
    save_photo(rocket, "outpaint")
    listing = [
        {"name": "scratches", "title": "A scratched slide", "photo": "scratches.jpg", "mask": "scratches-mask.png"},
        {"name": "text", "title": "Overprinted text", "photo": "text.jpg", "mask": "text-mask.png"},
        {"name": "object", "title": "A spoon to remove", "photo": "object.jpg", "mask": "object-mask.png"},
        {"name": "outpaint", "title": "A wider view", "photo": "outpaint.jpg", "outpaint": [32, 0, 32, 0]},
    ]
    (TARGET / "examples.json").write_text(json.dumps(listing, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
