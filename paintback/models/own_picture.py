"""The picture as its own prior: the model `self`, which has no network and learnt from nothing else.

Beside a network that learnt from photographs they say how the texture around a hole goes on: `MixedDenoiser`.

The denoiser is that of `priors.patches`. Its patches are the known ones of the picture at the scale that is painted,
and their size falls with the noise: what goes together far away is settled first, the grain last. Only the hole and a
band of known cells around it are asked, for no method looks at more; elsewhere D is what is known.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from paintback.denoiser import Denoiser, Prediction, predict
from paintback.models.base import Model
from paintback.models.catalogue import OWN_PICTURE, Sampler, read_header
from paintback.models.latent import fill_hole
from paintback.priors.patches import Patches, known_patches, windows
from paintback.schedules import EDM, Time

__all__ = [
    "MixedDenoiser",
    "OwnPicture",
    "OwnPictureDenoiser",
    "Settings",
    "load_own_picture",
    "own_patches",
    "roughness",
    "with_own_patches",
    "write_own_picture",
]

BESIDE = 2000  # patches of every scale and side beside a network: with three times as many it was no better
BLOCK = 72  # cells along a side, beside a network
SPREAD = 0.3  # of its square's cells: a part of a hole that has fewer is cut smaller, for it has many neighbours
SMOOTH = 0.03  # roughness at which they have half their share
LARGEST = 256  # pixels: a hole that is wider shows the same patches again and again


@dataclass(frozen=True)
class Settings:
    """How a picture's patches are taken and asked.

    Attributes:
        sides: (noise level, side) pairs, levels falling to 0: from that level upwards patches have that side.
        most: patches of every scale and side, mirror images included.
        least: where fewer are known in whole, patches are smaller, down to 3; smaller still where none is known.
        mirror: whether mirror images, left for right, are patches too.
        reach: cells within which patches are likely; None for any distance.
        band: known cells around the hole that are asked too.
        entries: of the matrix of distances that are held at once; few enough to stay near a core.
        block: cells along a side of the parts of a hole that have patches of their own; None where all of it shares
            them.
        sigma_min: where the noise levels of the grid become even; see `schedules.EDM`.
        sigma_max: the highest noise level.

    Raises:
        ValueError: for sides that are not odd, levels that do not fall to 0, or fewer patches than two or `least`.
    """

    sides: tuple[tuple[float, int], ...] = ((3.0, 9), (1.0, 7), (0.25, 5), (0.0, 3))
    most: int = 6000
    least: int = 600
    mirror: bool = True
    reach: float | None = 12.0
    band: int = 2
    entries: int = 2**20
    block: int | None = None
    sigma_min: float = 0.02
    sigma_max: float = 20.0

    def __post_init__(self) -> None:
        if self.most < max(2, self.least):
            raise ValueError(f"A scale needs two patches and `least`={self.least}; got most={self.most}.")
        levels = [level for level, _ in self.sides]
        if not levels or levels[-1] != 0 or levels != sorted(set(levels), reverse=True):
            raise ValueError(f"The noise levels of sides must fall to 0; got {self.sides}.")
        if any(side < 1 or side % 2 == 0 for _, side in self.sides):
            raise ValueError(f"The sides of patches must be odd; got {self.sides}.")

    def side(self, sigma: float) -> int:
        """The patches' side at a noise level."""
        return next(side for level, side in self.sides if sigma >= level)


class OwnPictureDenoiser(Denoiser):
    """The denoiser of a picture's own patches, in EDM's coordinates; `given` shows it the picture.

    Args:
        settings: how patches are taken.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(EDM(settings.sigma_min, settings.sigma_max))
        self.settings = settings
        self._pictures: list[_Shown | _Blocks] = []

    def given(self, values: Tensor, known: Tensor) -> OwnPictureDenoiser:
        """The denoiser that learns from these pictures.

        Args:
            values: (B, C, H, W), one picture for each row of the batch.
            known: (B, 1, H, W) bool.

        Raises:
            ValueError: for a picture of which nothing is known.
        """
        if not bool(known.flatten(1).any(1).all()):
            raise ValueError(
                "The model 'self' learns from what is known around a hole, and here nothing is; hide less."
            )
        other = copy.copy(self)
        other._pictures = []
        for picture, where in zip(values, known[:, 0], strict=True):  # samples of one picture share its patches
            equal = (one for one in other._pictures if one.equals(picture, where))
            kind = _Shown if self.settings.block is None else _Blocks
            other._pictures.append(next(equal, None) or kind(picture, where, self.settings))
        return other

    def predict(self, x: Tensor, time: Time) -> Prediction:
        """D(x, sigma); see `priors.patches`."""
        if not self._pictures:
            raise ValueError(
                "The model 'self' learns from what is known around a hole, and this task shows it none; use `inpaint`, "
                "or another model."
            )
        if time.sigma == 0:
            return predict("x0", x, x, time, rows=len(x))
        return predict("x0", self.at(x, time.sigma).to(x.dtype), x, time, rows=len(x))

    def at(self, x: Tensor, sigma: float) -> Tensor:
        """D(x, sigma) of states in EDM's coordinates, (B, C, H, W), at a noise level above 0."""
        times = len(x) // len(self._pictures)  # a row's multiples lie next to each other
        return torch.stack([self._pictures[k // times].denoised(row, sigma) for k, row in enumerate(x)])


class MixedDenoiser(Denoiser):
    """A network's picture mixed with that of the picture's own patches, at low noise.

    The network knows what things look like and has a texture of its own; the patches know the texture at hand and
    nothing else. Where much noise is left the network alone says what goes where, and where the picture is smooth
    around the hole there is no texture to take over: patches have the levels that they have, and make steps of a sky.

    Args:
        inner: the network's denoiser, of pictures.
        own: of patches; `given` shows it the picture.
        below: noise level (sigma / alpha) below which the two are mixed.
        share: of the patches' picture, where the surroundings are rough; see `roughness`. A number, or (B, 1, H, W).
    """

    def __init__(self, inner: Denoiser, own: OwnPictureDenoiser, below: float, share: float | Tensor = 0.5) -> None:
        super().__init__(inner.schedule)
        self.shape, self.codec, self.condition = inner.shape, inner.codec, inner.condition
        self.step_distilled = inner.step_distilled
        self.inner, self.own, self.below, self.share = inner, own, below, share

    def predict(self, x: Tensor, time: Time) -> Prediction:
        """(1 - share) D + share D_own below the level, D above it and at sigma = 0."""
        network = self.inner.predict(x, time)
        if not 0 < time.ratio < self.below:
            return network
        own, share = self.own.at(x / time.alpha, time.ratio).to(network.x0), self.share
        if isinstance(share, Tensor):  # a row's multiples lie next to each other
            share = share.to(own).repeat_interleave(len(x) // len(share), dim=0)
        return predict("x0", network.x0 + share * (own - network.x0), x, time, rows=network.rows)

    def given(self, values: Tensor, known: Tensor) -> Denoiser:
        """This denoiser whose patches are of these pictures; the network's own where nothing of one is known."""
        inner = self.inner.given(values, known)
        if not bool(known.flatten(1).any(1).all()):
            return inner
        rough = roughness(values, known).square()
        share = self.share * rough / (rough + SMOOTH**2)
        return MixedDenoiser(inner, self.own.given(values, known), self.below, share)

    def placed(
        self, boxes: Sequence[tuple[int, int, int, int]], shapes: Sequence[tuple[int, int]], factor: int
    ) -> Denoiser:
        return MixedDenoiser(self.inner.placed(boxes, shapes, factor), self.own, self.below, self.share)

    def grid(self, num_inference_steps: int) -> Tensor | None:
        return self.inner.grid(num_inference_steps)

    def with_condition(self, condition: Tensor) -> Denoiser:
        return MixedDenoiser(self.inner.with_condition(condition), self.own, self.below, self.share)


def roughness(values: Tensor, known: Tensor, side: int = 5, around: int = 9) -> Tensor:
    """How far cells are from the mean of those around them: 0 in flat areas and even gradients, more in texture.

    It is measured where squares are known in whole, and goes on smoothly into the hole.

    Args:
        values: (B, C, H, W).
        known: (B, 1, H, W) bool.
        side: cells of the square whose mean it is; odd.
        around: cells of the square over which its square is averaged; odd.

    Returns:
        (B, 1, H, W), root mean square in the pictures' units; 0 where no square is known.
    """
    if min(values.shape[-2:]) < side:
        return torch.zeros_like(values[:, :1])
    half = side // 2
    inner = (..., slice(half, values.shape[-2] - half), slice(half, values.shape[-1] - half))
    whole = F.max_pool2d((~known).to(values.dtype), side, 1) == 0
    apart = (values[inner] - F.avg_pool2d(values, side, 1)).square().mean(1, keepdim=True) * whole
    wide = [F.avg_pool2d(F.pad(part.to(values.dtype), (half,) * 4), around, 1, around // 2) for part in (apart, whole)]
    measured = wide[1] > 0
    return fill_hole(wide[0] / wide[1].clamp(min=1e-9), measured & known).clamp(min=0).sqrt()


def with_own_patches(network: Denoiser, below: float) -> Denoiser:
    """A network's denoiser, half of whose picture is that of the picture's own patches below a noise level.

    Args:
        network: of pictures; `given` shows what comes back the picture.
        below: sigma / alpha.
    """
    return MixedDenoiser(network, own_patches(), below)


def own_patches() -> OwnPictureDenoiser:
    """Of a picture's own patches as they stand beside a network, before it is given a picture."""
    return OwnPictureDenoiser(Settings(most=BESIDE, block=BLOCK))


@dataclass
class _Shown:
    """One picture at one scale, (C, H, W), what is known of it, (H, W), and its patches, taken when first asked for."""

    values: Tensor
    known: Tensor
    settings: Settings
    within: Tensor | None = None  # (H, W) bool: what alone is asked; None for all that is hidden
    _patches: dict[int, Patches] = field(default_factory=dict)
    _parts: dict[int, list[tuple[bool, Tensor]]] = field(default_factory=dict)

    def equals(self, values: Tensor, known: Tensor) -> bool:
        return torch.equal(self.values, values) and torch.equal(self.known, known)

    def patches(self, side: int) -> Patches:
        """The patches of a side, or of the largest smaller one of which enough are known in whole."""
        if side not in self._patches:
            most, mirror = self.settings.most, self.settings.mirror
            found = known_patches(self.values, self.known, side, most=most, mirror=mirror)
            enough = found is not None and (side <= 3 or len(found.values) >= self.settings.least)
            self._patches[side] = found if found is not None and enough else self.patches(side - 2)
        return self._patches[side]

    def parts(self, patches: Patches) -> list[tuple[bool, Tensor]]:
        """The cells that are asked, as many at a time as are held at once, and whether their patches reach beyond.

        Found once for every side, for a GPU has to be waited for to count them.
        """
        if patches.side not in self._parts:
            half, band = patches.side // 2, self.settings.band
            asked = F.max_pool2d((~self.known).float()[None], 2 * band + 1, 1, band)[0] > 0
            asked = asked if self.within is None else asked & self.within
            whole = F.pad(torch.ones_like(self.known)[2 * half :, 2 * half :], (half,) * 4)
            most = max(1, self.settings.entries // len(patches.values))
            self._parts[patches.side] = [
                (cut, part) for cut in (False, True) for part in (asked & (whole ^ cut)).nonzero().split(most)
            ]
        return self._parts[patches.side]

    def denoised(self, x: Tensor, sigma: float) -> Tensor:
        """D(x, sigma) of one state, (C, H, W)."""
        patches = self.patches(self.settings.side(sigma))
        half = patches.side // 2
        seen = windows(F.pad(x.to(self.values), (half,) * 4), patches.side)
        inside = windows(F.pad(torch.ones_like(self.known)[None], (half,) * 4), patches.side)
        places, answers = [], []
        for cut, part in self.parts(patches):
            at = part.unbind(1)
            queries = seen[at].flatten(1)
            within = inside[at].expand(-1, len(x), -1, -1).flatten(1) if cut else None
            near = () if self.settings.reach is None else (part.to(queries), self.settings.reach)
            if x.requires_grad and torch.is_grad_enabled():  # the distances are made again for the gradient
                answer = checkpoint(patches.expected, queries, sigma, within, *near, use_reentrant=False)
            else:
                answer = patches.expected(queries, sigma, within, *near)
            places.append(part)
            answers.append(answer)
        return self.values.index_put(
            (torch.arange(len(x), device=x.device)[:, None], *torch.cat(places).T[:, None]), torch.cat(answers).T
        )


@dataclass
class _Blocks:
    """As `_Shown`, in parts of the hole, each with the patches around it: a long hole has too many for one set."""

    values: Tensor
    known: Tensor
    settings: Settings
    _blocks: list[tuple[tuple[slice, ...], _Shown]] = field(default_factory=list)

    def __post_init__(self) -> None:
        hidden = F.max_pool2d((~self.known).float()[None], 2 * self.settings.band + 1, 1, self.settings.band)[0] > 0
        self._split(hidden, 0, 0)

    def _split(self, part: Tensor, top: int, left: int) -> None:
        """Takes a part of the hole as it is, or its four quarters where it is large or thinly spread.

        Args:
            part: (h, w) bool.
            top: row of its corner.
            left: column.
        """
        if not bool(part.any()):
            return
        rows, columns = (part.any(axis).nonzero()[:, 0] for axis in (1, 0))
        part = part[int(rows[0]) : int(rows[-1]) + 1, int(columns[0]) : int(columns[-1]) + 1]
        top, left = top + int(rows[0]), left + int(columns[0])
        side, most = max(part.shape), self.settings.block or max(self.known.shape)
        if side <= most and (side <= most // 2 or int(part.sum()) >= SPREAD * part.numel()):
            self._blocks.append(self._block(part, top, left))
            return
        row, column = (2 * top + part.shape[0]) // 2 - top, (2 * left + part.shape[1]) // 2 - left
        self._split(part[:row, :column], top, left)
        self._split(part[:row, column:], top, left + column)
        self._split(part[row:, :column], top + row, left)
        self._split(part[row:, column:], top + row, left + column)

    def _block(self, part: Tensor, top: int, left: int) -> tuple[tuple[slice, ...], _Shown]:
        """What is asked of a part, and the crop around it in which enough is known."""
        margin = 3 * (self.settings.block or 1) // 8
        while True:
            here = tuple(
                slice(max(0, first - margin), min(whole, first + extent + margin))
                for first, extent, whole in zip((top, left), part.shape, self.known.shape, strict=True)
            )
            known = self.known[here]
            if known.sum() >= self.settings.most or known.shape == self.known.shape:
                break
            margin *= 2
        within = torch.zeros_like(known)
        down, across = top - here[0].start, left - here[1].start
        within[down : down + part.shape[0], across : across + part.shape[1]] = part
        return here, _Shown(self.values[(slice(None), *here)], known, self.settings, within)

    def equals(self, values: Tensor, known: Tensor) -> bool:
        return torch.equal(self.values, values) and torch.equal(self.known, known)

    def denoised(self, x: Tensor, sigma: float) -> Tensor:
        """D(x, sigma) of one state, (C, H, W)."""
        made = self.values.clone()
        for here, shown in self._blocks:
            assert shown.within is not None
            crop = (slice(None), *here)
            made[crop] = torch.where(shown.within, shown.denoised(x[crop], sigma), made[crop])
        return made


@dataclass(frozen=True)
class OwnPicture(Model):
    """The model `self`.

    Attributes:
        settings: how patches are taken.
    """

    settings: Settings = field(default_factory=Settings, kw_only=True)

    def denoiser(
        self, prompt: str | None = None, negative_prompt: str | None = None, guidance_scale: float | None = None
    ) -> Denoiser:
        """The denoiser before it is given a picture.

        Raises:
            ValueError: for a prompt or guidance.
        """
        for name, value in (("prompt", prompt), ("negative_prompt", negative_prompt)):
            if value:
                raise ValueError(
                    f"The model {self.name!r} takes no {name}; leave it out or choose a text-to-image model."
                )
        if guidance_scale not in (None, 1, 1.0):
            raise ValueError(f"The model {self.name!r} has no guidance; leave guidance_scale out.")
        return OwnPictureDenoiser(self.settings)


def load_own_picture(
    path: Path, *, device: str | torch.device | None = None, dtype: torch.dtype | None = None
) -> OwnPicture:
    """Loads the model from its file, which holds settings and no weights.

    Args:
        path: the safetensors file.
        device: None for CUDA where there is one, else the CPU.
        dtype: float32 or None; distances are rounded too much in fewer bits.

    Raises:
        ValueError: for settings that do not fit, or another dtype.
    """
    if dtype not in (None, torch.float32):
        raise ValueError(f"The model 'self' compares patches in float32; got {dtype}, leave the dtype out.")
    header = read_header(path)["__metadata__"]
    config = json.loads(header["config"])
    channels = config.pop("channels")
    config["sides"] = tuple((level, side) for level, side in config["sides"])
    where = torch.device(device) if device is not None else torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return OwnPicture(
        name=path.stem,
        channels=channels,
        multiple=1,
        size=None,
        training_size=LARGEST,
        network=None,
        device=where,
        dtype=torch.float32,
        sampler=Sampler(**json.loads(header["sampler"])),
        settings=Settings(**config),
    )


def write_own_picture(path: Path, settings: Settings, sampler: Sampler, channels: int = 3) -> None:
    """Writes a file that `load_own_picture` reads.

    Args:
        path: of the safetensors file; its name is the model's.
        settings: how patches are taken.
        sampler: what it is sampled with best.
        channels: colours of the pictures.
    """
    config = json.dumps({"channels": channels, **dataclasses.asdict(settings)})
    save_file({}, path, {"family": OWN_PICTURE, "config": config, "sampler": json.dumps(dataclasses.asdict(sampler))})
