"""What is seen of a painting while it runs: how far it is, and the predicted picture of the crop being painted.

The inpainter tells every step of every crop and scale in order, and begins to count again at each. The order is that of
its plan, so the steps are counted in advance and each prediction is put in its place.
"""

from __future__ import annotations

import base64
import io
import time
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from paintback.images import Picture
    from paintback.images.masks import Mask
    from paintback.painting.layout import Plan, Stage
    from paintback.tasks.inpaint import Inpainter

__all__ = ["Progress", "View", "cost", "spread"]

SIDE = 384  # longer side of a preview, in pixels
PAUSE = 0.3  # seconds between previews, and more where making one takes long
SHARE = 0.1  # of the time at most
OVERHEAD = 64 * 64  # pixels: what an evaluation costs even where there is little to paint
ASKED = 4.0  # pixels: what a cell costs for which the picture's own patches are asked (3.0 to 4.7 measured)
# black, violet, red, orange, pale yellow: dark means sure
COLOURS = np.array([[0, 0, 4], [87, 16, 110], [188, 55, 84], [249, 142, 9], [252, 255, 164]], np.float32)


@dataclass
class View:
    """A preview: where in the picture (left, top, width, height), and a WebP with transparency as a data URL."""

    box: tuple[int, int, int, int]
    image: str


def cost(plan: Plan) -> float:
    """What a plan costs, in pixels that the network sees; the seconds of one of them are measured while it runs."""
    from paintback.painting.layout import Speed

    return plan.seconds(Speed(OVERHEAD, 1.0, ASKED))


@dataclass
class Progress:
    """How far a job is; written by its worker, read by whoever follows it.

    Attributes:
        samples: of the job.
        sample: the one being painted, from 1.
        step: of this sample.
        steps: of every sample, as planned.
        fraction: of the whole job that is done, by cost.
        seconds: since the job began.
        left: seconds to go, or None where that is not known yet.
        note: what it waits for, in a sentence, or None.
        version: grows with every step.
        view: the latest preview.
        view_version: grows with every preview.
    """

    samples: int
    sample: int = 1
    step: int = 0
    steps: int = 0
    fraction: float = 0.0
    seconds: float = 0.0
    left: float | None = None
    note: str | None = None
    version: int = 0
    view: View | None = None
    view_version: int = 0
    runs: list[tuple[Stage, float]] = field(default_factory=list, repr=False)  # and what a step of it costs
    began: float = field(default_factory=time.monotonic, repr=False)
    _painting: float = field(default=0.0, repr=False)
    _run: int = field(default=-1, repr=False)
    _next_view: float = field(default=0.0, repr=False)
    _skipped: int = field(default=0, repr=False)

    def painted(self) -> float:
        """Seconds since the first sample began."""
        return time.monotonic() - self._painting

    def say(self, note: str | None) -> None:
        """Notes what the job waits for."""
        self.note = note
        self.version += 1

    def begin_sample(self, number: int, plan: Plan) -> None:
        """The next sample begins; those that an earlier run left cost nothing now."""
        if not self.runs:
            self._skipped, self._painting = number - 1, time.monotonic()
        self.runs = [
            (
                stage,
                cost(replace(plan, stages=(stage,), rows=rows.stop - rows.start)) / max(1, stage.steps * stage.repeats),
            )
            for stage in plan.stages
            for rows in stage.rows(plan.rows, plan.each)
            for _ in range(stage.repeats)
        ]
        self.sample, self._run = number, -1
        self.step, self.steps = 0, plan.steps
        self.version += 1

    def took_step(self, inpainter: Inpainter, index: int, x0: Any) -> None:
        """One step of the current run was done, or with index 0 the first one of the next."""
        if index == 0:
            self._run = min(self._run + 1, len(self.runs) - 1)
        stage, per_step = self.runs[self._run]
        before = self.runs[: self._run]
        here = min(index + 1, stage.steps)
        self.step = sum(one.steps for one, _ in before) + here
        whole = sum(one.steps * each for one, each in self.runs)
        done = sum(one.steps * each for one, each in before) + here * per_step
        own = self.sample - 1 - self._skipped + done / whole
        self.fraction = (self.sample - 1 + done / whole) / self.samples
        now = time.monotonic()
        self.seconds = now - self.began
        self.left = (now - self._painting) / own * (self.samples - self._skipped - own) if own > 0 else None
        if x0 is not None and now >= self._next_view:
            self.view = _view(inpainter, stage, x0)
            self.view_version += 1
            took = time.monotonic() - now
            self._next_view = now + took + max(PAUSE, took * (1 / SHARE - 1))
        self.version += 1


def _view(inpainter: Inpainter, stage: Stage, x0: Any) -> View:
    from PIL import Image

    model = inpainter.model
    x0 = x0[:1].detach()
    if stage.frame is not None:  # a prediction in latents
        x0 = stage.frame.leave(model.to_picture(model.codec.decode(x0)).float().cpu())
    else:
        x0 = model.to_picture(x0.float().cpu())
    values = ((x0[0].clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()
    box = stage.box
    scale = min(1.0, SIDE / max(box.shape))
    size = max(1, round(box.width * scale)), max(1, round(box.height * scale))
    image = Image.fromarray(values).resize(size, Image.Resampling.BICUBIC)
    image.putalpha(Image.fromarray(stage.part).convert("L").resize(size, Image.Resampling.BILINEAR))
    buffer = io.BytesIO()
    image.save(buffer, "WEBP", quality=80, method=0)
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return View((box.left, box.top, box.width, box.height), f"data:image/webp;base64,{data}")


def spread(pictures: list[Picture], mask: Mask) -> tuple[Picture, float]:
    """Where samples disagree: the standard deviation over the samples, root mean square over the colours.

    Args:
        pictures: two or more samples.
        mask: (H, W) bool, the hole.

    Returns:
        A picture to lay over the hole (transparent elsewhere), from dark (all agree) to bright, and the deviation that
        the brightest colour stands for, where white minus black is 1.
    """
    from paintback.images import Picture as Made

    whole = np.stack([picture.pixels[mask].astype(np.float32) / picture.white for picture in pictures])
    deviation = np.sqrt(whole.var(axis=0, ddof=1).mean(axis=-1))
    largest = float(np.quantile(deviation, 0.99)) or 1.0  # a few wild pixels do not darken the rest
    place = np.clip(deviation / largest, 0, 1) * (len(COLOURS) - 1)
    low = np.minimum(place.astype(int), len(COLOURS) - 2)
    share = (place - low)[:, None]
    pixels = np.zeros((*mask.shape, 3), np.uint8)
    pixels[mask] = np.rint((1 - share) * COLOURS[low] + share * COLOURS[low + 1]).astype(np.uint8)
    return Made(pixels, np.where(mask, 255, 0).astype(np.uint8)), largest
