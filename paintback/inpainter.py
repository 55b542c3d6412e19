"""Inpainter: picture and mask in, picture out."""

from __future__ import annotations

import dataclasses
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from tqdm.auto import tqdm

from paintback import methods, models
from paintback.coarse_to_fine import Policy
from paintback.images import masks
from paintback.images.outputs import OutputType, check_output_type, convert
from paintback.images.picture import read_picture
from paintback.methods.base import Method
from paintback.models.base import Model
from paintback.models.catalogue import TRAINED, Sampler
from paintback.models.latent import LatentPolicy
from paintback.models.trained import TrainedModel
from paintback.painting.painter import LatentOptions, Painter, Plan, Scale, Told, lay_out, plan_of
from paintback.randomness import one_or_each
from paintback.resources import PeakMemory

__all__ = ["Inpainter", "Output", "Scale"]

Generator = torch.Generator | Sequence[torch.Generator] | None


@dataclass
class Output:
    """What an `Inpainter` gives back.

    Attributes:
        images: the pictures, samples of a picture together, in the type asked for.
        evaluations: denoiser calls per sample, over all regions and scales of all pictures.
        vjps: gradients per sample, likewise.
        seconds: wall time of the call.
        peak_memory_bytes: see `resources.PeakMemory`.
        seeds: the seed of every picture in `images`.
        settings: what is needed to make the same pictures again, as plain JSON values.
        scales: the evaluations by region and scale.
        stopped: whether it was interrupted: the pictures then show the last prediction.
    """

    images: Any
    evaluations: int | float
    vjps: int | float
    seconds: float
    peak_memory_bytes: int | None
    seeds: list[int]
    settings: dict[str, Any]
    scales: list[Scale] = field(default_factory=list)
    stopped: bool = False


class Inpainter:
    """Paints back the missing part of pictures with a frozen model and any method.

    Args:
        model: a loaded model; `from_pretrained` finds one by name.
        policy: how holes of any size are cut into crops and scales.
    """

    def __init__(self, model: Model, *, policy: Policy | None = None) -> None:
        self.model = model
        self.policy = policy or Policy(multiple=model.multiple)
        self.interrupt = False
        self._progress: dict[str, Any] = {}
        self._warned: set[str] = set()

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: Any = None,
        torch_dtype: torch.dtype | None = None,
        channels_last: bool = False,
        compile: bool = False,
        gradient_checkpointing: bool = False,
    ) -> Inpainter:
        """Loads a model by name.

        Args:
            name: an embedded model's name, the path of one's own weights, or a diffusers pipeline's folder or Hub id.
            device: a torch device; None chooses.
            torch_dtype: of the network.
            channels_last: memory format of the network, for convolutional ones.
            compile: the network by torch.compile, when it first runs.
            gradient_checkpointing: of a pipeline's network: methods with gradients take less memory and more time.

        Raises:
            ValueError: if there is no such model, or it does not take an option.
        """
        model = models.load(name, device=device, dtype=torch_dtype)
        network = model.network
        if network is None and (channels_last or compile or gradient_checkpointing):
            raise ValueError(f"The model {model.name!r} has no network of its own; leave the options of networks out.")
        if channels_last:
            assert network is not None
            if not any(weight.ndim == 4 for weight in network.parameters()):
                raise ValueError(f"The network of {model.name!r} has no 2-D convolutions; leave channels_last out.")
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if gradient_checkpointing:
            enable: Any = getattr(network, "enable_gradient_checkpointing", None)
            if enable is None:
                raise ValueError(f"The network of {model.name!r} has no gradient checkpointing; leave that out.")
            enable()
        if compile:
            assert network is not None
            network.compile()
        return cls(model)

    @classmethod
    def from_pipe(cls, pipe: Any) -> Inpainter:
        """Takes a loaded diffusers pipeline, which is not changed: LoRA, dtype, tiling and offloading stay in force.

        Raises:
            ValueError: for a pipeline of no known family.
        """
        from paintback.models.diffusers import from_pipe

        return cls(from_pipe(pipe))

    @classmethod
    def from_single_file(
        cls,
        path: str | Path,
        *,
        config: str | Path | None = None,
        device: Any = None,
        torch_dtype: torch.dtype | None = None,
    ) -> Inpainter:
        """Loads one checkpoint file of a diffusers family.

        Args:
            path: .safetensors or .ckpt.
            config: the folder or Hub id of a pipeline of the same architecture; None looks it up on the Hub.
            device: a torch device; None chooses.
            torch_dtype: of the network.

        Raises:
            ValueError: if it cannot be read.
        """
        from paintback.models.diffusers import load_single_file

        return cls(load_single_file(path, config=config, device=device, dtype=torch_dtype))

    def set_progress_bar_config(self, **config: Any) -> None:
        """Keywords for tqdm, as in diffusers; `disable=True` silences the bar."""
        self._progress = config

    def __call__(
        self,
        image: Any,
        mask_image: Any,
        prompt: str | int | Sequence[str] | None = None,
        negative_prompt: str | Sequence[str] | None = None,
        method: str | Method | None = None,
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        num_images_per_prompt: int = 1,
        generator: Generator = None,
        padding_mask_crop: int | None = None,
        mask_blur: float = 0,
        output_type: OutputType = "pil",
        callback_on_step_end: Callable[[Inpainter, int, float, dict[str, Any]], Any] | None = None,
        strength: float = 1.0,
        *,
        height: int | None = None,
        width: int | None = None,
        latent_mask: LatentPolicy = "all",
        leaky_encoding: bool = False,
        batch_size: int = 1,
        true_cfg_scale: float | None = None,
        prompt_embeds: torch.Tensor | None = None,
        negative_prompt_embeds: torch.Tensor | None = None,
        pooled_prompt_embeds: torch.Tensor | None = None,
        negative_pooled_prompt_embeds: torch.Tensor | None = None,
    ) -> Output:
        """Paints back what the mask hides.

        Args:
            image: a picture or a list of them: path, PIL, numpy (H, W, 3) or torch (3, H, W) in [0, 1].
            mask_image: a mask or a list of them, of the pictures' sizes; white = repaint.
            prompt: text, for models that take one; a list has one for each picture; a class's number, for models of
                classes.
            negative_prompt: text, likewise.
            method: a name, or a method made by `methods.get`; None for what the model's card recommends, and "ding"
                where it names nothing. A checkpoint that takes the mask as an input runs only as "trained".
            num_inference_steps: grid intervals; None for 25, or what goes with the recommended method.
            guidance_scale: of classifier-free guidance; None for the model's own.
            num_images_per_prompt: samples of each picture.
            generator: one for all, or a list of one per output picture; None seeds from the operating system.
            padding_mask_crop: pixels of context around the hole; None for the model's own.
            mask_blur: the hole is grown by this many pixels, over which old and new are blended.
            output_type: "pil" (a list), "np" ((N, H, W, 3) in [0, 1]), "pt" ((N, 3, H, W) in [0, 1]), each a list
                where the pictures' sizes differ, or "picture" (a list of `images.Picture`, 16 bit and alpha kept).
            callback_on_step_end: called with (self, step, t, {"latents": x, "x0": prediction}) after every step
                (x0 is None for "trained", which does not say what it predicts); setting `self.interrupt = True` stops.
            strength: below 1, the hidden part is not forgotten: sampling starts from the picture itself, noised to
                this fraction of the steps.
            height: what a crop is scaled to before a latent model; None for the model's own choice.
            width: likewise.
            latent_mask: which latent cells count as known: those of which "all", the "majority" or "any" pixels are.
            leaky_encoding: encodes the picture with what the mask hides, as some papers' code does; the model then
                knows what it should not.
            batch_size: pictures that are painted in one batch, where their crops have the same sizes (see `plan`); for
                models of pixels and a list of generators. A sample does not depend on its batch, to rounding.
            true_cfg_scale: of guidance by two calls, for models whose `guidance_scale` is an input of the network.
            prompt_embeds: in place of the text, as the model's pipeline makes it.
            negative_prompt_embeds: likewise.
            pooled_prompt_embeds: likewise.
            negative_pooled_prompt_embeds: likewise.

        Returns:
            The pictures, of the input's size, bit-identical outside the hole, with their cost and settings.

        Raises:
            ValueError: for input that does not fit, in one sentence.
        """
        began = time.perf_counter()
        pictures = [read_picture(one) for one in (image if isinstance(image, list | tuple) else [image])]
        given = mask_image if isinstance(mask_image, list | tuple) else [mask_image] * len(pictures)
        if len(given) != len(pictures):
            raise ValueError(
                f"Got {len(pictures)} pictures and {len(given)} masks; give one mask each, or one for all."
            )
        check_output_type(output_type)
        if num_images_per_prompt < 1:
            raise ValueError(f"num_images_per_prompt must be at least 1; got {num_images_per_prompt}.")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1; got {batch_size}.")
        if not 0 < strength <= 1:
            raise ValueError(f"strength must lie in (0, 1]; got {strength}.")
        if not mask_blur >= 0:
            raise ValueError(f"mask_blur must be at least 0 pixels; got {mask_blur}.")
        holes = []
        for picture, one in zip(pictures, given, strict=True):
            hole = masks.read_mask(one, picture.shape)
            masks.check_mask(hole)
            holes.append(hole)
        chosen, own = self._choose(method)
        steps = own.num_inference_steps if num_inference_steps is None else num_inference_steps
        if int(steps) != steps or steps < 1:
            raise ValueError(f"num_inference_steps must be a whole number of at least 1; got {steps}.")
        prompts, negatives = (
            _per_picture(name, value, len(pictures))
            for name, value in (("prompt", prompt), ("negative_prompt", negative_prompt))
        )
        embeddings = {
            "true_cfg_scale": true_cfg_scale,
            "prompt_embeds": prompt_embeds,
            "negative_prompt_embeds": negative_prompt_embeds,
            "pooled_prompt_embeds": pooled_prompt_embeds,
            "negative_pooled_prompt_embeds": negative_pooled_prompt_embeds,
        }
        if chosen is not None and (chosen.needs_vjp or chosen.vjps(2)) and _comes_and_goes(self.model.network):
            raise ValueError(
                f"Method {chosen.name} takes gradients, and sequential offloading has taken the weights away by then; "
                "use enable_model_cpu_offload in its place, or a method without gradients."
            )
        if chosen is not None and chosen.needs_score and self.model.distilled and chosen.name not in self._warned:
            self._warned.add(chosen.name)
            warnings.warn(
                f"Method {chosen.name} draws by the model's score, which {self.model.name!r} does not give, since "
                "guidance was distilled into it: expect worse pictures, or take another method or undistilled model.",
                stacklevel=2,
            )
        options = LatentOptions((height, width), latent_mask, leaky_encoding, embeddings)
        options.check(self.model)
        generators, seeds = one_or_each(generator, len(pictures) * num_images_per_prompt)
        self.interrupt = False

        label = TRAINED if chosen is None else chosen.name
        told = [Told(*texts, guidance_scale) for texts in zip(prompts, negatives, strict=True)]
        with PeakMemory(self.model.device) as memory, tqdm(**{"unit": "step", "leave": False, **self._progress}) as bar:

            def begin(scale: str, count: int) -> None:
                bar.total = (bar.total or 0) + count
                bar.set_description(f"{label} {scale}", refresh=False)

            def step(index: int, t: float, x: torch.Tensor, x0: torch.Tensor | None) -> bool:
                bar.update()
                if callback_on_step_end is not None:
                    callback_on_step_end(self, index, t, {"latents": x, "x0": x0})
                return self.interrupt

            painter = Painter(
                self.model, self.policy, chosen, int(steps), strength, padding_mask_crop, options, begin, step
            )
            try:
                finished = painter.paint_all(
                    list(zip(pictures, holes, told, strict=True)),
                    generators,
                    num_images_per_prompt,
                    mask_blur,
                    batch_size,
                )
            finally:
                self.model.release()
        settings = {
            "model": self.model.name,
            "method": label,
            "fields": {} if chosen is None else dataclasses.asdict(chosen),
            "num_inference_steps": int(steps),
            "prompt": prompt if prompt is None or isinstance(prompt, str | int) else list(prompt),
            "negative_prompt": (
                negative_prompt
                if negative_prompt is None or isinstance(negative_prompt, str)
                else list(negative_prompt)
            ),
            "guidance_scale": guidance_scale,
            "true_cfg_scale": true_cfg_scale,
            "num_images_per_prompt": num_images_per_prompt,
            "padding_mask_crop": padding_mask_crop,
            "mask_blur": mask_blur,
            "strength": strength,
            "height": height,
            "width": width,
            "latent_mask": latent_mask,
            "leaky_encoding": leaky_encoding,
            "policy": dataclasses.asdict(self.policy),
        }
        return Output(
            images=convert(finished, output_type),
            evaluations=painter.evaluations,
            vjps=painter.vjps,
            seconds=time.perf_counter() - began,
            peak_memory_bytes=memory.bytes,
            seeds=seeds,
            settings=settings,
            scales=painter.scales,
            stopped=painter.stopped,
        )

    def plan(self, image: Any, mask_image: Any, mask_blur: float = 0, padding_mask_crop: int | None = None) -> Plan:
        """How a picture is cut into crops: pictures of equal plans can be painted in one batch.

        Args:
            image: as in a call.
            mask_image: likewise.
            mask_blur: likewise.
            padding_mask_crop: likewise.

        Returns:
            The sizes of all crops; empty where this model's pictures are painted one by one.

        Raises:
            ValueError: for a picture or mask that a call would refuse.
        """
        picture = read_picture(image)
        hole = masks.read_mask(mask_image, picture.shape)
        masks.check_mask(hole)
        told = Told(None, None, None)
        return plan_of(self.model, lay_out(self.model, self.policy, picture, hole, told, mask_blur, padding_mask_crop))

    def _choose(self, method: str | Method | None) -> tuple[Method | None, Sampler]:
        """The method, None for "trained", and the sampler that says how many steps go with it.

        Raises:
            ValueError: for a method that there is not, or that this model does not run.
        """
        own = self.model.sampler if method is None or method == TRAINED else Sampler()
        if isinstance(self.model, TrainedModel):
            if method not in (None, TRAINED):
                name = method if isinstance(method, str) else method.name
                raise ValueError(
                    f"The model {self.model.name!r} takes the mask as an input and runs only as method={TRAINED!r}, "
                    f"not {name!r}; leave the method out, or load a model that was not trained to inpaint."
                )
            return None, own
        if method == TRAINED:
            raise ValueError(
                f"method={TRAINED!r} needs a checkpoint that takes the mask as an input, and {self.model.name!r} takes "
                "none; load an inpainting pipeline of SD, SDXL, SD 3 (ControlNet) or Flux Fill, or name another method."
            )
        if method is None:
            return methods.get(own.method, **own.fields), own
        return methods.get(method) if isinstance(method, str) else method, own


def _comes_and_goes(network: torch.nn.Module | None) -> bool:
    """Whether accelerate's sequential offloading moves the weights of single layers."""
    modules = [] if network is None else network.modules()
    return any(getattr(getattr(module, "_hf_hook", None), "offload", False) for module in modules)


def _per_picture(name: str, value: str | int | Sequence[str] | None, count: int) -> list[str | None]:
    """One text for all pictures, or one for each; the number of a class as text.

    Raises:
        ValueError: for another number of texts.
    """
    if isinstance(value, int):
        value = str(value)
    if value is None or isinstance(value, str):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"Got {len(value)} texts for {name} and {count} pictures; give one, or one for each.")
    return list(value)
