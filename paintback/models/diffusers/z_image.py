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

from paintback.models.diffusers.base import Condition, Size
from paintback.models.diffusers.control import CONTROL, Control
from paintback.models.diffusers.flow import AddedGuidance
from paintback.schedules import Time

__all__ = ["ZImage"]


@dataclass(frozen=True)
class ZImage(AddedGuidance):
    """`ZImagePipeline`; a Turbo release is step-distilled and has no guidance unless it is asked for."""

    guidance_scale: ClassVar[float] = 5.0
    keywords: ClassVar[tuple[str, ...]] = CONTROL
    control_scale: ClassVar[float] = 0.75

    def ask(self, prompt: str, given: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        lists = {name: list(value) if name.endswith("embeds") else value for name, value in given.items()}
        found = super().ask(prompt, {"prompt": prompt, **lists}, **more)  # it reads the text's number beside embeddings
        # both halves of guidance go through one batch, so captions are padded to one length
        longest = max(len(one) for one in [*found["embeds"], *found["negative_embeds"]])
        return {name: (value, longest) for name, value in found.items()}

    def condition(self, found: Mapping[str, Any], prefix: str = "") -> Condition:
        return _captions(*found[f"{prefix}embeds"])

    def control_of_picture(self, picture: Tensor) -> Tensor:
        latents = super().control_of_picture(picture)
        more = self.controlnet.config.control_in_dim - latents.shape[1]  # those of the mask, which is none
        return torch.nn.functional.pad(latents, (0, 0, 0, 0, 0, more))

    def residuals(self, x: Tensor, time: Time, condition: Condition, size: Size, control: Control) -> dict[str, Any]:
        if not hasattr(self.controlnet, "gradient_checkpointing"):  # diffusers 0.42 asks for it, and sets it nowhere
            self.controlnet.gradient_checkpointing = False
        said = self.controlnet(
            *self.inputs(x, time, condition),
            list(control.seen[0].to(self.dtype).unsqueeze(2).unbind(0)),
            conditioning_scale=control.scales[0],
        )
        return {"controlnet_block_samples": said}

    def inputs(self, x: Tensor, time: Time, condition: Condition) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """Pictures, times and captions as the networks take them."""
        lengths = condition.extras["length"].tolist()
        return (
            list(x.to(self.dtype).unsqueeze(2).unbind(0)),
            (1000 - self.clock(time, len(x))) / 1000,
            [one[:length] for one, length in zip(condition.embeds.to(self.dtype), lengths, strict=True)],
        )

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        output = self.pipe.transformer(*self.inputs(x, time, condition), **condition.options, return_dict=False)[0]
        return -torch.stack([one.float() for one in output]).squeeze(2)


def _captions(embeds: Sequence[Tensor], longest: int) -> Condition:
    """Captions of any lengths, (L_i, D) each, as one padded batch."""
    padded = pad_sequence([*embeds, embeds[0].new_zeros(longest, embeds[0].shape[1])], batch_first=True)[:-1]
    return Condition(padded, {"length": torch.tensor([len(one) for one in embeds])})
