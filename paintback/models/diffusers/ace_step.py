"""ACE-Step 1.5: a transformer on the latents of a VAE of music, told words, lyrics and the silence that it starts from.

Reference: Gong et al. 2026 (arXiv:2602.00744).

Its guidance is projected and has a momentum: what was added at the noise levels before is taken away again in part
(Sadat et al. 2024, arXiv:2410.02416). A level's share is that of the last look there, which with one look a level is
the pipeline's; a method that goes back up in noise starts from what was looked at above. Music is asked for as
"text2music": what is known is the mask's to say, and so the network's own "repaint" is not used.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from paintback.denoiser import Prediction, predict
from paintback.models.diffusers.base import Condition, PipelineDenoiser, Size, refuse
from paintback.models.diffusers.flow import FlowPipeline
from paintback.models.diffusers.sound import OobleckCodec, SoundPipeline
from paintback.models.latent import LatentCodec
from paintback.schedules import Time

__all__ = ["AceStep"]

LONGEST = 240  # seconds that are painted at once; the network takes more, as the memory does
MOMENTUM, MOST = -0.75, 2.5  # of the pipeline's guidance: of what came before, and of its length in time


class Momentum(PipelineDenoiser):
    """A denoiser that remembers what guidance added at every noise level of its run."""

    added: dict[float, Tensor]

    def along(self, times: Sequence[float]) -> PipelineDenoiser:
        other = super().along(times)
        assert isinstance(other, Momentum)
        other.added = {}
        return other

    def adjusted(self, guided: Prediction, x: Tensor, time: Time) -> Prediction:
        """The guided prediction with the momentum of the levels before; without it outside a run."""
        upper, lower = guided.conditional, guided.unconditional
        if not self._times or upper is None or lower is None:
            return guided
        above = [t for t in self.added if t > time.t + 1e-9]
        before = self.added[min(above)] if above else None
        if before is not None and before.shape != x.shape:  # of other samples
            before = None
        mixed, self.added[time.t] = projected(upper, lower, self.guidance_scale, time, before)
        return replace(guided, x0=mixed.x0, x1=mixed.x1)


def projected(
    conditional: Prediction, unconditional: Prediction, scale: float, time: Time, before: Tensor | None = None
) -> tuple[Prediction, Tensor]:
    """Guidance by what is orthogonal to the conditional velocity and at most so long, and what was added up to now."""
    from diffusers.guiders.adaptive_projected_guidance import MomentumBuffer, normalized_guidance

    upper, lower = (one.x1 - one.x0 for one in (conditional, unconditional))
    buffer: Any = MomentumBuffer(MOMENTUM)
    if before is not None:
        buffer.running_average = before
    velocity = normalized_guidance(
        pred_cond=upper,
        pred_uncond=lower,
        guidance_scale=scale - 1.0,
        momentum_buffer=buffer,
        eta=0.0,
        norm_threshold=MOST,
        use_original_formulation=True,
        norm_dim=(-1,),
    )
    x = time.alpha * conditional.x0 + time.sigma * conditional.x1
    return predict("flow", velocity, x, time), buffer.running_average.detach()


@dataclass(frozen=True)
class AceStep(SoundPipeline, FlowPipeline):
    """`AceStepPipeline`; guidance is in the weights of Turbo."""

    guidance_scale: ClassVar[float] = 7.0
    attention: ClassVar[tuple[str, str] | None] = ("attention_kwargs", "attention_kwargs")
    takes_negative: ClassVar[bool] = False
    duration: ClassVar[str] = "audio_duration"
    beside_text: ClassVar[tuple[str, ...]] = ("lyrics", "vocal_language", "bpm", "keyscale", "timesignature")
    keywords: ClassVar[tuple[str, ...]] = (duration, *beside_text)

    @classmethod
    def codec_of(cls, pipe: Any) -> LatentCodec:
        return OobleckCodec(pipe.vae)

    @classmethod
    def facts(cls, pipe: Any, codec: Any) -> dict[str, Any]:
        return {**super().facts(pipe, codec), "distilled": bool(pipe.is_turbo)}

    @classmethod
    def longest_of(cls, pipe: Any, codec: OobleckCodec) -> int:
        return LONGEST * int(pipe.sample_rate)

    def scales(
        self, negative_prompt: str | None, guidance_scale: float | None, given: Mapping[str, Any]
    ) -> tuple[float, float | None]:
        if not self.distilled:
            return super().scales(negative_prompt, guidance_scale, given)
        self.refuse_guidance(guidance_scale, "it is in Turbo's weights, so leave it out")
        return 1.0, None

    def set_timesteps(self, scheduler: Any, num_inference_steps: int, size: Size) -> None:
        """With the shift that the pipeline has by default."""
        times = self.pipe._get_timestep_schedule(num_inference_steps, device="cpu", dtype=torch.float32)
        scheduler.set_timesteps(sigmas=times.tolist())

    def encode_prompt(
        self, prompt: str, negative_prompt: str | None, guided: bool, embeddings: Mapping[str, Any]
    ) -> tuple[Condition, Condition | None]:
        """What the condition encoder makes of text, lyrics and silence; where guided, its learnt empty condition."""
        if negative_prompt is not None:
            raise ValueError(f"The model {self.name!r} takes no negative_prompt; leave it out.")
        refuse(embeddings, (self.duration, *self.beside_text), self.name)
        told: dict[str, Any] = {"lyrics": "", **embeddings}
        pipe, encoder = self.pipe, self.pipe.condition_encoder
        text, text_mask, lyrics, lyrics_mask = pipe.encode_prompt(
            prompt=prompt, device=self.device, instruction=pipe._get_task_instruction("text2music"), **told
        )
        silence = encoder.silence_latent[:, : math.ceil(30 * pipe.latents_per_second)]
        made, _ = encoder(
            text_hidden_states=text,
            text_attention_mask=text_mask,
            lyric_hidden_states=lyrics,
            lyric_attention_mask=lyrics_mask,
            refer_audio_acoustic_hidden_states_packed=silence.to(self.device, encoder.dtype),
            refer_audio_order_mask=torch.zeros(1, dtype=torch.long, device=self.device),
        )
        return Condition(made), Condition(encoder.null_condition_emb.to(made).expand_as(made)) if guided else None

    def finish(self, made: PipelineDenoiser, own: Mapping[str, Any]) -> PipelineDenoiser:
        """The denoiser with its momentum, where it is guided."""
        if made.unconditional is None:
            return made
        return Momentum(self, made.size, made.conditional, made.unconditional, made.guidance_scale)

    def mix(self, conditional: Prediction, unconditional: Prediction, scale: float, time: Time) -> Prediction:
        return projected(conditional, unconditional, scale, time)[0]

    def run(self, x: Tensor, time: Time, condition: Condition | None, size: Size) -> Tensor:
        assert condition is not None
        clock = self.clock(time, len(x)).to(self.dtype)
        output: Tensor = self.pipe.transformer(
            hidden_states=x[:, :, 0].transpose(1, 2).to(self.dtype),
            timestep=clock,
            timestep_r=clock,
            encoder_hidden_states=condition.embeds.to(self.dtype),
            context_latents=self.silence(x.shape[-1]).expand(len(x), -1, -1),
            return_dict=False,
            **condition.options,
        )[0]
        return output.transpose(1, 2)[:, :, None]

    def silence(self, cells: int) -> Tensor:
        """(1, cells, 2 C), what the network starts from: silent latents, and that all of them are to be painted."""
        pipe, width = self.pipe, self.codec.channels

        def make() -> Tensor:
            quiet, _ = pipe.prepare_src_latents(device=self.device, dtype=self.dtype, latent_length=cells)
            asked = pipe._build_chunk_mask("text2music", cells, 1, self.device, self.dtype, width)
            return torch.cat([quiet, asked], dim=-1)

        return self.remember((cells, self.device, self.dtype), make)
