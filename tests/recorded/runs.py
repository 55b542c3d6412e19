"""Some sixty seeded runs through every entry point, all of them through names that users rely on.

The network of most of them, `tiny.safetensors`, is untrained: its predictions follow the state, the level and the
prompt as a trained one's do, so that any change of a method, a grid, a draw or a crop shows in the result.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import paintback as pb
from tests.models import tiny_pipelines

HERE = Path(__file__).parent
TINY = HERE / "tiny.safetensors"


@dataclass
class Outcome:
    """What a run gave.

    Attributes:
        values: the result, with its bytes.
        painted: which of its entries were made up, of the result's shape or one that broadcasts to it; None for all.
        cost: evaluations and gradients, where the entry point tells them.
    """

    values: NDArray[Any]
    painted: NDArray[np.bool_] | None = None
    cost: list[float] = field(default_factory=list)


RUNS: dict[str, Callable[[Path], Outcome]] = {}


def run(name: str) -> Callable[[Callable[[Path], Outcome]], Callable[[Path], Outcome]]:
    """Registers a run, which is given an empty folder."""

    def register(function: Callable[[Path], Outcome]) -> Callable[[Path], Outcome]:
        RUNS[name] = function
        return function

    return register


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def generators(count: int) -> list[torch.Generator]:
    return [generator(seed) for seed in range(count)]


def picture(height: int = 30, width: int = 41, bands: int = 3) -> NDArray[np.uint8]:
    """Waves and noise, uint8."""
    rows, columns = np.mgrid[:height, :width] / 7.0
    waves = np.stack([np.sin((k + 1) * rows) + np.cos(columns + k) for k in range(bands)], -1)
    noise = np.random.default_rng(height * width).normal(0, 0.2, waves.shape)
    return np.clip(128 + 50 * (waves + noise), 0, 255).astype(np.uint8)


def hole(height: int = 30, width: int = 41) -> NDArray[np.bool_]:
    """A box of a third of the sides, a little off the centre."""
    mask = np.zeros((height, width), bool)
    mask[height // 4 : height // 4 + height // 3, width // 3 : width // 3 + width // 3] = True
    return mask


@lru_cache
def tiny() -> pb.Inpainter:
    return _quiet(pb.Inpainter.from_pretrained(TINY))


@lru_cache
def fashion() -> pb.Inpainter:
    return _quiet(pb.Inpainter.from_pretrained("fashion"))


@lru_cache
def piped(name: str) -> pb.Inpainter:
    return _quiet(pb.Inpainter.from_pipe(tiny_pipelines.build(name)))


def _quiet(inpainter: pb.Inpainter) -> pb.Inpainter:
    inpainter.set_progress_bar_config(disable=True)
    return inpainter


def paint(inpainter: pb.Inpainter, image: Any = None, mask: Any = None, **options: Any) -> Outcome:
    """A call of an Inpainter, the picture and the hole above unless others are given; pictures of one size."""
    image, mask = picture() if image is None else image, hole() if mask is None else mask
    options = {"method": "ding", "num_inference_steps": 4, "generator": generator(), "output_type": "np"} | options
    out = inpainter(image=image, mask_image=mask, **options)
    return Outcome(np.asarray(out.images), mask[..., None], [out.evaluations, out.vjps])


# Every method on one small picture -----------------------------------------------------------------------------------

FIELDS: dict[str, dict[str, Any]] = {
    "copaint": {"iterations": 2},
    "daps": {"langevin_steps": 10},
    "lanpaint": {"inner_steps": 2},
    "repaint": {"repeats": 2, "jump_length": 1},
}
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    "ding-delayed-sqrt": ("ding", {"delayed": True, "eta": "sqrt"}),
    "lanpaint-second-order": ("lanpaint", {"inner_steps": 2, "order": 2}),
    "fmm-cycles": ("fmm", {"cycles": 2}),
}
METHODS = (
    "blended",
    "copaint",
    "daps",
    "ddnm",
    "ddrm",
    "diffpir",
    "ding",
    "dps",
    "fcs",
    "flair",
    "flowchef",
    "flowdps",
    "fmm",
    "gradpaint",
    "lanpaint",
    "mcg",
    "mmps",
    "mpgd",
    "pigdm",
    "pnpflow",
    "reddiff",
    "repaint",
    "replacement",
    "tfg",
)


def _method(method: str, fields: dict[str, Any]) -> Callable[[Path], Outcome]:
    return lambda _: paint(tiny(), method=pb.methods.get(method, **fields))


for _name in METHODS:
    run(f"tiny-{_name}")(_method(_name, FIELDS.get(_name, {})))
for _name, (_kind, _fields) in VARIANTS.items():
    run(f"tiny-{_name}")(_method(_kind, _fields))


# What an Inpainter can be asked for ----------------------------------------------------------------------------------


@run("strength")
def _strength(_: Path) -> Outcome:
    return paint(tiny(), num_inference_steps=8, strength=0.5)


@run("crop-and-seam")
def _crop(_: Path) -> Outcome:
    return paint(tiny(), padding_mask_crop=4, mask_blur=2)


@run("samples-of-one-generator")
def _samples(_: Path) -> Outcome:
    return paint(tiny(), num_images_per_prompt=3)


@run("pictures-in-a-batch")
def _batched(_: Path) -> Outcome:
    images = [picture(), picture()[::-1].copy(), picture()[:, ::-1].copy()]
    return paint(tiny(), images, hole(), batch_size=2, generator=generators(3))


@run("wide-hole-in-scales")
def _scales(_: Path) -> Outcome:
    return paint(tiny(), picture(90, 120), hole(90, 120), num_inference_steps=3)


@run("two-holes")
def _two(_: Path) -> Outcome:
    mask = np.zeros((40, 160), bool)
    mask[8:14, 8:14] = mask[20:32, 140:150] = True
    return paint(tiny(), picture(40, 160), mask)


@run("prompt-and-guidance")
def _prompt(_: Path) -> Outcome:
    return paint(tiny(), prompt="red circle", negative_prompt="green", guidance_scale=3.0)


@run("lanpaint-with-guidance")
def _guided(_: Path) -> Outcome:
    method = pb.methods.get("lanpaint", inner_steps=2)
    return paint(tiny(), method=method, prompt="green square", guidance_scale=2.0)


@run("sixteen-bit-with-alpha")
def _deep(_: Path) -> Outcome:
    deep = np.concatenate((picture(), np.full((30, 41, 1), 200, np.uint8)), -1) / np.float32(255)
    out = tiny()(deep, hole(), method="ding", num_inference_steps=4, generator=generator(), output_type="picture")
    return Outcome(out.images[0].pixels, hole()[..., None], [out.evaluations, out.vjps])


@run("the-card's-own-method")
def _own(_: Path) -> Outcome:
    return paint(tiny(), method=None)


@run("fashion-ding")
def _fashion_ding(_: Path) -> Outcome:
    return paint(fashion(), picture(28, 28, 1), hole(28, 28))


@run("fashion-fmm")
def _fashion_fmm(_: Path) -> Outcome:
    return paint(fashion(), picture(28, 28, 1), hole(28, 28), method="fmm")


@run("fashion-aid")
def _fashion_aid(_: Path) -> Outcome:
    return paint(fashion(), picture(28, 28, 1), hole(28, 28), method="aid")


# Pipelines of diffusers ----------------------------------------------------------------------------------------------


def _piped(name: str, method: str, fields: dict[str, Any], **options: Any) -> Callable[[Path], Outcome]:
    def call(_: Path) -> Outcome:
        steps = {"num_inference_steps": 3, "method": pb.methods.get(method, **fields), "match_colour": False}
        if name in tiny_pipelines.TEXT_TO_IMAGE:
            steps["prompt"] = "a red fox"
        return paint(piped(name), picture(48, 64), hole(48, 64), **{**steps, **options})

    return call


for _label, _pipe, _kind, _fields in (
    ("ddpm-ding", "ddpm", "ding", {}),
    ("ldm-ddnm", "ldm", "ddnm", {}),
    ("sd15-ding", "sd15", "ding", {}),
    ("sd15-lanpaint", "sd15", "lanpaint", {"inner_steps": 2}),
    ("sd15-psld", "sd15", "psld", {}),
    ("sd15-p2l", "sd15", "p2l", {}),
    ("sd15-resample", "sd15", "resample", {}),
    ("sd15-ldps", "sd15", "ldps", {}),
    ("sdxl-blended", "sdxl", "blended", {}),
    ("sd3-flowdps", "sd3", "flowdps", {}),
    ("flux-ding", "flux_dev", "ding", {}),
):
    run(_label)(_piped(_pipe, _kind, _fields))


@run("sd15-latent-options")
def _latent(_: Path) -> Outcome:
    asked = {"latent_mask": "majority", "leaky_encoding": True, "guidance_scale": 4.0, "height": 64, "width": 64}
    return _piped("sd15", "ding", {}, **asked)(HERE)


@run("sd15-trained")
def _trained(_: Path) -> Outcome:
    asked = {"method": "trained", "prompt": "a red fox", "num_inference_steps": 3, "match_colour": False}
    return paint(piped("sd15_inpaint"), picture(48, 64), hole(48, 64), **asked)


# The other tasks -----------------------------------------------------------------------------------------------------


def _enlarged(out: Any) -> Outcome:
    return Outcome(np.asarray(out.images), None, [out.evaluations, out.vjps])


@run("superres")
def _superres(_: Path) -> Outcome:
    asked = {"num_inference_steps": 3, "num_images_per_prompt": 2, "generator": generator(), "output_type": "np"}
    return _enlarged(pb.superres(picture(15, 20), 2, model=TINY, method="ddnm", progress_bar=False, **asked))


@run("superres-noisy")
def _noisy(_: Path) -> Outcome:
    asked = {"num_inference_steps": 3, "sigma": 0.05, "kernel": "area", "generator": generator(), "output_type": "np"}
    return _enlarged(pb.superres(picture(12, 9), 3, model=TINY, method="mmps", progress_bar=False, **asked))


@run("layers")
def _layers(_: Path) -> Outcome:
    asked = {"num_inference_steps": 2, "inner_steps": 1, "generator": generator(), "output_type": "np"}
    out = pb.layers(picture(16, 24), model=TINY, progress_bar=False, **asked)
    values = np.concatenate([*out.layers, out.mask[..., None]], -1)
    return Outcome(values, None, [out.evaluations])


@run("video")
def _video(_: Path) -> Outcome:
    frames = np.stack([np.roll(picture(32, 48), k, axis=1) for k in range(5)])
    out = pb.inpaint_video(
        frames,
        hole(32, 48),
        model=tiny_pipelines.build("wan"),
        prompt="a red fox",
        method="ding",
        num_inference_steps=2,
        generator=generator(),
        height=32,
        width=48,
        output_type="np",
        progress_bar=False,
    )
    return Outcome(np.asarray(out.frames), hole(32, 48)[..., None], [out.evaluations, out.vjps])


# The command ---------------------------------------------------------------------------------------------------------


def _command(folder: Path, *arguments: str | Path) -> None:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1"}
    command = [sys.executable, "-m", "paintback", *map(str, arguments)]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)


def _files(folder: Path, count: int = 1) -> None:
    for k in range(count):
        Image.fromarray(np.roll(picture(), 5 * k, axis=0)).save(folder / f"photo{k}.png")
    Image.fromarray(hole()).save(folder / "mask.png")


def _read(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as image:
        return np.asarray(image)


_SETTINGS = ("--model", TINY, "--method", "ding", "--steps", "4", "--threads", "1")


@run("command-inpaint")
def _inpaint(folder: Path) -> Outcome:
    _files(folder)
    _command(folder, "inpaint", "photo0.png", "mask.png", "-o", "out.png", "--seed", "3", "--grow", "1", *_SETTINGS)
    return Outcome(_read(folder / "out.png"), hole()[..., None])


@run("command-outpaint")
def _outpaint(folder: Path) -> Outcome:
    _files(folder)
    _command(folder, "inpaint", "photo0.png", "-o", "out.png", "--outpaint", "8,0,4,2", *_SETTINGS)
    return Outcome(_read(folder / "out.png"))


@run("command-batch")
def _batch(folder: Path) -> Outcome:
    _files(folder, 3)
    _command(folder, "batch", "photo*.png", "--masks", "mask.png", "-o", "out", "--batch", "2", *_SETTINGS)
    values = np.stack([_read(folder / "out" / f"photo{k}.png") for k in range(3)])
    return Outcome(values, hole()[..., None])


# Closed-form priors --------------------------------------------------------------------------------------------------


def _exact(method: str, schedule: Any, sigma: float = 0.0, **fields: Any) -> Outcome:
    rng = np.random.default_rng(0)
    means = torch.from_numpy(rng.normal(size=(3, 6)))
    factors = torch.from_numpy(rng.normal(size=(3, 6, 6))) / 3
    covariances = factors @ factors.mT + 0.05 * torch.eye(6, dtype=torch.float64)
    prior = pb.priors.GaussianMixture(means, covariances, torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64))
    known = torch.tensor([True, False, True, False, False, True])
    observation = pb.Observation(means[1] + 0.1, known, sigma)
    result = pb.methods.get(method, **fields).sample(
        prior.denoiser(schedule), observation, num_inference_steps=8, generator=generator(), num_samples=16
    )
    return Outcome(result.x.numpy(), ~known.numpy(), [result.evaluations, result.vjps])


@run("mixture-vp-ding")
def _mixture_ding(_: Path) -> Outcome:
    return _exact("ding", pb.schedules.VP())


@run("mixture-flow-fmm")
def _mixture_fmm(_: Path) -> Outcome:
    return _exact("fmm", pb.schedules.Flow())


@run("mixture-edm-mmps-noisy")
def _mixture_mmps(_: Path) -> Outcome:
    return _exact("mmps", pb.schedules.EDM(), 0.1)


@run("mixture-vp-lanpaint-noisy")
def _mixture_lanpaint(_: Path) -> Outcome:
    return _exact("lanpaint", pb.schedules.VP(), 0.1, inner_steps=2)
