"""Pictures and masks: reading, writing, growing, cropping, padding and pasting.

Everything here speaks the outside language: pixels as the user gave them, and masks where True (white) means repaint.
Importing this package needs numpy and Pillow only; scipy and torch are imported by the functions that use them.
"""

from paintback.images.encoding import check_writable
from paintback.images.errors import MissingPicture, PictureError, Remark
from paintback.images.masks import (
    blur,
    box,
    check_mask,
    checkerboard,
    extend_picture,
    fill_holes,
    free_form,
    grow,
    half,
    invert,
    lines,
    mask_from_alpha,
    outpaint,
    read_mask,
    text,
)
from paintback.images.picture import (
    MAX_PIXELS,
    Picture,
    read_picture,
    read_settings,
    to_numpy,
    to_pil,
    to_torch,
    write_picture,
)
from paintback.images.regions import Box, Region, context_crop, hole_regions
from paintback.images.resizing import resize_unit

__all__ = [
    "MAX_PIXELS",
    "Box",
    "MissingPicture",
    "Picture",
    "PictureError",
    "Region",
    "Remark",
    "blur",
    "box",
    "check_mask",
    "check_writable",
    "checkerboard",
    "context_crop",
    "extend_picture",
    "fill_holes",
    "free_form",
    "grow",
    "half",
    "hole_regions",
    "invert",
    "lines",
    "mask_from_alpha",
    "outpaint",
    "read_mask",
    "read_picture",
    "read_settings",
    "resize_unit",
    "text",
    "to_numpy",
    "to_pil",
    "to_torch",
    "write_picture",
]
