"""What a file says of its picture beside the pixels: read from every format, and handed on to those that can hold it.

EXIF goes into all four formats that are written, its orientation reset because the pixels are upright, the resolution
and the size brought up to date. What a format cannot hold is named.
"""

from __future__ import annotations

import re
import struct
from dataclasses import dataclass, field, replace
from typing import IO, Any

from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin

from paintback.images.exif import IPTC, STRUCTURE, XMP, Exif

__all__ = ["METADATA", "SETTINGS_KEY", "JpegTables", "Metadata", "metadata_of"]

SETTINGS_KEY = "paintback"  # keyword of the PNG text chunk that holds a result's settings
METADATA = ("exif", "xmp", "iptc", "dpi", "png", "text", "comment", "jpeg")
COLOUR_CHUNKS = (b"gAMA", b"cHRM", b"sRGB", b"cICP", b"mDCV", b"cLLI", b"mDCv", b"cLLi")
XMP_KEY = b"XML:com.adobe.xmp"
FURTHER = ("mp", "aux", "depth_images")  # what Pillow and pi-heif call pictures beside the first one
PLAIN = ((1, 13), (2, 2))  # primaries and transfer of sRGB, and of a file that says neither (ITU-T H.273)
TEXT_TAGS = {"Description": 270, "Author": 315, "Copyright": 33432}  # PNG's keywords that EXIF has a tag for
LARGEST_SEGMENT = 65533  # bytes in a segment of JPEG


@dataclass(frozen=True)
class JpegTables:
    """How strongly a JPEG was compressed.

    Attributes:
        tables: of quantisation, 64 numbers each, as Pillow takes them.
        subsampling: of colour: 0 for 4:4:4, 1 for 4:2:2, 2 for 4:2:0.
        progressive: whether it was stored so.
    """

    tables: tuple[tuple[int, ...], ...]
    subsampling: int
    progressive: bool

    def turned(self) -> JpegTables:
        """Those of the picture with rows and columns exchanged."""
        tables = tuple(tuple(table[8 * (k % 8) + k // 8] for k in range(64)) for table in self.tables)
        return replace(self, tables=tables, subsampling=0 if self.subsampling == 1 else self.subsampling)


@dataclass(frozen=True)
class Metadata:
    """What is known of a picture beside its pixels, transparency and colour profile.

    Attributes:
        exif: EXIF, or a TIFF's descriptive tags.
        xmp: an XMP packet.
        iptc: an IPTC record.
        dpi: pixels per inch.
        png: PNG's chunks about colour and resolution, as they are: gAMA, cHRM, sRGB, cICP, mDCV, cLLI, pHYs.
        text: PNG's chunks of text, as they are.
        comment: of a JPEG or GIF.
        jpeg: how a JPEG was compressed.
        further: pictures beside the first one that are not read, such as a gain map.
    """

    exif: Exif = field(default_factory=Exif)
    xmp: bytes | None = None
    iptc: bytes | None = None
    dpi: tuple[float, float] | None = None
    png: tuple[tuple[bytes, bytes], ...] = ()
    text: tuple[tuple[bytes, bytes], ...] = ()
    comment: bytes | None = None
    jpeg: JpegTables | None = None
    further: int = 0

    def exif_for(self, kind: str, size: tuple[int, int]) -> Exif:
        """The EXIF that a file of a format and size gets.

        Args:
            kind: "PNG", "JPEG", "WebP", "TIFF", "BMP" or "PPM".
            size: (width, height).
        """
        exif = self.exif.with_size(*size)
        if self.dpi is not None and (exif or kind in ("WebP", "TIFF")):
            exif = exif.with_dpi(self.dpi)
        if kind != "PNG":
            for keyword, text in self._plain_texts().items():
                if keyword in TEXT_TAGS:
                    exif = exif.with_text(TEXT_TAGS[keyword], text)
        if kind == "JPEG":
            for smaller in (exif, exif.without_maker_note(), Exif()):
                if len(smaller.to_bytes()) + 6 <= LARGEST_SEGMENT:
                    return smaller
        return exif

    def left_out(self, kind: str, size: tuple[int, int]) -> list[str]:
        """What a file of a format cannot hold, each in a word or two.

        Args:
            kind: "PNG", "JPEG", "WebP", "TIFF", "BMP" or "PPM".
            size: (width, height).
        """
        out = []
        if kind in ("BMP", "PPM"):  # pixels alone
            kept = {"EXIF": bool(self.exif), "XMP": self.xmp is not None, "the resolution": self.dpi is not None}
            out += [name for name, there in kept.items() if there]
        if kind != "PNG":
            out += [name.decode() for name, _ in self.png if name in COLOUR_CHUNKS and name != b"sRGB"]
            texts = [name for name in self._plain_texts() if name not in TEXT_TAGS]
            out += [f"the text{'s' * (len(texts) > 1)} {', '.join(map(repr, texts))}"] if texts else []
        if kind not in ("JPEG", "TIFF") and self.iptc is not None:
            out.append("IPTC")
        if kind != "JPEG" and self.comment is not None:
            out.append("the comment")
        if kind == "JPEG":
            written = self.exif_for(kind, size)
            if self.exif and not written:
                out.append("EXIF (more than 64 KiB)")
            elif len(written.photo) < len(self.exif.photo):
                out.append("the camera's private block (more than 64 KiB)")
            if self.xmp is not None and len(self.xmp) + 29 > LARGEST_SEGMENT:
                out.append("XMP (more than 64 KiB)")
        if self.further:
            out.append("the further pictures of the file, such as a gain map or a preview")
        return out

    def _plain_texts(self) -> dict[str, str]:
        texts = {}
        for name, data in self.text:
            keyword, _, rest = data.partition(b"\0")
            value = rest.decode("latin-1") if name == b"tEXt" else None
            if name == b"iTXt" and rest[:1] == b"\0":
                value = rest[2:].split(b"\0", 2)[-1].decode(errors="replace")
            texts[keyword.decode("latin-1")] = value or ""
        return texts


def metadata_of(im: Image.Image, file: IO[bytes] | None = None, turned: bool = False) -> Metadata:
    """What a loaded PIL image, and the file that it came from, say.

    Args:
        im: loaded.
        file: for PNG and TIFF, whose chunks and tags are kept as they are; without it, what Pillow makes of them.
        turned: whether EXIF orientation has exchanged rows and columns.
    """
    info = im.info
    exif = Exif.parse(_exif_block(im, file))
    xmp = info.get("xmp")
    iptc = None
    if isinstance(im, TiffImagePlugin.TiffImageFile):
        xmp, iptc = xmp or im.tag_v2.get(XMP), im.tag_v2.get(IPTC)
        iptc = iptc if isinstance(iptc, bytes) else None
    elif isinstance(info.get("photoshop"), dict):
        iptc = info["photoshop"].get(0x0404)
    # Pillow makes up 72 dpi for a JPEG that has EXIF and tells no resolution
    dpi = info.get("dpi") if im.format not in ("JPEG", "MPO") or info.get("jfif_unit") else None
    dpi = (float(dpi[0]), float(dpi[1])) if isinstance(dpi, tuple) and len(dpi) == 2 and min(dpi) > 1 else exif.dpi
    chunks = list(_png_chunks(file)) if file is not None and im.format == "PNG" else _chunks_of(im)
    png = tuple(one for one in chunks if one[0] in (*COLOUR_CHUNKS, b"pHYs"))
    if isinstance(nclx := info.get("nclx_profile"), dict) and not info.get("icc_profile"):  # HEIC
        colour = (nclx["color_primaries"], nclx["transfer_characteristics"])
        png += () if colour in PLAIN else ((b"cICP", bytes([*colour, 0, 1])),)
    text = [one for one in chunks if one[0][1:] in (b"EXt", b"TXt")]
    for chunk in text:
        if chunk[1].startswith(XMP_KEY + b"\0\0"):
            xmp = xmp or chunk[1][len(XMP_KEY) + 5 :]
    hidden = (SETTINGS_KEY.encode() + b"\0", XMP_KEY, b"Raw profile type")
    jpeg = _tables(im)
    if turned:
        dpi = None if dpi is None else (dpi[1], dpi[0])
        jpeg = None if jpeg is None else jpeg.turned()
        png = tuple((k, v[4:8] + v[:4] + v[8:]) if k == b"pHYs" and len(v) == 9 else (k, v) for k, v in png)
    comment = info.get("comment")
    return Metadata(
        exif=exif,
        xmp=_upright_xmp(xmp) if isinstance(xmp, bytes) else None,
        iptc=iptc,
        dpi=dpi,
        png=png,
        text=tuple(one for one in text if not one[1].startswith(hidden)),
        comment=comment if isinstance(comment, bytes) and comment else None,
        jpeg=jpeg,
        further=1 if any(info.get(key) for key in FURTHER) or "mpoffset" in info else 0,
    )


def _exif_block(im: Image.Image, file: IO[bytes] | None) -> bytes:
    if file is not None and im.format == "TIFF":
        file.seek(0)
        if file.read(4) in (b"II*\0", b"MM\0*"):
            file.seek(0)
            return file.read()
    block = im.info.get("exif")
    if isinstance(block, bytes) and not isinstance(im, TiffImagePlugin.TiffImageFile):
        return block
    # A TIFF's own directory, or what a program has set on a picture in memory, in the form of EXIF.
    given = im.getexif()
    if not given:
        return b""
    exif = Image.Exif()
    for tag, value in given.items():
        if tag not in STRUCTURE or tag in (34665, 34853):
            exif[tag] = value
    for tag in (34665, 34853):
        if below := given.get_ifd(tag):
            exif[tag] = dict(below)
    return exif.tobytes()


def _tables(im: Image.Image) -> JpegTables | None:
    if not isinstance(im, JpegImagePlugin.JpegImageFile) or im.mode not in ("L", "RGB"):
        return None
    tables = tuple(tuple(im.quantization[key]) for key in sorted(im.quantization))
    if not tables or any(len(table) != 64 or max(table) > 255 for table in tables):
        return None
    sampling = JpegImagePlugin.get_sampling(im)
    return JpegTables(tables, max(0, sampling), bool(im.info.get("progressive")))


def _png_chunks(file: IO[bytes]) -> list[tuple[bytes, bytes]]:
    file.seek(8)
    chunks = []
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack(">I4s", head)
        if kind == b"IEND":
            break
        if kind in (*COLOUR_CHUNKS, b"pHYs", b"tEXt", b"zTXt", b"iTXt"):
            chunks.append((kind, file.read(length)))
            file.seek(4, 1)
        else:
            file.seek(length + 4, 1)
    return chunks


def _chunks_of(im: Image.Image) -> list[tuple[bytes, bytes]]:
    """PNG chunks from what Pillow keeps in memory."""
    info: dict[Any, Any] = im.info
    chunks = []
    if isinstance(info.get("gamma"), int | float):
        chunks.append((b"gAMA", struct.pack(">I", round(info["gamma"] * 100000))))
    if isinstance(info.get("chromaticity"), tuple) and len(info["chromaticity"]) == 8:
        chunks.append((b"cHRM", struct.pack(">8I", *(round(one * 100000) for one in info["chromaticity"]))))
    if isinstance(info.get("srgb"), int):
        chunks.append((b"sRGB", bytes([info["srgb"] & 255])))
    if isinstance(im, PngImagePlugin.PngImageFile):
        for keyword, text in im.text.items():
            chunks.append((b"iTXt", keyword.encode("latin-1", "replace") + b"\0\0\0\0\0" + str(text).encode()))
    return chunks


def _upright_xmp(packet: bytes) -> bytes:
    packet = re.sub(rb'(tiff:Orientation=)(["\'])[2-8]\2', rb"\1\g<2>1\2", packet)
    return re.sub(rb"(<tiff:Orientation>)\s*[2-8]\s*(</tiff:Orientation>)", rb"\g<1>1\2", packet)
