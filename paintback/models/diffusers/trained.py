"""Inpainting pipelines of diffusers, each run by its own `__call__`: the reference for training-free methods.

Nothing of the sampling is done here. The pipeline gets the picture and the mask as tensors, so that nothing is rounded
to 8 bits on the way, and is left as it was: the counting hook, the silence of its progress bar and the seeding of
torch's global generator, which some pipelines draw from, end with the call.

U-Net pipelines and SD 3's ControlNet see of the mask one pixel of every latent cell, the top left one. A hole that
passes between those pixels would be kept as it is; so that pixel is marked in every cell that the hole touches.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paintback.models.base import Told
from paintback.models.catalogue import TRAINED, Sampler
from paintback.models.diffusers.base import Condition, copy_scheduler, refuse
from paintback.models.diffusers.pipes import OfPipe
from paintback.models.diffusers.refusals import check_told, check_widths
from paintback.models.trained import Painting, Step, TrainedModel

__all__ = [
    "FluxFill",
    "InpaintingPipeline",
    "StableDiffusion3Inpaint",
    "StableDiffusionInpaint",
    "StableDiffusionXLInpaint",
]

EMBEDDINGS = ("prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds")


@dataclass(frozen=True)
class InpaintingPipeline(TrainedModel, OfPipe):
    """What the pipelines share. A subclass says what its pipeline takes.

    Attributes:
        embeddings: those that the pipeline takes in place of the text.
        takes_negative: whether it takes a negative prompt, that is, has classifier-free guidance.
        samples_mask: whether it sees of the mask one pixel of every latent cell.
        factor: pixels per latent cell along a side.
    """

    embeddings: ClassVar[tuple[str, ...]] = EMBEDDINGS
    takes_negative: ClassVar[bool] = True
    samples_mask: ClassVar[bool] = True

    factor: int = field(kw_only=True)

    @classmethod
    def from_pipe(cls, pipe: Any, name: str) -> InpaintingPipeline:
        """The adapter of a loaded pipeline.

        Raises:
            ValueError: if the pipeline's network does not take the mask.
        """
        raise NotImplementedError

    @classmethod
    def _make(cls, pipe: Any, name: str, network: Any, *, multiple: int, training_size: int) -> InpaintingPipeline:
        steps = inspect.signature(type(pipe).__call__).parameters["num_inference_steps"].default
        return cls(
            name=name,
            channels=3,
            multiple=multiple,
            size=None,
            training_size=training_size,
            network=network,
            device=pipe._execution_device,
            dtype=network.dtype,
            sampler=Sampler(TRAINED, num_inference_steps=steps),
            pipe=pipe,
            factor=int(pipe.vae_scale_factor),
        )

    def count_steps(self, num_inference_steps: int, kept: int) -> int:
        if hasattr(self.pipe.scheduler.config, "use_dynamic_shifting"):  # flows: one step an interval
            return kept
        scheduler = copy_scheduler(self.pipe.scheduler)
        scheduler.set_timesteps(num_inference_steps)
        return len(scheduler.timesteps) - int(scheduler.order) * (num_inference_steps - kept)

    def strength(self, share: float) -> float:
        """What the pipeline calls the share of the steps that is run; most round what they make of it down."""
        return min(1.0, share + 1e-9)

    def images(self, picture: Tensor, hole: Tensor, strength: float) -> dict[str, Any]:
        """The picture and the mask as the pipeline takes them, with the strength where it has one."""
        return {"image": ((picture + 1) / 2).clamp(0, 1), "mask_image": hole, "strength": strength}

    def fill(
        self,
        picture: Tensor,
        hole: Tensor,
        told: Told,
        *,
        num_inference_steps: int,
        generator: torch.Generator | Sequence[torch.Generator],
        num_samples: int = 1,
        steps: int | None = None,
        step: Step | None = None,
    ) -> Painting:
        given = told.embeddings
        prompt, negative_prompt, guidance_scale = told.prompt, told.negative_prompt, told.guidance_scale
        refuse(given, self.embeddings, self.name)
        check_told(self.name, self.network, prompt, negative_prompt, given)
        check_widths(self.name, self.network, given)
        if negative_prompt is not None and not self.takes_negative:
            raise ValueError(f"The model {self.name!r} takes no negative_prompt; leave it out.")
        if steps is not None and not self.takes_strength:
            raise ValueError(f"The model {self.name!r} starts from noise alone and takes no strength; leave it at 1.")
        said: dict[str, Any] = {name: Condition(value).rows(num_samples).embeds for name, value in given.items()}
        if "prompt_embeds" not in said:
            said["prompt"] = [prompt or ""] * num_samples
        if negative_prompt is not None:
            said["negative_prompt"] = [negative_prompt] * num_samples
        if self.takes_negative and prompt is None and negative_prompt is None and not given:
            guidance_scale = 1.0  # towards nothing: as for the other models, it is not paid for
        if guidance_scale is not None:
            said["guidance_scale"] = float(guidance_scale)
        if isinstance(generator, torch.Generator):
            first, drawn = generator, generator
        else:
            first, drawn = generator[0], list(generator)  # type: ignore[assignment]
            # the pipelines give every picture's encoding the noise of its own generator, so there is one per sample
            picture, hole = (one.expand(num_samples, -1, -1, -1) for one in (picture, hole))
        mask = hole.float()
        if self.samples_mask:
            mask[..., :: self.factor, :: self.factor] = F.max_pool2d(mask, self.factor)
        tell = _Steps(self.pipe, step)
        with _counted(self.network) as count, _silent(self.pipe), _seeded(first, self.device):
            try:
                made = self.pipe(
                    **said,
                    **self.images(picture, mask, 1.0 if steps is None else self.strength(steps / num_inference_steps)),
                    height=picture.shape[-2],
                    width=picture.shape[-1],
                    num_inference_steps=num_inference_steps,
                    generator=drawn,
                    output_type="pt",
                    callback_on_step_end=tell,
                ).images
            finally:
                self.pipe._interrupt = False
        rows = count.rows
        return Painting(
            made.float() * 2 - 1,
            evaluations=count.calls,
            network_rows=rows // num_samples if rows % num_samples == 0 else rows / num_samples,
            stopped=tell.stopped,
        )


@dataclass(frozen=True)
class StableDiffusionInpaint(InpaintingPipeline):
    """`StableDiffusionInpaintPipeline` with a U-Net of 9 channels: latents, mask, latents of the masked picture."""

    part: ClassVar[str] = "unet"
    embeddings: ClassVar[tuple[str, ...]] = EMBEDDINGS[:2]

    @classmethod
    def takes(cls, pipe: Any) -> bool:
        return bool(pipe.unet.config.in_channels == 2 * pipe.vae.config.latent_channels + 1)

    @classmethod
    def from_pipe(cls, pipe: Any, name: str) -> InpaintingPipeline:
        side, factor = pipe.unet.config.sample_size, int(pipe.vae_scale_factor)
        side = max(side) if isinstance(side, tuple | list) else int(side)
        return cls._make(pipe, name, pipe.unet, multiple=factor, training_size=side * factor)


@dataclass(frozen=True)
class StableDiffusionXLInpaint(StableDiffusionInpaint):
    """`StableDiffusionXLInpaintPipeline` with a U-Net of 9 channels."""

    embeddings: ClassVar[tuple[str, ...]] = EMBEDDINGS


@dataclass(frozen=True)
class StableDiffusion3Inpaint(InpaintingPipeline):
    """`StableDiffusion3ControlNetInpaintingPipeline`: the ControlNet takes the mask and the masked picture's latents.

    The pipeline draws the noise of its encoder from torch's global generator for the whole batch, so samples with
    generators of their own are painted one at a time. Counted are the calls of the transformer; the ControlNet is
    called as often.
    """

    takes_strength: ClassVar[bool] = False
    takes_batches: ClassVar[bool] = False

    @classmethod
    def takes(cls, pipe: Any) -> bool:
        return bool(getattr(getattr(pipe.controlnet, "config", None), "extra_conditioning_channels", 0))

    @classmethod
    def from_pipe(cls, pipe: Any, name: str) -> InpaintingPipeline:
        factor = int(pipe.vae_scale_factor)
        side = int(pipe.transformer.config.sample_size) * factor
        return cls._make(pipe, name, pipe.transformer, multiple=factor * int(pipe.patch_size), training_size=side)

    def images(self, picture: Tensor, hole: Tensor, strength: float) -> dict[str, Any]:
        return {"control_image": picture, "control_mask": hole}  # tensors are taken as they are, in [-1, 1]


@dataclass(frozen=True)
class FluxFill(InpaintingPipeline):
    """`FluxFillPipeline`: the transformer takes the mask, pixel by pixel, and the masked picture's latents.

    Its guidance scale is an input of the network: one row a call, and no negative prompt.
    """

    embeddings: ClassVar[tuple[str, ...]] = ("prompt_embeds", "pooled_prompt_embeds")
    takes_negative: ClassVar[bool] = False
    samples_mask: ClassVar[bool] = False

    def strength(self, share: float) -> float:
        return share - 1e-9  # this one rounds the steps that it leaves out down

    @classmethod
    def from_pipe(cls, pipe: Any, name: str) -> InpaintingPipeline:
        factor = int(pipe.vae_scale_factor)
        side = int(pipe.default_sample_size) * factor
        return cls._make(pipe, name, pipe.transformer, multiple=2 * factor, training_size=side)


class _Steps:
    """The pipeline's callback: hands every step on, with the timestep that it began at."""

    def __init__(self, pipe: Any, step: Step | None) -> None:
        self.pipe, self.step, self.stopped = pipe, step, False
        self.times: list[float] = []

    def __call__(self, pipe: Any, index: int, timestep: Any, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.step is None:
            return {}
        if not self.times:  # one copy to the CPU for the whole run
            times = self.pipe.scheduler.timesteps.tolist()
            self.times = times[len(times) - self.pipe.num_timesteps :]
        answer = self.step(index, self.times[index], tensors["latents"])
        if isinstance(answer, Tensor):
            return {"latents": answer}
        if answer and index + 1 < len(self.times):
            self.stopped = self.pipe._interrupt = True
        return {}


@dataclass
class _Count:
    calls: int = 0
    rows: int = 0


@contextlib.contextmanager
def _counted(network: nn.Module | None) -> Iterator[_Count]:
    """Counts the calls of a network, and the rows that it gave back."""
    assert network is not None
    count = _Count()

    def hook(module: nn.Module, given: Any, output: Any) -> None:
        count.calls += 1
        count.rows += len(output[0])

    handle = network.register_forward_hook(hook)
    try:
        yield count
    finally:
        handle.remove()


@contextlib.contextmanager
def _silent(pipe: Any) -> Iterator[None]:
    """Keeps the pipeline's progress bar off: the Inpainter has its own."""
    before = getattr(pipe, "_progress_bar_config", None)
    pipe.set_progress_bar_config(**{**(before or {}), "disable": True})
    try:
        yield
    finally:
        if before is None:
            del pipe._progress_bar_config
        else:
            pipe._progress_bar_config = before


@contextlib.contextmanager
def _seeded(generator: torch.Generator, device: torch.device) -> Iterator[None]:
    """Seeds torch's global generator after another one's state, which stays, and gives it back as it was."""
    twin = torch.Generator(generator.device)
    twin.set_state(generator.get_state())
    seed = int(torch.randint(2**62, (), generator=twin, device=generator.device))
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        torch.default_generator.manual_seed(seed)
        if cuda:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
