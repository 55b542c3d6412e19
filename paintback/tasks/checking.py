"""`pb.check`: whether a model works here, on the user's own machine and weights, and what it costs.

With nothing known a run of plain Euler steps is the pipeline's own call: both are made from the same noise and decoded,
and compared. Then a few methods paint one hole: known pixels, counted evaluations, time and memory beside the
pipeline's own. What comes out is what an issue should hold.
"""

from __future__ import annotations

import copy
import importlib
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from paintback import methods
from paintback.images.picture import Picture
from paintback.methods.base import Method, Run
from paintback.methods.replacement import Replacement
from paintback.models.base import Model, Told
from paintback.models.sound import SoundModel
from paintback.observation import Observation
from paintback.resources import PeakMemory
from paintback.tasks.checks import check_gradients
from paintback.tasks.inpaint import Inpainter

__all__ = ["METHODS", "Check", "Painted", "Report", "check"]

METHODS = ("ding", "lanpaint", "fmm", "flowdps", "dps")
CLOSE = {torch.float32: 1e-3, torch.float64: 1e-3}  # mean difference of a picture in [0, 1]
HALF = 3e-2  # the same in half precision, whose rounding differs between two ways to the same number


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: of it.
        passed: whether it is as it should be; None where that could not be said.
        text: what was found.
    """

    name: str
    passed: bool | None
    text: str


@dataclass(frozen=True)
class Painted:
    """What one method cost on the one picture.

    Attributes:
        method: its name.
        evaluations: counted; -1 where it did not run.
        calls: of the network, counted by a hook on it.
        milliseconds: per evaluation.
        peak_memory_bytes: of the call, or None.
        known_exact: whether every known pixel is what was given.
        error: why it did not run, or None.
    """

    method: str
    evaluations: float
    calls: int
    milliseconds: float
    peak_memory_bytes: int | None
    known_exact: bool
    error: str | None = None


@dataclass
class Report:
    """What `check` gives back.

    Attributes:
        about: the model and the machine.
        checks: what was looked at.
        painted: the methods' costs.
        pipeline: milliseconds a step and peak memory of the pipeline's own call, where there is one.
        unsupported: what does not run on this model, with its sentence.
        pictures: the picture with its hole, and what the methods made of it.
    """

    about: dict[str, Any]
    checks: list[Check] = field(default_factory=list)
    painted: list[Painted] = field(default_factory=list)
    pipeline: dict[str, Any] = field(default_factory=dict)
    unsupported: list[str] = field(default_factory=list)
    pictures: list[Picture] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether nothing is wrong."""
        return all(one.passed is not False for one in self.checks)

    def to_dict(self) -> dict[str, Any]:
        """All but the pictures, as plain JSON values."""
        rows = {name: [asdict(one) for one in getattr(self, name)] for name in ("checks", "painted")}
        return {
            "passed": self.passed,
            "about": self.about,
            **rows,
            "pipeline": self.pipeline,
            "unsupported": self.unsupported,
        }

    def __str__(self) -> str:
        lines = [f"{name}: {value}" for name, value in self.about.items()]
        marks = {True: "ok", False: "WRONG", None: "not said"}
        lines += ["", *(f"{marks[one.passed]:8}  {one.name}: {one.text}" for one in self.checks), ""]
        if self.pipeline:
            lines.append(f"pipeline  {self.pipeline['milliseconds']:.1f} ms a step{_mega(self.pipeline)}")
        for one in self.painted:
            said = (
                one.error or f"{one.milliseconds:.1f} ms an evaluation, {one.evaluations:g} of them{_mega(asdict(one))}"
            )
            lines.append(f"{one.method:8}  {said}")
        lines += ["", *(f"unsupported: {text}" for text in self.unsupported)]
        return "\n".join(lines).strip()


def _mega(found: dict[str, Any]) -> str:
    size = found.get("peak_memory_bytes")
    return "" if size is None else f", {size / 1e6:.0f} MB at the peak"


def check(
    model: str | Path | Model | Inpainter | Any,
    *,
    prompt: str | None = "a photograph of a garden",
    num_inference_steps: int = 8,
    size: int | None = None,
    names: Sequence[str] = METHODS,
    device: Any = None,
    torch_dtype: torch.dtype | None = None,
    offload: Literal["none", "model", "group", "sequential"] | None = None,
) -> Report:
    """Looks at whether a model works here, and what it costs.

    Args:
        model: a name, a folder or Hub id, a loaded pipeline, an `Inpainter`, or a model.
        prompt: for models that read text.
        num_inference_steps: of the pipeline's run; the methods get about as many evaluations.
        size: side of the picture; None for the model's own.
        names: of the methods.
        device: for a model that is loaded here.
        torch_dtype: likewise.
        offload: likewise.

    Raises:
        ValueError: for a model that cannot be loaded.
    """
    own = _open(model, device, torch_dtype, offload)
    if isinstance(own.model, SoundModel):
        raise ValueError(f"{own.model.name!r} paints sounds, and check compares pictures; see pb.inpaint_audio.")
    own.set_progress_bar_config(disable=True)
    report = Report(_about(own.model))
    text = prompt if reads_text(own.model) else None
    side = size or (own.model.training_size if own.model.size is None else own.model.size[0])
    _compare(own.model, text, num_inference_steps, side, report)
    _paint(own, text, num_inference_steps, side, names, report)
    _support(own.model, report)
    return report


def _open(model: Any, device: Any, dtype: Any, offload: Any) -> Inpainter:
    if isinstance(model, Inpainter):
        return model
    if isinstance(model, Model):
        return Inpainter(model)
    if isinstance(model, str | Path):
        return Inpainter.from_pretrained(model, device=device, torch_dtype=dtype, offload=offload)
    return Inpainter.from_pipe(model)


def reads_text(model: Model) -> bool:
    """Whether a model takes a prompt: a pipeline with a text encoder."""
    parts = getattr(getattr(model, "pipe", None), "components", {})
    return any(name.startswith("text_encoder") and part is not None for name, part in parts.items())


def _about(model: Model) -> dict[str, Any]:
    pipe = getattr(model, "pipe", None)
    parts = {} if pipe is None else pipe.components
    sizes = {
        name: sum(weight.numel() for weight in part.parameters()) / 1e6
        for name, part in parts.items()
        if isinstance(part, torch.nn.Module)
    }
    if not sizes and model.network is not None:
        sizes = {"network": sum(weight.numel() for weight in model.network.parameters()) / 1e6}
    device = model.device
    return {
        "model": model.name,
        "class": type(getattr(model, "given", None) or pipe or model.network).__name__,
        "adapter": type(model).__name__,
        "scheduler": None if pipe is None else type(pipe.scheduler).__name__,
        "millions of weights": {name: round(size, 2) for name, size in sizes.items()},
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": f"{device} ({torch.cuda.get_device_name(device)})" if device.type == "cuda" else str(device),
        "guidance distilled": model.distilled,
        "step-distilled": bool(getattr(model, "step_distilled", False)),
        "python": platform.python_version(),
        "platform": f"{sys.platform} {platform.machine()}",
        **{name: _version(name) for name in ("paintback", "torch", "diffusers", "transformers", "accelerate")},
    }


def _version(name: str) -> str | None:
    if name in ("torch", "paintback"):
        own: str = importlib.import_module(name).__version__
        return own
    try:
        return version(name)
    except PackageNotFoundError:
        return None


# ------------------------------------------------------------------------------------------- the pipeline's own run


class _FromNoise(Replacement):
    """Plain Euler steps from noise that is given."""

    noise: Tensor

    def start(self, run: Run) -> Tensor:
        return self.noise.to(run.template)


def _compare(model: Model, prompt: str | None, steps: int, side: int, report: Report) -> None:
    """Whether our run with nothing known is the pipeline's, and what the pipeline costs."""
    pipe = getattr(model, "pipe", None)
    if pipe is None or not model.takes_size:
        report.checks.append(Check("equals the pipeline", None, "there is no pipeline of latents to compare with"))
        return
    from paintback.models.diffusers.comparing import first_order, run_pipe

    plain = copy.copy(pipe)
    plain.set_progress_bar_config(disable=True)
    plain.scheduler, why = first_order(pipe.scheduler)
    if why:
        report.checks.append(Check("equals the pipeline", None, why))
        return
    from paintback.models.diffusers import from_pipe

    try:
        # with the guidance that the pipeline has by default, which we leave out of step-distilled models
        twin: Any = from_pipe(plain, name=model.name, step_distilled=False)
        frames = () if model.training_frames == 1 else (1 + twin.codec.frames,)
        size = (*frames, *(side // model.multiple * model.multiple,) * 2)
        shown = _shown(twin, side)
        denoiser = twin.denoiser_at(size, Told(prompt, embeddings=shown))
        noise = torch.randn(1, *denoiser.shape, generator=torch.Generator().manual_seed(0))
        began = time.perf_counter()
        with PeakMemory(model.device) as memory:
            theirs = run_pipe(twin, noise, prompt, size, steps, shown.get("reference_images"))
            _wait(model.device)
        report.pipeline = {
            "milliseconds": 1e3 * (time.perf_counter() - began) / steps,
            "peak_memory_bytes": memory.bytes,
        }
        method = _FromNoise()
        object.__setattr__(method, "noise", noise)
        empty = torch.zeros(denoiser.shape, device=model.device)
        with torch.no_grad():
            ours = method.sample(denoiser, Observation(empty, empty > 0), steps, torch.Generator().manual_seed(0))
            picture = (twin.codec.decode(ours.x).float().cpu() + 1).clamp(0, 2) / 2
    except Exception as error:
        report.checks.append(Check("equals the pipeline", False, f"{type(error).__name__}: {error}"))
        return
    finally:
        model.release()
    difference = (picture - theirs.float().cpu().reshape(picture.shape)).abs()
    most = CLOSE.get(model.dtype, HALF)
    mean, largest = float(difference.mean()), float(difference.max())
    report.checks.append(
        Check(
            "equals the pipeline",
            mean <= most,
            f"pictures differ by {mean:.1e} in the mean and {largest:.1e} at most, of 1; {most:g} is allowed "
            f"({type(plain.scheduler).__name__}, {steps} steps)",
        )
    )
    report.checks.append(
        Check("evaluations counted", ours.evaluations == steps, f"{ours.evaluations:g} in {steps} steps")
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


# --------------------------------------------------------------------------------------------------------- five methods


def _paint(own: Inpainter, prompt: str | None, steps: int, side: int, names: Sequence[str], report: Report) -> None:
    picture, hole = _scene(side)
    hidden = picture.copy()
    hidden[hole] = 1
    report.pictures.append(Picture((hidden * 255).round().astype(np.uint8)))
    for name in names:
        painted, made = _one(own, prompt, _budget(methods.get(name), steps), side, picture, hole)
        report.painted.append(painted)
        if made is not None:
            report.pictures.append(made)
    ran = [one for one in report.painted if one.error is None]
    report.checks.append(
        Check(
            "known pixels exact",
            all(one.known_exact for one in ran) if ran else None,
            f"in {sum(one.known_exact for one in ran)} of {len(ran)} methods",
        )
    )
    failed = [one for one in report.painted if one.error is not None and not one.error.startswith("refused")]
    report.checks.append(
        Check(
            "methods run",
            not failed,
            f"{len(ran)} of {len(report.painted)}" + "".join(f"; {one.method}: {one.error}" for one in failed),
        )
    )


def _budget(method: Method, evaluations: int) -> tuple[Method, int]:
    """The method with the grid intervals that come nearest to a number of evaluations."""
    return method, min(range(2, max(3, evaluations + 1)), key=lambda n: abs(method.evaluations(n) - evaluations))


def _one(
    own: Inpainter, prompt: str | None, budget: tuple[Method, int], side: int, picture: Any, hole: Any
) -> tuple[Painted, Picture | None]:
    method, steps = budget
    try:
        check_gradients(own.model, method)
    except ValueError as error:
        return Painted(method.name, -1, 0, 0.0, None, False, f"refused: {error}"), None
    calls = [0]
    handles = [
        part.register_forward_hook(lambda *_: calls.__setitem__(0, calls[0] + 1)) for part in own.model.networks()
    ]
    sized = own.model.size is None and own.model.takes_size
    given: dict[str, Any] = {"height": side, "width": side} if sized else {}
    began = time.perf_counter()
    try:
        if own.model.training_frames > 1:
            from paintback.tasks.video import inpaint_video

            out: Any = inpaint_video(
                picture[None], hole, model=own, prompt=prompt, method=method, num_inference_steps=steps, generator=0,
                output_type="np", progress_bar=False, **given,
            )  # fmt: skip
            made = out.frames[0]
        else:
            out = own(
                picture, hole, prompt, method=method, num_inference_steps=steps, generator=0, output_type="np",
                **given, **_shown(own.model, side),
            )  # fmt: skip
            made = out.images[0]
    except Exception as error:
        return Painted(method.name, -1, calls[0], 0.0, None, False, f"{type(error).__name__}: {error}"), None
    finally:
        for handle in handles:
            handle.remove()
    spent = 1e3 * (time.perf_counter() - began) / max(1, out.evaluations)
    exact = bool(np.array_equal(made[~hole], picture[~hole]))
    shown = Picture((made * 255).round().astype(np.uint8))
    return Painted(method.name, out.evaluations, calls[0], spent, out.peak_memory_bytes, exact), shown


def _shown(model: Model, side: int) -> dict[str, Any]:
    """The picture to go by, where a model's text encoder reads one beside the text."""
    if "image" not in getattr(model, "reads", ()):
        return {}
    from PIL import Image

    return {"reference_images": Image.fromarray((_scene(side)[0] * 255).round().astype(np.uint8))}


def _scene(side: int) -> tuple[Any, Any]:
    """A smooth picture with edges in it, and a hole in its middle."""
    y, x = np.mgrid[:side, :side].astype(np.float32) / side
    waves = np.stack((x, y, (x + y) / 2), -1) * 0.6 + 0.2 * np.sin(12 * np.stack((y, x, x - y), -1))
    waves[(x - 0.5) ** 2 + (y - 0.45) ** 2 < 0.09] *= 0.5
    hole = np.zeros((side, side), bool)
    hole[side * 3 // 8 : side * 5 // 8, side // 3 : side * 3 // 4] = True
    return np.clip(waves, 0, 1), hole


def _support(model: Model, report: Report) -> None:
    """What does not run on this model, by its own sentences."""
    said: list[str] = []
    for name, kind in sorted(methods.types().items()):
        try:
            check_gradients(model, kind())
        except ValueError as error:
            said.append(str(error))
        if kind.needs_score and model.distilled:
            said.append(f"{name} draws by the model's score, which a network with distilled guidance does not give")
    takes = getattr(model, "keywords", ())
    if getattr(getattr(model, "given", None), "controlnet", None) is not None and "control_image" not in takes:
        said.append("the pipeline's ControlNet is not asked; its text-to-image part paints")
    for network in model.networks():
        if "IPAdapter" in type(getattr(network, "encoder_hid_proj", None)).__name__:
            said.append("an IP-Adapter is loaded, and nothing is shown to it here; call pipe.unload_ip_adapter()")
    report.unsupported += said
