"""EXIF and TIFF directories: read from any file, written in one form.

Both are the same structure: a header, directories of tagged values, and offsets between them (TIFF 6.0; Exif 3.0, CIPA
DC-008). Values are kept as bytes of their own type in little-endian order, so that nothing is rounded or reinterpreted.
The embedded thumbnail is not kept, since it shows what was painted over.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace
from fractions import Fraction

__all__ = ["Directory", "Exif", "write_directories"]

SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}  # bytes of a value, by type
UNITS = {3: 2, 4: 4, 5: 4, 8: 2, 9: 4, 10: 4, 11: 4, 12: 8, 13: 4}  # of what is swapped
PHOTO, GPS, INTEROP = 34665, 34853, 40965  # pointers to further directories
ORIENTATION, X_RESOLUTION, Y_RESOLUTION, UNIT = 274, 282, 283, 296
MAKER_NOTE, WIDTH, HEIGHT = 37500, 40962, 40963
XMP, IPTC = 700, 33723

# How a TIFF's own pixels are stored, and what stands elsewhere: not part of the description that is handed on.
STRUCTURE = {
    *range(254, 260), *range(262, 267), 273, ORIENTATION, *range(277, 282), 284, *range(288, 294), 297, 301, 317,
    *range(320, 326), 330, 332, *range(334, 348), *range(512, 522), *range(529, 533), XMP, IPTC, PHOTO, GPS, INTEROP,
    34377, 34675, 37724,
}  # fmt: skip

Directory = dict[int, tuple[int, bytes]]
"""Values by tag: their type and their bytes, little-endian."""


@dataclass(frozen=True)
class Exif:
    """The description that a camera, a scanner or a person put into a file; orientation and thumbnail are left out.

    Attributes:
        main: description, maker, date, copyright, resolution, ...
        photo: exposure, lens, ...
        gps: the place.
        interop: which rules the file follows.
    """

    main: Directory = field(default_factory=dict)
    photo: Directory = field(default_factory=dict)
    gps: Directory = field(default_factory=dict)
    interop: Directory = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.main or self.photo or self.gps)

    @classmethod
    def parse(cls, block: bytes) -> Exif:
        """Reads a block of EXIF; what is broken in it is left out."""
        block = block.removeprefix(b"Exif\0\0")
        order = {b"II": "<", b"MM": ">"}.get(block[:2])
        if order is None or len(block) < 8:
            return cls()
        main = _read(block, struct.unpack_from(order + "I", block, 4)[0], order)
        below = {tag: _read(block, _pointer(main, tag), order) for tag in (PHOTO, GPS)}
        interop = _read(block, _pointer(below[PHOTO], INTEROP), order)
        below[PHOTO].pop(INTEROP, None)
        return cls(
            {tag: value for tag, value in main.items() if tag not in STRUCTURE}, below[PHOTO], below[GPS], interop
        )

    def to_bytes(self) -> bytes:
        """A block of EXIF, without the "Exif" that JPEG puts before it."""
        return struct.pack("<2sHI", b"II", 42, 8) + write_directories(self, {}, 8)

    @property
    def dpi(self) -> tuple[float, float] | None:
        """Pixels per inch, or None where they are not said."""
        values = [_rational(self.main.get(tag)) for tag in (X_RESOLUTION, Y_RESOLUTION)]
        unit = self.main.get(UNIT, (3, b"\2\0"))[1][:1]
        if None in values or unit not in (b"\2", b"\3"):
            return None
        scale = 2.54 if unit == b"\3" else 1.0
        return float(values[0] or 0) * scale, float(values[1] or 0) * scale

    def with_dpi(self, dpi: tuple[float, float]) -> Exif:
        """A copy that says this resolution."""
        own = self.dpi
        if own is not None and all(abs(a - b) <= 0.005 * b for a, b in zip(own, dpi, strict=True)):
            return self
        values = [Fraction(value).limit_denominator(10000) for value in dpi]
        x, y = (struct.pack("<II", min(v.numerator, 2**32 - 1), v.denominator) for v in values)
        return replace(self, main={**self.main, X_RESOLUTION: (5, x), Y_RESOLUTION: (5, y), UNIT: (3, b"\2\0")})

    def with_size(self, width: int, height: int) -> Exif:
        """A copy whose own record of the picture's size, where there is one, is right."""
        own = {tag: (4, struct.pack("<I", side)) for tag, side in ((WIDTH, width), (HEIGHT, height))}
        return replace(self, photo={tag: own.get(tag, value) for tag, value in self.photo.items()})

    def without_maker_note(self) -> Exif:
        """A copy without the camera's private block."""
        return replace(self, photo={tag: value for tag, value in self.photo.items() if tag != MAKER_NOTE})

    def with_text(self, tag: int, text: str) -> Exif:
        """A copy with a text in the main directory, where there is none yet."""
        return self if tag in self.main else replace(self, main={**self.main, tag: (2, text.encode() + b"\0")})


def write_directories(exif: Exif, structure: Directory, start: int) -> bytes:
    """Directories one after another, the main one first.

    Args:
        exif: the description.
        structure: further entries of the main directory, which come before its own.
        start: where they will stand in the file; even.
    """
    main = {**exif.main, **structure}
    photo = dict(exif.photo)
    present = [(PHOTO, photo, main), (GPS, exif.gps, main), (INTEROP, exif.interop, photo)]
    present = [one for one in present if one[1]]
    for tag, _, parent in present:  # room for the pointers, before anything is measured
        parent[tag] = (4, b"\0\0\0\0")
    at = start + _length(main)
    for tag, directory, parent in present:
        parent[tag] = (4, struct.pack("<I", at))
        at += _length(directory)
    out = _write(main, start)
    for _, directory, _ in present:
        out += _write(directory, start + len(out))
    return out


def _length(directory: Directory) -> int:
    tails = sum(len(data) + len(data) % 2 for _, data in directory.values() if len(data) > 4)
    return 2 + 12 * len(directory) + 4 + tails


def _write(directory: Directory, start: int) -> bytes:
    head, tail = struct.pack("<H", len(directory)), b""
    after = start + 2 + 12 * len(directory) + 4
    for tag, (kind, data) in sorted(directory.items()):
        head += struct.pack("<HHI", tag, kind, len(data) // SIZES[kind])
        if len(data) <= 4:
            head += data.ljust(4, b"\0")
        else:
            head += struct.pack("<I", after + len(tail))
            tail += data + b"\0" * (len(data) % 2)
    return head + b"\0\0\0\0" + tail


def _read(block: bytes, start: int, order: str) -> Directory:
    directory: Directory = {}
    if not 8 <= start <= len(block) - 2:
        return directory
    (count,) = struct.unpack_from(order + "H", block, start)
    for number in range(count):
        at = start + 2 + 12 * number
        if at + 12 > len(block):
            break
        tag, kind, values = struct.unpack_from(order + "HHI", block, at)
        length = SIZES.get(kind, 0) * values
        place = at + 8 if length <= 4 else struct.unpack_from(order + "I", block, at + 8)[0]
        if length and place + length <= len(block):
            directory[tag] = (kind, _swapped(block[place : place + length], UNITS.get(kind, 1), order))
    return directory


def _swapped(data: bytes, unit: int, order: str) -> bytes:
    if order == "<" or unit == 1:
        return data
    return b"".join(data[at : at + unit][::-1] for at in range(0, len(data), unit))


def _pointer(directory: Directory, tag: int) -> int:
    kind, data = directory.get(tag, (4, b"\0\0\0\0"))
    return int(struct.unpack("<I", data)[0]) if kind in (4, 13) and len(data) == 4 else 0


def _rational(value: tuple[int, bytes] | None) -> float | None:
    if value is None or value[0] != 5 or len(value[1]) != 8:
        return None
    above, below = struct.unpack("<II", value[1])
    return above / below if above and below else None
