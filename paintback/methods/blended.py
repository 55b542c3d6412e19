"""Blended diffusion: a deterministic step of everything, then the known part is the noised observation.

Reference: Avrahami et al., Blended Latent Diffusion, SIGGRAPH 2023, arXiv:2206.02779.

One step t -> s:
    all:     x_s = alpha_s x0(x_t) + sigma_s x1(x_t)            DDIM with eta 0
    known:   x_s <- alpha_s y + sigma_s eps                      fresh eps

The paper blends at the level that the step has reached, s; its first step looks at pure noise. The authors start from
the noised picture a quarter of the way down, which `strength` of `Inpainter` does. The final picture is the model's
own at the last time above 0. Their decoder fine-tuned on each picture is no part of the sampler and is left out.

Our reconstruction for noisy observations is that of `replacement`: only the noise that y lacks is added, and once the
state is cleaner than y its known part is left to the model.
Cost of N intervals: N evaluations.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from paintback.methods.base import Family, Method, Run, Time, ddim
from paintback.methods.known import replace_known


@dataclass(frozen=True)
class Blended(Method):
    """Blended diffusion; see the head of this file."""

    name: ClassVar[str] = "blended"
    family: ClassVar[Family] = "replacement"
    title: ClassVar[str] = "Blended: deterministic steps, the known part blended back after each"
    paper: ClassVar[str] = "arXiv:2206.02779"

    def step(self, run: Run, x_t: Tensor, t: Time, s: Time) -> Tensor:
        """One step t -> s."""
        return replace_known(run, ddim(run.denoise(x_t, t), s), s, "fresh")
