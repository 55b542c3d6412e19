"""Clips before a model: windows of frames that are painted one after another, and how one is painted.

A window begins some frames before the end of the one before it, and what is painted there is known to it, so that
motion goes on. What of a frame is hidden is filled smoothly from the rest of the frame before the clip is encoded, and
a frame of which nothing is known is filled with the one next to it; the hidden pixels never reach the model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paintback.images.clips import Masks
from paintback.images.picture import Picture
from paintback.images.regions import thickness
from paintback.models.base import Told
from paintback.models.latent import LatentModel, fill_hole, observe
from paintback.painting.canvas import answer
from paintback.painting.frames import Frame
from paintback.painting.layout import THIN, Recipe, tail, whole_grid
from paintback.painting.session import Session

__all__ = ["ClipPainting", "Window", "plan_windows"]


@dataclass(frozen=True)
class Window:
    """What one window cost.

    Attributes:
        start: its first frame.
        stop: the frame after its last.
        size: (width, height) that was painted.
        evaluations: denoiser calls.
        vjps: gradients.
    """

    start: int
    stop: int
    size: tuple[int, int]
    evaluations: int | float
    vjps: int | float


def plan_windows(count: int, length: int, overlap: int, factor: int) -> list[tuple[int, int]]:
    """The windows that cover a clip.

    The last one is as long as the others, so it may begin further back; overlaps always are factor k + 1 frames, the
    first k + 1 cells in time of the later window.

    Args:
        count: frames of the clip.
        length: frames of a window, factor k + 1.
        overlap: frames that two windows share, at least; factor k + 1.
        factor: frames of a cell in time.

    Returns:
        (start, stop) of each.

    Raises:
        ValueError: for lengths that do not fit.
    """
    for name, value in (("window", length), ("overlap", overlap)):
        if value < 1 or (value - 1) % factor:
            raise ValueError(
                f"{name} must be {factor} k + 1 frames, such as {4 * factor + 1} or {20 * factor + 1}; got {value}."
            )
    if overlap >= length:
        raise ValueError(f"overlap must be shorter than the window; got {overlap} of {length} frames.")
    windows = [(0, min(count, length))]
    while windows[-1][1] < count:
        start = windows[-1][1] - overlap
        start -= max(0, start + length - count) // factor * factor
        windows.append((start, min(count, start + length)))
    return windows


@dataclass
class ClipPainting:
    """A clip that is being painted.

    Attributes:
        frames: (F, H, W, 3) as given, painted window by window.
        hole: (F, H, W) bool, what is replaced wholly.
        todo: (F, H, W) bool, what is not painted yet, the seam included.
        weights: (F, H, W) of the seam, or None.
        frame: the crop and the size it is painted at.
        model: that paints.
        recipe: how.
        told: of the clip.
    """

    frames: NDArray[Any]
    hole: Masks
    todo: Masks
    weights: NDArray[np.float32] | None
    frame: Frame
    model: LatentModel
    recipe: Recipe
    told: Told

    def with_holes(self, spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
        """The windows in which something is left to be painted once those before them are done."""
        left, found = np.asarray(self.todo.any((1, 2))), []
        for start, stop in spans:
            if left[start:stop].any():
                found.append((start, stop))
            left[start:stop] = False
        return found

    @torch.no_grad()
    def paint(
        self, start: int, stop: int, generators: torch.Generator | list[torch.Generator], windows: int, session: Session
    ) -> Window:
        """Paints what is hidden of a window.

        Args:
            start: its first frame.
            stop: the frame after its last.
            generators: one, or one of each draw; a window goes on where the one before left them.
            windows: how many there are in all, for the bar.
            session: counts costs, and is told of every step.
        """
        recipe, method = self.recipe, self.recipe.method
        assert method is not None
        given, values, known = self._enter(start, stop)
        size = (values.shape[2], *self.frame.size)
        shown = self.model.denoiser_at(size, self.told)
        whole = whole_grid(shown, method, recipe.steps, recipe.times)
        count = tail(len(whole) - 1, recipe.strength)
        session.expect(count * recipe.draws * windows)
        # the hole is filled already, with more care for hidden frames than observe takes
        hidden = given if recipe.leaky_encoding else values
        observation = observe(self.model.codec, values, known, policy=recipe.latent_mask, hidden=hidden)
        again = recipe.strength < 1
        drawn = []
        for generator in [generators] if isinstance(generators, torch.Generator) else generators:
            result = method.sample(
                shown,
                observation,
                num_inference_steps=recipe.steps,
                generator=generator,
                grid=whole[-1 - count :] if again or recipe.times is not None else None,
                callback=session.step,
                initial=self.model.codec.encode(given)[0].float() if again else None,
            )
            session.count(result)
            drawn.append(self.model.codec.decode(result.x)[0].float().cpu().clamp(-1, 1).transpose(0, 1))
            if result.stopped:
                break
        self._leave(start, stop, [self.frame.leave(one[: stop - start]) for one in drawn])
        cost = (recipe.draws * result.evaluations, recipe.draws * result.vjps)
        return Window(start, stop, (self.frame.size[1], self.frame.size[0]), *cost)

    def _leave(self, start: int, stop: int, drawn: list[Tensor]) -> None:
        """Puts a window's draws (F, 3, h, w) of the crop, or what they come to, into the frames."""
        todo, (values, *_) = self.todo[start:stop], drawn
        if len(drawn) > 1:
            thin = thickness(np.asarray(todo.any(0))) <= THIN
            part = torch.from_numpy(todo[(slice(None), *self.frame.box.slices)].copy())[:, None]
            values = answer(torch.stack(drawn)[None], part, mean=self.recipe.mean or thin)[0]
        painted = values.permute(0, 2, 3, 1).numpy()
        new = np.zeros((*self.frames.shape[1:3], 3), np.float32)
        for number in np.flatnonzero(todo.any((1, 2))):
            place = start + number
            new[self.frame.box.slices] = painted[number]
            weight = None if self.weights is None else self.weights[place]
            self.frames[place] = Picture(self.frames[place]).with_pixels(new, self.hole[place], weight).pixels
        todo[:] = False

    def _enter(self, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """The window before the model: as given and with its hole filled, (1, 3, F, H, W), and (1, 1, F, H, W) bool."""
        box, factor = self.frame.box, self.model.codec.frames
        inside = (slice(start, stop), *box.slices)
        given = torch.from_numpy(np.stack([Picture(one).to_unit() for one in self.frames[inside]])).permute(0, 3, 1, 2)
        known = torch.from_numpy(~self.todo[inside])[:, None]
        filled = fill_hole(given, known)
        seen = np.flatnonzero(known.flatten(1).any(1).numpy())
        count = len(filled)
        if 0 < len(seen) < count:
            nearest = [seen[np.abs(seen - number).argmin()] for number in range(count)]
            filled = filled[torch.tensor(np.array(nearest))]
        more = torch.arange(count + -(count - 1) % factor).clamp(max=count - 1)
        entered = [self.frame.enter(given)[more], self.frame.enter(filled)[more], self.frame.enter_known(known)[more]]
        whole, values, kept = (one.transpose(0, 1)[None].to(self.model.device) for one in entered)
        return whole, values, kept
