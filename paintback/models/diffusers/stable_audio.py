"""Stable Audio Open: a transformer on the latents of a VAE of sounds, told how many seconds there are.

Reference: Evans et al. 2024 (arXiv:2407.14358).

The network predicts v at noise levels of `CosineDPMSolverMultistepScheduler`, which are EDM's with sigma_data 1 and
2 atan(sigma) / pi as the time. It always sees as many cells as it learnt from, whatever the sound's length; those
behind the sound's end are its own, and it is told where that is. Steps are first-order where the scheduler's are
second-order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from paintback.models.diffusers.base import Condition, Size, is_edm, refuse
from paintback.models.diffusers.schedulers import edm_clock, edm_input, edm_picture
from paintback.models.diffusers.sound import OobleckCodec, SoundPipeline
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["StableAudio"]


@dataclass(frozen=True)
class StableAudio(SoundPipeline):
    """`StableAudioPipeline`."""

    edm: ClassVar[bool] = True
    guidance_scale: ClassVar[float] = 7.0
    duration: ClassVar[str] = "audio_end_in_s"
    keywords: ClassVar[tuple[str, ...]] = (duration,)

    @classmethod
    def check_pipe(cls, pipe: Any, name: str) -> None:
        if not is_edm(pipe.scheduler):
            raise ValueError(
                f"{name!r} predicts v at EDM's noise levels, and its scheduler, {type(pipe.scheduler).__name__}, has "
                "none; give the pipeline its CosineDPMSolverMultistepScheduler."
            )

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        return OobleckCodec(pipe.vae, int(pipe.transformer.config.sample_size))

    @classmethod
    def longest_of(cls, pipe: Any, codec: OobleckCodec) -> int:
        return int(pipe.transformer.config.sample_size) * codec.factor

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        """Words and seconds in one row, and the seconds by themselves; zeros for words that should not be there."""
        given = {name: value for name, value in embeddings.items() if name != self.duration}
        masks = ("attention_mask", "negative_attention_mask")
        refuse(given, ("prompt_embeds", "negative_prompt_embeds", *masks), self.name)
        negated = guided and (negative_prompt is not None or "negative_prompt_embeds" in given)
        text = None if "prompt_embeds" in given else prompt
        words = self.pipe.encode_prompt(text, self.device, negated, negative_prompt, **given)
        start, end = self.pipe.encode_duration(0.0, embeddings[self.duration], self.device, False, 1)
        both = [
            Condition(torch.cat([row, start, end], dim=1), {"seconds": torch.cat([start, end], dim=2)})
            for row in words.split(1)
        ]
        if not guided:
            return both[-1], None
        return both[-1], both[0] if negated else Condition(torch.zeros_like(both[0].embeds), both[0].extras)

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        from diffusers.models.embeddings import get_1d_rotary_pos_embed

        scheduler, seconds = self.pipe.scheduler, condition.extras["seconds"].to(self.dtype)
        count = x.shape[-1] + seconds.shape[1]
        places = self.remember(
            (count, x.device),
            lambda: torch.stack(
                get_1d_rotary_pos_embed(self.pipe.rotary_embed_dim, count, use_real=True, repeat_interleave_real=False)
            ).to(x.device),
        )
        output: Tensor = self.pipe.transformer(
            edm_input(scheduler, x, time.sigma)[:, :, 0].to(self.dtype),
            x.new_full((1,), edm_clock(scheduler, time.sigma), dtype=torch.float32),
            encoder_hidden_states=condition.embeds.to(self.dtype),
            global_hidden_states=seconds,
            rotary_embedding=(places[0], places[1]),
            return_dict=False,
        )[0]
        return edm_picture(scheduler, x, output[:, :, None], time.sigma)
