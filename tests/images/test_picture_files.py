"""Files in, files out: what is not repainted comes back bit for bit."""

import contextlib
import io
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import png
import pytest
import tifffile
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms, ImageFile, ImageOps

from paintback.images import MissingPicture, PictureError, check_writable, decoding, encoding
from paintback.images.picture import Picture, read_picture, read_settings, to_numpy, to_pil, to_torch, write_picture

few = settings(max_examples=25, derandomize=True, deadline=None)
# a format and what it can hold
FORMATS = [
    (s, d) for s in ("png", "jpg", "webp", "tif") for d in (np.uint8, np.uint16) if d == np.uint8 or s in ("png", "tif")
]
SIDES = st.one_of(st.integers(1, 9), st.sampled_from([31, 64, 77]))
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def noise(height, width, channels, dtype, alpha=False, seed=0):
    rng = np.random.default_rng(seed)
    white = np.iinfo(dtype).max
    pixels = rng.integers(0, white + 1, (height, width, channels)).astype(dtype)
    return Picture(pixels, rng.integers(0, white + 1, (height, width)).astype(dtype) if alpha else None)


def repainted(picture, seed=1):
    """A picture with a random hole repainted, and the hole."""
    rng = np.random.default_rng(seed)
    where = rng.random(picture.shape) < 0.4
    return picture.with_pixels(rng.uniform(-1, 1, (*picture.shape, 3)).astype(np.float32), where), where


def same(picture, other):
    assert picture.pixels.dtype == other.pixels.dtype
    np.testing.assert_array_equal(picture.pixels, other.pixels)
    assert (picture.alpha is None) == (other.alpha is None)
    if picture.alpha is not None:
        np.testing.assert_array_equal(picture.alpha, other.alpha)


def one_sentence(error):
    message = str(error.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert 20 < len(message) < 420
    assert ". " not in message.replace("...", "")
    return message


@few
@given(SIDES, SIDES, st.sampled_from([1, 3]), st.booleans(), st.sampled_from(["uint8", "uint16"]), st.data())
def test_write_read_paste_is_identity_outside_the_mask(tmp_path_factory, height, width, channels, alpha, dtype, data):
    suffix = data.draw(st.sampled_from([".png", ".tif", ".webp"] if dtype == "uint8" else [".png", ".TIFF"]))
    folder = tmp_path_factory.mktemp("p")
    original = noise(height, width, channels, np.dtype(dtype), alpha, seed=height * 100 + width)
    write_picture(original, folder / f"in{suffix}")
    read = read_picture(folder / f"in{suffix}")
    out, where = repainted(read)
    write_picture(out, folder / f"out{suffix}")
    back = read_picture(str(folder / f"out{suffix}"))
    same(out, back)
    assert back.size == (width, height)
    assert back.pixels.dtype == original.pixels.dtype
    np.testing.assert_array_equal(*np.broadcast_arrays(back.pixels[~where], original.pixels[~where]))
    if alpha:
        np.testing.assert_array_equal(back.alpha[~where], original.alpha[~where])
        assert (back.alpha[where] == original.white).all()


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_a_large_odd_picture(tmp_path, suffix):
    picture, _ = repainted(noise(1237, 1001, 3, np.uint8))
    write_picture(picture, tmp_path / f"a{suffix}")
    same(picture, read_picture(tmp_path / f"a{suffix}"))


def test_a_large_16_bit_picture_spans_blocks(tmp_path):
    picture = noise(1021, 333, 3, np.uint16)
    for suffix in (".png", ".tif"):
        write_picture(picture, tmp_path / f"a{suffix}")
        same(picture, read_picture(tmp_path / f"a{suffix}"))
    np.testing.assert_array_equal(tifffile.imread(tmp_path / "a.tif"), picture.pixels)


@pytest.mark.parametrize("compression", [None, "lzw", "zlib"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_tiff_of_another_writer(tmp_path, compression, order):
    for channels, extra in ((1, None), (3, None), (4, ["unassalpha"])):
        bands = np.random.default_rng(0).integers(0, 65536, (33, 45, channels), dtype=np.uint16)
        tifffile.imwrite(
            tmp_path / "a.tif",
            bands[..., 0] if channels == 1 else bands,
            photometric="minisblack" if channels == 1 else "rgb",
            compression=compression,
            predictor=compression is not None,
            byteorder=order,
            extrasamples=extra,
        )
        picture = read_picture(tmp_path / "a.tif")
        np.testing.assert_array_equal(to_numpy(picture, as_given=True), bands)


def test_16_bit_tiff_premultiplied_and_planar(tmp_path):
    bands = np.zeros((4, 5, 4), np.uint16)
    bands[..., :3], bands[..., 3] = 10000, 32768
    tifffile.imwrite(tmp_path / "a.tif", bands, photometric="rgb", extrasamples=["assocalpha"])
    assert (read_picture(tmp_path / "a.tif").pixels == round(10000 * 65535 / 32768)).all()
    tifffile.imwrite(tmp_path / "b.tif", bands[..., :3].transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    with pytest.raises(PictureError, match="interleaved") as error:
        read_picture(tmp_path / "b.tif")
    one_sentence(error)


def test_16_bit_png_of_another_writer(tmp_path):
    rng = np.random.default_rng(0)
    for channels in (1, 2, 3, 4):
        for interlace in (False, True):
            bands = rng.integers(0, 65536, (13, 21, channels), dtype=np.uint16)
            writer = png.Writer(
                21, 13, bitdepth=16, greyscale=channels < 3, alpha=channels in (2, 4), interlace=interlace
            )
            with (tmp_path / "a.png").open("wb") as file:
                writer.write(file, bands.reshape(13, -1).tolist())
            np.testing.assert_array_equal(to_numpy(read_picture(tmp_path / "a.png"), as_given=True), bands)
    write_picture(Picture(bands[..., :3].copy(), bands[..., 3].copy()), tmp_path / "b.png")
    width, height, rows, info = png.Reader(str(tmp_path / "b.png")).read()
    assert (width, height, info["bitdepth"], info["alpha"]) == (21, 13, 16, True)
    np.testing.assert_array_equal(np.array([list(row) for row in rows]).reshape(13, 21, 4), bands)


def test_16_bit_png_with_a_transparent_colour(tmp_path):
    bands = np.random.default_rng(0).integers(0, 65536, (3, 4, 3), dtype=np.uint16)
    key = tuple(int(v) for v in bands[1, 2])
    with (tmp_path / "a.png").open("wb") as file:
        png.Writer(4, 3, bitdepth=16, greyscale=False, transparent=key).write(file, bands.reshape(3, -1).tolist())
    picture = read_picture(tmp_path / "a.png")
    np.testing.assert_array_equal(picture.pixels, bands)
    np.testing.assert_array_equal(np.argwhere(picture.alpha == 0), [[1, 2]])


def test_palette_bilevel_and_others_are_expanded(tmp_path):
    rgb = Image.fromarray(noise(9, 7, 3, np.uint8).pixels)
    palette = rgb.quantize(16)
    palette.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.png").pixels, np.asarray(palette.convert("RGB")))
    palette.save(tmp_path / "t.png", transparency=3)
    picture = read_picture(tmp_path / "t.png")
    np.testing.assert_array_equal(
        to_numpy(picture, as_given=True), np.asarray(Image.open(tmp_path / "t.png").convert("RGBA"))
    )
    palette.save(tmp_path / "a.gif")
    assert read_picture(tmp_path / "a.gif").pixels.shape == (9, 7, 3)
    for name in ("one.png", "one.tif"):
        rgb.convert("1").save(tmp_path / name)
        picture = read_picture(tmp_path / name)
        assert picture.pixels.shape == (9, 7, 1)
        assert set(np.unique(picture.pixels)) <= {0, 255}
    rgb.convert("LA").save(tmp_path / "la.png")
    assert read_picture(tmp_path / "la.png").alpha is not None
    rgb.convert("L").save(tmp_path / "key.png", transparency=int(np.asarray(rgb.convert("L"))[2, 2]))
    picture = read_picture(tmp_path / "key.png")
    assert picture.grey
    assert picture.alpha[2, 2] == 0
    rgb.convert("YCbCr").save(tmp_path / "a.jpg")
    assert read_picture(tmp_path / "a.jpg").shape == (9, 7)
    rgb.save(tmp_path / "a.bmp")
    np.testing.assert_array_equal(read_picture(tmp_path / "a.bmp").pixels, np.asarray(rgb))


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk_without_a_working_profile_is_converted_plainly(tmp_path, suffix):
    cmyk = Image.fromarray(noise(9, 7, 3, np.uint8).pixels).convert("CMYK")
    cmyk.save(tmp_path / f"a.{suffix}", icc_profile=b"\0" * 16 + b"CMYK" + b"\0" * 108)
    picture = read_picture(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(picture.pixels, np.asarray(Image.open(tmp_path / f"a.{suffix}").convert("RGB")))
    assert picture.icc is None
    out, where = repainted(picture)
    write_picture(out, tmp_path / "b.png")
    np.testing.assert_array_equal(read_picture(tmp_path / "b.png").pixels[~where], picture.pixels[~where])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    im = Image.fromarray(noise(8, 16, 3, np.uint8).pixels)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if suffix == "webp" else {}
    im.save(tmp_path / f"a.{suffix}", exif=exif, **options)
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        expected = np.asarray(ImageOps.exif_transpose(opened))
    np.testing.assert_array_equal(read_picture(tmp_path / f"a.{suffix}").pixels, expected)
    with Image.open(tmp_path / f"a.{suffix}") as opened:
        np.testing.assert_array_equal(read_picture(opened).pixels, expected)


def test_orientation_of_16_bit_tiff(tmp_path):
    bands = noise(4, 6, 3, np.uint16).pixels
    tifffile.imwrite(tmp_path / "a.tif", bands, photometric="rgb", extratags=[(274, "H", 1, 6, True)])
    np.testing.assert_array_equal(read_picture(tmp_path / "a.tif").pixels, np.rot90(bands, -1))


@pytest.mark.parametrize(("suffix", "dtype"), FORMATS)
def test_icc_is_kept(tmp_path, suffix, dtype):
    suffix = f".{suffix}"
    base = noise(5, 6, 3, dtype)
    write_picture(Picture(base.pixels, None, SRGB), tmp_path / f"a{suffix}")
    picture = read_picture(tmp_path / f"a{suffix}")
    assert picture.icc == SRGB
    assert repainted(picture)[0].icc == SRGB
    assert to_pil(picture).info["icc_profile"] == SRGB
    assert read_picture(to_pil(picture)).icc == SRGB


def test_jpeg_quality_and_grey(tmp_path):
    smooth = np.tile(np.linspace(0, 255, 64).astype(np.uint8)[:, None, None], (1, 64, 1))
    write_picture(Picture(smooth), tmp_path / "a.jpeg", quality=98)
    picture = read_picture(tmp_path / "a.jpeg")
    assert picture.grey
    assert np.abs(picture.pixels.astype(int) - smooth).max() <= 4
    with pytest.raises(PictureError, match="quality") as error:
        write_picture(Picture(smooth), tmp_path / "a.jpeg", quality=0)
    one_sentence(error)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_settings_travel_in_png(tmp_path, dtype):
    given = {"method": "ding", "seed": 7, "prompt": "a grün 猫\nline", "steps": [1, 2.5, None]}
    write_picture(noise(3, 4, 3, dtype), tmp_path / "a.png", settings=given)
    assert read_settings(tmp_path / "a.png") == given
    with Image.open(tmp_path / "a.png") as opened:
        assert json.loads(opened.text["paintback"]) == given
    write_picture(noise(3, 4, 3, dtype), tmp_path / "b.png")
    write_picture(noise(3, 4, 3, np.uint8), tmp_path / "b.webp", settings=given)
    for name in ("b.png", "b.webp"):
        with pytest.raises(PictureError, match="no Paintback settings") as error:
            read_settings(tmp_path / name)
        one_sentence(error)
    with pytest.raises(MissingPicture):
        read_settings(tmp_path / "none.png")
    with pytest.raises(PictureError, match="JSON") as error:
        write_picture(noise(3, 4, 3, dtype), tmp_path / "c.png", settings={"x": object()})
    one_sentence(error)
    assert not (tmp_path / "c.png").exists()


@pytest.mark.parametrize(("suffix", "dtype"), FORMATS)
@pytest.mark.parametrize("part", [0.0, 0.02, 0.3, 0.7, 0.95])
def test_truncated_files(tmp_path, suffix, part, dtype):
    write_picture(noise(40, 50, 3, dtype), tmp_path / f"a.{suffix}")
    data = (tmp_path / f"a.{suffix}").read_bytes()
    (tmp_path / f"b.{suffix}").write_bytes(data[: int(len(data) * part)])
    with pytest.raises(PictureError) as error:
        read_picture(tmp_path / f"b.{suffix}")
    one_sentence(error)


def test_truncated_strips_of_tiff(tmp_path):
    """The directory comes first here, so that only pixels are missing."""
    for dtype in (np.uint8, np.uint16):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, noise(40, 50, 3, dtype).pixels, photometric="rgb")
        (tmp_path / "a.tif").write_bytes(buffer.getvalue()[:-200])
        with pytest.raises(PictureError, match="truncated") as error:
            read_picture(tmp_path / "a.tif")
        one_sentence(error)


def test_wrong_files(tmp_path):
    with pytest.raises(MissingPicture) as error:
        read_picture(tmp_path / "none.png")
    one_sentence(error)
    assert isinstance(error.value, FileNotFoundError)
    with pytest.raises(PictureError, match="folder") as error:
        read_picture(tmp_path)
    one_sentence(error)
    (tmp_path / "a.png").write_text("no picture at all, only words")
    with pytest.raises(PictureError, match="not a picture") as error:
        read_picture(tmp_path / "a.png")
    one_sentence(error)
    (tmp_path / "a.eps").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 1 1\n")
    with pytest.raises(PictureError, match="not a picture"):
        read_picture(tmp_path / "a.eps")


@pytest.mark.parametrize("suffix", ["png", "gif", "webp", "tif"])
def test_animations_are_refused(tmp_path, suffix):
    frames = [Image.fromarray(noise(8, 8, 3, np.uint8, seed=seed).pixels) for seed in range(3)]
    frames[0].save(tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:])
    with pytest.raises(PictureError, match="3 frames") as error:
        read_picture(tmp_path / f"a.{suffix}")
    one_sentence(error)


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "gif", "bmp"])
def test_size_is_checked_before_decoding(tmp_path, suffix, monkeypatch):
    Image.fromarray(noise(20, 30, 3, np.uint8).pixels).save(tmp_path / f"a.{suffix}")
    assert read_picture(tmp_path / f"a.{suffix}", max_pixels=600).size == (30, 20)

    def decoded(*_):
        raise AssertionError("decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    with pytest.raises(PictureError, match="30 x 20 = 600 pixels, expected at most 599") as error:
        read_picture(tmp_path / f"a.{suffix}", max_pixels=599)
    one_sentence(error)


def test_a_bomb_and_pillows_globals(tmp_path, recwarn):
    import struct
    import zlib

    before = (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + header + struct.pack(">I", zlib.crc32(b"IHDR" + header))
    idat = struct.pack(">I", 4) + b"IDATabcd" + struct.pack(">I", zlib.crc32(b"IDATabcd"))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + idat)
    with pytest.raises(PictureError, match="3600000000 pixels") as error:
        read_picture(tmp_path / "bomb.png")
    one_sentence(error)
    zero = struct.pack(">IIBBBBB", 0, 5, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + b"IHDR" + zero + struct.pack(">I", zlib.crc32(b"IHDR" + zero))
    (tmp_path / "zero.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + idat)
    with pytest.raises(PictureError) as error:
        read_picture(tmp_path / "zero.png")
    one_sentence(error)
    assert before == (ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS)
    assert not recwarn.list


def test_what_a_format_cannot_hold(tmp_path):
    cases = [
        (noise(3, 4, 3, np.uint8), "a.xyz", "expected one of"),
        (noise(3, 4, 3, np.uint8), "a", "expected one of"),
        (noise(3, 4, 3, np.uint8, alpha=True), "a.jpg", "transparency"),
        (noise(3, 4, 3, np.uint16), "a.jpg", "16 bits"),
        (noise(3, 4, 3, np.uint16), "a.webp", "16 bits"),
        (Picture(np.zeros((3, 4, 3), np.float32)), "a.png", "float32"),
        (Picture(np.zeros((1, 16384, 1), np.uint8)), "a.webp", "16383"),
        (noise(3, 4, 3, np.uint8), "none/a.png", "cannot be written"),
        (noise(3, 4, 3, np.uint8), "folder.png", "is a folder"),
    ]
    (tmp_path / "folder.png").mkdir()
    for picture, name, match in cases:
        with pytest.raises(PictureError, match=match) as error:
            write_picture(picture, tmp_path / name)
        one_sentence(error)
    assert [path.name for path in tmp_path.iterdir()] == ["folder.png"]
    write_picture(cases[2][0].without_alpha(), tmp_path / "a.jpg")
    write_picture(cases[5][0].to_uint16(), tmp_path / "a.png")


@pytest.mark.parametrize("failing", ["fsync", "replace", "fdopen"])
@pytest.mark.parametrize("error_type", [OSError, KeyboardInterrupt])
def test_no_half_written_file(tmp_path, monkeypatch, failing, error_type):
    write_picture(noise(3, 4, 3, np.uint8), tmp_path / "a.png")
    before = (tmp_path / "a.png").read_bytes()

    def fail(*_):
        raise error_type(28, "No space left on device")

    monkeypatch.setattr(encoding.os, failing, fail)
    with pytest.raises(PictureError if error_type is OSError else KeyboardInterrupt) as error:
        write_picture(noise(30, 40, 3, np.uint8), tmp_path / "a.png")
    if error_type is OSError:
        assert "No space left" in one_sentence(error)
    assert (tmp_path / "a.png").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_failing_encoder_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_, **__):
        raise OSError("encoder error -2")

    monkeypatch.setattr(Image.Image, "save", fail)
    with pytest.raises(PictureError, match="encoded") as error:
        write_picture(noise(3, 4, 3, np.uint8), tmp_path / "a.png")
    one_sentence(error)
    assert not list(tmp_path.iterdir())


NAMES = st.characters(exclude_characters="/\0", exclude_categories=["Cs"])


@settings(max_examples=80, derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(NAMES, min_size=1, max_size=60), st.integers(1, 275), st.sampled_from([".png", ".jpg", ".tif", ".webp"]))
def test_any_name_that_the_disk_takes_is_written_and_others_are_refused_beforehand(
    tmp_path_factory, text, most, suffix
):
    """Letters of one to four bytes, up to the longest name there is, and a little beyond."""
    folder = tmp_path_factory.mktemp("names")
    name = ""
    for letter in itertools.islice(itertools.cycle(text), most):
        if len(os.fsencode(name + letter + suffix)) > most:
            break
        name += letter
    path, picture = folder / (name + suffix), Picture(np.zeros((2, 3, 3), np.uint8))
    if not name or Path(name + suffix).suffix != suffix:
        return
    if len(os.fsencode(path.name)) > 255:
        with pytest.raises(PictureError, match="bytes, expected at most 255; shorten it"):
            check_writable(path, picture)
        assert not list(folder.iterdir())
    else:
        check_writable(path, picture)
        assert not list(folder.iterdir())
        write_picture(picture, path, say=lambda _: None)
        assert [one.name for one in folder.iterdir()] == [path.name]
        assert read_picture(path).size == (3, 2)


@pytest.mark.skipif(os.name == "nt", reason="POSIX permissions")
def test_new_files_have_ordinary_permissions(tmp_path):
    old = os.umask(0o022)
    try:
        write_picture(noise(3, 4, 3, np.uint8), tmp_path / "a.png")
    finally:
        os.umask(old)
    assert (tmp_path / "a.png").stat().st_mode & 0o777 == 0o644


@few
@given(st.binary(max_size=200), st.integers(0, 400), st.sampled_from(["png", "jpg", "webp", "tif", "gif", "bmp"]))
def test_damaged_files_never_leak_other_errors(tmp_path_factory, junk, at, suffix):
    folder = tmp_path_factory.mktemp("d")
    buffer = io.BytesIO()
    kind = {"jpg": "jpeg", "tif": "tiff"}.get(suffix, suffix)
    Image.fromarray(noise(20, 20, 3, np.uint8).pixels).save(buffer, kind)
    data = bytearray(buffer.getvalue())
    data[at : at + len(junk)] = junk
    (folder / "a").write_bytes(bytes(data))
    with contextlib.suppress(PictureError):  # anything else fails the test
        assert read_picture(folder / "a", max_pixels=10_000).pixels.dtype in (np.uint8, np.uint16, np.float32)


def test_importing_is_light():
    code = (
        "import sys, paintback.images.picture, paintback.images; print('torch' in sys.modules, 'scipy' in sys.modules)"
    )
    root = Path(decoding.__file__).parents[2]
    out = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True)
    assert out.stdout.split() == ["False", "False"]


def test_torch_output():
    picture = noise(3, 5, 1, np.uint8)
    tensor = to_torch(picture)
    assert tensor.shape == (1, 3, 3, 5)
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(np.rint(tensor[0, 2].numpy() * 255), picture.pixels[..., 0])
