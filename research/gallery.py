"""The gallery of docs/gallery.md, and every method by eye on the same four holes for docs/by-eye.md.

    python -m research.gallery -o docs/figures/gallery            24 results, each by the command beside it
    python -m research.gallery -o docs/figures/gallery --by-eye   every method, at most 25 evaluations

The photographs are those of scikit-image whose terms are CC0, public domain or no known restriction. The pictures and
masks that the commands name are written to `-i`, so that each command can be typed. One seed, the first: nothing was
drawn again until it looked better.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray

from research.command import run
from research.finding import damaged

__all__ = ["BY_EYE", "ENTRIES", "Entry", "budgeted", "by_eye_page", "inputs", "page"]

SIDE = 144  # of the gallery's pictures
SMALL = 64  # of those that every method paints
COLUMNS = 6
CELL = 74
MAGENTA = (230, 0, 170)
BUDGET = 25
QUALITY = 54  # of the JPEGs
CREDITS = {
    "astronaut": "NASA, public domain",
    "camera": "Lav Varshney, CC0",
    "coins": "no known restrictions",
    "brick": "CC0Textures, CC0",
    "grass": "CC0",
    "gravel": "CC0Textures, CC0",
    "hubble_deep_field": "NASA, public domain",
    "rocket": "SpaceX, public domain",
    "coffee": "Rachel Michetti, CC0",
    "chelsea": "Stéfan van der Walt, CC0",
}

Array = NDArray[Any]


@dataclass(frozen=True)
class Entry:
    """One result.

    Attributes:
        name: of the files.
        title: what was done.
        photo: of scikit-image.
        box: left, top and side of the part that is shown, brought to 144 x 144.
        hole: `scratches`, `dust` or `text` (drawn, seed 0), or a shape: `ellipse X,Y,RX,RY`, `line X,Y,X,Y,WIDTH`,
            `out L,T,R,B`, or `spoon`, the shipped mask.
        options: of the command.
        note: what is seen.
        fails: whether it is shown as a failure.
    """

    name: str
    title: str
    photo: str
    box: tuple[int, int, int]
    hole: str
    options: str = ""
    note: str = ""
    fails: bool = False

    @property
    def command(self) -> str:
        """What makes it of its inputs."""
        mask = f"--outpaint {self.hole.split()[1]}" if self.hole.startswith("out ") else f"{self.name}-mask.png"
        return f"paintback inpaint {self.name}.png {mask} -o {self.name}-out.png {self.options}".rstrip()


ENTRIES = (
    Entry("scratches", "A scratched portrait", "astronaut", (0, 130, 256), "scratches"),
    Entry("print", "Print over a cat", "chelsea", (100, 20, 256), "text"),
    Entry("dust", "Dust on a negative", "camera", (150, 30, 300), "dust"),
    Entry("coins-scratches", "A scratched plate of coins", "coins", (0, 0, 300), "scratches"),
    Entry(
        "stars-print",
        "Print over the sky",
        "hubble_deep_field",
        (300, 200, 300),
        "text",
        note="Where the sky is dark the black letters are too faint for the mask, and stay.",
        fails=True,
    ),
    Entry("coffee-print", "Print over a cup", "coffee", (150, 0, 400), "text"),
    Entry(
        "spoon",
        "A spoon removed",
        "coffee",
        (200, 40, 300),
        "spoon",
        note="The cup's rim and the saucer come back; a dark streak stays where the bowl was, a pale scrap at the rim.",
    ),
    Entry(
        "mast",
        "A mast removed",
        "rocket",
        (120, 120, 220),
        "line 46,8,44,143,20",
        note="The tip of the mast was outside of the mask, and stays.",
    ),
    Entry(
        "leg",
        "A tripod's leg removed",
        "camera",
        (230, 280, 220),
        "line 46,32,112,143,12",
        note="The lawn goes on, a little softer than beside it.",
    ),
    Entry(
        "coin",
        "A coin removed",
        "coins",
        (140, 120, 140),
        "ellipse 73,73,27,27",
        note="A speck of the coin's edge was outside of the mask, and stays.",
    ),
    Entry(
        "wider",
        "A wider launch",
        "rocket",
        (170, 100, 300),
        "out 24,0,24,0",
        note="Something like bare branches has come in at the left.",
    ),
    Entry("sky", "Sky over a mast", "rocket", (360, 30, 150), "ellipse 72,72,30,30", "--quality fast"),
    Entry(
        "wood",
        "A hole in a table",
        "coffee",
        (380, 200, 200),
        "ellipse 72,72,20,20",
        note="The saucer grows a flap.",
        fails=True,
    ),
    Entry(
        "rim",
        "A hole over a rim",
        "coffee",
        (60, 130, 200),
        "ellipse 72,72,18,18",
        "--quality best",
        note="Eight draws, of which the one nearest to their mean is taken.",
    ),
    Entry(
        "fur",
        "A hole in fur",
        "chelsea",
        (160, 0, 150),
        "ellipse 72,55,18,18",
        "--method lanpaint --steps 10",
        note="A knot, which is neither fur nor an eye.",
        fails=True,
    ),
    Entry(
        "grass",
        "Grass from its own patches",
        "grass",
        (0, 0, 256),
        "ellipse 72,72,22,22",
        "--model self",
        note="The blades are there, a shade darker than beside them.",
    ),
    Entry("gravel", "Gravel from its own patches", "gravel", (0, 0, 300), "ellipse 72,72,22,22", "--model self"),
    Entry(
        "brick-self",
        "Bricks from their own patches",
        "brick",
        (60, 60, 300),
        "ellipse 72,72,22,22",
        "--model self",
        note="The joints break into splinters: the patches of the picture know no bricks as a whole.",
        fails=True,
    ),
    Entry(
        "brick",
        "The same bricks by photo",
        "brick",
        (60, 60, 300),
        "ellipse 72,72,22,22",
        note="The joints end in the hole.",
        fails=True,
    ),
    Entry(
        "face", "Half a face", "astronaut", (150, 50, 150), "ellipse 74,82,22,16", note="It knows no mouth.", fails=True
    ),
    Entry("eye", "An eye", "chelsea", (90, 40, 160), "ellipse 72,67,34,26", note="It knows no eye.", fails=True),
    Entry(
        "head",
        "A head",
        "camera",
        (120, 40, 200),
        "ellipse 73,53,22,24",
        note="The hair is continued over the brow, with a light patch in it; the face keeps its outline.",
    ),
    Entry(
        "half-coin",
        "Half a coin",
        "coins",
        (140, 120, 140),
        "ellipse 96,73,22,34",
        note="The missing half is of the coin's metal, without its head, and touches the coin beside it.",
        fails=True,
    ),
    Entry(
        "badge",
        "Writing on a badge",
        "astronaut",
        (245, 305, 115),
        "ellipse 72,72,28,18",
        note="Colours of the badge, and no letters.",
        fails=True,
    ),
)
BY_EYE = (
    Entry("tower", "A tower before the sky", "rocket", (0, 60, 220), "ellipse 26,26,10,10"),
    Entry("rim", "A saucer's rim", "coffee", (60, 130, 200), "ellipse 32,32,10,10"),
    Entry("brick", "Bricks", "brick", (60, 60, 200), "ellipse 32,32,10,10"),
    Entry("line", "A scratch over a flag", "astronaut", (0, 130, 160), "line 4,20,60,44,5"),
)


def inputs(entry: Entry, size: int = SIDE) -> tuple[Array, Array]:
    """The picture, (size, size, 3) uint8, and the hole, (size, size) bool; empty where the picture is widened."""
    from PIL import Image, ImageDraw
    from skimage import data

    import paintback

    photo = getattr(data, entry.photo)()
    photo = np.repeat(photo[..., None], 3, -1) if photo.ndim == 2 else photo[..., :3]
    left, top, side = entry.box
    corners = (left, top, left + side, top + side)
    small = Image.fromarray(photo).crop(corners).resize((size, size), Image.Resampling.LANCZOS)
    given = np.asarray(small)
    kind, _, numbers = entry.hole.partition(" ")
    page = Image.new("L", (size, size))
    draw, at = ImageDraw.Draw(page), [float(one) for one in numbers.split(",") if one]
    if kind in ("scratches", "dust", "text"):
        given, hole = damaged(given, kind, np.random.default_rng(0))
        return given, _wider(hole)
    if kind == "spoon":
        with Image.open(Path(paintback.__file__).parent / "examples" / "object-mask.png") as mask:
            page = mask.convert("L").crop(corners).resize((size, size), Image.Resampling.BOX)
    elif kind == "ellipse":
        x, y, rx, ry = at
        draw.ellipse((x - rx, y - ry, x + rx, y + ry), fill=255)
    elif kind == "line":
        draw.line(at[:4], fill=255, width=int(at[4]))
    elif kind != "out":
        raise ValueError(f"There is no hole {entry.hole!r}.")
    return given, np.asarray(page) > 0


def _wider(hole: Array) -> Array:
    """A pixel more on every side: what is faint at the damage's edge is damage."""
    from scipy.ndimage import binary_dilation

    wider: Array = binary_dilation(hole, iterations=1)
    return wider


def budgeted(name: str) -> int:
    """The most steps of a method that 25 evaluations pay for, a gradient counted as one more."""
    from paintback import methods

    method = methods.get(name)
    fitting = [n for n in range(1, BUDGET + 1) if method.evaluations(n) + method.vjps(n) <= BUDGET]
    return max(fitting, default=1)


def compared() -> Iterator[str]:
    """The methods that are compared; on a model of pixels `ldps` is `dps`, bit for bit."""
    from paintback import methods

    yield from (name for name in methods.names() if name != "ldps")


def page() -> str:
    """The results for docs/gallery.md."""
    parts = []
    for entry in ENTRIES:
        alt = f"{entry.title}: given, hole, result"
        said = f" {entry.note}" if entry.note else ""
        parts += [
            f"### {entry.title}{', a failure' if entry.fails else ''}",
            f"![{alt}](figures/gallery/{entry.name}.jpg){{ loading=lazy }}",
            f"```sh\n{entry.command}\n```",
            f"{said} Photograph: {CREDITS[entry.photo]}.".strip(),
        ]
    return "\n\n".join(parts) + "\n"


def by_eye_page() -> str:
    """The figures for docs/by-eye.md."""
    parts = []
    for entry in BY_EYE:
        alt = f"{entry.title}: the hole, and what every method makes of it"
        parts.append(f"## {entry.title}\n\n![{alt}](figures/gallery/by-eye-{entry.name}.jpg){{ loading=lazy }}\n")
        parts.append(f"Photograph: {CREDITS[entry.photo]}.\n")
    return "\n".join(parts)


def _show(given: Array, hole: Array, made: Array) -> Array:
    """Given, hole in magenta, result, side by side on white."""
    shown = given.copy()
    shown[hole] = MAGENTA
    height, gap = max(given.shape[0], made.shape[0]), np.full((made.shape[0], 4, 3), 255, np.uint8)
    cells = [given, gap, shown, gap, made]
    return np.concatenate([np.pad(c, ((0, height - c.shape[0]), (0, 0), (0, 0))) for c in cells], axis=1)


@click.command()
@click.option("-o", "--out", type=click.Path(path_type=Path), required=True, help="Folder of the figures.")
@click.option("-i", "--inputs", "folder", type=click.Path(path_type=Path), default="gallery-in", show_default=True)
@click.option("--only", multiple=True, metavar="NAME", help="This one alone; may be repeated.")
@click.option("--by-eye", is_flag=True, help="Every method on the same holes.")
def gallery(out: Path, folder: Path, only: tuple[str, ...], by_eye: bool) -> None:
    """Paint the gallery by its commands, or every method on four holes."""
    out.mkdir(parents=True, exist_ok=True)
    folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if by_eye:
        _by_eye(out, folder)
        return
    for entry in ENTRIES:
        if not only or entry.name in only:
            _one(entry, out, folder)


def _one(entry: Entry, out: Path, folder: Path) -> None:
    from PIL import Image

    from paintback.cli.main import main

    given, hole = inputs(entry)
    Image.fromarray(given).save(folder / f"{entry.name}.png")
    if hole.any():
        Image.fromarray(hole).save(folder / f"{entry.name}-mask.png")
    words = shlex.split(entry.command)[1:]
    words = [str(folder / word) if word.endswith(".png") else word for word in words]
    try:
        main([*words, "--threads", "1", "--overwrite", "--quiet"])
    except SystemExit as stop:
        if stop.code:
            raise ValueError(f"{entry.command} ended with {stop.code}.") from None
    with Image.open(folder / f"{entry.name}-out.png") as done:
        made = np.asarray(done.convert("RGB"))
    if made.shape != given.shape:  # widened: what was there in the middle of what is new
        wide = np.full_like(made, 255)
        left = (made.shape[1] - given.shape[1]) // 2
        hole = np.ones(made.shape[:2], bool)
        hole[:, left : left + given.shape[1]] = False
        wide[:, left : left + given.shape[1]] = given
        given = wide
    Image.fromarray(_show(given, hole, made)).save(out / f"{entry.name}.jpg", quality=QUALITY, optimize=True)
    click.echo(entry.name)


def _by_eye(out: Path, folder: Path) -> None:
    """One figure of each picture; every method paints all of them in one batch."""
    from PIL import Image, ImageDraw, ImageFont

    import paintback as pb

    painter = pb.Inpainter.from_pretrained("photo")
    pairs = [inputs(entry, SMALL) for entry in BY_EYE]
    for name in compared():
        kept = [folder / f"by-eye-{entry.name}-{name}.png" for entry in BY_EYE]
        if all(path.exists() for path in kept):
            continue
        steps = budgeted(name)
        done = painter(
            [Image.fromarray(given) for given, _ in pairs],
            [Image.fromarray(hole) for _, hole in pairs],
            method=name,
            num_inference_steps=steps,
            average=1,
            batch_size=len(BY_EYE),
            generator=[torch.Generator().manual_seed(0) for _ in BY_EYE],
        )
        for image, path in zip(done.images, kept, strict=True):
            image.save(path)
        click.echo(f"{name}: {steps} steps, {done.evaluations:g} evaluations, {done.vjps:g} gradients")
    font = ImageFont.load_default(11)
    for entry, (given, hole) in zip(BY_EYE, pairs, strict=True):
        shown = given.copy()
        shown[hole] = MAGENTA
        cells = [("given", Image.fromarray(given)), ("hole", Image.fromarray(shown))]
        cells += [(name, Image.open(folder / f"by-eye-{entry.name}-{name}.png")) for name in compared()]
        sheet = Image.new("RGB", (COLUMNS * (CELL + 4), -(-len(cells) // COLUMNS) * (CELL + 18)), "white")
        draw = ImageDraw.Draw(sheet)
        for k, (name, cell) in enumerate(cells):
            at = (k % COLUMNS * (CELL + 4), k // COLUMNS * (CELL + 18))
            sheet.paste(cell.convert("RGB").resize((CELL, CELL), Image.Resampling.BICUBIC), at)
            draw.text((at[0] + 1, at[1] + CELL + 2), name, fill="black", font=font)
        sheet.save(out / f"by-eye-{entry.name}.jpg", quality=QUALITY, optimize=True)


if __name__ == "__main__":
    run(gallery)
