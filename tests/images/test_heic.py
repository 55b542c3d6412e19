"""HEIC: read with all its bits where pi-heif is installed, and named in a sentence where it is not."""

from __future__ import annotations

import base64

import numpy as np
import pytest

from paintback.images import PictureError, decoding, read_picture, write_picture

# Left half (200, 120, 40), right half (40, 120, 200), 24 x 16, by libheif and x265: to be turned by EXIF's 6 and with a
# copyright; of 10 bits; with its right half transparent.
TURNED = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAcdtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAA"
    "AAAERAAAIAAQAAAAAB6wABAAAAAAAAAHgAAgAAAAACYwABAAAAAAAAADgAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVp"
    "bmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABBmlwcnAAAADlaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGE"
    "ABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAA"
    "ABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAGAAAAAEAAAAQAAAAAf///9gAAAAC////0AAAAAIAAAAQcG"
    "l4aQAAAAADCAgIAAAACWlyb3QDAAAAGWlwbWEAAAAAAAAAAQABBoECAwWEhgAAABppcmVmAAAAAAAAAA5jZHNjAAIAAQABAAAAuG1kYXQAAAB0"
    "KAGvBPIb10eAcWcJGjtm/a4yA4uluyKiGRpO5hph2gdx9JPD+MdrRQMJD2793vm/t5e/gUpOfotDhpJXTGZc8TAkFtUI7P0t8v+Eks7O7rt4u8"
    "Ox79ZAWqSCNjMMlLxMK6NVboBzbDsLQ331oG3auEnE7+AAAAAGRXhpZgAATU0AKgAAAAgAAgESAAMAAAABAAYAAIKYAAIAAAAHAAAAJgAAAAAo"
    "YykgbWUAAA=="
)
DEEP = (
    "AAAAHGZ0eXBoZWl4AAAAAG1pZjFoZWl4bWlhZgAAAXxtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAACJpbG9jAA"
    "AAAERAAAEAAQAAAAABoAABAAAAAAAAAFoAAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAAAA5waXRtAAAAAAABAAAA/GlwcnAA"
    "AADcaXBjbwAAAHVodmNDAQQIAAAAnbgAAAAAHvAA/P36+gAADwNgAAEAF0ABDAH//wQIAAADAJ24AAADAAAeugJAYQABACpCAQEECAAAAwCduA"
    "AAAwAAHqAggQTZbqrprm4CGgwIAAADAMgAAAMACEBiAAEABkQBwXPBiQAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAA"
    "AChjbGFwAAAAGAAAAAEAAAAQAAAAAf///9gAAAAC////0AAAAAIAAAAQcGl4aQAAAAADCgoKAAAAGGlwbWEAAAAAAAAAAQABBYECAwWEAAAAYm"
    "1kYXQAAABWKAGvBjIbYcaAXUOHmyf///IT+y7hp5ki9KEDUnrsIO7PUo1lKzzgM52ZoMM2+avua+7oYO/1mvt7jwNWt9cugHLWNqRuayh0dISS"
    "Kx2Lalsa7fqDPYA="
)
ALPHA = (
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAmttZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9jAA"
    "AAAERAAAIAAQAAAAACjwABAAAAAAAAAHgAAgAAAAADBwABAAAAAAAAADsAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAAABVp"
    "bmZlAgAAAAACAABodmMxAAAAAA5waXRtAAAAAAABAAABqmlwcnAAAAGCaXBjbwAAAHVodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGE"
    "ABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQApQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbqrprm4CGgwIAAAAyAAAADAIRiAAEABkQBwXPBiQAA"
    "ABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABAAAAAQAAAAChjbGFwAAAAGAAAAAEAAAAQAAAAAf///9gAAAAC////0AAAAAIAAAAQcG"
    "l4aQAAAAADCAgIAAAAcWh2Y0MBBAgAAACf+AAAAAAe8AD8/Pj4AAAPA2AAAQAXQAEMAf//BAgAAAMAn/gAAAMAAB66AkBhAAEAJkIBAQQIAAAD"
    "AJ/4AAADAAAewIIEFluqumubAgAAAwAyAAADAAIQYgABAAZEAcFzwYkAAAAOcGl4aQAAAAABCAAAACdhdXhDAAAAAHVybjptcGVnOmhldmM6Mj"
    "AxNTphdXhpZDoxAAAAACBpcG1hAAAAAAAAAAIAAQWBAgMFhAACBYYDB4iEAAAAGmlyZWYAAAAAAAAADmF1eGwAAgABAAEAAAC7bWRhdAAAAHQo"
    "Aa8E8hvXR4BxZwkaO2b9rjIDi6W7IqIZGk7mGmHaB3H0k8P4x2tFAwkPbv3e+b+3l7+BSk5+i0OGkldMZlzxMCQW1Qjs/S3y/4SSzs7uu3i7w7"
    "Hv1kBapII2MwyUvEwro1VugHNsOwtDffWgbdq4ScTv4AAAADcoAa4J5DPiCWZ1PV/wx9H5ehuAYblztR/rr/NN9AKxSV7TtdpW8AugfQsnyPWL"
    "JQX+0HE/G0uA"
)
LEFT, RIGHT = np.array([200, 120, 40]), np.array([40, 120, 200])


@pytest.fixture
def heic(tmp_path):
    def write(text):
        path = tmp_path / "photo.heic"
        path.write_bytes(base64.b64decode(text))
        return path

    return write


def test_a_phone_s_photograph_is_upright_and_keeps_its_exif(heic, tmp_path):
    pytest.importorskip("pi_heif")
    picture = read_picture(heic(TURNED))
    assert picture.pixels.dtype == np.uint8 and picture.shape == (24, 16)
    assert np.abs(picture.pixels[:11] - LEFT).max() <= 4 and np.abs(picture.pixels[13:] - RIGHT).max() <= 4
    write_picture(picture, tmp_path / "a.jpg")
    from PIL import Image

    exif = Image.open(tmp_path / "a.jpg").getexif()
    assert exif[33432] == "(c) me" and exif.get(0x0112, 1) == 1


def test_ten_bits_are_read_as_sixteen(heic):
    pytest.importorskip("pi_heif")
    picture = read_picture(heic(DEEP))
    assert picture.pixels.dtype == np.uint16 and picture.shape == (16, 24)
    assert np.abs(picture.pixels[:, :11] / 257.0 - LEFT).max() <= 2
    assert np.abs(picture.pixels[:, 13:] / 257.0 - RIGHT).max() <= 2


def test_transparency_is_read(heic):
    pytest.importorskip("pi_heif")
    picture = read_picture(heic(ALPHA))
    assert picture.alpha is not None
    assert (picture.alpha[:, :11] >= 250).all() and (picture.alpha[:, 13:] <= 5).all()


def test_without_the_package_it_is_named(heic, monkeypatch):
    monkeypatch.setattr(decoding, "HEIF", None)
    with pytest.raises(
        PictureError, match=r"is HEIC, which needs pi-heif; pip install 'paintback\[heif\]', or save it"
    ):
        read_picture(heic(TURNED))


def test_what_is_no_picture_is_told_what_is_read(tmp_path):
    (tmp_path / "a.heic").write_bytes(b"no picture at all")
    with pytest.raises(PictureError, match=f"expected one of PNG, .*{', HEIC' if decoding.HEIF else 'PPM'}"):
        read_picture(tmp_path / "a.heic")


@pytest.mark.parametrize("part", [0.05, 0.3, 0.7, 0.95])
def test_a_broken_file_is_one_sentence(heic, part):
    pytest.importorskip("pi_heif")
    path = heic(TURNED)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(PictureError, match=r"damaged|truncated"):
        read_picture(path)


def test_size_is_checked_first(heic):
    pytest.importorskip("pi_heif")
    with pytest.raises(PictureError, match=r"16 x 24 = 384 pixels, expected at most 100"):
        read_picture(heic(TURNED), max_pixels=100)
