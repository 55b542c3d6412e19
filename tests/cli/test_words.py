"""Errors and remarks speak the command line's language."""

from __future__ import annotations

import re
import warnings

import numpy as np
import pytest
from PIL import Image

from paintback.cli.words import MOST, in_flags, told
from paintback.images.errors import Remark
from paintback.images.picture import Picture, write_picture


@pytest.mark.parametrize(
    ("said", "here"),
    [
        ("num_inference_steps must be at least 1; got 0.", "--steps must be at least 1; got 0."),
        ("The model 'x' takes no guidance_scale, height.", "The model 'x' takes no --guidance, height."),
        ("mask_is is 'blue', expected one of ...", "--mask-is is 'blue', expected one of ..."),
        ("leave it out, or give true_cfg_scale and a negative_prompt", "leave it out, or give --true-cfg and a "
         "--negative-prompt"),
        ("method='trained' needs a checkpoint", "--method trained needs a checkpoint"),
        ("with grow=-300 the mask is empty", "with --grow -300 the mask is empty"),
        ("give sigmas in place of timesteps.", "give --sigmas in place of --timesteps."),
        ("settled by mask_is (--mask-is) alpha", "settled by --mask-is alpha"),
        ("/home/my_mask_is/x.png does not exist", "/home/my_mask_is/x.png does not exist"),
    ],
)  # fmt: skip
def test_keywords_are_flags(said, here):
    assert in_flags(said) == here


def test_errors_of_the_command_name_no_function_of_python(call, photo, mask, tiny_model, tmp_path):
    Image.fromarray(np.dstack([np.asarray(Image.open(photo)), np.full((30, 41), 9, np.uint8)])).save(tmp_path / "a.png")
    write_picture(Picture(np.zeros((30, 41, 3), np.uint16)), tmp_path / "deep.png")
    Image.fromarray(np.rot90(np.asarray(Image.open(mask)))).save(tmp_path / "turned.png")
    common = ("--model", tiny_model, "--steps", 1)
    for arguments, says in (
        (("a.png", "mask.png", "-o", "x.jpg"), "JPEG, which cannot hold transparency; write .png"),
        (("deep.png", "mask.png", "-o", "x.jpg"), "cannot hold 16 bits"),
        (("photo.png", "turned.png", "-o", "x.png"), "EXIF orientation"),
        (("photo.png", "mask.png", "-o", "x.png", "--guidance", "3"), "guidance"),
        (("photo.png", "mask.png", "-o", "x.png", "--true-cfg", "3"), "--true-cfg"),
        (("photo.png", "mask.png", "-o", "x.png", "--latent-mask", "any"), "--latent-mask"),
        (("photo.png", "mask.png", "-o", "x.png", "--method", "trained"), "--method trained"),
        (("photo.png", "alpha", "-o", "x.png"), "alpha"),
        (("photo.png", "mask.png", "-o", "x.png", "--grow", "-99"), "with --grow -99 the mask is empty"),
        (("photo.png", "mask.png", "-o", "x.png", "--grow", "99"), "with --grow 99 the mask is white everywhere"),
        (("photo.png", "mask.png", "-o", "x.png", "--blur", "99"), "with --blur 99 the mask is white everywhere"),
        (("photo.png", "mask.png", "-o", "x.png", "--mask-is", "colour=#0f0"), "with --mask-is colour=#0f0 the mask"),
        (("photo.png", "mask.png", "-o", "x.xyz"), "expected one of"),
    ):
        files = [tmp_path / one if one.endswith(("png", "jpg", "xyz")) else one for one in arguments]
        done = call("inpaint", *files, *common)
        assert done.code == 2, done.err
        assert says in done.err
        assert done.err.count("\n") == 1
        assert not re.search(r"\w\(\)|\w=\w|picture\.|num_inference|guidance_scale|true_cfg|latent_mask", done.err)


def test_a_floating_point_picture_is_written_with_16_bits(call, mask, tiny_model, tmp_path):
    values = np.linspace(0, 1, 30 * 41, dtype=np.float32).reshape(30, 41)
    Image.fromarray(values, "F").save(tmp_path / "float.tif")
    done = call("inpaint", tmp_path / "float.tif", mask, "-o", tmp_path / "x.png", "--model", tiny_model, "--steps", 1)
    assert done.code == 0, done.err
    hole = np.asarray(Image.open(mask)) > 0
    written = np.asarray(Image.open(tmp_path / "x.png")).astype(int)
    assert np.abs(written - values * 65535.0)[~hole].max() <= 0.51


def test_the_library_s_warnings_are_remarks_each_once(capsys):
    with told():
        for _ in range(3):
            warnings.warn("mask_is (--mask-is) alpha settles it.", Remark, stacklevel=1)
        warnings.warn("of another package", DeprecationWarning, stacklevel=1)
        warnings.warn("of another package", UserWarning, stacklevel=1)
    assert capsys.readouterr().err == "paintback: --mask-is alpha settles it.\n"
    with told():
        for number in range(100):
            warnings.warn(f"picture {number}", Remark, stacklevel=1)
    assert capsys.readouterr().err.count("\n") == MOST + 1
