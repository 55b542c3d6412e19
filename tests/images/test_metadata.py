"""What a file says beside its pixels: kept where the format can hold it, brought up to date, and named where not."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, PngImagePlugin

from paintback.images import Picture, read_picture, write_picture
from paintback.images.exif import Exif
from paintback.images.metadata import Metadata

few = settings(max_examples=40, derandomize=True, deadline=None)
FORMATS = ["png", "jpg", "jfif", "tif", "webp"]
DATE, MAKER, COPYRIGHT, DESCRIPTION = 36867, 271, 33432, 270


def noise(height=24, width=40, channels=3, dtype=np.uint8, seed=0):
    top = np.iinfo(dtype).max
    return np.random.default_rng(seed).integers(0, top + 1, (height, width, channels), dtype=dtype)


def written(picture, path):
    """Writes, and gives back what was remarked."""
    said = []
    write_picture(picture, path, say=said.append)
    return said


def photo(folder, name="a.jpg", orientation=6):
    """A photograph as a camera writes it: turned, dated, with a place and a thumbnail."""
    exif = Image.Exif()
    exif[0x0112], exif[MAKER], exif[COPYRIGHT], exif[DESCRIPTION] = orientation, "Maker", "me, 1999", "Grandmother"
    exif.get_ifd(34665)[DATE] = "1999:12:31 23:59:58"
    exif.get_ifd(34665)[40962], exif.get_ifd(34665)[40963] = 40, 24
    exif.get_ifd(34853)[1], exif.get_ifd(34853)[2] = "N", (51.0, 30.0, 12.5)
    Image.fromarray(noise()).save(folder / name, exif=exif, dpi=(300, 200), quality=70, subsampling=2)
    return folder / name


def same_exif(path, size):
    with Image.open(path) as im:
        exif = im.getexif()
        assert exif.get(0x0112, 1) == 1
        assert (exif[MAKER], exif[COPYRIGHT], exif[DESCRIPTION]) == ("Maker", "me, 1999", "Grandmother")
        below = exif.get_ifd(34665)
        assert below[DATE] == "1999:12:31 23:59:58"
        assert (below[40962], below[40963]) == size  # upright, as the pixels are
        assert exif.get_ifd(34853)[2] == (51.0, 30.0, 12.5)


@pytest.mark.parametrize("suffix", FORMATS)
def test_exif_and_resolution_are_kept_and_orientation_is_reset(tmp_path, suffix):
    picture = read_picture(photo(tmp_path))
    assert picture.size == (24, 40)
    assert picture.metadata.dpi == (200, 300)  # turned with the pixels
    said = written(picture, tmp_path / f"b.{suffix}")
    assert len(said) == (1 if suffix in ("jpg", "jfif") else 0)  # of the compression alone: nothing is left out
    same_exif(tmp_path / f"b.{suffix}", (24, 40))
    again = read_picture(tmp_path / f"b.{suffix}")
    assert again.shape == picture.shape
    assert again.metadata.dpi == pytest.approx((200, 300), abs=0.01)
    assert again.metadata.exif.photo == picture.metadata.exif.with_size(24, 40).photo
    assert again.metadata.exif.gps == picture.metadata.exif.gps
    written(again, tmp_path / f"c.{suffix}")
    if suffix not in ("jpg", "jfif"):
        assert (tmp_path / f"c.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", ["tif", "png"])
def test_scans_keep_their_resolution_and_description(tmp_path, dtype, suffix):
    import tifffile

    tags = [(271, "s", 0, "Scanner", True), (315, "s", 0, "me", True), (33432, "s", 0, "archive", True)]
    tifffile.imwrite(tmp_path / "scan.tif", noise(dtype=dtype), photometric="rgb", resolution=(600, 600),
                     resolutionunit=2, description="box 7, letter 3", extratags=tags, metadata=None)  # fmt: skip
    picture = read_picture(tmp_path / "scan.tif")
    assert picture.metadata.dpi == (600, 600)
    assert written(picture, tmp_path / f"b.{suffix}") == []
    with Image.open(tmp_path / f"b.{suffix}") as im:
        assert im.info["dpi"] == pytest.approx((600, 600), abs=0.01)
        exif = im.getexif()
        assert [exif[tag] for tag in (270, 271, 315, 33432)] == ["box 7, letter 3", "Scanner", "me", "archive"]
    again = read_picture(tmp_path / f"b.{suffix}")
    np.testing.assert_array_equal(again.pixels, picture.pixels)
    assert again.metadata.exif == picture.metadata.exif
    if suffix == "tif":
        with tifffile.TiffFile(tmp_path / "b.tif") as tif:  # another reader
            assert tif.pages[0].tags[270].value == "box 7, letter 3"
            assert tif.pages[0].tags[282].value == (600, 1)


def png_with(folder, chunks):
    buffer = io.BytesIO()
    Image.fromarray(noise()).save(buffer, "PNG")
    data = buffer.getvalue()
    more = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    (folder / "a.png").write_bytes(data[:33] + more + data[33:])
    return folder / "a.png"


COLOUR = [(b"gAMA", struct.pack(">I", 100000)), (b"cHRM", struct.pack(">8I", *range(31270, 31278))),
          (b"cICP", bytes([9, 18, 0, 1])), (b"pHYs", struct.pack(">IIB", 11811, 11000, 1))]  # fmt: skip
TEXTS = [(b"tEXt", b"parameters\0a cat, steps 20"), (b"zTXt", b"Comment\0\0" + zlib.compress(b"long")),
         (b"iTXt", "Copyright\0\0\0de\0\0ich, Jürgen".encode())]  # fmt: skip


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_png_chunks_are_kept_as_they_are(tmp_path, dtype):
    picture = read_picture(png_with(tmp_path, COLOUR + TEXTS))
    if dtype == np.uint16:
        picture = picture.to_uint16()
    assert written(picture, tmp_path / "b.png") == []
    data = (tmp_path / "b.png").read_bytes()
    for name, body in COLOUR + TEXTS:
        assert data.count(name + body) == 1, name
    with Image.open(tmp_path / "b.png") as im:
        assert im.info["gamma"] == 1.0
        assert im.info["dpi"] == pytest.approx((300, 279.4), abs=0.01)
        assert im.text["Copyright"] == "ich, Jürgen"


def test_no_resolution_is_made_up(tmp_path):
    """A JPEG with EXIF and without a resolution, for which Pillow says 72 dpi."""
    exif = Image.Exif()
    exif[COPYRIGHT] = "me"
    Image.fromarray(noise()).save(tmp_path / "a.jpg", exif=exif)
    assert Image.open(tmp_path / "a.jpg").info["dpi"] == (72, 72)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.metadata.dpi is None
    write_picture(picture, tmp_path / "b.png")
    assert "dpi" not in Image.open(tmp_path / "b.png").info
    assert 282 not in Image.open(tmp_path / "b.png").getexif()


@pytest.mark.parametrize(("suffix", "kind"), [("jpg", "JPEG"), ("tif", "TIFF"), ("webp", "WebP")])
def test_what_a_format_cannot_hold_is_named_once(tmp_path, suffix, kind):
    picture = read_picture(png_with(tmp_path, COLOUR + TEXTS))
    said = [one for one in written(picture, tmp_path / f"b.{suffix}") if "cannot hold" in one]
    assert said == [
        f"{kind} cannot hold gAMA, cHRM, cICP and the texts 'parameters', 'Comment' of the picture; they were left out."
    ]
    with Image.open(tmp_path / f"b.{suffix}") as im:
        assert "Jürgen" in im.getexif()[COPYRIGHT] or "JÃ¼rgen" in im.getexif()[COPYRIGHT]
        if suffix != "webp":
            assert im.info["dpi"] == pytest.approx((300, 279.4), abs=0.5)


def test_a_results_own_settings_are_not_kept_twice(tmp_path):
    from paintback.images import read_settings

    write_picture(Picture(noise()), tmp_path / "a.png", settings={"seed": 1})
    write_picture(read_picture(tmp_path / "a.png"), tmp_path / "b.png", settings={"seed": 2})
    assert read_settings(tmp_path / "b.png") == {"seed": 2}
    assert (tmp_path / "b.png").read_bytes().count(b"iTXtpaintback") == 1


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_xmp_is_kept_and_turned(tmp_path, suffix):
    packet = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6" dc:title="Summer"/></x:xmpmeta>'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise()).save(tmp_path / "a.webp", xmp=packet, exif=exif, lossless=True)
    picture = read_picture(tmp_path / "a.webp")
    assert [one for one in written(picture, tmp_path / f"b.{suffix}") if "cannot hold" in one] == []
    again = read_picture(tmp_path / f"b.{suffix}")
    assert again.metadata.xmp == packet.replace(b'"6"', b'"1"')


def test_iptc_comment_and_thumbnail(tmp_path):
    record = b"\x1c\x02\x78\x00\x05Hello"
    path = photo(tmp_path)
    data = path.read_bytes()
    segment = b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(record)) + record
    more = struct.pack(">BBH", 0xFF, 0xED, len(segment) + 2) + segment
    more += struct.pack(">BBH", 0xFF, 0xFE, 6) + b"note"
    path.write_bytes(data[:2] + more + data[2:])
    picture = read_picture(path)
    for name in ("b.jpg", "b.tif"):
        written(picture, tmp_path / name)
        assert read_picture(tmp_path / name).metadata.iptc == record
    assert read_picture(tmp_path / "b.jpg").metadata.comment == b"note"
    assert written(picture, tmp_path / "b.png") == [
        "PNG cannot hold IPTC and the comment of the picture; they were left out."
    ]
    only = Picture(picture.pixels, metadata=Metadata(comment=b"note"))
    assert written(only, tmp_path / "b.png") == ["PNG cannot hold the comment of the picture; it was left out."]


def test_a_thumbnail_does_not_show_what_was_painted_over():
    block = struct.pack("<2sHI", b"II", 42, 8) + struct.pack("<HHHI4sI", 1, 271, 2, 2, b"M\0\0\0", 26)
    block += struct.pack("<HHHIIHHIII", 2, 513, 4, 1, 60, 514, 4, 1, 4, 0) + b"\0" * 4 + b"\xff\xd8\xff\xd9"
    exif = Exif.parse(b"Exif\0\0" + block)
    assert exif.main == {271: (2, b"M\0")}
    assert b"\xff\xd8" not in exif.to_bytes()


def test_both_byte_orders_read_alike():
    for order, mark in (("<", b"II"), (">", b"MM")):
        block = struct.pack(order + "2sHI", mark, 42, 8) + struct.pack(order + "H", 2)
        block += struct.pack(order + "HHII", 282, 5, 1, 38) + struct.pack(order + "HHIH2x", 296, 3, 1, 3)
        block += struct.pack(order + "III", 0, 300, 1)
        exif = Exif.parse(block)
        assert exif.main == {282: (5, struct.pack("<II", 300, 1)), 296: (3, b"\3\0")}


@few
@given(st.binary(max_size=300), st.integers(0, 300))
def test_broken_exif_is_left_out_and_never_raises(junk, at):
    exif = Image.Exif()
    exif[MAKER], exif[282] = "Maker", 300.0
    exif.get_ifd(34665)[DATE] = "1999:12:31 23:59:58"
    block = bytearray(exif.tobytes())
    block[at : at + len(junk)] = junk
    read = Exif.parse(bytes(block))
    assert Exif.parse(read.to_bytes()) == read


@few
@given(
    st.dictionaries(st.sampled_from([270, 271, 272, 305, 315, 33432]), st.text("abc äß猫", min_size=1), min_size=1),
    st.integers(1, 8),
    st.sampled_from(FORMATS),
    st.sampled_from(FORMATS),
)
def test_any_description_survives_any_way(tmp_path_factory, texts, orientation, source, target):
    """Whatever is said in EXIF is said after reading and writing, with the pixels upright."""
    folder = tmp_path_factory.mktemp("m")
    main = {274: (3, struct.pack("<H", orientation))} | {tag: (2, text.encode() + b"\0") for tag, text in texts.items()}
    written(Picture(noise(8, 12), metadata=Metadata(exif=Exif(main))), folder / f"a.{source}")
    picture = read_picture(folder / f"a.{source}")
    assert picture.size == ((8, 12) if orientation >= 5 else (12, 8))
    written(picture, folder / f"b.{target}")
    found = read_picture(folder / f"b.{target}")
    assert found.size == picture.size
    assert {tag: found.metadata.exif.main[tag][1].decode() for tag in texts} == {k: v + "\0" for k, v in texts.items()}
    with Image.open(folder / f"b.{target}") as im:
        assert im.getexif().get(0x0112, 1) == 1
        assert set(im.getexif()) >= set(texts)


def test_too_much_exif_for_a_jpeg_is_said(tmp_path):
    exif = Image.Exif()
    exif[MAKER] = "Maker"
    exif.get_ifd(34665)[37500] = b"\1" * 70000
    Image.fromarray(noise()).save(tmp_path / "a.webp", exif=exif, lossless=True)
    picture = read_picture(tmp_path / "a.webp")
    said = written(picture, tmp_path / "b.jpg")
    assert "the camera's private block (more than 64 KiB)" in said[0]
    with Image.open(tmp_path / "b.jpg") as im:
        assert im.getexif()[MAKER] == "Maker"
    assert written(picture, tmp_path / "b.png") == []


def test_a_jpeg_is_compressed_as_its_source_was_and_that_is_said(tmp_path):
    smooth = np.add.outer(np.arange(64), np.arange(96))[..., None].repeat(3, -1).astype(np.uint8)
    for subsampling in (0, 2):
        Image.fromarray(smooth).save(tmp_path / "a.jpg", quality=60, subsampling=subsampling)
        picture = read_picture(tmp_path / "a.jpg")
        said = written(picture, tmp_path / "b.jpg")
        assert len(said) == 1
        assert ".png keeps" in said[0]
        with Image.open(tmp_path / "a.jpg") as a, Image.open(tmp_path / "b.jpg") as b:
            assert b.quantization == a.quantization
        worst = np.abs(read_picture(tmp_path / "b.jpg").pixels.astype(int) - picture.pixels).max()
        assert worst <= 3  # the same numbers, but for rounding; 95 is no nearer
    write_picture(picture, tmp_path / "c.jpg", quality=95, say=said.append)
    with Image.open(tmp_path / "c.jpg") as c, Image.open(tmp_path / "a.jpg") as a:
        assert c.quantization != a.quantization


@few
@given(st.integers(0, 999), st.sampled_from([None, 1, 60, 95, 100]), st.booleans(), st.booleans())
def test_any_jpeg_says_once_that_it_is_compressed_anew(tmp_path_factory, seed, quality, grey, from_jpeg):
    """Of any picture, at any quality, from a JPEG or not; what is written losslessly says nothing of the kind."""
    rng, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("jpeg")
    picture = Picture(noise(*rng.integers(1, 50, 2), 1 if grey else 3, seed=seed))
    if from_jpeg:
        write_picture(picture, folder / "a.jpg", quality=int(rng.integers(1, 101)), say=lambda _: None)
        picture = read_picture(folder / "a.jpg")
    said = []
    write_picture(picture, folder / "b.jpg", quality=quality, say=said.append)
    assert [one for one in said if "compressed" in one or ".png" in one] == [
        "A JPEG is compressed anew all over, also where nothing was repainted; a .png keeps those pixels as given."
    ]
    for suffix in ("png", "tif", "webp"):
        assert not any("compressed" in one for one in written(picture, folder / f"c.{suffix}"))
        back = read_picture(folder / f"c.{suffix}").pixels
        np.testing.assert_array_equal(
            np.broadcast_to(back, (*picture.shape, 3)), np.broadcast_to(picture.pixels, (*picture.shape, 3))
        )


def test_tables_turn_with_the_pixels(tmp_path):
    table = list(range(1, 65))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(noise(64, 96)).save(tmp_path / "a.jpg", qtables=[table, table], subsampling=1, exif=exif)
    picture = read_picture(tmp_path / "a.jpg")
    assert picture.metadata.jpeg.tables[0] == tuple(np.array(table).reshape(8, 8).T.ravel())
    assert picture.metadata.jpeg.subsampling == 0


def test_pictures_in_memory_keep_their_metadata(tmp_path):
    from paintback.images import to_pil

    with Image.open(photo(tmp_path)) as im:
        picture = read_picture(im)
    again = read_picture(to_pil(picture))
    assert again.metadata.dpi == picture.metadata.dpi == (200, 300)
    assert again.metadata.exif == picture.metadata.exif.with_dpi((200, 300)).with_size(24, 40)
    info = PngImagePlugin.PngInfo()
    info.add_text("Copyright", "me")
    info.add(b"gAMA", struct.pack(">I", 45455))
    Image.fromarray(noise()).save(tmp_path / "a.png", pnginfo=info)
    with Image.open(tmp_path / "a.png") as im:
        im.load()
        written(read_picture(im), tmp_path / "b.png")
    with Image.open(tmp_path / "b.png") as im:
        assert im.info["gamma"] == 0.45455
        assert im.text == {"Copyright": "me"}


def test_profile_and_exif_stay_together(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = read_picture(photo(tmp_path))
    for suffix in FORMATS:
        written(Picture(picture.pixels, None, profile, metadata=picture.metadata), tmp_path / f"b.{suffix}")
        assert read_picture(tmp_path / f"b.{suffix}").icc == profile
        same_exif(tmp_path / f"b.{suffix}", (24, 40))


def test_avif_is_read(tmp_path):
    from PIL import features

    pixels = np.full((16, 24, 3), (200, 120, 40), np.uint8)
    if features.check("avif"):
        Image.fromarray(pixels).save(tmp_path / "a.avif", quality=95)
        picture = read_picture(tmp_path / "a.avif")
        assert np.abs(picture.pixels.astype(int) - pixels).max() <= 3
