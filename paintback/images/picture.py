"""A picture as the user gave it, and back again without touching what was not repainted."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Union

import numpy as np
from numpy.typing import NDArray
from PIL import Image, PngImagePlugin

from paintback.images.decoding import BROKEN, MAX_PIXELS, Array, Decoded, decode_file, decode_pil
from paintback.images.encoding import encode, write_whole
from paintback.images.errors import MissingPicture, PictureError, Say, remark
from paintback.images.formats import format_of
from paintback.images.metadata import SETTINGS_KEY, Metadata

if TYPE_CHECKING:
    import torch

__all__ = [
    "MAX_PIXELS",
    "MissingPicture",
    "Picture",
    "PictureError",
    "read_picture",
    "read_settings",
    "to_numpy",
    "to_pil",
    "to_torch",
    "write_picture",
]

Kind = Literal["file", "pil", "numpy", "torch"]
Source = Union["Picture", str, "PathLike[str]", Image.Image, Array, "torch.Tensor"]
LUMA = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R 601, the weights of Pillow's convert("L")
UNIT = {"uint8": 255, "uint16": 65535, "float32": 1}


@dataclass(frozen=True)
class Picture:
    """Pixels as given, upright.

    Attributes:
        pixels: (H, W, 3) RGB or (H, W, 1) grey; uint8, uint16, or float32 in [0, 1]. (H, W, C) of other bands where
            they were read as such.
        alpha: (H, W) of the same dtype, or None when there is no transparency.
        icc: the colour profile, kept as it is.
        kind: what the user gave, for callers that want to answer in kind.
        metadata: EXIF, resolution, texts and the like, which `write_picture` hands on.
    """

    pixels: Array
    alpha: Array | None = None
    icc: bytes | None = None
    kind: Kind = "numpy"
    metadata: Metadata = field(default_factory=Metadata, repr=False)

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W)."""
        return int(self.pixels.shape[0]), int(self.pixels.shape[1])

    @property
    def size(self) -> tuple[int, int]:
        """(width, height), as Pillow has it."""
        return self.shape[1], self.shape[0]

    @property
    def white(self) -> int:
        """The value of white, and of opaque: 255, 65535 or 1."""
        return UNIT[self.pixels.dtype.name]

    @property
    def grey(self) -> bool:
        """True when there is one channel."""
        return bool(self.pixels.shape[2] == 1)

    @property
    def invisible(self) -> NDArray[np.bool_] | None:
        """(H, W) bool: pixels of alpha 0, whose colours nobody sees; None where there are none.

        They are unknown to the model, and unchanged in the result unless the mask names them.
        """
        if self.alpha is None:
            return None
        unseen = np.asarray(self.alpha == 0)
        return unseen if unseen.any() else None

    def filled(self) -> Picture:
        """A copy whose invisible pixels have the colour of the nearest visible one, for models that see every pixel."""
        unseen = self.invisible
        if unseen is None or unseen.all():
            return self
        from scipy import ndimage

        rows, columns = ndimage.distance_transform_edt(unseen, return_distances=False, return_indices=True)
        return replace(self, pixels=self.pixels[rows, columns])

    def to_unit(self) -> NDArray[np.float32]:
        """Colours as float32 (H, W, 3 or C) in [-1, 1]; grey is repeated, transparency ignored."""
        unit = self.pixels.astype(np.float32)
        unit *= np.float32(2 / self.white)
        unit -= 1
        return np.repeat(unit, 3, axis=-1) if self.grey else unit

    def with_pixels(self, new_unit: Array, where: Array, weight: Array | None = None) -> Picture:
        """A copy with new colours inside the hole; every other pixel is bit-identical.

        A grey picture stays grey (luma of the new colours). Transparency becomes opaque where the picture is repainted,
        in proportion on a blended seam, and is untouched elsewhere.

        Args:
            new_unit: of `to_unit`'s shape, in [-1, 1], clipped; only the values inside the hole are looked at.
            where: (H, W) bool, True = replace wholly.
            weight: (H, W) in [0, 1], or None: how much of the new colour is taken outside `where`, 0 = untouched.

        Raises:
            PictureError: another shape, or NaN among the new values.
        """
        expected = (*self.shape, 3 if self.grey else self.pixels.shape[2])
        if new_unit.shape != expected or where.shape != self.shape or where.dtype != bool:
            raise PictureError(
                f"new pixels are {new_unit.shape} and the mask is {where.dtype} {where.shape}, expected "
                f"{expected} and bool {self.shape}; bring them to the picture's size."
            )
        if weight is not None and weight.shape != self.shape:
            raise PictureError(f"weight is {weight.shape}, expected {self.shape}; bring it to the picture's size.")
        touched = where if weight is None else where | (weight > 0)
        new = np.asarray(new_unit[touched], np.float32)
        if not np.isfinite(new).all():
            raise PictureError("the new pixels hold NaN or infinite values, expected [-1, 1]; the model has diverged.")
        new = np.clip(new * 0.5 + 0.5, 0, 1) * np.float32(self.white)
        if self.grey:
            new = new @ LUMA[:, None]
        weights = where if weight is None else np.where(where, 1, np.clip(weight, 0, 1))
        share = weights[touched].astype(np.float32)[:, None]
        pixels = self.pixels.copy()
        pixels[touched] = self._quantise(share * new + (1 - share) * self.pixels[touched])
        alpha = self.alpha
        if alpha is not None:
            alpha = alpha.copy()
            alpha[touched] = self._quantise(share[:, 0] * self.white + (1 - share[:, 0]) * alpha[touched])
        return replace(self, pixels=pixels, alpha=alpha)

    def without_alpha(self) -> Picture:
        """A copy that forgets transparency; colours are not changed."""
        return replace(self, alpha=None)

    def to_uint8(self) -> Picture:
        """A copy with 8 bits per channel, rounded to nearest."""
        return self._to_depth(np.dtype(np.uint8))

    def to_uint16(self) -> Picture:
        """A copy with 16 bits per channel, rounded to nearest."""
        return self._to_depth(np.dtype(np.uint16))

    def _to_depth(self, dtype: np.dtype[Any]) -> Picture:
        def scaled(values: Array) -> Array:
            return np.rint(values.astype(np.float64) * (UNIT[dtype.name] / self.white)).astype(dtype)

        if self.pixels.dtype == dtype:
            return self
        return replace(self, pixels=scaled(self.pixels), alpha=None if self.alpha is None else scaled(self.alpha))

    def _quantise(self, values: Array) -> Array:
        values = np.clip(values, 0, self.white)
        return values.astype(np.float32) if self.white == 1 else np.rint(values).astype(self.pixels.dtype)


def read_picture(source: Source, *, max_pixels: int = MAX_PIXELS, channels: int | None = None) -> Picture:
    """Read a picture from whatever the user has.

    Files: PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, AVIF with one frame; 8 and 16 bit; grey, RGB, either with alpha,
    palette (expanded), CMYK (to sRGB). EXIF orientation is applied; the ICC profile and the metadata are kept.

    Args:
        source: a `Picture`, returned as it is; path; PIL image;
            numpy (H, W) or (H, W, 1, 2, 3 or 4) as uint8, uint16 or float in [0, 1]: grey or RGB, and alpha;
            torch (1, 2, 3 or 4, H, W) or (1, 1, 2, 3 or 4, H, W) likewise, channels first. Arrays are copied.
        max_pixels: largest width times height, checked before decoding.
        channels: bands of an array that is neither grey nor RGB, none of them transparency; files are refused then.

    Raises:
        MissingPicture: the file does not exist.
        PictureError: anything else that is wrong with it, in one sentence.
    """
    if channels is not None:
        return _of_bands(source, channels)
    if isinstance(source, Picture):
        return source
    if isinstance(source, str) and source.startswith(("http://", "https://")):
        raise PictureError(
            f"{source!r} is an address, and nothing is fetched from the web; save the picture and give its path."
        )
    if isinstance(source, (str, PathLike)):
        return _of(decode_file(Path(source), max_pixels), "file")
    if isinstance(source, Image.Image):
        if source.size[0] * source.size[1] > max_pixels:
            raise PictureError(f"the picture has {source.size} pixels, expected at most {max_pixels}; make it smaller.")
        try:
            return _of(decode_pil(source), "pil")
        except PictureError:
            raise
        except BROKEN as error:
            raise PictureError(f"the PIL image cannot be loaded ({error}); open a complete copy of it.") from error
    kind: Kind = "numpy"
    if is_torch(source):
        source, kind = _channels_last(source), "torch"
    if not isinstance(source, np.ndarray):
        raise PictureError(
            f"a picture was given as {type(source).__name__}, expected a path, a PIL image, a numpy array or a torch "
            "tensor; convert it to one of these."
        )
    return _from_array(source, kind)


def _of_bands(source: Any, channels: int) -> Picture:
    """A picture of any number of bands, none of them transparency, from an array."""
    kind: Kind = "torch" if is_torch(source) else "numpy"
    if isinstance(source, Picture):
        source = source.pixels
    if is_torch(source):
        source = _channels_last(source, (channels,))
    if not isinstance(source, np.ndarray) or source.ndim != 3 or source.shape[2] != channels:
        given = f"of shape {source.shape}" if isinstance(source, np.ndarray) else f"as {type(source).__name__}"
        raise PictureError(
            f"a picture was given {given}, and the model paints {channels} bands; give an array "
            f"(H, W, {channels}) or a tensor ({channels}, H, W)."
        )
    return Picture(np.ascontiguousarray(_checked(source)), None, None, kind)


def _of(decoded: Decoded, kind: Kind) -> Picture:
    return Picture(decoded.pixels, decoded.alpha, decoded.icc, kind, decoded.metadata)


def is_torch(value: object) -> bool:
    """True for a torch tensor; torch is not imported for the question."""
    kind = getattr(sys.modules.get("torch"), "Tensor", None)  # another thread may be half way through importing it
    return kind is not None and isinstance(value, kind)


def _channels_last(tensor: Any, channels: tuple[int, ...] = (1, 2, 3, 4)) -> Array:  # Any: torch is not imported here
    if tensor.ndim == 4 and tensor.shape[0] == 1:
        tensor = tensor[0]
    if tensor.ndim != 3 or tensor.shape[0] not in channels:
        first, several = ("3", "1 to 4") if len(channels) > 1 else (str(channels[0]),) * 2
        raise PictureError(
            f"the tensor is {tuple(tensor.shape)}, expected ({first}, H, W) or (1, {first}, H, W) with {several} "
            "channels; give one picture at a time, channels first."
        )
    tensor = tensor.detach().cpu().movedim(0, -1)
    return np.asarray((tensor.float() if tensor.is_floating_point() else tensor).numpy())


def _from_array(array: Array, kind: Kind) -> Picture:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 2, 3, 4):
        raise PictureError(
            f"the array is {array.shape}, expected (H, W), or (H, W, C) with 1 to 4 channels; "
            "give one picture at a time, channels last."
        )
    array = _checked(array)
    opaque = array.shape[2] in (1, 3)
    colours = array if opaque else array[..., :-1]
    alpha = None if opaque else np.ascontiguousarray(array[..., -1])
    return Picture(np.ascontiguousarray(colours), alpha, None, kind)


def _checked(array: Array) -> Array:
    """An array's values as they are held: uint8, uint16 or float32, in the machine's byte order."""
    if 0 in array.shape:
        raise PictureError(
            f"the array is {array.shape}, expected at least one pixel; give a picture that is not empty."
        )
    if np.issubdtype(array.dtype, np.floating):
        if not np.isfinite(array).all():
            raise PictureError("the array holds NaN or infinite values, expected [0, 1]; replace them first.")
        if array.min() < 0 or array.max() > 1:
            raise PictureError(
                f"the float array spans [{array.min():g}, {array.max():g}], expected [0, 1]; "
                "scale it, or give uint8 for values up to 255."
            )
        array = array.astype(np.float32)
    elif array.dtype.newbyteorder("=") in (np.uint8, np.uint16):
        array = array.astype(array.dtype.newbyteorder("="))
    else:
        raise PictureError(f"the array is {array.dtype}, expected uint8, uint16 or float in [0, 1]; convert it.")
    return array


def write_picture(
    picture: Picture,
    path: str | PathLike[str],
    *,
    settings: dict[str, Any] | None = None,
    quality: int | None = None,
    say: Say = remark,
) -> None:
    """Write a picture, whole or not at all, in the format of the suffix: one of `formats.WRITTEN`.

    PNG, TIFF and WebP are lossless; WebP has no grey and is read back as RGB. The picture's metadata go into the file
    as far as its format can hold them.

    Args:
        picture: what to write; 16 bits only to PNG and TIFF, transparency not to JPEG.
        path: where; an existing file is replaced in one step.
        settings: stored as JSON in a PNG's iTXt chunk "paintback"; other formats do not carry it.
        quality: of JPEG, 1 to 100; None for the strength at which the picture itself was compressed, or 95.
        say: told in a sentence what the format changes or cannot hold; a warning otherwise.

    Raises:
        PictureError: unknown suffix, a picture the format cannot hold, or a folder that cannot be written to.
    """
    path = Path(path)
    format_of(path)
    try:
        data = encode(picture, path, settings, quality, say)
    except PictureError:
        raise
    except BROKEN as error:
        raise PictureError(f"{str(path)!r} could not be encoded ({error}); try .png.") from error
    write_whole(data, path)


def read_settings(path: str | PathLike[str]) -> dict[str, Any]:
    """The settings that `write_picture` stored in a PNG.

    Raises:
        MissingPicture: the file does not exist.
        PictureError: not a PNG, or one without (readable) settings.
    """
    path = Path(path)
    found: object = None
    try:
        with path.open("rb") as file:
            if file.read(4) == b"\x89PNG":
                file.seek(0)
                im = PngImagePlugin.PngImageFile(file)
                # Other programs may move the text behind the pixels; then the whole file has to be read.
                text = im.info.get(SETTINGS_KEY) or im.text.get(SETTINGS_KEY)
                found = json.loads(text) if text else None
    except FileNotFoundError as error:
        raise MissingPicture(f"{str(path)!r} does not exist, expected a PNG; check the path.") from error
    except BROKEN as error:
        raise PictureError(f"{str(path)!r} cannot be read for settings ({error}); give a complete PNG file.") from error
    if not isinstance(found, dict):
        raise PictureError(f"{str(path)!r} holds no Paintback settings; give a PNG that Paintback wrote.")
    return found


def to_pil(picture: Picture) -> Image.Image:
    """A PIL image of mode L, LA, RGB or RGBA with the ICC profile, or I;16 for 16-bit grey without alpha.

    PIL has no deeper colour modes: 16-bit colour and floats are rounded to 8 bits. `to_numpy` and `write_picture` keep
    all of them.

    Raises:
        PictureError: for bands that are neither grey nor RGB.
    """
    if picture.pixels.shape[2] not in (1, 3):
        raise PictureError(
            f"a picture of {picture.pixels.shape[2]} bands is no PIL image; ask for output_type='np' or 'pt'."
        )
    if picture.pixels.dtype == np.uint16 and picture.grey and picture.alpha is None:
        im = Image.fromarray(picture.pixels[..., 0])
    else:
        picture = picture.to_uint8()
        bands = picture.pixels
        if picture.alpha is not None:
            bands = np.concatenate([bands, picture.alpha[..., None]], axis=-1)
        im = Image.fromarray(bands[..., 0] if bands.shape[2] == 1 else bands)
    if picture.icc:
        im.info["icc_profile"] = picture.icc
    exif = picture.metadata.exif_for("PNG", picture.size)
    for name, value in (("exif", exif.to_bytes() if exif else None), ("dpi", picture.metadata.dpi),
                        ("xmp", picture.metadata.xmp)):  # fmt: skip
        if value is not None:
            im.info[name] = value
    return im


def to_numpy(picture: Picture, *, as_given: bool = False) -> Array:
    """Float32 (H, W, 3) in [0, 1], as diffusers' "np" has it (exact for 8 and 16 bits, transparency left out).

    With as_given, the stored dtype and channels instead: (H, W, 1), (H, W, 3) or, with transparency, one more.
    """
    if not as_given:
        colours = picture.pixels.astype(np.float32) / np.float32(picture.white)
        return np.repeat(colours, 3, axis=-1) if picture.grey else colours
    if picture.alpha is None:
        return np.array(picture.pixels)
    return np.concatenate([picture.pixels, picture.alpha[..., None]], axis=-1)


def to_torch(picture: Picture) -> torch.Tensor:
    """Float32 (1, 3, H, W) in [0, 1], as diffusers' "pt" has it; transparency left out."""
    import torch

    return torch.from_numpy(np.ascontiguousarray(to_numpy(picture).transpose(2, 0, 1)[None]))
