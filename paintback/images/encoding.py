"""From arrays to an image file, whole or not at all.

Pillow writes 8-bit PNG, JPEG and WebP. 16-bit PNGs, as it has no 16-bit colour, and all TIFFs are written here: both
formats are a header, tagged blocks and zlib. References: PNG specification (W3C, third edition), TIFF 6.0 with Adobe's
deflate.
"""

from __future__ import annotations

import io
import json
import os
import secrets
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from paintback.images.errors import PictureError

Array = NDArray[Any]

SETTINGS_KEY = "paintback"  # keyword of the PNG text chunk
SUFFIXES = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WebP", ".tif": "TIFF", ".tiff": "TIFF"}
LARGEST_SIDE = {"PNG": 2**31 - 1, "JPEG": 65500, "WebP": 16383, "TIFF": 2**31 - 1}
BLOCK_BYTES = 1 << 20  # rows are compressed in blocks of about this size


def format_of(path: Path) -> str:
    """The format that a file name asks for: "PNG", "JPEG", "WebP" or "TIFF".

    Raises:
        PictureError: unknown suffix.
    """
    try:
        return SUFFIXES[path.suffix.lower()]
    except KeyError:
        raise PictureError(
            f"{str(path)!r} ends in {path.suffix!r}, expected one of {', '.join(SUFFIXES)}; choose one of these names."
        ) from None


def encode(
    pixels: Array, alpha: Array | None, icc: bytes | None, path: Path, settings: dict[str, Any] | None, quality: int
) -> bytes:
    """The bytes of a file, in the format of path's suffix; nothing is written.

    Args:
        pixels: (H, W, 1 or 3), uint8 or uint16.
        alpha: (H, W) of the same dtype, or None.
        icc: colour profile.
        path: gives the format, and the name in messages.
        settings: what can be stored as JSON; kept by PNG only.
        quality: 1 to 100, for JPEG only.

    Raises:
        PictureError: the format cannot hold this picture, or the settings are not JSON.
    """
    kind, name = format_of(path), repr(str(path))
    if pixels.dtype not in (np.uint8, np.uint16):
        raise PictureError(
            f"{name} was to be written from {pixels.dtype} pixels, expected 8 or 16 bits; "
            "call picture.to_uint8() or picture.to_uint16() first."
        )
    if pixels.dtype == np.uint16 and kind in ("JPEG", "WebP"):
        raise PictureError(
            f"{name} is {kind}, which cannot hold 16 bits per channel; write .png or .tif, or call picture.to_uint8()."
        )
    if alpha is not None and kind == "JPEG":
        raise PictureError(
            f"{name} is JPEG, which cannot hold transparency; write .png, .webp or .tif, "
            "or call picture.without_alpha()."
        )
    if max(pixels.shape[:2]) > LARGEST_SIDE[kind]:
        raise PictureError(
            f"{name} would be {pixels.shape[1]} x {pixels.shape[0]} pixels, {kind} holds at most {LARGEST_SIDE[kind]} "
            "on a side; write .png or .tif."
        )
    if kind == "JPEG" and not 1 <= quality <= 100:
        raise PictureError(f"quality is {quality}, expected 1 to 100; 95 is the default.")
    bands = pixels if alpha is None else np.concatenate([pixels, alpha[..., None]], axis=-1)
    note = settings_json(settings) if settings is not None and kind == "PNG" else None
    if kind == "TIFF":
        return tiff_bytes(bands, icc)
    if kind == "PNG" and bands.dtype == np.uint16:
        return png_16_bit_bytes(bands, icc, note)
    im = Image.fromarray(bands[..., 0] if bands.shape[2] == 1 else bands)
    buffer = io.BytesIO()
    if kind == "PNG":
        info = PngImagePlugin.PngInfo()
        if note is not None:
            info.add_itxt(SETTINGS_KEY, note)
        im.save(buffer, "PNG", icc_profile=icc, pnginfo=info)
    elif kind == "JPEG":
        im.save(buffer, "JPEG", quality=quality, subsampling=0, icc_profile=icc)
    else:  # exact: colours under full transparency are kept too
        im = im.convert("RGBA" if alpha is not None else "RGB")
        im.save(buffer, "WEBP", lossless=True, exact=True, icc_profile=icc or b"")
    return buffer.getvalue()


def settings_json(settings: dict[str, Any]) -> str:
    """Settings as JSON text.

    Raises:
        PictureError: something in them is not JSON.
    """
    try:
        return json.dumps(settings, ensure_ascii=False, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise PictureError(
            f"settings cannot be stored as JSON ({error}); give plain numbers, texts and lists."
        ) from error


def png_16_bit_bytes(bands: Array, icc: bytes | None, note: str | None) -> bytes:
    """A 16-bit PNG.

    Args:
        bands: (H, W, 1 to 4) uint16: grey, grey + alpha, RGB or RGBA.
        icc: colour profile.
        note: text of the settings chunk.
    """
    height, width, depth = bands.shape
    parts = [b"\x89PNG\r\n\x1a\n"]

    def chunk(kind: bytes, data: bytes) -> None:
        parts.append(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))

    chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[depth], 0, 0, 0))
    if icc:
        chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc))
    if note is not None:
        chunk(b"iTXt", SETTINGS_KEY.encode() + b"\0\0\0\0\0" + note.encode())
    squeeze = zlib.compressobj(6)
    above = np.zeros((1, width * depth * 2), np.uint8)
    for block in _row_blocks(bands):
        rows = block.astype(">u2").view(np.uint8).reshape(len(block), -1)
        up = np.full((len(rows), rows.shape[1] + 1), 2, np.uint8)  # filter 2: each byte minus the byte above it
        up[:, 1:] = rows - np.concatenate([above, rows[:-1]])
        above = rows[-1:]
        if data := squeeze.compress(up.tobytes()):
            chunk(b"IDAT", data)
    chunk(b"IDAT", squeeze.flush())
    chunk(b"IEND", b"")
    return b"".join(parts)


def tiff_bytes(bands: Array, icc: bytes | None) -> bytes:
    """A little-endian TIFF with deflate and horizontal differencing.

    Args:
        bands: (H, W, 1 to 4) uint8 or uint16. 16-bit grey with alpha is stored as RGBA, which more programs can read.
        icc: colour profile.
    """
    if bands.shape[2] == 2 and bands.dtype == np.uint16:
        bands = bands[..., [0, 0, 0, 1]]
    height, width, depth = bands.shape
    bits = bands.dtype.itemsize * 8
    strips = []
    for block in _row_blocks(bands):
        rows = block.astype(bands.dtype.newbyteorder("<"))
        rows[:, 1:] -= block[:, :-1]  # unsigned arithmetic wraps around, as the format asks
        strips.append(zlib.compress(rows.tobytes(), 6))
    offsets = np.cumsum([8] + [len(strip) for strip in strips])
    body = b"".join(strips) + b"\0" * (int(offsets[-1]) % 2)
    entries: list[tuple[int, str, list[int] | bytes]] = [
        (256, "I", [width]),
        (257, "I", [height]),
        (258, "H", [bits] * depth),
        (259, "H", [8]),  # deflate
        (262, "H", [1 if depth < 3 else 2]),  # black is zero, or RGB
        (273, "I", offsets[:-1].tolist()),
        (277, "H", [depth]),
        (278, "I", [_rows_per_block(bands)]),
        (279, "I", [len(strip) for strip in strips]),
        (284, "H", [1]),  # interleaved samples
        (317, "H", [2]),  # horizontal differencing
    ]
    if depth in (2, 4):
        entries.append((338, "H", [2]))  # alpha, not premultiplied
    if icc:
        entries.append((34675, "B", icc))
    start = 8 + len(body)
    directory, tail = struct.pack("<H", len(entries)), b""
    after = start + 2 + 12 * len(entries) + 4
    for tag, code, values in entries:
        data = values if isinstance(values, bytes) else struct.pack(f"<{len(values)}{code}", *values)
        directory += struct.pack("<HHI", tag, {"B": 7, "H": 3, "I": 4}[code], len(values))
        if len(data) <= 4:
            directory += data.ljust(4, b"\0")
        else:
            directory += struct.pack("<I", after + len(tail))
            tail += data + b"\0" * (len(data) % 2)
    return struct.pack("<2sHI", b"II", 42, start) + body + directory + b"\0\0\0\0" + tail


def write_whole(data: bytes, path: Path) -> None:
    """Write a file whole or not at all: a temporary name in the same folder, fsync, rename.

    Raises:
        PictureError: the folder is missing or cannot be written to, or path is a folder.
    """
    if path.is_dir():
        raise PictureError(f"{str(path)!r} is a folder, expected a file name to write to; add a name such as out.png.")
    short = path.name.encode("utf-8", "surrogateescape")[:100].decode("utf-8", "ignore")  # names are limited in bytes
    temporary = path.with_name(f".{short}.{secrets.token_hex(6)}.tmp")
    try:
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise PictureError(
            f"{str(path)!r} cannot be written ({error.strerror or error}); check that the folder exists, "
            "may be written to and has room."
        ) from error


def _rows_per_block(bands: Array) -> int:
    return int(max(1, BLOCK_BYTES // (bands.shape[1] * bands.shape[2] * bands.dtype.itemsize)))


def _row_blocks(bands: Array) -> Iterator[Array]:
    step = _rows_per_block(bands)
    for row in range(0, len(bands), step):
        yield bands[row : row + step]
