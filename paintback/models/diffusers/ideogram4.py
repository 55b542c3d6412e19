"""Ideogram 4: text and packed latents of FLUX.2's VAE in one sequence; a second network has the other half of guidance.

Reference: Ideogram AI, Ideogram 4, 2026 (no paper; the architecture is that of diffusers).

Text is not padded here: the network's tokens look at no padding, so that its answer is the same without.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from paintback.models.diffusers.base import Condition, Size, refuse
from paintback.models.diffusers.flow import FlowPipeline
from paintback.models.diffusers.flux2 import Flux2Codec
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["Ideogram4", "Ideogram4Codec"]


class Ideogram4Codec(Flux2Codec):
    """FLUX.2's, whose patches have their numbers in another order: channels last."""

    def patches(self, z: Tensor) -> Tensor:
        rows, channels, height, width = z.shape
        cells = z.reshape(rows, channels, height // 2, 2, width // 2, 2).permute(0, 3, 5, 1, 2, 4)
        return cells.reshape(rows, 4 * channels, height // 2, width // 2)

    def whole(self, patches: Tensor) -> Tensor:
        rows, channels, height, width = patches.shape
        cells = patches.reshape(rows, 2, 2, channels // 4, height, width).permute(0, 3, 4, 1, 5, 2)
        return cells.reshape(rows, channels // 4, 2 * height, 2 * width)


@dataclass(frozen=True)
class Ideogram4(FlowPipeline):
    """`Ideogram4Pipeline`; one guidance scale for all steps, where the pipeline's own 48 end with three of 3."""

    guidance: ClassVar[Literal["batch", "calls"]] = "calls"
    guidance_scale: ClassVar[float] = 7.0
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")
    embeds: ClassVar[tuple[str, ...]] = ()  # its `encode_prompt` takes none
    takes_negative: ClassVar[bool] = False

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        return Ideogram4Codec(pipe)

    @classmethod
    def facts(cls, pipe: Any, codec: LatentCodec) -> dict[str, Any]:
        return {"multiple": codec.factor * int(pipe.patch_size), "training_size": 2048}

    def networks(self) -> list[torch.nn.Module]:
        return [self.pipe.transformer, self.pipe.unconditional_transformer]

    def scales(
        self, negative_prompt: str | None, guidance_scale: float | None, given: Mapping[str, Any]
    ) -> tuple[float, float | None]:
        if negative_prompt is not None:
            raise ValueError(f"The model {self.name!r} takes no negative_prompt; leave it out.")
        return super().scales(negative_prompt, guidance_scale, given)

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        refuse(embeddings, self.words, self.name)
        longest = int(embeddings.get("max_sequence_length", 2048))
        features, _, _, roles = self.pipe.encode_prompt(prompt, 1, 1, longest, self.device)
        count = int((roles[0, :longest] != 0).sum())
        words = features[:, longest - count : longest]
        return Condition(words), Condition(words[:, :0]) if guided else None

    def as_latents(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.codec.patches(x).flatten(2).transpose(1, 2)  # type: ignore[attr-defined]
        return tokens.to(self.device)

    def layout(self, words: int, size: Size, device: torch.device) -> Tensor:
        """(1, tokens, 5): where every token of text and picture lies, and its part in the sequence."""
        found = self.pipe._prepare_ids([words], *(side // self.multiple for side in size), words, device)
        return torch.cat([one if one.ndim == 3 else one[..., None] for one in found], dim=-1)

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        rows, count = condition.embeds.shape[:2]
        network = self.pipe.transformer if count else self.pipe.unconditional_transformer
        tokens, words = self.as_latents(x).to(network.dtype), condition.embeds.to(network.dtype)
        ids = self.remember((count, *size, x.device), lambda: self.layout(count, size, x.device)).expand(rows, -1, -1)
        output: Tensor = network(
            hidden_states=torch.cat((tokens.new_zeros(rows, count, tokens.shape[-1]), tokens), dim=1),
            timestep=(1 - self.clock(time, rows) / self.pipe.scheduler.config.num_train_timesteps).to(network.dtype),
            encoder_hidden_states=torch.cat((words, words.new_zeros(rows, tokens.shape[1], words.shape[-1])), dim=1),
            position_ids=ids[..., :3],
            segment_ids=ids[..., 3],
            indicator=ids[..., 4],
            return_dict=False,
            **condition.options,
        )[0][:, count:]
        patches = output.transpose(1, 2).reshape(rows, -1, *(side // self.multiple for side in size))
        found: Tensor = self.codec.whole(patches)  # type: ignore[attr-defined]
        return -found

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        from diffusers.pipelines.ideogram4 import pipeline_ideogram4 as own

        mu = own._resolution_aware_mu(height=size[0], width=size[1], base_mu=0.0)
        scheduler.set_timesteps(sigmas=own._logit_normal_sigmas(num_inference_steps, mu, std=1.5).tolist())
