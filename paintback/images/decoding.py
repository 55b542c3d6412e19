"""From an image file, or an open PIL image, to plain arrays.

Pillow decodes. Four things are done around it:

- Plugins are called directly and not through `Image.open`, so that only the formats below are ever tried, and the size
  limit is an argument rather than Pillow's global.
- Pillow has no 16-bit colour mode and keeps only the high byte of such files. The file is therefore decoded twice, the
  second time with the raw mode of the other byte order, which delivers the low bytes; together they are exact.
- HEIC is read by pi-heif, or pillow-heif, where one of them is installed, and with all its bits.
- CMYK goes to sRGB through its ICC profile when that works, else through Pillow's plain conversion.
"""

from __future__ import annotations

import io
import struct
from importlib import import_module
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)

from paintback.images.errors import MissingPicture, PictureError
from paintback.images.formats import HEIF
from paintback.images.metadata import Metadata, metadata_of

Array = NDArray[Any]

MAX_PIXELS = 178_956_970  # where Pillow itself speaks of a decompression bomb
ORIENTATION = 0x0112  # EXIF tag
READABLE = ", ".join(
    [
        "PNG",
        "JPEG",
        "WebP",
        "TIFF",
        "BMP",
        "GIF",
        "PPM",
        *(["AVIF"] if features.check("avif") else []),
        *(["HEIC"] if HEIF else []),
    ]
)
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"hevc": "HEIC", b"heim": "HEIC",
          b"heis": "HEIC", b"mif1": "HEIF", b"msf1": "HEIF"}  # fmt: skip

# What Pillow raises on broken files; MemoryError comes from absurd sizes inside a file.
BROKEN = (OSError, SyntaxError, ValueError, TypeError, KeyError, IndexError, EOFError, MemoryError, OverflowError,
          AttributeError, AssertionError, RuntimeError, struct.error)  # fmt: skip


class Decoded(NamedTuple):
    """One picture, upright: pixels (H, W, 1 or 3), alpha (H, W) or None, ICC profile or None, metadata."""

    pixels: Array
    alpha: Array | None
    icc: bytes | None
    metadata: Metadata = Metadata()


def decode_file(path: Path, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode an image file.

    Args:
        path: PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, AVIF or HEIC file.
        max_pixels: largest width times height, checked from the header before any pixel is decoded.

    Raises:
        MissingPicture: the file does not exist.
        PictureError: a folder, not a picture, damaged, too large, animated, or of a kind that cannot be held exactly.
    """
    if path.is_dir():
        raise PictureError(f"{str(path)!r} is a folder, expected an image file; give the path of one picture.")
    try:
        with path.open("rb") as file:
            im = _open(file, str(path), max_pixels)
            try:
                if im.format == "HEIF" and im.info["bit_depth"] > 8:
                    return _decode_deep_heif(im, file)
                if getattr(im, "n_frames", 1) > 1 and im.format != "HEIF":  # which says which of its pictures it is
                    raise PictureError(
                        f"{str(path)!r} holds {im.n_frames} frames or pages, expected a single picture; "  # type: ignore[attr-defined]
                        "save the one you want as its own file."
                    )
                depth_16 = _colour_16_bit(im, str(path))
                if depth_16:
                    return _decode_16_bit(im, file, depth_16)
                return decode_pil(im, file)
            except PictureError:
                raise
            except BROKEN as error:
                raise PictureError(
                    f"{str(path)!r} is a damaged or truncated {im.format} file ({_brief(error)}); "
                    "get a complete copy of it."
                ) from error
    except FileNotFoundError as error:
        raise MissingPicture(f"{str(path)!r} does not exist, expected an image file; check the path.") from error
    except OSError as error:
        raise PictureError(
            f"{str(path)!r} cannot be read ({error.strerror or _brief(error)}); check the path and its permissions."
        ) from error


def decode_pil(im: Image.Image, file: IO[bytes] | None = None) -> Decoded:
    """Arrays of an open PIL image, EXIF orientation applied; the image itself is not changed.

    Palettes become RGB or RGBA, CMYK becomes sRGB, bilevel becomes 8-bit grey.

    Args:
        im: any of Pillow's.
        file: that it is read from, for what Pillow does not keep of a PNG.

    Raises:
        PictureError: a mode that cannot be held, or 32-bit values out of range.
        OSError and others: the file behind the image is damaged (translated by the caller).
    """
    icc = im.info.get("icc_profile") or None
    turned = _of_tiff(im)
    im.load()
    pixels, alpha = _arrays(im, icc)
    # A CMYK or Lab profile does not describe what is left after the conversion.
    if icc is not None and icc[16:20] in (b"CMYK", b"Lab "):
        icc = None
    return _upright(Decoded(pixels, alpha, icc), im, file, turned)


def _open(file: IO[bytes], name: str, max_pixels: int) -> ImageFile.ImageFile:
    """Header only: the plugin's picture, its size checked."""
    prefix = file.read(16)
    file.seek(0)
    plugin: type[ImageFile.ImageFile] | None = None
    if prefix.startswith(b"\x89PNG\r\n\x1a\n"):
        plugin = PngImagePlugin.PngImageFile
    elif prefix.startswith(b"\xff\xd8\xff"):
        plugin = JpegImagePlugin.JpegImageFile  # only the main picture of an MPO, as phones write them
    elif prefix[:4] == b"RIFF" and prefix[8:12] == b"WEBP":
        plugin = WebPImagePlugin.WebPImageFile
    elif prefix[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        plugin = TiffImagePlugin.TiffImageFile
    elif prefix.startswith((b"GIF87a", b"GIF89a")):
        plugin = GifImagePlugin.GifImageFile
    elif prefix.startswith(b"BM"):
        plugin = BmpImagePlugin.BmpImageFile
    elif prefix[:2] in (b"P5", b"P6") and prefix[2:3].isspace():
        plugin = PpmImagePlugin.PpmImageFile
    elif prefix[4:8] == b"ftyp" and prefix[8:12] in BRANDS:
        plugin = _of_brand(file, BRANDS[prefix[8:12]], name)
    if plugin is None:
        raise PictureError(f"{name!r} is not a picture that can be read, expected one of {READABLE}; convert it first.")
    try:
        im = plugin(file)
    except BROKEN as error:
        raise PictureError(
            f"{name!r} is damaged, truncated or of an unsupported kind ({_brief(error)}), expected one of {READABLE}; "
            "get a complete copy or convert it."
        ) from error
    width, height = im.size
    if width < 1 or height < 1:
        raise PictureError(f"{name!r} is {width} x {height} pixels, expected at least 1 x 1; give another picture.")
    if width * height > max_pixels:
        raise PictureError(
            f"{name!r} is {width} x {height} = {width * height} pixels, expected at most {max_pixels}; "
            "make it smaller, or raise max_pixels if you trust the file."
        )
    return im


def _of_brand(file: IO[bytes], kind: str, name: str) -> type[ImageFile.ImageFile]:
    """The plugin of AVIF, where Pillow has it and no bits are lost, or of HEIC, where it is installed.

    Raises:
        PictureError: HEIC that nothing reads here; an AVIF of more than 8 bits; a Pillow without AVIF.
    """
    head = file.read(1 << 16)
    file.seek(0)
    if kind == "HEIF" and b"avif" in head[:64]:
        kind = "AVIF"
    if kind != "AVIF":
        if HEIF is None:
            raise PictureError(
                f"{name!r} is {kind}, which needs pi-heif; pip install 'paintback[heif]', or save it as JPEG or PNG "
                "first."
            )
        heif: type[ImageFile.ImageFile] = import_module(HEIF).HeifImageFile
        return heif
    if not features.check("avif"):
        raise PictureError(
            f"{name!r} is AVIF, which is not read here, expected one of {READABLE}; save it as JPEG or PNG first."
        )
    at = head.find(b"av1C")
    if 0 <= at < len(head) - 6 and head[at + 6] & 0x40:
        raise PictureError(
            f"{name!r} is an AVIF with more than 8 bits per channel, which cannot be read without loss, expected 8; "
            "save it as 16-bit PNG."
        )
    plugin: type[ImageFile.ImageFile] = import_module("PIL.AvifImagePlugin").AvifImageFile
    return plugin


def _colour_16_bit(im: ImageFile.ImageFile, name: str) -> str | None:
    """Which kind of 16-bit file Pillow would cut to 8 bits ("LA", "RGB", "RGBA", "RGBX", "RGBa"), or None."""
    if isinstance(im, PngImagePlugin.PngImageFile):
        rawmode = str(im.tile[0][3]) if im.tile else ""
        return rawmode.partition(";")[0] if rawmode.endswith(";16B") and rawmode != "I;16B" else None
    if isinstance(im, PpmImagePlugin.PpmImageFile) and im.mode == "RGB" and im.tile[0][3] != "RGB":
        raise PictureError(f"{name!r} is a PPM of other than 8 bits a colour, which would lose some; save it as PNG.")
    if not isinstance(im, TiffImagePlugin.TiffImageFile):
        return None
    bits = tuple(im.tag_v2.get(258, (1,)))
    if max(bits) <= 8 or im.mode == "F":
        return None
    if bits[0] in (16, 32) and im.mode.startswith("I"):
        return None
    kind = str(im.tile[0][3][0]).partition(";")[0] if im.tile and im.tile[0][3] else ""
    if set(bits) != {16} or im.tag_v2.get(284, 1) != 1 or kind not in ("RGB", "RGBA", "RGBX", "RGBa"):
        raise PictureError(
            f"{name!r} is a TIFF with {bits} bits per sample laid out in a way that cannot be read without loss, "
            "expected 8-bit, or 16-bit grey or RGB(A) with interleaved samples; save it as 16-bit PNG."
        )
    return kind


def _decode_16_bit(im: ImageFile.ImageFile, file: IO[bytes], kind: str) -> Decoded:
    """Exact 16-bit samples through two 8-bit decodings (see the head of this module)."""
    turned = _of_tiff(im)
    if kind == "LA":  # four bytes a pixel, which is just what raw RGBA takes
        im.tile = [_with_args(tile, "RGBA") for tile in im.tile]
        im.load()
        both = np.asarray(im).astype(np.uint16)
        samples = both[..., 0::2] * 256 + both[..., 1::2]
    else:
        high = _bytes_of(im, swap=False)
        file.seek(0)
        samples = high.astype(np.uint16) * 256 + _bytes_of(type(im)(file), swap=True)
    colour = samples.shape[2] - 1 if samples.shape[2] in (2, 4) else samples.shape[2]
    pixels = np.ascontiguousarray(samples[..., :colour])
    alpha = np.ascontiguousarray(samples[..., colour]) if samples.shape[2] > colour else None
    transparent = im.info.get("transparency")
    if kind == "RGB" and isinstance(transparent, tuple):
        alpha = np.where((pixels == np.array(transparent)).all(-1), 0, 65535).astype(np.uint16)
    if kind == "RGBa" and alpha is not None:  # TIFF with premultiplied colours
        ratio = pixels.astype(np.float64) * 65535 / np.maximum(alpha, 1)[..., None]
        pixels = np.clip(np.rint(ratio), 0, 65535).astype(np.uint16)
    return _upright(Decoded(pixels, alpha, im.info.get("icc_profile") or None), im, file, turned)


def _decode_deep_heif(im: ImageFile.ImageFile, file: IO[bytes]) -> Decoded:
    """Samples of 10 or 12 bits as 16, white as white; Pillow's own form of such a file has 8."""
    file.seek(0)
    opened = import_module(str(HEIF)).open_heif(file, convert_hdr_to_8bit=False)
    samples = np.array(opened)  # a copy: it lives longer than the file's own memory
    samples = samples | samples >> im.info["bit_depth"]  # they fill the upper bits
    samples = samples[..., None] if samples.ndim == 2 else samples
    colour = samples.shape[2] - 1 if samples.shape[2] in (2, 4) else samples.shape[2]
    alpha = np.ascontiguousarray(samples[..., colour]) if samples.shape[2] > colour else None
    icc = im.info.get("icc_profile") or None
    return _upright(Decoded(np.ascontiguousarray(samples[..., :colour]), alpha, icc), im, file, 1)


def _bytes_of(im: ImageFile.ImageFile, *, swap: bool) -> Array:
    """The high bytes of 16-bit samples; with swap, the low ones."""

    def raw(mode: str) -> str:
        order = mode[-1] if mode[-1] != "N" else ("L" if np.little_endian else "B")
        # Premultiplied colours are divided later, at full depth.
        return mode[:-1].replace("RGBa", "RGBA") + ({"L": "B", "B": "L"}[order] if swap else order)

    for number, tile in enumerate(im.tile):
        args: Any = tile[3]
        im.tile[number] = _with_args(tile, raw(args) if isinstance(args, str) else (raw(args[0]), *args[1:]))
    im.load()
    return np.asarray(im)


def _with_args(tile: Any, args: Any) -> Any:
    """A tile, which is a plain tuple before Pillow 11, with other decoder arguments."""
    return tile._replace(args=args) if hasattr(tile, "_replace") else (*tile[:3], args)


def _arrays(im: Image.Image, icc: bytes | None) -> tuple[Array, Array | None]:
    """Pixels (H, W, 1 or 3) and alpha (H, W) or None of a loaded image."""
    mode = im.mode
    if 0 in im.size:
        raise PictureError(f"the picture is {im.size[0]} x {im.size[1]} pixels, expected at least 1 x 1; give another.")
    if mode == "F":
        values = np.array(im, dtype=np.float32)
        if not (np.isfinite(values).all() and values.min() >= 0 and values.max() <= 1):
            raise PictureError(
                "the floating-point picture has values outside [0, 1]; scale it to [0, 1] or to 16 bits."
            )
        return values[..., None], None
    if mode == "I" or mode.startswith("I;16"):
        wide = np.array(im)
        if wide.min() < 0 or wide.max() > 65535:
            raise PictureError("the grey picture has values outside 0 to 65535; scale it to 16 bits.")
        grey = wide.astype(np.uint16)
        key = im.info.get("transparency")
        seen = np.where(grey == key, 0, 65535).astype(np.uint16) if isinstance(key, int) else None
        return grey[..., None], seen
    if mode == "CMYK":
        return np.array(_cmyk_to_rgb(im, icc)), None
    see_through = "transparency" in im.info or mode in ("LA", "La", "PA", "RGBA", "RGBa")
    see_through = see_through or (mode == "P" and im.palette is not None and im.palette.mode == "RGBA")
    if mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "YCbCr", "HSV"):
        raise PictureError(f"the picture has the mode {mode!r}, expected grey, RGB, RGBA, palette or CMYK; convert it.")
    if see_through:
        if mode == "La":
            im = im.convert("LA")
        bands = np.array(im if im.mode in ("LA", "RGBA") else im.convert("RGBA"))
        colours = bands[..., :1] if mode in ("1", "L", "LA", "La") else bands[..., :3]
        return np.ascontiguousarray(colours), np.ascontiguousarray(bands[..., -1])
    if mode in ("1", "L"):
        return np.array(im.convert("L"))[..., None], None
    return np.array(im.convert("RGB")), None


def _cmyk_to_rgb(im: Image.Image, icc: bytes | None) -> Image.Image:
    """Through the profile to sRGB when there is a working one, else Pillow's plain conversion."""
    if icc:
        from PIL import ImageCms  # fails on use, not on import, where Pillow was built without it

        try:
            profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
            rgb = ImageCms.profileToProfile(im, profile, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if rgb is not None:
                return rgb
        except (ImportError, OSError, ValueError, TypeError, ImageCms.PyCMSError):
            pass  # a profile that does not work is no reason to refuse the picture
    return im.convert("RGB")


def _of_tiff(im: Image.Image) -> int:
    """The orientation of a TIFF that is not loaded yet: Pillow turns these itself, and removes the tag."""
    return int(im.tag_v2.get(ORIENTATION, 1)) if isinstance(im, TiffImagePlugin.TiffImageFile) else 1


def _upright(decoded: Decoded, im: Image.Image, file: IO[bytes] | None, turned: int) -> Decoded:
    """EXIF orientation applied, and the metadata.

    Args:
        decoded: as Pillow has it.
        im: loaded.
        file: that it came from.
        turned: the orientation that Pillow has seen to.
    """
    try:
        orientation = int(im.getexif().get(ORIENTATION, 1))
    except BROKEN:
        orientation = 1
    alpha = None if decoded.alpha is None else _turn(decoded.alpha, orientation)
    try:
        metadata = metadata_of(im, file, turned=max(orientation, turned) >= 5)
    except BROKEN:  # a broken description is no reason to refuse the picture
        metadata = Metadata()
    return Decoded(_turn(decoded.pixels, orientation), alpha, decoded.icc, metadata)


def _turn(array: Array, orientation: int) -> Array:
    """Undo an EXIF orientation (1 to 8) of an (H, W, ...) array."""
    if orientation in (5, 6, 7, 8):  # the file's rows are the picture's columns
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return np.ascontiguousarray(array)


def _brief(error: BaseException) -> str:
    """The first line of another library's message, to go inside a sentence."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")[:120]
