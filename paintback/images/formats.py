"""Which files are taken: the suffixes that are read and written, in this one place.

A file is read by what is in it; suffixes only say which files of a folder are pictures, and in which format a result is
to be written.
"""

from __future__ import annotations

import unicodedata
from pathlib import PurePath

from PIL import features

from paintback.images.errors import PictureError

__all__ = ["CLIPS", "CLIPS_WRITTEN", "PICTURES", "UNREAD", "WRITTEN", "format_of", "same_name"]

WRITTEN = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".jpe": "JPEG", ".jfif": "JPEG", ".webp": "WebP",
    ".tif": "TIFF", ".tiff": "TIFF",
}  # fmt: skip
"""Suffixes of pictures that are written, with their formats."""

PICTURES = frozenset(WRITTEN) | {".bmp", ".gif"} | ({".avif"} if features.check("avif") else set())
"""Suffixes of pictures that are read."""

UNREAD = {
    ".heic": "HEIC", ".heif": "HEIF", ".avif": "AVIF", ".jxl": "JPEG XL", ".jp2": "JPEG 2000", ".psd": "Photoshop",
    ".dng": "camera raw", ".cr2": "camera raw", ".cr3": "camera raw", ".nef": "camera raw", ".arw": "camera raw",
    ".raf": "camera raw", ".orf": "camera raw", ".rw2": "camera raw", ".exr": "OpenEXR", ".hdr": "Radiance",
    ".svg": "SVG", ".pdf": "PDF",
}  # fmt: skip
"""Suffixes of pictures that are not read, with what they are: a folder's listing names them as left out."""
for _suffix in PICTURES:
    UNREAD.pop(_suffix, None)

CLIPS = frozenset({".mp4", ".mkv", ".mov", ".webm", ".avi", ".m4v"})
"""Suffixes of clips that are read."""

CLIPS_WRITTEN = {".mkv": "matroska", ".mp4": "mp4"}
"""Suffixes of clips that are written, with FFmpeg's names of their containers."""


def format_of(path: PurePath) -> str:
    """The format that a file name asks for: "PNG", "JPEG", "WebP" or "TIFF".

    Raises:
        PictureError: unknown suffix.
    """
    try:
        return WRITTEN[path.suffix.lower()]
    except KeyError:
        raise PictureError(
            f"{str(path)!r} ends in {path.suffix!r}, expected one of {', '.join(WRITTEN)}; choose one of these names."
        ) from None


def same_name(name: str) -> str:
    r"""A name in the form that equal ones share: macOS writes an e and its accent apart, others as one letter.

    >>> same_name("cafe\u0301.png") == same_name("caf\u00e9.png")
    True
    """
    return unicodedata.normalize("NFC", name)
