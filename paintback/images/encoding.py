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
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from paintback.images.errors import PictureError, Say, remark
from paintback.images.exif import IPTC, XMP, Directory, Exif, write_directories
from paintback.images.formats import format_of
from paintback.images.metadata import SETTINGS_KEY, Metadata

if TYPE_CHECKING:
    from paintback.images.picture import Picture

Array = NDArray[Any]

LARGEST_SIDE = {"PNG": 2**31 - 1, "JPEG": 65500, "WebP": 16383, "TIFF": 2**31 - 1, "BMP": 2**31 - 1, "PPM": 2**31 - 1}
PLAIN = ("BMP", "PPM")  # pixels and nothing else
BLOCK_BYTES = 1 << 20  # rows are compressed in blocks of about this size
NAME_BYTES = 255  # longest name of a file, where the system does not say
HEAD = 33  # bytes of a PNG before the place of all further chunks: signature and IHDR


def encode(
    picture: Picture,
    path: Path,
    settings: dict[str, Any] | None = None,
    quality: int | None = None,
    say: Say = remark,
) -> bytes:
    """The bytes of a file, in the format of path's suffix; nothing is written.

    Args:
        picture: 8 or 16 bits.
        path: gives the format, and the name in messages.
        settings: what can be stored as JSON; kept by PNG only.
        quality: 1 to 100, for JPEG only; None for the strength at which the picture itself was compressed, or 95.
        say: told in a sentence what the format changes or cannot hold.

    Raises:
        PictureError: the format cannot hold this picture, or the settings are not JSON.
    """
    kind = check_holds(picture, path)
    if kind == "JPEG" and quality is not None and not 1 <= quality <= 100:
        raise PictureError(f"quality is {quality}, expected 1 to 100; 95 is the default.")
    note = settings_json(settings) if settings is not None and kind == "PNG" else None
    size = picture.size
    lost = picture.metadata.left_out(kind, size)
    if lost:
        several = len(lost) > 1 or lost[0].startswith(("the texts", "the further"))
        what = " and ".join([", ".join(lost[:-1]), lost[-1]] if len(lost) > 1 else lost)
        say(f"{kind} cannot hold {what} of the picture; {'they were' if several else 'it was'} left out.")
    exif = picture.metadata.exif_for(kind, size)
    bands = picture.pixels if picture.alpha is None else np.concatenate([picture.pixels, picture.alpha[..., None]], -1)
    if kind == "TIFF":
        return tiff_bytes(bands, picture.icc, exif, picture.metadata)
    if kind == "PNG":
        return png_bytes(bands, picture.icc, note, exif, picture.metadata)
    block = exif.to_bytes() if exif else b""
    im = Image.fromarray(bands[..., 0] if bands.shape[2] == 1 else bands)
    buffer = io.BytesIO()
    if kind in PLAIN:
        im.save(buffer, kind)
        return buffer.getvalue()
    if kind == "JPEG":
        say("A JPEG is compressed anew all over, also where nothing was repainted; a .png keeps those pixels as given.")
        options = _jpeg_options(picture, quality)
        if picture.metadata.dpi is not None:
            options["dpi"] = picture.metadata.dpi
        im.save(buffer, "JPEG", icc_profile=picture.icc, exif=b"Exif\0\0" + block if block else b"", **options)
        return _with_segments(buffer.getvalue(), picture.metadata)
    # exact: colours under full transparency are kept too
    im = im.convert("RGBA" if picture.alpha is not None else "RGB")
    packet = picture.metadata.xmp or b""
    im.save(buffer, "WEBP", lossless=True, exact=True, icc_profile=picture.icc or b"", exif=block, xmp=packet)
    return buffer.getvalue()


def check_holds(picture: Picture, path: Path) -> str:
    """The format of a path's suffix, once it is known to hold such a picture.

    Raises:
        PictureError: it does not: depth, transparency, colours or size.
    """
    kind, name = format_of(path), repr(str(path))
    if picture.pixels.shape[2] not in (1, 3):
        raise PictureError(
            f"{name} was to be written from {picture.pixels.shape[2]} bands, expected grey or RGB; save the array."
        )
    if picture.pixels.dtype not in (np.uint8, np.uint16):
        raise PictureError(
            f"{name} was to be written from {picture.pixels.dtype} pixels, expected 8 or 16 bits; "
            "call picture.to_uint8() or picture.to_uint16() first."
        )
    if picture.pixels.dtype == np.uint16 and kind in ("JPEG", "WebP", *PLAIN):
        raise PictureError(f"{name} is {kind}, which cannot hold 16 bits per channel; write .png or .tif.")
    if picture.alpha is not None and kind in ("JPEG", *PLAIN):
        raise PictureError(f"{name} is {kind}, which cannot hold transparency; write .png, .webp or .tif.")
    if path.suffix.lower() == ".pgm" and not picture.grey:
        raise PictureError(f"{name} is PGM, which cannot hold colours; write .ppm, .png or .tif.")
    if max(picture.size) > LARGEST_SIDE[kind]:
        raise PictureError(
            f"{name} was to be {picture.size[0]} x {picture.size[1]} pixels, but {kind} takes at most "
            f"{LARGEST_SIDE[kind]} a side; write .png or .tif."
        )
    return kind


def check_writable(path: str | os.PathLike[str], picture: Picture | None = None) -> None:
    """Says before the work, not after it, that a result could not be written.

    Args:
        path: of the result.
        picture: one of the result's size, depth and transparency; None leaves that unchecked.

    Raises:
        PictureError: unknown suffix, a format that does not hold such a picture, a missing folder, one that may not be
            written to, a name that is too long, or the name of a folder.
    """
    path = Path(path)
    if picture is None:
        format_of(path)
    else:
        check_holds(picture, path)
    check_place(path)


def check_folder(folder: Path) -> None:
    """Refuses a folder that is not there and cannot be made, as what is there of its path is a file.

    Raises:
        PictureError: naming the file.
    """
    there = next((one for one in (folder, *folder.parents) if one.exists()), None)
    if there is not None and not there.is_dir():
        raise PictureError(f"{str(there)!r} is a file; give a folder for the results.")


def check_place(path: Path) -> None:
    """Refuses a path where no file can be written.

    Raises:
        PictureError: in one sentence.
    """
    check_folder(path.parent)
    if not path.parent.is_dir():
        raise PictureError(f"the folder {str(path.parent)!r} does not exist; make it, or write to another one.")
    longest = _longest_name(path.parent)
    if len(os.fsencode(path.name)) > longest:
        raise PictureError(
            f"the name {path.name!r} has {len(os.fsencode(path.name))} bytes, expected at most {longest}; shorten it."
        )
    if path.is_dir():
        raise PictureError(f"{str(path)!r} is a folder; give the name of a file in it.")
    try:
        with tempfile.TemporaryFile(dir=path.parent):  # tried: permissions alone do not tell
            pass
    except OSError as error:
        raise PictureError(
            f"{str(path)!r} cannot be written ({os.strerror(error.errno or 0)}); choose another name or folder."
        ) from error


def temporary_beside(path: Path) -> Path:
    """A name that nothing has, in the same folder, for a file that is renamed once it is whole.

    >>> import os
    >>> len(os.fsencode(temporary_beside(Path("写" * 80)).name)) <= 255
    True
    """
    end = f".{secrets.token_hex(6)}.tmp"
    room = _longest_name(path.parent) - len(end) - 1
    return path.with_name("." + os.fsencode(path.name)[: min(room, 100)].decode(errors="ignore") + end)


def _longest_name(folder: Path) -> int:
    try:
        return os.pathconf(folder, "PC_NAME_MAX")
    except (OSError, ValueError, AttributeError):
        return NAME_BYTES


def _jpeg_options(picture: Picture, quality: int | None) -> dict[str, Any]:
    own = picture.metadata.jpeg
    if quality is not None or own is None or (picture.grey and len(own.tables) > 1):
        return {"quality": 95 if quality is None else quality, "subsampling": 0}
    options: dict[str, Any] = {"qtables": [list(table) for table in own.tables], "progressive": own.progressive}
    return options if picture.grey else {**options, "subsampling": own.subsampling}


def _with_segments(data: bytes, metadata: Metadata) -> bytes:
    """A JPEG with the segments that Pillow does not write, before its tables."""
    segments = []
    if metadata.xmp is not None:
        segments.append((0xE1, b"http://ns.adobe.com/xap/1.0/\0" + metadata.xmp))
    if metadata.iptc is not None:
        record = b"8BIM\x04\x04\0\0" + struct.pack(">I", len(metadata.iptc)) + metadata.iptc
        segments.append((0xED, b"Photoshop 3.0\0" + record + b"\0" * (len(record) % 2)))
    if metadata.comment is not None:
        segments.append((0xFE, metadata.comment))
    at = 2
    while data[at : at + 1] == b"\xff" and 0xE0 <= data[at + 1] <= 0xEF:
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    more = b"".join(
        struct.pack(">BBH", 0xFF, marker, len(body) + 2) + body for marker, body in segments if len(body) <= 65533
    )
    return data[:at] + more + data[at:]


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


def png_bytes(bands: Array, icc: bytes | None, note: str | None, exif: Exif, metadata: Metadata) -> bytes:
    """A PNG of 8 or 16 bits.

    Args:
        bands: (H, W, 1 to 4): grey, grey + alpha, RGB or RGBA.
        icc: colour profile.
        note: text of the settings chunk.
        exif: for eXIf.
        metadata: for the other chunks.
    """
    if bands.dtype == np.uint16:
        data = _png_16_bit_bytes(bands)
    else:
        buffer = io.BytesIO()
        Image.fromarray(bands[..., 0] if bands.shape[2] == 1 else bands).save(buffer, "PNG")
        data = buffer.getvalue()
    chunks = [_chunk(b"iCCP", b"ICC Profile\0\0" + zlib.compress(icc))] if icc else []
    chunks += [_chunk(name, body) for name, body in metadata.png]
    if metadata.dpi is not None and b"pHYs" not in dict(metadata.png):
        x, y = (round(value / 0.0254) for value in metadata.dpi)
        chunks.append(_chunk(b"pHYs", struct.pack(">IIB", x, y, 1)))
    if exif:
        chunks.append(_chunk(b"eXIf", exif.to_bytes()))
    chunks += [_chunk(name, body) for name, body in metadata.text]
    if metadata.xmp is not None:
        chunks.append(_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + metadata.xmp))
    if note is not None:
        chunks.append(_chunk(b"iTXt", SETTINGS_KEY.encode() + b"\0\0\0\0\0" + note.encode()))
    return data[:HEAD] + b"".join(chunks) + data[HEAD:]


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _png_16_bit_bytes(bands: Array) -> bytes:
    height, width, depth = bands.shape
    parts = [b"\x89PNG\r\n\x1a\n"]
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[depth], 0, 0, 0)
    parts.append(_chunk(b"IHDR", header))
    squeeze = zlib.compressobj(6)
    above = np.zeros((1, width * depth * 2), np.uint8)
    for block in _row_blocks(bands):
        rows = block.astype(">u2").view(np.uint8).reshape(len(block), -1)
        up = np.full((len(rows), rows.shape[1] + 1), 2, np.uint8)  # filter 2: each byte minus the byte above it
        up[:, 1:] = rows - np.concatenate([above, rows[:-1]])
        above = rows[-1:]
        if data := squeeze.compress(up.tobytes()):
            parts.append(_chunk(b"IDAT", data))
    parts.append(_chunk(b"IDAT", squeeze.flush()))
    parts.append(_chunk(b"IEND", b""))
    return b"".join(parts)


def tiff_bytes(bands: Array, icc: bytes | None, exif: Exif, metadata: Metadata) -> bytes:
    """A little-endian TIFF with deflate and horizontal differencing.

    Args:
        bands: (H, W, 1 to 4) uint8 or uint16. 16-bit grey with alpha is stored as RGBA, which more programs can read.
        icc: colour profile.
        exif: further entries.
        metadata: for XMP and IPTC.
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
    entries: dict[int, tuple[str, list[int]]] = {
        256: ("I", [width]),
        257: ("I", [height]),
        258: ("H", [bits] * depth),
        259: ("H", [8]),  # deflate
        262: ("H", [1 if depth < 3 else 2]),  # black is zero, or RGB
        273: ("I", offsets[:-1].tolist()),
        277: ("H", [depth]),
        278: ("I", [_rows_per_block(bands)]),
        279: ("I", [len(strip) for strip in strips]),
        284: ("H", [1]),  # interleaved samples
        317: ("H", [2]),  # horizontal differencing
    }
    if depth in (2, 4):
        entries[338] = ("H", [2])  # alpha, not premultiplied
    structure: Directory = {
        tag: ({"H": 3, "I": 4}[code], struct.pack(f"<{len(values)}{code}", *values))
        for tag, (code, values) in entries.items()
    }
    for tag, kind, value in ((34675, 7, icc), (XMP, 1, metadata.xmp), (IPTC, 7, metadata.iptc)):
        if value:
            structure[tag] = (kind, value)
    start = 8 + len(body)
    return struct.pack("<2sHI", b"II", 42, start) + body + write_directories(exif, structure, start)


def write_whole(data: bytes, path: Path) -> None:
    """Write a file whole or not at all: a temporary name in the same folder, fsync, rename.

    Raises:
        PictureError: the folder is missing or cannot be written to, or path is a folder.
    """
    if path.is_dir():
        raise PictureError(f"{str(path)!r} is a folder, expected a file name to write to; add a name such as out.png.")
    temporary = temporary_beside(path)
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
