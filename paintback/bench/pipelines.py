"""Pipelines at the sizes of released ones, with random weights: what Paintback costs beside the bare pipeline.

Random weights say nothing of pictures. They say what time, memory, copies and offloading cost; the constructor
arguments give the parameter counts of the released checkpoints, which a test holds on the meta device. Everything is
measured in the order of `PARTS`, and where the time is over, what was not reached is said.
"""

from __future__ import annotations

import collections
import dataclasses
import gc
import json
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paintback import methods
from paintback.tasks.inpaint import Inpainter

__all__ = ["FAMILIES", "PARTS", "Family", "measure_pipelines", "page"]

PARTS = ("sync", "cost", "memory", "offload", "batch", "compile", "half", "papers")
COST = ("replacement", "ding", "lanpaint", "fmm", "daps")
SYNC = ("replacement", "ding", "lanpaint", "fmm", "daps", "flowdps", "ddnm")
PUBLISHED = {
    "ding": "DING on SD 3.5 medium, 768 x 768, H100, 50 evaluations: 2.9 s and 22.09 GB (with the text encoders)",
    "lanpaint": "LanPaint on a 256-pixel ADM: 599 MB, and 5445 MB for a gradient method",
}
VAE: dict[str, Any] = {
    "in_channels": 3,
    "out_channels": 3,
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
}
SMALL = {"block_out_channels": (32, 32, 32, 32)}
PLAIN = {"use_quant_conv": False, "use_post_quant_conv": False}


@dataclass(frozen=True)
class Family:
    """One model at its released size.

    Attributes:
        millions: parameters of its network.
        side: of the pictures.
        pipeline: class of diffusers, or None for a network of our own.
        part: the pipeline's name for its network.
        network: class, and its arguments.
        tiny: arguments that are otherwise in a dry run.
        vae: class, and its arguments.
        tiny_vae: likewise.
        scheduler: class, and its arguments.
        embeds: shapes of the embeddings in place of text; those of a negative prompt are their negatives.
        empty: components that are left out.
        guided: whether there is guidance by two predictions.
        frames: of a clip; 0 for pictures.
    """

    millions: float
    side: int
    pipeline: str | None
    part: str
    network: tuple[str, dict[str, Any]]
    tiny: dict[str, Any]
    vae: tuple[str, dict[str, Any]] | None = None
    tiny_vae: dict[str, Any] = dataclasses.field(default_factory=dict)
    scheduler: tuple[str, dict[str, Any]] | None = None
    embeds: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    empty: tuple[str, ...] = ()
    guided: bool = True
    frames: int = 0


FAMILIES = {
    "sd15": Family(
        859.5, 512, "StableDiffusionPipeline", "unet",
        ("UNet2DConditionModel", {
            "sample_size": 64, "block_out_channels": (320, 640, 1280, 1280), "cross_attention_dim": 768,
            "attention_head_dim": 8, "down_block_types": ("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
            "up_block_types": ("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3, "layers_per_block": 2,
        }),
        {"sample_size": 8, "block_out_channels": (32, 64, 64, 64)},
        ("AutoencoderKL", {**VAE, "latent_channels": 4, "scaling_factor": 0.18215}), SMALL,
        ("DDIMScheduler", {
            "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "clip_sample": False,
            "set_alpha_to_one": False, "steps_offset": 1,
        }),
        {"prompt_embeds": (1, 77, 768)},
        ("text_encoder", "tokenizer", "safety_checker", "feature_extractor"),
    ),
    "sdxl": Family(
        2567.5, 1024, "StableDiffusionXLPipeline", "unet",
        ("UNet2DConditionModel", {
            "sample_size": 128, "block_out_channels": (320, 640, 1280), "layers_per_block": 2,
            "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            "transformer_layers_per_block": [1, 2, 10], "attention_head_dim": [5, 10, 20],
            "cross_attention_dim": 2048, "use_linear_projection": True, "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
        }),
        {"sample_size": 8, "block_out_channels": (32, 64, 64), "attention_head_dim": [2, 2, 2],
         "transformer_layers_per_block": [1, 1, 1]},
        ("AutoencoderKL", {
            **VAE, "latent_channels": 4, "scaling_factor": 0.13025, "sample_size": 1024, "force_upcast": True,
        }), SMALL,
        ("EulerDiscreteScheduler", {
            "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "steps_offset": 1,
            "timestep_spacing": "leading",
        }),
        {"prompt_embeds": (1, 77, 2048), "pooled_prompt_embeds": (1, 1280)},
        ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
    ),
    "sd35m": Family(
        2243.2, 1024, "StableDiffusion3Pipeline", "transformer",
        ("SD3Transformer2DModel", {
            "sample_size": 128, "patch_size": 2, "in_channels": 16, "num_layers": 24, "attention_head_dim": 64,
            "num_attention_heads": 24, "joint_attention_dim": 4096, "caption_projection_dim": 1536,
            "pooled_projection_dim": 2048, "out_channels": 16, "pos_embed_max_size": 384,
            "dual_attention_layers": tuple(range(13)), "qk_norm": "rms_norm",
        }),
        {"sample_size": 8, "num_layers": 2, "num_attention_heads": 2, "attention_head_dim": 16,
         "caption_projection_dim": 32, "dual_attention_layers": (0,), "pos_embed_max_size": 16},
        ("AutoencoderKL", {**VAE, **PLAIN, "latent_channels": 16, "scaling_factor": 1.5305, "shift_factor": 0.0609}),
        SMALL,
        ("FlowMatchEulerDiscreteScheduler", {"shift": 3.0}),
        {"prompt_embeds": (1, 333, 4096), "pooled_prompt_embeds": (1, 2048)},
        ("text_encoder", "text_encoder_2", "text_encoder_3", "tokenizer", "tokenizer_2", "tokenizer_3"),
    ),
    "flux": Family(
        11901.4, 1024, "FluxPipeline", "transformer",
        ("FluxTransformer2DModel", {
            "patch_size": 1, "in_channels": 64, "num_layers": 19, "num_single_layers": 38, "attention_head_dim": 128,
            "num_attention_heads": 24, "joint_attention_dim": 4096, "pooled_projection_dim": 768,
            "guidance_embeds": True, "axes_dims_rope": (16, 56, 56),
        }),
        {"num_layers": 1, "num_single_layers": 1, "num_attention_heads": 2, "attention_head_dim": 16,
         "axes_dims_rope": (4, 4, 8)},
        ("AutoencoderKL", {**VAE, **PLAIN, "latent_channels": 16, "scaling_factor": 0.3611, "shift_factor": 0.1159}),
        SMALL,
        ("FlowMatchEulerDiscreteScheduler", {
            "shift": 3.0, "use_dynamic_shifting": True, "base_shift": 0.5, "max_shift": 1.15,
            "base_image_seq_len": 256, "max_image_seq_len": 4096,
        }),
        {"prompt_embeds": (1, 512, 4096), "pooled_prompt_embeds": (1, 768)},
        ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"),
        guided=False,
    ),
    "wan": Family(
        1419.0, 480, "WanPipeline", "transformer",
        ("WanTransformer3DModel", {
            "patch_size": (1, 2, 2), "num_attention_heads": 12, "attention_head_dim": 128, "in_channels": 16,
            "out_channels": 16, "text_dim": 4096, "freq_dim": 256, "ffn_dim": 8960, "num_layers": 30,
            "cross_attn_norm": True, "qk_norm": "rms_norm_across_heads", "rope_max_seq_len": 1024,
        }),
        {"num_attention_heads": 2, "attention_head_dim": 16, "ffn_dim": 64, "num_layers": 1, "rope_max_seq_len": 64},
        ("AutoencoderKLWan", {}), {"base_dim": 8, "num_res_blocks": 1},
        ("UniPCMultistepScheduler", {
            "prediction_type": "flow_prediction", "use_flow_sigmas": True, "flow_shift": 3.0,
        }),
        {"prompt_embeds": (1, 512, 4096)},
        ("text_encoder", "tokenizer"),
        frames=81,
    ),
    "adm256": Family(
        552.8, 256, None, "network",
        ("Adm", {
            "size": 256, "width": 256, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2, "attention": (3, 4, 5),
        }),
        {"size": 64, "width": 32, "multipliers": (1, 2), "attention": (1,), "head_channels": 16},
        guided=False,
    ),
}  # fmt: skip


# ------------------------------------------------------------------------------------------------------------ building


def build(kind: Callable[..., nn.Module], arguments: dict[str, Any], device: Any, dtype: torch.dtype) -> nn.Module:
    """A network with random weights, made on the device and in the dtype at once; the same ones every time."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        with torch.random.fork_rng(), torch.device(device):
            torch.manual_seed(0)
            made = kind(**arguments)
    finally:
        torch.set_default_dtype(before)
    return made.eval().to(dtype)


def network_of(family: Family, device: Any, dtype: torch.dtype, *, dry: bool = False) -> nn.Module:
    """A family's network."""
    name, arguments = family.network
    arguments = {**arguments, **(family.tiny if dry else {})}
    if family.pipeline is None:
        from paintback.models.adm import Adm, AdmConfig

        return build(lambda **fields: Adm(AdmConfig(**fields)), arguments, device, dtype)
    import diffusers

    return build(getattr(diffusers, name), arguments, device, dtype)


def pipeline_of(family: Family, device: Any, dtype: torch.dtype, *, dry: bool = False) -> Any:
    """A family's pipeline, without its text encoders."""
    import diffusers

    assert family.pipeline is not None
    assert family.vae is not None
    assert family.scheduler is not None
    vae, arguments = family.vae
    parts = {
        family.part: network_of(family, device, dtype, dry=dry),
        "vae": build(getattr(diffusers, vae), {**arguments, **(family.tiny_vae if dry else {})}, device, dtype),
        "scheduler": getattr(diffusers, family.scheduler[0])(**family.scheduler[1]),
    }
    more = {"requires_safety_checker": False} if "safety_checker" in family.empty else {}
    pipe = getattr(diffusers, family.pipeline)(**parts, **dict.fromkeys(family.empty), **more)
    if dry and hasattr(pipe, "default_sample_size"):
        pipe.default_sample_size = 8
    pipe.set_progress_bar_config(disable=True)
    return pipe


def embeddings_of(family: Family, device: Any, dtype: torch.dtype) -> dict[str, Tensor]:
    """Random embeddings in place of a text, and their negatives."""
    generator = torch.Generator().manual_seed(0)
    made = {name: torch.randn(shape, generator=generator).to(device, dtype) for name, shape in family.embeds.items()}
    return {**made, **({f"negative_{name}": -value for name, value in made.items()} if family.guided else {})}


# ----------------------------------------------------------------------------------------------------------- measuring


@dataclass
class _Bench:
    """One family, loaded, and the clock of all."""

    name: str
    family: Family
    device: torch.device
    dtype: torch.dtype
    dry: bool
    ends: float

    def __post_init__(self) -> None:
        self.side = 32 if self.dry else self.family.side
        self.embeds = embeddings_of(self.family, self.device, self.dtype)
        self.pipe: Any = None
        if self.family.pipeline is None:
            from paintback.models.adm import AdmModel

            network: Any = network_of(self.family, self.device, self.dtype, dry=self.dry)
            side = network.config.size
            self.side = side
            model: Any = AdmModel(
                name=self.name, channels=3, multiple=2 ** (len(network.config.multipliers) - 1), size=(side, side),
                training_size=side, network=network, device=self.device, dtype=self.dtype,
            )  # fmt: skip
            self.own = Inpainter(model)
        else:
            self.pipe = pipeline_of(self.family, self.device, self.dtype, dry=self.dry)
            self.own = Inpainter.from_pipe(self.pipe)
        self.own.set_progress_bar_config(disable=True)

    def over(self) -> bool:
        """Whether the time is over."""
        return time.monotonic() > self.ends

    def wait(self) -> None:
        """Waits for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def clear(self) -> None:
        """Forgets the peak of the memory, and what nobody holds."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> float | None:
        """GB at the peak since `clear`."""
        return round(torch.cuda.max_memory_allocated(self.device) / 1e9, 3) if self.device.type == "cuda" else None

    def paint(
        self, method: Any, steps: int, samples: int = 1, side: int | None = None, own: Any = None
    ) -> tuple[Any, float]:
        """One call for one picture, and its seconds."""
        side = side or self.side
        generator = torch.Generator().manual_seed(0)
        picture, mask = torch.rand(3, side, side, generator=generator), torch.zeros(side, side)
        mask[side // 4 : side // 2, side // 4 : side // 2] = 1
        own, embeds = own or self.own, dict[str, Any](self.embeds)
        self.wait()
        began = time.perf_counter()
        if self.family.frames:
            from paintback.tasks.video import inpaint_video

            frames = 5 if self.dry else self.family.frames
            shape = (side, side) if self.dry else (480, 832)
            clip = torch.rand(frames, 3, *shape, generator=generator)
            hole = torch.zeros(shape)
            hole[shape[0] // 4 : shape[0] // 2, shape[1] // 4 : shape[1] // 2] = 1
            out: Any = inpaint_video(
                clip.permute(0, 2, 3, 1).numpy(), hole.numpy() > 0, model=own, method=method, generator=0,
                num_inference_steps=steps, output_type="np", progress_bar=False, height=shape[0], width=shape[1],
                **embeds,
            )  # fmt: skip
        else:
            size: dict[str, Any] = {"height": side, "width": side} if self.pipe is not None else {}
            seeds: Any = [torch.Generator().manual_seed(k) for k in range(samples)]
            out = own(
                picture, mask, method=method, num_inference_steps=steps, num_images_per_prompt=samples,
                generator=seeds, output_type="pt", **self.embeds, **size,
            )  # fmt: skip
        self.wait()
        return out, time.perf_counter() - began

    # The parts: each yields records as it goes.

    def sync(self) -> Iterator[dict[str, Any]]:
        """Synchronisations by site, as CUDA itself reports them."""
        if self.device.type != "cuda":
            yield {"skipped": "needs CUDA"}
            return
        for method in SYNC:
            if self.over():
                return
            torch.cuda.set_sync_debug_mode("warn")
            try:
                with warnings.catch_warnings(record=True) as said:
                    warnings.simplefilter("always")
                    out, _ = self.paint(method, 4)
            finally:
                torch.cuda.set_sync_debug_mode("default")
            places = (one for one in said if "synchron" in str(one.message))
            sites = collections.Counter(
                f"{one.filename.rpartition('site-packages/')[2].rpartition('/paintback/')[2]}:{one.lineno}"
                for one in places
            )
            yield {"what": method, "evaluations": out.evaluations, "sites": sites.most_common(12)}

    def cost(self) -> Iterator[dict[str, Any]]:
        """Milliseconds an evaluation against the pipeline's step, and peak memory."""
        steps, bare = (2 if self.dry else 20), None
        if self.pipe is not None and not self.family.frames:
            for _ in range(1 if self.dry else 2):
                self.clear()
                self.wait()
                began = time.perf_counter()
                self.pipe(
                    **self.embeds, height=self.side, width=self.side, num_inference_steps=steps, output_type="latent",
                    generator=torch.Generator().manual_seed(0),
                )  # fmt: skip
                self.wait()
                bare = (time.perf_counter() - began) / steps
            yield {"what": "pipeline", "milliseconds": round(bare * 1e3, 2), "peak_gb": self.peak()}  # type: ignore[operator]
        for name in COST:
            if self.over():
                return
            method = methods.get(name)
            count = min(range(2, max(3, steps + 1)), key=lambda n: abs(method.evaluations(n) - steps))
            if not self.dry:
                self.paint(name, 2)
            self.clear()
            out, seconds = self.paint(name, count)
            each = seconds / out.evaluations
            yield {
                "what": name,
                "evaluations": out.evaluations,
                "milliseconds": round(each * 1e3, 2),
                "over_pipeline": None if bare is None else round(each / bare, 3),
                "peak_gb": self.peak(),
            }

    def memory(self) -> Iterator[dict[str, Any]]:
        """Gradients, with weights that ask for them and with frozen ones."""
        for asks in (True, False):
            if self.over():
                return
            for module in self.own.model.networks():
                module.requires_grad_(asks)
            self.clear()
            out, seconds = self.paint("dps", 3)
            label = "dps, weights as loaded" if asks else "dps, frozen weights"
            yield {"what": label, "milliseconds": round(1e3 * seconds / out.evaluations, 1), "peak_gb": self.peak()}

    def offload(self) -> Iterator[dict[str, Any]]:
        """Whole-model offloading, with methods that decode inside a step too."""
        if self.device.type != "cuda" or self.pipe is None:
            yield {"skipped": "needs CUDA and a pipeline"}
            return
        self.pipe.enable_model_cpu_offload(device=self.device)
        own = Inpainter.from_pipe(self.pipe)
        own.set_progress_bar_config(disable=True)
        try:
            for name in ("ding", "dps", "ldps", "psld", "p2l"):
                if self.over():
                    return
                self.clear()
                try:
                    _, seconds = self.paint(name, 3, own=own)
                    yield {"what": name, "seconds": round(seconds, 2), "peak_gb": self.peak()}
                except (RuntimeError, ValueError, MemoryError) as error:
                    yield {"what": name, "error": str(error)[:200]}
        finally:
            self.pipe.remove_all_hooks()
            self.pipe.to(self.device)

    def batch(self) -> Iterator[dict[str, Any]]:
        """Samples of one picture in one batch."""
        if self.family.frames:
            yield {"skipped": "clips are painted one by one"}
            return
        own = Inpainter(self.own.model, policy=dataclasses.replace(self.own.policy, batch_pixels=2**26))
        own.set_progress_bar_config(disable=True)
        for count in (1, 2, 4, 8):
            if self.over():
                return
            self.clear()
            _, seconds = self.paint("replacement", 3 if self.dry else 8, count, own=own)
            yield {"what": count, "seconds_a_sample": round(seconds / count, 3), "peak_gb": self.peak()}

    def compile(self) -> Iterator[dict[str, Any]]:
        """The network by torch.compile; in a dry run its graphs alone."""
        from torch._dynamo.utils import counters

        network = self.own.model.network
        assert network is not None
        network.compile(backend="eager" if self.dry else "inductor")
        counters.clear()
        try:
            _, seconds = self.paint("ding", 2)
            yield {"what": "first call", "seconds": round(seconds, 1)}
            for name, steps in (("ding", 10), ("fmm", 6), ("lanpaint", 3)):
                if self.over():
                    return
                steps = 2 if self.dry else steps
                self.paint(name, steps)
                out, seconds = self.paint(name, steps)
                graphs = counters["stats"].get("unique_graphs")
                yield {"what": name, "milliseconds": round(1e3 * seconds / out.evaluations, 2), "graphs": graphs}
        finally:
            network._compiled_call_impl = None

    def papers(self) -> Iterator[dict[str, Any]]:
        """DING and LanPaint at their papers' settings."""
        if self.name == "sd35m":
            self.clear()
            out, seconds = self.paint("ding", 4 if self.dry else 26, side=32 if self.dry else 768)
            found = {"what": "ding", "evaluations": out.evaluations, "seconds": round(seconds, 2)}
            yield {**found, "peak_gb": self.peak(), "published": PUBLISHED["ding"]}
        if self.name == "adm256":
            for method, steps in (("lanpaint", 4), ("dps", 20)):
                if self.over():
                    return
                self.clear()
                out, seconds = self.paint(method, 2 if self.dry else steps)
                found = {"what": method, "evaluations": out.evaluations, "seconds": round(seconds, 2)}
                yield {**found, "peak_gb": self.peak(), "published": PUBLISHED["lanpaint"]}


def _half(device: torch.device, dry: bool, ends: float) -> Iterator[dict[str, Any]]:
    """FMM on the shipped model in half precision, against float32: the mean difference of the painted pixels."""
    generator = torch.Generator().manual_seed(0)
    side = 64 if dry else 256
    picture, mask = torch.rand(3, side, side, generator=generator), torch.zeros(side, side)
    mask[side // 4 : side // 2, side // 4 : side // 2] = 1
    whole = None
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        if time.monotonic() > ends:
            return
        own = Inpainter.from_pretrained("photo", device=device, torch_dtype=dtype)
        own.set_progress_bar_config(disable=True)
        name = str(dtype).removeprefix("torch.")
        try:
            out = own(picture, mask, method="fmm", num_inference_steps=2 if dry else 16, generator=0, output_type="pt")
        except (RuntimeError, ValueError) as error:
            yield {"what": f"fmm {name}", "error": str(error)[:200]}
            continue
        made: Any = out.images[0]
        whole = made if whole is None else whole
        away = float((made - whole).abs()[:, mask > 0].mean())
        yield {"what": f"fmm {name}", "seconds": round(out.seconds, 2), "from_float32": round(away, 4)}


def measure_pipelines(
    out: Path | None = None,
    *,
    device: Any = None,
    names: Sequence[str] = tuple(FAMILIES),
    parts: Sequence[str] = PARTS,
    minutes: float = 5.0,
    dry: bool = False,
    say: Callable[[dict[str, Any]], None] = lambda record: None,
) -> list[dict[str, Any]]:
    """Measures all families, part by part, until the time is over.

    Args:
        out: a file to which every record is added as a line of JSON as it is made; None for none.
        device: None for CUDA where there is one.
        names: of `FAMILIES`.
        parts: of `PARTS`.
        minutes: after which nothing new is begun.
        dry: tiny networks on the CPU in float32, to see that everything runs.
        say: told of every record.

    Returns:
        The records; the last one says what was not reached.

    Raises:
        ValueError: for an unknown family or part, or a device that is none.
    """
    for given, known, word in ((names, tuple(FAMILIES), "family"), (parts, PARTS, "part")):
        for name in given:
            if name not in known:
                raise ValueError(f"There is no {word} {name!r}; there are {', '.join(known)}.")
    where = torch.device("cpu" if dry else device or ("cuda" if torch.cuda.is_available() else "cpu"))
    if where.type == "cpu" and not dry:
        raise ValueError("Networks of these sizes need CUDA; give --dry for tiny ones on the CPU.")
    dtype = torch.float32 if dry else torch.bfloat16
    ends = time.monotonic() + 60 * minutes
    records: list[dict[str, Any]] = []
    missed: list[str] = []

    def add(record: dict[str, Any]) -> None:
        records.append(record)
        say(record)
        if out is not None:
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(record) + "\n")

    card = torch.cuda.get_device_name(where) if where.type == "cuda" else "CPU"
    add({"device": card, "torch": torch.__version__, "dtype": str(dtype), "dry": dry, "minutes": minutes})
    for name in names:
        wanted = [part for part in parts if part != "half"]
        if time.monotonic() > ends:
            missed += [f"{name} {part}" for part in wanted]
            continue
        bench = _Bench(name, FAMILIES[name], where, dtype, dry, ends)
        count = sum(weight.numel() for weight in bench.own.model.networks()[0].parameters())
        add({"model": name, "millions": round(count / 1e6, 1)})
        for part in wanted:
            if bench.over():
                missed.append(f"{name} {part}")
                continue
            try:
                for record in getattr(bench, part)():
                    add({"model": name, "part": part, **record})
            except Exception as error:
                add({"model": name, "part": part, "error": f"{type(error).__name__}: {error}"[:300]})
            if bench.over():
                missed.append(f"{name} {part} (not all of it)")
        del bench
        gc.collect()
        if where.type == "cuda":
            torch.cuda.empty_cache()
    if "half" in parts:
        for record in _half(where, dry, ends):
            add({"model": "photo", "part": "half", **record})
        if time.monotonic() > ends:
            missed.append("photo half")
    add({"not_reached": missed})
    return records


def page(records: Sequence[dict[str, Any]]) -> str:
    """The records as a table for docs/models/at-size.md."""
    head = records[0]
    lines = [f"{head['device']}, torch {head['torch']}, {head['dtype'].removeprefix('torch.')}.", ""]
    lines += ["| model | part | what | found |", "|---|---|---|---|"]
    for one in records[1:]:
        if "not_reached" in one:
            lines += ["", f"Not reached: {', '.join(one['not_reached']) or 'nothing'}."]
            continue
        found = {name: value for name, value in one.items() if name not in ("model", "part", "what")}
        told = "; ".join(f"{name} {value}" for name, value in found.items() if value is not None)
        lines.append(f"| {one.get('model', '')} | {one.get('part', 'size')} | {one.get('what', '')} | {told} |")
    return "\n".join(lines) + "\n"
