"""A method of Paintback as a sampler of ComfyUI: what a SAMPLER input of SamplerCustom and SamplerCustomAdvanced takes.

ComfyUI gives the model as (x, sigma) -> x0 after guidance, the latents, a mask that is 1 where they are repainted and
soft at its edge, and the noise levels of the run. Models of eps, v and EDM live in x = x0 + sigma n, those of flow in
x = (1 - sigma) x0 + sigma n. The known part is not mixed in by ComfyUI but by the method, and comes out exact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import torch
from torch import Tensor

from paintback.denoiser import Denoiser, Prediction
from paintback.methods.base import Method, Run
from paintback.observation import Observation
from paintback.randomness import Generators
from paintback.schedules import EDM, Flow, Schedule, Time

EDGE = 1e-3  # of a mask: below it a cell is known wholly, above 1 - EDGE not at all
Policy = Literal["all", "majority", "any"]
KNOWN = {"all": EDGE, "majority": 0.5, "any": 1 - EDGE}


class Refused(ValueError):  # noqa: N818 - a sentence for the user
    """What cannot be sampled here, in one sentence."""


class ComfyDenoiser(Denoiser):
    """The guided model of a run.

    Args:
        guider: ComfyUI's, called as (x, sigma, model_options=, seed=).
        schedule: of the model, in ComfyUI's own scale of states.
        extra: `model_options` and `seed`, handed on.
        pair: whether the two predictions that guidance mixes are wanted (LanPaint's `cfg_big`).
    """

    def __init__(self, guider: Any, schedule: Schedule, extra: dict[str, Any], *, pair: bool) -> None:
        super().__init__(schedule)
        self.guider, self.extra, self.pair = guider, extra, pair

    def predict(self, x: Tensor, time: Time) -> Prediction:
        """One evaluation; an interruption is looked for before each, those of inner loops included."""
        comfy.model_management.throw_exception_if_processing_interrupted()
        sigma = torch.full((len(x),), time.sigma, dtype=x.dtype, device=x.device)
        if not self.pair:
            return self._of(self.guider(x, sigma, **self.extra), x, time)
        options, conds, scale = self.extra["model_options"], self.guider.conds, self.guider.cfg
        positive, negative = conds["positive"], conds["negative"]
        model = self.guider.inner_model
        upper, lower = comfy.samplers.calc_cond_batch(model, [positive, negative], x, sigma, options)
        mixed = comfy.samplers.cfg_function(
            model, upper, lower, scale, x, sigma, model_options=options, cond=positive, uncond=negative
        )
        whole = self._of(mixed, x, time)
        return Prediction(whole.x0, whole.x1, self._of(upper, x, time), self._of(lower, x, time), rows=2 * len(x))

    @staticmethod
    def _of(x0: Tensor, x: Tensor, time: Time) -> Prediction:
        return Prediction(x0.to(x), (x - time.alpha * x0.to(x)) / time.sigma, rows=len(x))


class _Drawn(Generators):
    """Draws of a generator for each sample, after a first one that is given: ComfyUI's own noise."""

    def __init__(self, first: Tensor, seed: int) -> None:
        super().__init__([torch.Generator().manual_seed((seed + 1 + k) % 2**63) for k in range(len(first))], len(first))
        self.first: Tensor | None = first

    def normal(self, like: Tensor) -> Tensor:
        first, self.first = self.first, None
        return first.to(like) if first is not None and first.shape == like.shape else super().normal(like)


@dataclass
class PaintbackSampler(comfy.samplers.Sampler):
    """A method with its fields, and what counts as known of a soft mask.

    Attributes:
        method: of Paintback.
        policy: which cells of the mask are known: those that are not at all, not mostly, or not wholly repainted.
    """

    method: Method
    policy: Policy = "all"

    def sample(
        self,
        model_wrap: Any,
        sigmas: Tensor,
        extra_args: dict[str, Any],
        callback: Any,
        noise: Tensor,
        latent_image: Tensor | None = None,
        denoise_mask: Tensor | None = None,
        disable_pbar: bool = False,
    ) -> Tensor:
        """The latents at the last of `sigmas`; the arguments are ComfyUI's."""
        sampling = model_wrap.inner_model.model_sampling
        check_latents(model_wrap, noise)
        if len(sigmas) < 2:
            return noise if latent_image is None else latent_image
        schedule = schedule_of(sampling, float(sigmas[0]))
        latent = torch.zeros_like(noise) if latent_image is None else latent_image
        known = torch.zeros_like(noise, dtype=torch.bool)
        if denoise_mask is not None:
            known = (denoise_mask < KNOWN[self.policy]).expand(noise.shape)
        from_noise = bool(noise.any()) and self.max_denoise(model_wrap, sigmas)
        pair = getattr(self.method, "cfg_big", None) is not None and "negative" in getattr(model_wrap, "conds", {})
        if self.method.needs_vjp or self.method.vjps(2):
            leave_inference(model_wrap.inner_model)
        denoiser = ComfyDenoiser(model_wrap, schedule, dict(extra_args), pair=pair)
        denoiser.shape = tuple(noise.shape[1:])  # also of sounds, (B, C, L)
        with torch.inference_mode(False), torch.no_grad():
            levels = sigmas.detach().double().cpu().clone()
            end = float(levels[-1])
            ratios = levels[levels > 0]
            ratios = ratios / (1 - ratios) if isinstance(schedule, Flow) else ratios
            times = torch.cat((schedule.time_of_ratio(ratios), torch.zeros(1, dtype=torch.float64)))
            run = self.method.open(
                denoiser,
                Observation(latent.float(), known),
                generator=torch.Generator(),
                grid=times,
                initial=None if from_noise else latent.float(),
            )
            run.generators = _Drawn(noise.float(), int(extra_args.get("seed") or 0))
            samples = self._follow(run, end, callback, len(sigmas) - 1)
        result: Tensor = sampling.inverse_noise_scaling(sigmas[-1], samples.to(noise))
        return result

    def _follow(self, run: Run, end: float, callback: Any, total: int) -> Tensor:
        """The states of a run to its end, or to the noise level that it is to stop at."""
        for state in self.method.states(run):
            scale = 1.0
            if state.t:  # the run's coordinates may not be ComfyUI's
                ours, theirs = run.denoiser.schedule.at(state.t), _own(run.denoiser).schedule.at(state.t)
                scale = theirs.sigma / ours.sigma
            if callback is not None and state.step < total:
                callback(state.step, state.x0, state.x * scale, total)
            if end > 0 and state.step == total - 1:
                return state.x * scale
        return state.x


def _own(denoiser: Denoiser) -> Denoiser:
    while isinstance(inner := getattr(denoiser, "inner", None), Denoiser):
        denoiser = inner
    return denoiser


def schedule_of(sampling: Any, first: float) -> Schedule:
    """The schedule of a model, by ComfyUI's class of how it is sampled.

    Args:
        sampling: `model_sampling` of the model.
        first: noise level of the run's first time.

    Raises:
        Refused: for a model whose states are no mixture of picture and noise.
    """
    if isinstance(sampling, comfy.model_sampling.CONST):
        return Flow()
    if isinstance(sampling, getattr(comfy.model_sampling, "IMG_TO_IMG", ())):
        raise Refused("This model turns one picture into another and has no noise to sample from; use another model.")
    low, high = (float(getattr(sampling, name)) for name in ("sigma_min", "sigma_max"))
    return EDM(sigma_min=min(low, 0.002), sigma_max=max(high, first))


def check_latents(guider: Any, noise: Tensor) -> None:
    """Refuses latents that are several packed into one.

    Raises:
        Refused: in one sentence.
    """
    form = getattr(guider.inner_model, "latent_format", None)
    packed = noise.ndim == 3 and getattr(form, "latent_dimensions", 2) != 1
    if packed or getattr(noise, "is_nested", False):
        raise Refused(
            "These latents are packed of video and audio, which no mask can tell apart here; separate them and sample "
            "the video alone."
        )


def leave_inference(model: Any) -> None:
    """Makes a model's weights ordinary tensors where ComfyUI loaded them in inference mode, for gradients to pass.

    Each is copied in turn and the first one let go, so that little more memory is needed. What is not an ordinary
    weight on its device (dynamic VRAM, offloaded parts) is left alone.
    """
    with torch.inference_mode(False), torch.no_grad():
        for module in model.modules():
            for tensors in (module._parameters, module._buffers):
                for name, value in list(tensors.items()):
                    if type(value) not in (Tensor, torch.nn.Parameter) or not value.is_inference() or value.is_meta:
                        continue
                    copy = value.detach().clone()
                    tensors[name] = torch.nn.Parameter(copy, False) if isinstance(value, torch.nn.Parameter) else copy
