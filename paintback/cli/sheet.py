"""Contact sheets: pictures side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL import Image

    from paintback.images import Picture

__all__ = ["sheet"]

GAP = 8
LARGEST = 512  # longer side of a picture on a sheet, in pixels


def sheet(pictures: Sequence[Picture], columns: int | None = None) -> Picture:
    """Lays pictures out in rows on white, larger ones made smaller.

    Args:
        pictures: of any sizes.
        columns: in a row; None for a sheet that is about square.
    """
    import numpy as np
    from PIL import Image

    from paintback.images import Picture

    tiles = [_tile(picture) for picture in pictures]
    columns = columns or math.ceil(math.sqrt(len(tiles)))
    width = max(tile.width for tile in tiles) + GAP
    rows = [tiles[k : k + columns] for k in range(0, len(tiles), columns)]
    heights = [max(tile.height for tile in row) + GAP for row in rows]
    page = Image.new("RGB", (GAP + width * min(columns, len(tiles)), GAP + sum(heights)), "white")
    top = GAP
    for row, height in zip(rows, heights, strict=True):
        for k, tile in enumerate(row):
            page.paste(tile, (GAP + k * width, top))
        top += height
    return Picture(np.asarray(page))


def _tile(picture: Picture) -> Image.Image:
    from PIL import Image

    from paintback.images import to_pil

    tile = to_pil(picture.to_uint8())
    if tile.mode in ("LA", "RGBA"):
        tile = Image.alpha_composite(Image.new("RGBA", tile.size, "white"), tile.convert("RGBA"))
    tile = tile.convert("RGB")
    tile.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return tile
