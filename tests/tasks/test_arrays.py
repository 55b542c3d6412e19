"""`pb.inpaint` with the habits of OpenCV and scikit-image: arrays come back as they were given."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pytest
import torch

import paintback as pb
from paintback.images import read_picture, write_picture
from paintback.images.errors import PictureError, Remark
from paintback.images.picture import Picture
from paintback.tasks import oneshot
from tests.tasks.test_inpaint import tiny_model

HOLE = np.zeros((24, 30), bool)
HOLE[6:12, 8:15] = True
CALL = {"method": "ding", "num_inference_steps": 2, "generator": 0}


@pytest.fixture(scope="module")
def inpainter() -> pb.Inpainter:
    made = pb.Inpainter(tiny_model())
    made.set_progress_bar_config(disable=True)
    return made


def values(dtype: str, shape: tuple[int, ...]) -> np.ndarray:
    made = np.random.default_rng(0).random(shape)
    top = {"uint8": 255, "uint16": 65535}.get(dtype)
    return made.astype(dtype) if top is None else (made * top).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("shape", [(24, 30), (24, 30, 1), (24, 30, 2), (24, 30, 3), (24, 30, 4)])
def test_an_array_comes_back_as_it_was_given(inpainter: pb.Inpainter, dtype: str, shape: tuple[int, ...]) -> None:
    given = values(dtype, shape)
    before = given.copy()
    made = pb.inpaint(given, HOLE, model=inpainter, **CALL).images
    assert made.shape == (1, *shape) and made.dtype == given.dtype
    assert np.array_equal(made[0][~HOLE], given[~HOLE])  # float64's last bits too
    assert not np.array_equal(made[0][HOLE], given[HOLE])
    assert np.array_equal(given, before)


@pytest.mark.parametrize("dtype", ["uint8", "float64"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_channels_first_and_bgr_are_the_same_picture(inpainter: pb.Inpainter, dtype: str, channels: int) -> None:
    given = values(dtype, (24, 30, channels))
    plain = pb.inpaint(given, HOLE, model=inpainter, **CALL).images[0]
    first = pb.inpaint(np.moveaxis(given, -1, 0), HOLE, model=inpainter, channels_first=True, **CALL).images[0]
    assert first.shape == (channels, 24, 30) and np.array_equal(np.moveaxis(first, 0, -1), plain)
    turn = [0] if channels == 1 else [2, 1, 0, 3][:channels]
    blue = pb.inpaint(given[..., turn], HOLE, model=inpainter, bgr=True, **CALL).images[0]
    assert np.array_equal(blue[..., turn], plain)
    if channels >= 3:  # and it is another picture for the model where it is not said
        assert not np.array_equal(pb.inpaint(given[..., turn], HOLE, model=inpainter, **CALL).images[0], blue)
    both = np.moveaxis(given[..., turn], -1, 0)
    made = pb.inpaint(both, HOLE[None], model=inpainter, channels_first=True, bgr=True, **CALL).images[0]
    assert np.array_equal(np.moveaxis(made, 0, -1)[..., turn], plain)


def test_lists_masks_and_what_is_refused(inpainter: pb.Inpainter) -> None:
    given = values("uint8", (24, 30, 3))
    out = pb.inpaint([given, given[..., 0]], [HOLE, HOLE], model=inpainter, num_images_per_prompt=2, **CALL)
    assert [one.shape for one in out.images] == [(24, 30, 3)] * 2 + [(24, 30)] * 2
    # a mask as cv2.inpaint takes it: uint8, not 0 where it is to be painted
    cv = pb.inpaint(given, HOLE.astype(np.uint8), model=inpainter, **CALL).images[0]
    assert np.array_equal(cv, pb.inpaint(given, HOLE, model=inpainter, **CALL).images[0])
    assert pb.inpaint(given, model=inpainter, outpaint=(2, 0, 0, 0), **CALL).images.shape == (1, 24, 32, 3)
    assert pb.inpaint(given, HOLE, model=inpainter, output_type="np", **CALL).images.dtype == np.float32
    assert isinstance(pb.inpaint(torch.zeros(3, 24, 30), HOLE, model=inpainter, **CALL).images, torch.Tensor)
    with pytest.raises(ValueError, match="channels_first and bgr say how arrays are laid out"):
        pb.inpaint(torch.zeros(3, 24, 30), HOLE, model=inpainter, bgr=True, **CALL)
    with pytest.raises(PictureError, match=r"spans \[0, 255\]"):
        pb.inpaint(given.astype(float) * 0 + np.linspace(0, 255, 30)[:, None], HOLE, model=inpainter, **CALL)


def test_many_threads_load_once_and_see_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    loaded = []

    def load(name: str, **more: object) -> pb.Inpainter:
        loaded.append(name)
        made = pb.Inpainter(tiny_model())
        made.set_progress_bar_config(disable=True)
        return made

    monkeypatch.setattr(oneshot.Inpainter, "from_pretrained", load)
    monkeypatch.setattr(oneshot, "_kept", {})
    pictures = [np.random.default_rng(k).random((24, 30, 3)) for k in range(6)]
    alone = [pb.inpaint(one, HOLE, **{**CALL, "generator": k}).images[0] for k, one in enumerate(pictures)]
    monkeypatch.setattr(oneshot, "_kept", {})
    loaded.clear()
    made: dict[int, object] = {}
    start = threading.Barrier(len(pictures))

    def paint(k: int) -> None:
        def stop(inpainter: pb.Inpainter, step: int, t: float, tensors: object) -> None:
            inpainter.interrupt = k == 5  # stops this call and none of the others

        start.wait()
        made[k] = pb.inpaint(pictures[k], HOLE, callback_on_step_end=stop, **{**CALL, "generator": k})

    threads = [threading.Thread(target=paint, args=(k,)) for k in range(len(pictures))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert loaded == ["photo"]
    assert [made[k].stopped for k in range(6)] == [False] * 5 + [True]
    assert all(np.array_equal(made[k].images[0], alone[k]) for k in range(5))


def test_a_batch_is_a_list_of_pictures(inpainter: pb.Inpainter) -> None:
    call = {**CALL, "generator": [0, 1], "output_type": "pt"}
    batch = torch.from_numpy(np.random.default_rng(0).random((2, 3, 24, 30), np.float32))
    holes = torch.from_numpy(np.stack((HOLE, HOLE[::-1].copy())))[:, None].float()
    wanted = inpainter(list(batch), [one[0].numpy() > 0 for one in holes], **call).images
    assert torch.equal(inpainter(batch, holes, **call).images, wanted)
    assert torch.equal(inpainter(batch.movedim(1, -1).numpy(), holes, **call).images, wanted)
    same = inpainter(list(batch), HOLE, **call).images
    assert torch.equal(inpainter(batch, torch.from_numpy(HOLE)[None, None].float(), **call).images, same)
    array, alone = values("uint8", (2, 24, 30, 3)), {**CALL, "model": inpainter, "generator": [0, 1]}
    made = pb.inpaint(array, HOLE, **alone).images
    assert np.array_equal(made, pb.inpaint(list(array), HOLE, **alone).images) and made.dtype == np.uint8
    laid = pb.inpaint(np.moveaxis(array, -1, 1), HOLE, channels_first=True, **alone).images
    assert np.array_equal(np.moveaxis(laid, 1, -1), made)
    with pytest.raises(ValueError, match="Got 2 pictures and 3 masks"):
        inpainter(batch, holes[[0, 0, 1]], **call)


@pytest.mark.parametrize(("suffix", "bands"), [(".bmp", 1), (".bmp", 3), (".ppm", 1), (".ppm", 3), (".pgm", 1)])
def test_bmp_and_ppm_are_written_and_read(tmp_path: Path, suffix: str, bands: int) -> None:
    picture = read_picture(values("uint8", (5, 7, bands)))
    path = tmp_path / f"out{suffix}"
    write_picture(picture, path)
    again = read_picture(path)
    assert np.array_equal(again.pixels, picture.pixels) and again.alpha is None
    if suffix == ".bmp":
        assert path.read_bytes()[:2] == b"BM"
    else:
        assert path.read_bytes()[:2] == (b"P5" if bands == 1 else b"P6")


def test_what_bmp_and_ppm_cannot_hold(tmp_path: Path) -> None:
    for suffix in (".bmp", ".ppm"):
        with pytest.raises(PictureError, match="cannot hold transparency"):
            write_picture(read_picture(values("uint8", (5, 7, 4))), tmp_path / f"a{suffix}")
        with pytest.raises(PictureError, match="cannot hold 16 bits per channel"):
            write_picture(read_picture(values("uint16", (5, 7, 3))), tmp_path / f"a{suffix}")
    with pytest.raises(PictureError, match=r"PGM, which cannot hold colours; write \.ppm"):
        write_picture(read_picture(values("uint8", (5, 7, 3))), tmp_path / "a.pgm")
    deep = tmp_path / "deep.ppm"
    deep.write_bytes(b"P6 2 1 65535\n" + bytes(12))
    with pytest.raises(PictureError, match="a PPM of other than 8 bits"):
        read_picture(deep)
    grey = tmp_path / "grey.pgm"
    grey.write_bytes(b"P5 2 1 65535\n" + bytes([1, 2, 3, 4]))
    assert read_picture(grey).pixels[..., 0].tolist() == [[258, 772]]
    from paintback.images.metadata import Metadata

    told = Picture(values("uint8", (5, 7, 3)), metadata=Metadata(dpi=(300.0, 300.0)))
    with pytest.warns(Remark, match="BMP cannot hold the resolution"):
        write_picture(told, tmp_path / "told.bmp")


@pytest.mark.parametrize(
    ("given", "change", "says"),
    [
        ([], {}, "The list of pictures is empty"),
        (values("uint8", (24, 30, 3)), {"mask_image": None}, "There is no mask, and nothing to paint"),
        (values("uint8", (24, 30, 3)), {"mask": HOLE}, "no keyword 'mask' here: give mask_image."),
        ("https://example.org/a.png", {}, "'https://example.org/a.png' is an address, and nothing is fetched"),
        (values("uint8", (24, 30, 3)), {"model": "photo", "device": "gpu"}, "There is no device 'gpu'; give cpu"),
        (values("uint8", (24, 30, 3)), {"model": "photo", "torch_dtype": "half-ish"}, "There is no dtype 'half-ish'"),
        (values("uint8", (24, 30, 3)), {"model": "photo", "torch_dtype": torch.int8}, "There is no dtype torch.int8"),
    ],
)
def test_what_cannot_be_painted_is_one_sentence(inpainter: pb.Inpainter, given, change, says) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the text is looked at below
        pb.inpaint(given, **{"mask_image": HOLE, "model": inpainter, **change})
    assert says in str(raised.value) and "\n" not in str(raised.value)


def test_a_dtype_may_be_given_by_its_name() -> None:
    assert pb.Inpainter.from_pretrained("photo", torch_dtype="bfloat16").model.dtype == torch.bfloat16
