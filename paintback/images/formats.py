"""Which files are taken: the suffixes that are read and written, in this one place.

A file is read by what is in it; suffixes only say which files of a folder are pictures, and in which format a result is
to be written.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import PurePath

from PIL import features

from paintback.images.errors import PictureError

__all__ = [
    "ALPHA",
    "AUTO",
    "CLIPS",
    "CLIPS_WRITTEN",
    "HEIF",
    "NAMED",
    "PICTURES",
    "WRITTEN",
    "format_of",
    "is_mask_word",
]

ALPHA = "alpha"
"""In place of a mask: the picture's transparency."""

AUTO = "auto:"
"""In place of a mask, before what is to be found in the picture, as in "auto:dust+scratches"."""

WRITTEN = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".webp": "WebP",
    ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP", ".ppm": "PPM", ".pgm": "PPM",
}  # fmt: skip
"""Suffixes of pictures that are written, with their formats."""

HEIF = next((name for name in ("pi_heif", "pillow_heif") if find_spec(name) is not None), None)
"""The package that reads HEIC, where one is installed; pi_heif is the one without an encoder."""

PICTURES = frozenset(
    {*WRITTEN, ".gif", *([".avif"] if features.check("avif") else []), *([".heic", ".heif"] if HEIF else [])}
)
"""Suffixes of pictures that are read."""

NAMED = frozenset({".avif", ".heic", ".heif", ".jxl"}) - PICTURES
"""Suffixes of photographs that are not read; those who list a folder name them rather than leave them out."""

CLIPS = frozenset({".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v"})
"""Suffixes of clips that are read."""

CLIPS_WRITTEN = {".mkv": "matroska", ".mp4": "mp4"}
"""Suffixes of clips that are written, with FFmpeg's names of their containers."""


def is_mask_word(mask: object) -> bool:
    """Whether a mask is named by a word that is looked for in the picture, and not by a file.

    >>> [is_mask_word(mask) for mask in ("alpha", "auto:scratches", "mask.png", None)]
    [True, True, False, False]
    """
    return isinstance(mask, str) and (mask == ALPHA or mask.startswith(AUTO))


def format_of(path: PurePath) -> str:
    """The format that a file name asks for: "PNG", "JPEG", "WebP", "TIFF", "BMP" or "PPM".

    Raises:
        PictureError: unknown suffix.
    """
    try:
        return WRITTEN[path.suffix.lower()]
    except KeyError:
        raise PictureError(
            f"{str(path)!r} ends in {path.suffix!r}, expected one of {', '.join(WRITTEN)}; choose one of these names."
        ) from None
