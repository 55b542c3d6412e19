"""Z-Image: a single-stream transformer that takes lists of pictures and captions.

Reference: Z-Image team 2025 (arXiv:2511.22699).

Two conventions of its own: the network's time runs from 0 (noise) to 1 and its output is x0 - x1; and the pipeline's
`guidance_scale` s stands for c + s (c - u), which is w = s + 1 in the usual u + w (c - u), and is on above 0.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from paintback.models.diffusers.base import Condition, PipelineDenoiser, Size, refuse
from paintback.models.diffusers.flow import FlowPipeline, set_shifted, shift_of
from paintback.schedules import Time

__all__ = ["ZImage"]


@dataclass(frozen=True)
class ZImage(FlowPipeline):
    """`ZImagePipeline`; a Turbo release is step-distilled and has no guidance unless it is asked for."""

    guidance_scale: ClassVar[float] = 5.0

    def denoiser(
        self,
        prompt: str | None = None,
        negative_prompt: str | None = None,
        guidance_scale: float | None = None,
        *,
        size: Size | None = None,
        **embeddings: Tensor | float | None,
    ) -> PipelineDenoiser:
        """As `LatentModel.denoiser`; guidance_scale is the pipeline's own, s in c + s (c - u)."""
        own = 0.0 if self.step_distilled else self.guidance_scale
        scale = 1 + (own if guidance_scale is None else float(guidance_scale))
        return super().denoiser(prompt, negative_prompt, scale, size=size, **embeddings)

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        refuse(embeddings, ("prompt_embeds", "negative_prompt_embeds", *self.words), self.name)
        under, without = self.pipe.encode_prompt(
            prompt=prompt,
            negative_prompt=negative_prompt,
            do_classifier_free_guidance=guided,
            device=self.device,
            **{name: value if isinstance(value, int) else list(value) for name, value in embeddings.items()},
        )
        # both halves of guidance go through one batch, so captions are padded to one length
        longest = max(len(one) for one in [*under, *without])
        return _captions(under, longest), _captions(without, longest) if guided else None

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        lengths = condition.extras["length"].tolist()
        output = self.pipe.transformer(
            list(x.to(self.dtype).unsqueeze(2).unbind(0)),
            (1000 - self.clock(time, len(x))) / 1000,
            [one[:length] for one, length in zip(condition.embeds.to(self.dtype), lengths, strict=True)],
            return_dict=False,
        )[0]
        return -torch.stack([one.float() for one in output]).squeeze(2)

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        set_shifted(scheduler, num_inference_steps, shift_of(scheduler, self.tokens(size)))


def _captions(embeds: Sequence[Tensor], longest: int) -> Condition:
    """Captions of any lengths, (L_i, D) each, as one padded batch."""
    padded = pad_sequence([*embeds, embeds[0].new_zeros(longest, embeds[0].shape[1])], batch_first=True)[:-1]
    return Condition(padded, {"length": torch.tensor([len(one) for one in embeds])})
