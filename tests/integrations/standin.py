"""A stand-in for ComfyUI, written from a description of what a sampler meets there: the names and what they do.

`install()` puts modules named `comfy`, `comfy.samplers`, ... into `sys.modules`. The test file that uses them runs
against a real ComfyUI too.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

SIGMA_MAX = {"eps": 14.6146, "v": 14.6146, "edm": 120.0, "flow": 1.0}


class Interrupted(BaseException):
    pass


class Sampling(nn.Module):
    """Noise levels, and what of a model's output is the picture."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.sigma_min = torch.tensor(0.0292 if kind != "edm" else 0.002)
        self.sigma_max = torch.tensor(SIGMA_MAX[kind])

    def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
        return latent


def install() -> ModuleType:
    """Makes `import comfy` work; gives the package."""
    comfy = ModuleType("comfy")
    rooms = {name: ModuleType(f"comfy.{name}") for name in ("model_management", "model_sampling", "samplers", "utils")}
    state = {"stop": False}

    def throw() -> None:
        if state["stop"]:
            state["stop"] = False
            raise Interrupted

    management: Any = rooms["model_management"]
    management.throw_exception_if_processing_interrupted = throw
    management.interrupt_current_processing = lambda value=True: state.update(stop=value)
    management.InterruptProcessingException = Interrupted

    sampling: Any = rooms["model_sampling"]

    class EPS(Sampling): ...

    class V_PREDICTION(EPS): ...  # noqa: N801

    class EDM(V_PREDICTION): ...

    class IMG_TO_IMG(EPS): ...  # noqa: N801

    class CONST(Sampling):
        def inverse_noise_scaling(self, sigma: Tensor, latent: Tensor) -> Tensor:
            return latent / (1 - sigma)

    for kind in (EPS, V_PREDICTION, EDM, IMG_TO_IMG, CONST):
        setattr(sampling, kind.__name__, kind)

    class Sampler:
        def max_denoise(self, model_wrap: Any, sigmas: Tensor) -> bool:
            return float(sigmas[0]) >= float(model_wrap.inner_model.model_sampling.sigma_max) * (1 - 1e-5)

    def calc_cond_batch(model: Any, conds: list[Any], x: Tensor, sigma: Tensor, options: Any) -> list[Tensor]:
        return [model.apply(x, sigma, cond) for cond in conds]

    def cfg_function(
        model: Any, upper: Tensor, lower: Tensor, scale: float, x: Tensor, sigma: Tensor, **more: Any
    ) -> Tensor:
        return lower + scale * (upper - lower)

    class CFGGuider:
        def __init__(self, model: Any) -> None:
            self.inner_model, self.cfg, self.conds = model, 1.0, {}

        def set_conds(self, positive: Any, negative: Any) -> None:
            self.conds = {"positive": positive, "negative": negative}

        def set_cfg(self, cfg: float) -> None:
            self.cfg = cfg

        def __call__(self, x: Tensor, sigma: Tensor, model_options: Any = None, seed: Any = None) -> Tensor:
            both = [self.conds["positive"], self.conds["negative"]]
            upper, lower = calc_cond_batch(self.inner_model, both, x, sigma, model_options)
            return cfg_function(self.inner_model, upper, lower, self.cfg, x, sigma)

        def sample(
            self, noise: Tensor, latent: Tensor, sampler: Any, sigmas: Tensor, denoise_mask: Tensor | None = None,
            callback: Any = None, disable_pbar: bool = False, seed: int | None = None,
        ) -> Tensor:  # fmt: skip
            """Mask of any size, brought to that of the latents, which are scaled to the model's on their way."""
            scale = self.inner_model.latent_format.scale_factor
            mask = denoise_mask
            if mask is not None:
                mask = nn.functional.interpolate(
                    mask, size=noise.shape[2:], mode="bilinear" if noise.ndim == 4 else "trilinear"
                )
                mask = mask.expand(len(noise), noise.shape[1], *noise.shape[2:])
            extra = {"model_options": {"transformer_options": {}}, "seed": seed}
            made = sampler.sample(self, sigmas, extra, callback, noise, latent * scale, mask, disable_pbar)
            return made / scale

    samplers: Any = rooms["samplers"]
    samplers.Sampler, samplers.CFGGuider = Sampler, CFGGuider
    samplers.calc_cond_batch, samplers.cfg_function = calc_cond_batch, cfg_function

    class ProgressBar:
        def __init__(self, total: int) -> None:
            self.total, self.done = total, 0

        def update(self, count: int) -> None:
            self.done += count

    rooms["utils"].ProgressBar = ProgressBar  # type: ignore[attr-defined]
    for name, room in rooms.items():
        setattr(comfy, name, room)
        sys.modules[f"comfy.{name}"] = room
    sys.modules["comfy"] = comfy
    return comfy


class Model(nn.Module):
    """A small random network in each parametrisation; conditions are numbers that it looks at."""

    class latent_format:  # noqa: N801
        scale_factor = 0.18215
        latent_dimensions = 2

    def __init__(self, kind: str) -> None:
        super().__init__()
        import comfy.model_sampling as room

        self.kind = kind
        self.model_sampling = {"eps": room.EPS, "v": room.V_PREDICTION, "edm": room.EDM, "flow": room.CONST}[kind](kind)
        self.first, self.last = nn.Conv2d(4, 16, 3, padding=1), nn.Conv2d(16, 4, 3, padding=1)
        generator = torch.Generator().manual_seed(0)
        for weight in self.parameters():
            weight.data = torch.randn(weight.shape, generator=generator) * 0.1

    def apply(self, x: Tensor, sigma: Tensor, cond: Any) -> Tensor:
        """x0 for states x."""
        flat = x.transpose(1, 2).flatten(0, 1) if x.ndim == 5 else x
        level = sigma.repeat_interleave(len(flat) // len(x))[:, None, None, None]
        scale = (1 + level**2) ** -0.5 if self.kind != "flow" else torch.ones_like(level)
        out = self.last(torch.tanh(self.first(flat * scale) + cond * 0.1))
        if self.kind == "v" or self.kind == "edm":
            made = flat * scale**2 - out * level * scale
        else:
            made = flat - level * out
        return made.unflatten(0, (len(x), -1)).transpose(1, 2) if x.ndim == 5 else made


def guider(kind: str) -> Any:
    """A guider around the model of a kind, its weights made in inference mode, as ComfyUI's are."""
    import comfy.samplers

    with torch.inference_mode():
        made = comfy.samplers.CFGGuider(Model(kind).requires_grad_(False))
    made.set_conds(1.0, -1.0)
    made.set_cfg(2.0)
    return made
