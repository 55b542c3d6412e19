"""Real diffusers pipelines with tiny random weights, built offline, tokenizers included.

`build(name)` gives a new pipeline of the family, always with the same weights, and leaves torch's random state as it
was; `folder(name, tmp_path_factory)` gives its folder on disk, written once per session. `load(path, name)` reads such
a folder. `NAMES` is everything that can be built; `TEXT_TO_IMAGE`, `VIDEO`, `UNCONDITIONAL`, `PIXEL` and `TRAINED` are
parts of it. diffusers is imported by the functions, not by this module, so that collecting tests stays fast.

The weights are drawn so that the networks behave as trained ones in what adapters depend on: no layer is zero, a
denoiser's output is of size one and changes with the picture, the time and the prompt; latents after the VAE's scaling
have a standard deviation near one, and decoded pictures one near 0.4. Nothing is trained: a picture encoded and
decoded does not come back.

What a family's folder asks for at loading, and what its pipeline asks for when called:

- `sd15`, `sd21`, `sd15_inpaint`: nothing; the folder says that there is no safety checker.
- `sd3_no_t5`: `from_pretrained` needs `text_encoder_3=None, tokenizer_3=None`.
- `wan`: nothing; `transformer_2`, absent from Wan 2.1, is optional in the class, and its entry is [null, null].
- `wan22`: both transformers are in the folder and `boundary_ratio` is in model_index.json.
- `wan22_ti2v`: `expand_timesteps` is in model_index.json; the VAE is 16 times smaller, pictures are multiples of 32.
- `ldm`: the VAE is `vqvae`, 4 times smaller as in the released VQ-f4.
- `flux2_klein`: the text encoder has 28 layers since the pipeline reads the hidden states 9, 18 and 27.
- `hidream`: `default_sample_size` is not saved and is 128 again after loading; `load` sets it to 8, or the pipeline
  would enlarge every picture to an area of 1024 x 1024. The attention chosen for Llama is not saved either: loaded it
  is sdpa, which has no attentions to return; the pipeline asks for them, does not use them, and a warning is logged.
- `qwen_image_edit`, `qwen_image_edit_plus`: the processor has no part for video, which torchvision would be needed for,
  and so a folder cannot bring it: `load` gives it. `small_references` makes the pictures to go by small.
- `sdxl_inpaint`: its `strength` is 0.9999 by default, which takes the first step away: `call_arguments` says 1.
- `sd3_controlnet_inpaint`: the ControlNet is in the folder (the released one is a repository of its own). Its pipeline
  encodes the picture without the generator: only `torch.manual_seed` makes two calls equal.

Needed by all: `LOADING[name]`, the arguments of `from_pretrained`, and `call_arguments(name)`, those of a short call.
"""

from __future__ import annotations

import inspect
import math
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

UNCONDITIONAL = ("ddpm", "ddim", "ldm")
PIXEL = ("ddpm", "ddim")
TEXT_TO_IMAGE = (
    "sd15",
    "sd21",
    "sdxl",
    "sd3",
    "sd3_no_t5",
    "flux_dev",
    "flux_schnell",
    "flux_kontext",
    "qwen_image",
    "qwen_image_edit",
    "qwen_image_edit_plus",
    "z_image",
    "flux2_klein",
    "hidream",
    "chroma",
    "aura_flow",
    "pixart_sigma",
    "lumina2",
    "sana",
    "krea2",
    "kandinsky5_image",
    "ideogram4",
)
EDITING = ("qwen_image_edit", "qwen_image_edit_plus")  # paint by a picture
VIDEO = ("wan", "wan22", "wan22_ti2v", "ltx", "hunyuan_video", "kandinsky5")
PROCESSORS = {  # what of a folder needs torchvision, and is given by `load`
    **dict.fromkeys(EDITING, "processor"),
    **dict.fromkeys(("kandinsky5", "kandinsky5_image"), "tokenizer"),
}
FRAMES = {"ltx": 9}  # of a clip of two latent cells in time; 5 where no other is said
TRAINED = ("sd15_inpaint", "sdxl_inpaint", "flux_fill", "sd3_controlnet_inpaint")
NAMES = UNCONDITIONAL + TEXT_TO_IMAGE + VIDEO + TRAINED
SOUND = ("stable_audio", "ace_step")  # not in NAMES: they have no pictures; 800 samples a second, 32 a cell

LOADING: dict[str, dict[str, Any]] = {name: {} for name in NAMES + SOUND}
LOADING["sd3_no_t5"] = {"text_encoder_3": None, "tokenizer_3": None}

PICTURE_STD = 0.4  # of decoded pictures
SILU_RMS = 0.6  # of SiLU applied to a standard normal number
LOG_VARIANCE = -12.0  # of the VAE's posterior: far below the latents' own, as in trained ones


# What everyone uses -------------------------------------------------------------------------------------------------


def build(name: str) -> Any:
    """A new pipeline of this family; the same weights every time, torch's random state untouched."""
    _quiet()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(zlib.crc32(name.encode()))
        return _finish(BUILDERS[name](), name)


def folder(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pipeline's folder as `save_pretrained` writes it; written at the session's first request."""
    path = tmp_path_factory.getbasetemp() / "tiny-pipelines" / name
    if not path.exists():
        part, pipe = path.with_suffix(".part"), build(name)
        if name in PROCESSORS:
            pipe.register_modules(**{PROCESSORS[name]: None})
        pipe.save_pretrained(part)
        part.rename(path)
    return path


def load(path: Path, name: str, **arguments: Any) -> Any:
    """The pipeline in a folder of `folder`, read by the class that the folder names."""
    from diffusers import DiffusionPipeline

    _quiet()
    if name in PROCESSORS:
        arguments = {PROCESSORS[name]: getattr(build(name), PROCESSORS[name]), **arguments}
    return _finish(DiffusionPipeline.from_pretrained(path, **LOADING[name], **arguments), name)


def align(pipe: Any) -> Any:
    """Moves a loaded pipeline's weights to memory of their own, where those of a built one lie too.

    Those of a file lie where the file has them, and on some CPUs the last bit of a product depends on the alignment.
    """
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            for weight in (*part.parameters(), *part.buffers()):
                weight.data = weight.data.clone()
    return pipe


def denoiser(pipe: Any) -> nn.Module:
    """The network that denoises, the first where there are two."""
    return pipe.unet if hasattr(pipe, "unet") else pipe.transformer


def call_arguments(name: str, prompt: str = "a red fox", seed: int = 0, steps: int = 2, **more: Any) -> dict[str, Any]:
    """Arguments for a short call of the pipeline with arrays as output."""
    made: dict[str, Any] = {
        "generator": torch.Generator().manual_seed(seed),
        "num_inference_steps": steps,
        "output_type": "np",
    }
    if name not in UNCONDITIONAL:
        made |= {"prompt": prompt, "height": 64, "width": 64}
    if name == "flux_kontext":
        made |= {"max_area": 64 * 64}
    if name in ("pixart_sigma", "sana"):
        made |= {"use_resolution_binning": False}
    if name == "ideogram4":
        made |= {"guidance_scale": 7.0, "guidance_schedule": None, "max_sequence_length": 128}
    if name in VIDEO:
        made |= {"num_frames": FRAMES.get(name, 5)}
    if name in EDITING:
        from PIL import Image

        made |= {"image": Image.radial_gradient("L").resize((64, 64)).convert("RGB")}
    if name in TRAINED:
        from PIL import Image

        picture = Image.linear_gradient("L").resize((64, 64)).convert("RGB")
        mask = Image.new("L", (64, 64))
        mask.paste(255, (16, 16, 48, 48))
        if name == "sd3_controlnet_inpaint":
            made |= {"control_image": picture, "control_mask": mask}
        else:
            made |= {"image": picture, "mask_image": mask, "strength": 1.0}
    return made | more


def small_references(patch: Callable[[Any, str, Any], None], side: int = 64) -> None:
    """Makes the pictures that Qwen-Image-Edit goes by so large, not 1024 x 1024, in its pipelines and in ours.

    Args:
        patch: such as pytest's `monkeypatch.setattr`.
        side: of a square of their area.
    """
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit as edit
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit_plus as plus

    patch(edit, "calculate_dimensions", lambda _, ratio: (*plus.calculate_dimensions(side**2, ratio), None))
    patch(plus, "VAE_IMAGE_SIZE", side**2)
    patch(plus, "CONDITION_IMAGE_SIZE", 32**2)


def _quiet() -> None:
    import diffusers
    import transformers

    for library in (diffusers, transformers):
        library.utils.logging.set_verbosity_error()
        library.utils.logging.disable_progress_bar()


def _finish(pipe: Any, name: str) -> Any:
    pipe.set_progress_bar_config(disable=True)
    if name == "hidream":
        pipe.default_sample_size = 8
    if name == "kandinsky5_image":  # in no config either; 1024 x 1024 and others of that area
        pipe.resolutions = [(64, 64)]
    for part in pipe.components.values():
        if isinstance(part, nn.Module):
            part.eval().requires_grad_(False)
    return pipe


# Weights ------------------------------------------------------------------------------------------------------------


def randomize(network: nn.Module, gain: float = 1.0) -> nn.Module:
    """Draw every parameter anew, those that begin as zero too; each layer keeps the size of what it is given.

    Args:
        network: what to fill, in place.
        gain: makes queries and keys larger, and text's keys and values once more, so that a few words stand out among
            hundreds of padding tokens as they do in a trained network.
    """
    gains = dict.fromkeys(QUERIES_AND_KEYS, gain) | dict.fromkeys(TEXT_KEYS_AND_VALUES, gain**2)
    for owner, module in network.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            with torch.no_grad():
                parameter.copy_(_draw(module, name, parameter))
                if name == "weight":
                    parameter.mul_(gains.get(owner.rpartition(".")[2], 1.0))
    return network


QUERIES_AND_KEYS = ("to_q", "to_k", "norm_q", "norm_k", "add_q_proj", "norm_added_q", "q_rms_norm", "k_rms_norm")
TEXT_KEYS_AND_VALUES = ("add_k_proj", "add_v_proj", "norm_added_k", "to_v_t", "k_rms_norm_t")


def _draw(module: nn.Module, name: str, parameter: Tensor) -> Tensor:
    noise = torch.randn(parameter.shape)
    if name == "bias":
        return 0.05 * noise
    if "norm" in type(module).__name__.lower():  # its weight, or Wan's gamma of four axes
        return 1 + 0.1 * noise
    if isinstance(module, nn.Embedding):
        return noise
    if "pad_token" in name:
        return noise
    if type(module).__name__.endswith(("FourierProjection", "PositionalEmbedding")):
        return noise
    if name in ("alpha", "beta"):  # of Oobleck's snakes
        return 0.1 * noise
    if name == "weight_g":  # lengths of weights
        return 1 + 0.1 * noise
    if name == "timestep_scale_multiplier":  # of LTX's decoder
        return torch.tensor(1000.0)
    if parameter.ndim < 2:
        raise TypeError(f"a rule for {type(module).__name__}.{name} is missing")
    if isinstance(module, (nn.Linear, nn.modules.conv._ConvNd)):
        return noise / math.sqrt(parameter[0].numel())
    return noise / math.sqrt(parameter.shape[-1])  # tables of scales and shifts, the gate of a mixture of experts


def _fit_unet(unet: nn.Module) -> nn.Module:
    randomize(unet, gain=1.5)
    with torch.no_grad():
        unet.conv_out.weight.div_(SILU_RMS)
    return unet


def _fit_vae(vae: nn.Module, std: Tensor | float, mean: Tensor | float = 0.0, gain: float = 1.0) -> nn.Module:
    """Draw the VAE's weights so that its latents have this deviation and mean, by channel, and pictures PICTURE_STD.

    `gain` makes up for a video VAE's causal convolutions, of which two taps of three see nothing in a single frame.
    """
    randomize(vae)
    std, mean = torch.as_tensor(std), torch.as_tensor(mean)
    with torch.no_grad():
        vae.decoder.conv_out.weight.mul_(gain * PICTURE_STD / SILU_RMS)
        vae.decoder.conv_in.weight.div_(std.mean())
        vae.encoder.conv_out.weight.mul_(gain / SILU_RMS)
        last = getattr(vae, "quant_conv", None) or vae.encoder.conv_out
        rows = last.weight.flatten(1)
        channels = len(rows) if hasattr(vae, "quantize") else len(rows) // 2
        rows[:channels] *= std.reshape(-1, 1)
        rows[channels:] *= 0.1
        last.bias[:channels] += mean
        last.bias[channels:] = LOG_VARIANCE
    return vae


# Tokenizers ---------------------------------------------------------------------------------------------------------

CLIP_START, CLIP_END = "<|startoftext|>", "<|endoftext|>"
QWEN_SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>")
CHAT = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# With these the part of Qwen-Image's template that its pipeline cuts off has 34 tokens, as with the released tokenizer.
QWEN_SPACED = (
    "the image by detailing color shape size texture quantity text spatial relationships of objects and background"
)
QWEN_PLAIN = "system Describe user assistant"
# And for Qwen-Image-Edit's, of 64.
EDIT_SPECIAL = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
EDIT_SPACED = (
    "the key features of input image ( shape size texture objects background then explain how user text instruction "
    "should alter or modify Generate a new that meets requirements while maintaining consistency with original where "
    "appropriate"
)
EDIT_PLAIN = "system Describe user assistant color 's ),"


def _byte_letters() -> list[str]:
    from tokenizers.pre_tokenizers import ByteLevel

    return sorted(ByteLevel.alphabet())


def _clip_vocabulary() -> dict[str, int]:
    letters = _byte_letters()
    tokens = letters + [letter + "</w>" for letter in letters] + [CLIP_START, CLIP_END]
    return {token: number for number, token in enumerate(tokens)}  # "!" is 0, as in CLIP's own


def _clip_tokenizer(length: int = 77, padding: str = CLIP_END) -> Any:
    from transformers import CLIPTokenizer

    return CLIPTokenizer(vocab=_clip_vocabulary(), merges=[], pad_token=padding, model_max_length=length)


def _t5_tokenizer() -> Any:
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0)]
    pieces += [(chr(code), -4.0) for code in range(33, 127)]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=512)


def _qwen_tokenizer(spaced: str = QWEN_SPACED, plain: str = QWEN_PLAIN, more: tuple[str, ...] = ()) -> Any:
    from transformers import Qwen2Tokenizer

    merges = []
    for word in ["Ġ" + word for word in spaced.split()] + plain.split():
        merges += [(word[:end], word[end]) for end in range(1, len(word))]
    merges = list(dict.fromkeys(merges))
    tokens = _byte_letters() + ["".join(pair) for pair in merges] + [*QWEN_SPECIAL, *more]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=merges, chat_template=CHAT, model_max_length=1024)
    tokenizer.add_special_tokens({"additional_special_tokens": [*QWEN_SPECIAL[1:3], *more]})
    tokenizer.add_tokens(list(QWEN_SPECIAL[3:]))
    return tokenizer


def _qwen_processor(plain: str = EDIT_PLAIN) -> Any:
    from transformers import Qwen2VLImageProcessorPil, Qwen2VLProcessor

    class Processor(Qwen2VLProcessor):
        def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
            """Nothing is checked: there is no part for video."""

    Processor.__name__ = "Qwen2VLProcessor"
    tokenizer = _qwen_tokenizer(EDIT_SPACED, plain, EDIT_SPECIAL)
    return Processor(image_processor=Qwen2VLImageProcessorPil(), tokenizer=tokenizer)


def _llama_tokenizer(words: str = "", special: tuple[str, ...] = ()) -> Any:
    """With a token for each of the words, and for the special ones, beside bytes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    start, end = "<|begin_of_text|>", "<|eot_id|>"
    level = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces = [piece for piece, _ in level.pre_tokenize_str(words)]
    merges = list(dict.fromkeys((one[:end], one[end]) for one in pieces for end in range(1, len(one))))
    tokens = [*_byte_letters(), start, end, *("".join(pair) for pair in merges), *special]
    vocabulary = {token: number for number, token in enumerate(dict.fromkeys(tokens))}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    inner.pre_tokenizer = level
    inner.decoder = decoders.ByteLevel()
    inner.post_processor = processors.TemplateProcessing(
        single=f"{start} $A", special_tokens=[(start, vocabulary[start])]
    )
    made = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=start, eos_token=end, pad_token=end, model_max_length=512
    )
    if special:
        made.add_special_tokens({"additional_special_tokens": list(special)})
    return made


# Text encoders ------------------------------------------------------------------------------------------------------


def _clip(width: int = 32, *, projected: bool = False, positions: int = 77, activation: str = "quick_gelu") -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    vocabulary = _clip_vocabulary()
    config = CLIPTextConfig(
        vocab_size=len(vocabulary),
        hidden_size=width,
        intermediate_size=2 * width,
        projection_dim=width,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=positions,
        hidden_act=activation,
        bos_token_id=vocabulary[CLIP_START],
        eos_token_id=vocabulary[CLIP_END],  # an id outside the vocabulary would pool the same token of every prompt
        pad_token_id=vocabulary[CLIP_END],
    )
    return randomize((CLIPTextModelWithProjection if projected else CLIPTextModel)(config))


def _t5(width: int = 32, *, multilingual: bool = False) -> Any:
    from transformers import T5Config, T5EncoderModel, UMT5Config, UMT5EncoderModel

    config = (UMT5Config if multilingual else T5Config)(
        vocab_size=len(_t5_tokenizer()),
        d_model=width,
        d_kv=8,
        d_ff=2 * width,
        num_layers=2,
        num_heads=4,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=not multilingual,
    )
    return randomize((UMT5EncoderModel if multilingual else T5EncoderModel)(config))


def _decoder_shape(width: int, layers: int) -> dict[str, Any]:
    return {
        "hidden_size": width,
        "intermediate_size": width,
        "num_hidden_layers": layers,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 1152,
    }


def _qwen3(*, causal: bool, layers: int) -> Any:
    from transformers import Qwen3Config, Qwen3ForCausalLM, Qwen3Model

    config = Qwen3Config(
        vocab_size=len(_qwen_tokenizer()), head_dim=8, tie_word_embeddings=True, **_decoder_shape(32, layers)
    )
    return randomize((Qwen3ForCausalLM if causal else Qwen3Model)(config))


def _qwen25_vl(tokenizer: Any = None) -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    tokenizer, ids = tokenizer or _qwen_tokenizer(), {}
    if EDIT_SPECIAL[0] in tokenizer.get_vocab():
        keys = ("vision_start_token_id", "vision_end_token_id", "image_token_id", "video_token_id")
        ids = dict(zip(keys, tokenizer.convert_tokens_to_ids(list(EDIT_SPECIAL)), strict=True))
    text = {
        "vocab_size": len(tokenizer),
        "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6},
        **_decoder_shape(32, 2),
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    return randomize(
        Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(text_config=text, vision_config=vision, **ids))
    )


def _gemma() -> Any:
    from transformers import Gemma2Config, Gemma2Model

    tokenizer = _llama_tokenizer()
    config = Gemma2Config(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=128,
        **_decoder_shape(32, 2),
    )
    return randomize(Gemma2Model(config))


def _llama(tokenizer: Any = None, layers: int = 2) -> Any:
    from transformers import LlamaConfig, LlamaForCausalLM, LlamaModel

    kind = LlamaForCausalLM if tokenizer is None else LlamaModel
    tokenizer = tokenizer or _llama_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.eos_token_id,
        attn_implementation="eager",  # the pipeline asks for attentions, which sdpa has not
        **_decoder_shape(32, layers),
    )
    return randomize(kind(config))


def _qwen3_vl(layers: int = 3) -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLModel

    text = {
        "vocab_size": len(_qwen_tokenizer()),
        "head_dim": 8,
        "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 1e6},
        **_decoder_shape(32, layers),
    }
    vision = {"depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32}
    vision |= {"deepstack_visual_indexes": [0], "num_position_embeddings": 16}
    return randomize(Qwen3VLModel(Qwen3VLConfig(text_config=text, vision_config=vision)))


# Schedulers, with the released checkpoints' settings ----------------------------------------------------------------

STABLE_BETAS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012, "num_train_timesteps": 1000}
STABLE_OFFSETS = {"steps_offset": 1, "set_alpha_to_one": False}


def _pndm() -> Any:
    from diffusers import PNDMScheduler

    return PNDMScheduler(**STABLE_BETAS, **STABLE_OFFSETS, skip_prk_steps=True, prediction_type="epsilon")


def _euler() -> Any:
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(
        **STABLE_BETAS,
        steps_offset=1,
        timestep_spacing="leading",
        prediction_type="epsilon",
        interpolation_type="linear",
        use_karras_sigmas=False,
    )


def _flow(**settings: Any) -> Any:
    from diffusers import FlowMatchEulerDiscreteScheduler

    return FlowMatchEulerDiscreteScheduler(num_train_timesteps=1000, **settings)


def _flow_dynamic(**settings: Any) -> Any:
    lengths = {"base_image_seq_len": 256, "max_image_seq_len": 4096, "base_shift": 0.5, "max_shift": 1.15}
    return _flow(**{"shift": 3.0, "use_dynamic_shifting": True, **lengths, **settings})


def _unipc(flow_shift: float) -> Any:
    from diffusers import UniPCMultistepScheduler

    return UniPCMultistepScheduler(
        num_train_timesteps=1000,
        solver_order=2,
        prediction_type="flow_prediction",
        use_flow_sigmas=True,
        flow_shift=flow_shift,
    )


# VAEs ---------------------------------------------------------------------------------------------------------------


def _four_levels(widths: tuple[int, ...] = (8, 16, 16, 16)) -> dict[str, Any]:
    return {
        "block_out_channels": widths,
        "down_block_types": ("DownEncoderBlock2D",) * len(widths),
        "up_block_types": ("UpDecoderBlock2D",) * len(widths),
        "layers_per_block": 1,
        "norm_num_groups": 4,
    }


def _kl(channels: int, scale: float, shift: float | None = None, **settings: Any) -> Any:
    from diffusers import AutoencoderKL

    vae = AutoencoderKL(
        latent_channels=channels, scaling_factor=scale, shift_factor=shift, sample_size=64, **_four_levels(), **settings
    )
    return _fit_vae(vae, 1 / scale, shift or 0.0)


def _kl_stable() -> Any:
    return _kl(4, 0.18215)


def _kl_xl() -> Any:
    return _kl(4, 0.13025, force_upcast=True)


def _kl_sixteen(scale: float, shift: float) -> Any:
    return _kl(16, scale, shift, use_quant_conv=False, use_post_quant_conv=False)


def _kl_flux() -> Any:
    return _kl_sixteen(0.3611, 0.1159)


def _kl_wan(**settings: Any) -> Any:
    """With the class's own `latents_mean` and `latents_std`, which are those of Wan 2.1."""
    from diffusers import AutoencoderKLWan

    vae = AutoencoderKLWan(base_dim=8, num_res_blocks=1, **settings)
    return _fit_vae(vae, torch.tensor(vae.config.latents_std), torch.tensor(vae.config.latents_mean), gain=1.3)


def _fit_clip_vae(vae: nn.Module, last: nn.Module, std: Tensor | float, mean: Tensor | float = 0.0) -> nn.Module:
    """As `_fit_vae`, by measuring, for other layers: the encoder's `last` gives means, and one variance or as many."""
    randomize(vae)
    first = (
        torch.nn.functional.interpolate(torch.randn(3, 3, 8, 8), size=(64, 64), mode="bicubic").mul(0.5).clamp(-1, 1)
    )
    with torch.no_grad():
        found = vae.encode(first[:, :, None].repeat(1, 1, 9, 1, 1)).latent_dist.mode()
        count, shape = found.shape[1], (-1, 1, 1, 1)
        std, mean = (torch.as_tensor(one).expand(count) for one in (std, mean))
        last.weight[:count] *= std.reshape(-1, *[1] * (last.weight.ndim - 1)) / found.std()
        last.weight[count:] *= 0.01
        last.bias[:count] = mean
        last.bias[count:] = LOG_VARIANCE
        noise = torch.randn(found.shape) * std.reshape(shape) + mean.reshape(shape)
        time = (torch.zeros(3),) if vae.config.get("timestep_conditioning") else ()
        vae.decoder.conv_out.conv.weight *= PICTURE_STD / vae.decode(noise, *time).sample.std()
    return vae


def _kl_ltx(**settings: Any) -> Any:
    from diffusers import AutoencoderKLLTXVideo

    vae = AutoencoderKLLTXVideo(
        latent_channels=16,
        block_out_channels=(8, 16, 16, 16),
        decoder_block_out_channels=(16, 16, 16, 16),
        layers_per_block=(1, 1, 1, 1, 1),
        decoder_layers_per_block=(1, 1, 1, 1, 1),
        **settings,
    )
    vae.latents_mean.copy_(0.1 * torch.randn(16))
    vae.latents_std.copy_(0.75 + 0.5 * torch.rand(16))
    return _fit_clip_vae(vae, vae.encoder.conv_out.conv, vae.latents_std, vae.latents_mean)


def _kl_hunyuan() -> Any:
    from diffusers import AutoencoderKLHunyuanVideo

    vae = AutoencoderKLHunyuanVideo(block_out_channels=(8, 16, 16, 16), layers_per_block=1, norm_num_groups=4)
    return _fit_clip_vae(vae, vae.quant_conv, 1 / vae.config.scaling_factor)


def _kl_qwen() -> Any:
    from diffusers import AutoencoderKLQwenImage

    vae = AutoencoderKLQwenImage(base_dim=8, num_res_blocks=1)
    return _fit_vae(vae, torch.tensor(vae.config.latents_std), torch.tensor(vae.config.latents_mean), gain=math.sqrt(3))


def _kl_flux2() -> Any:
    from diffusers import AutoencoderKLFlux2

    vae = _fit_vae(AutoencoderKLFlux2(latent_channels=32, sample_size=64, **_four_levels()), 1.5)
    vae.bn.running_mean.copy_(0.1 * torch.randn(128))
    vae.bn.running_var.copy_(1.5**2 * (0.75 + 0.5 * torch.rand(128)))
    return vae


def _dc() -> Any:
    from diffusers import AutoencoderDC

    vae = AutoencoderDC(
        latent_channels=32,
        attention_head_dim=8,
        encoder_block_types=("ResBlock", "EfficientViTBlock"),
        decoder_block_types=("ResBlock", "EfficientViTBlock"),
        encoder_block_out_channels=(16, 32),
        decoder_block_out_channels=(16, 32),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        scaling_factor=0.41407,
    )
    randomize(vae)
    with torch.no_grad():
        vae.encoder.conv_out.weight.mul_(0.75)  # by trial: its shortcuts add to what the layers give
        vae.decoder.conv_out.weight.mul_(0.7)
    return vae


def _vq() -> Any:
    from diffusers import VQModel

    vae = VQModel(latent_channels=3, num_vq_embeddings=512, sample_size=64, **_four_levels((8, 16, 16)))
    std = 1 / vae.config.scaling_factor
    _fit_vae(vae, std)
    with torch.no_grad():
        vae.quantize.embedding.weight.mul_(std)
    return vae


# Denoisers ----------------------------------------------------------------------------------------------------------


def _unet2d(channels: int, size: int) -> Any:
    from diffusers import UNet2DModel

    return _fit_unet(
        UNet2DModel(
            sample_size=size,
            in_channels=channels,
            out_channels=channels,
            block_out_channels=(32, 64),
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=8,
            attention_head_dim=16,
        )
    )


def _unet_text(channels: int, text: int, **settings: Any) -> Any:
    from diffusers import UNet2DConditionModel

    shape: dict[str, Any] = {
        "block_out_channels": (32, 64),
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": 4,
    }
    return _fit_unet(
        UNet2DConditionModel(
            sample_size=8,
            in_channels=channels,
            out_channels=4,
            layers_per_block=1,
            norm_num_groups=8,
            cross_attention_dim=text,
            **(shape | settings),
        )
    )


def _unet_xl(channels: int) -> Any:
    return _unet_text(
        channels,
        32 + 48,
        block_out_channels=(32, 48),
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        transformer_layers_per_block=(1, 2),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=6 * 8 + 48,
    )


SD3_SHAPE: dict[str, Any] = {
    "sample_size": 16,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 4,
    "caption_projection_dim": 64,
    "joint_attention_dim": 32 + 48,
    "pooled_projection_dim": 32 + 48,
    "pos_embed_max_size": 32,
}


def _sd3_transformer() -> Any:
    from diffusers import SD3Transformer2DModel

    return randomize(SD3Transformer2DModel(**SD3_SHAPE), gain=1.5)


def _flux_transformer(**settings: Any) -> Any:
    from diffusers import FluxTransformer2DModel

    shape: dict[str, Any] = {"in_channels": 64, "guidance_embeds": True}
    transformer = FluxTransformer2DModel(
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=(4, 6, 6),
        **(shape | settings),
    )
    return randomize(transformer, gain=1.5)


def _wan_transformer(channels: int = 16) -> Any:
    from diffusers import WanTransformer3DModel

    transformer = WanTransformer3DModel(
        in_channels=channels,
        out_channels=channels,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        text_dim=32,
        ffn_dim=128,
        rope_max_seq_len=64,
    )
    return randomize(transformer, gain=1.5)


# Pipelines ----------------------------------------------------------------------------------------------------------


def _ddpm() -> Any:
    from diffusers import DDPMPipeline, DDPMScheduler

    scheduler = DDPMScheduler(
        beta_start=1e-4, beta_end=0.02, beta_schedule="linear", variance_type="fixed_small", clip_sample=True
    )
    return DDPMPipeline(unet=_unet2d(3, 32), scheduler=scheduler)


def _ddim() -> Any:
    from diffusers import DDIMPipeline, DDIMScheduler

    scheduler = DDIMScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=True)
    return DDIMPipeline(unet=_unet2d(3, 32), scheduler=scheduler)


def _ldm() -> Any:
    from diffusers import DDIMScheduler, LDMPipeline

    scheduler = DDIMScheduler(beta_start=0.0015, beta_end=0.0195, beta_schedule="scaled_linear", clip_sample=False)
    return LDMPipeline(vqvae=_vq(), unet=_unet2d(3, 16), scheduler=scheduler)


def _stable(padding: str = CLIP_END, activation: str = "quick_gelu") -> dict[str, Any]:
    return {
        "vae": _kl_stable(),
        "text_encoder": _clip(activation=activation),
        "tokenizer": _clip_tokenizer(padding=padding),
        "safety_checker": None,
        "feature_extractor": None,
        "requires_safety_checker": False,
    }


def _sd15() -> Any:
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(unet=_unet_text(4, 32), scheduler=_pndm(), **_stable())


def _sd21() -> Any:
    from diffusers import DDIMScheduler, StableDiffusionPipeline

    scheduler = DDIMScheduler(**STABLE_BETAS, **STABLE_OFFSETS, clip_sample=False, prediction_type="v_prediction")
    unet = _unet_text(4, 32, use_linear_projection=True, attention_head_dim=(2, 4))
    return StableDiffusionPipeline(unet=unet, scheduler=scheduler, **_stable("!", "gelu"))


def _sd15_inpaint() -> Any:
    from diffusers import StableDiffusionInpaintPipeline

    return StableDiffusionInpaintPipeline(unet=_unet_text(9, 32), scheduler=_pndm(), **_stable())


def _xl() -> dict[str, Any]:
    return {
        "vae": _kl_xl(),
        "text_encoder": _clip(32),
        "text_encoder_2": _clip(48, projected=True, activation="gelu"),
        "tokenizer": _clip_tokenizer(),
        "tokenizer_2": _clip_tokenizer(padding="!"),
        "scheduler": _euler(),
        "add_watermarker": False,
    }


def _sdxl() -> Any:
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline(unet=_unet_xl(4), **_xl())


def _sdxl_inpaint() -> Any:
    from diffusers import StableDiffusionXLInpaintPipeline

    return StableDiffusionXLInpaintPipeline(unet=_unet_xl(9), **_xl())


def _sd3_parts(t5: bool = True) -> dict[str, Any]:
    return {
        "transformer": _sd3_transformer(),
        "scheduler": _flow(shift=3.0),
        "vae": _kl_sixteen(1.5305, 0.0609),
        "text_encoder": _clip(32, projected=True),
        "tokenizer": _clip_tokenizer(),
        "text_encoder_2": _clip(48, projected=True, activation="gelu"),
        "tokenizer_2": _clip_tokenizer(padding="!"),
        "text_encoder_3": _t5(32 + 48) if t5 else None,
        "tokenizer_3": _t5_tokenizer() if t5 else None,
    }


def _sd3(t5: bool = True) -> Any:
    from diffusers import StableDiffusion3Pipeline

    return StableDiffusion3Pipeline(**_sd3_parts(t5))


def _sd3_controlnet_inpaint() -> Any:
    from diffusers import SD3ControlNetModel, StableDiffusion3ControlNetInpaintingPipeline

    shape = SD3_SHAPE | {"num_layers": 1}
    controlnet = randomize(SD3ControlNetModel(**shape, extra_conditioning_channels=1), gain=1.5)
    return StableDiffusion3ControlNetInpaintingPipeline(controlnet=controlnet, **_sd3_parts())


def _flux_parts() -> dict[str, Any]:
    return {
        "vae": _kl_flux(),
        "text_encoder": _clip(32),
        "tokenizer": _clip_tokenizer(),
        "text_encoder_2": _t5(32),
        "tokenizer_2": _t5_tokenizer(),
    }


def _flux_dev() -> Any:
    from diffusers import FluxPipeline

    return FluxPipeline(transformer=_flux_transformer(), scheduler=_flow_dynamic(), **_flux_parts())


def _flux_kontext() -> Any:
    from diffusers import FluxKontextPipeline

    return FluxKontextPipeline(transformer=_flux_transformer(), scheduler=_flow_dynamic(), **_flux_parts())


def flux_control() -> Any:
    """Not among `NAMES`: it is FLUX.1 dev but for what its network reads."""
    from diffusers import FluxControlPipeline

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = _flux_transformer(in_channels=128, out_channels=64)  # latents, and those of the picture
        return _finish(
            FluxControlPipeline(transformer=transformer, scheduler=_flow_dynamic(), **_flux_parts()), "flux_dev"
        )


def _flux_schnell() -> Any:
    from diffusers import FluxPipeline

    scheduler = _flow_dynamic(shift=1.0, use_dynamic_shifting=False)
    return FluxPipeline(transformer=_flux_transformer(guidance_embeds=False), scheduler=scheduler, **_flux_parts())


def _flux_fill() -> Any:
    from diffusers import FluxFillPipeline

    transformer = _flux_transformer(in_channels=64 + 64 + 256, out_channels=64)  # latents, masked picture, mask
    return FluxFillPipeline(transformer=transformer, scheduler=_flow_dynamic(), **_flux_parts())


def _wan() -> Any:
    from diffusers import WanPipeline

    return WanPipeline(
        tokenizer=_t5_tokenizer(),
        text_encoder=_t5(multilingual=True),
        vae=_kl_wan(),
        scheduler=_unipc(3.0),
        transformer=_wan_transformer(),
    )


def _wan22() -> Any:
    from diffusers import WanPipeline

    return WanPipeline(
        tokenizer=_t5_tokenizer(),
        text_encoder=_t5(multilingual=True),
        vae=_kl_wan(),
        scheduler=_unipc(3.0),
        transformer=_wan_transformer(),
        transformer_2=_wan_transformer(),
        boundary_ratio=0.875,
    )


def _wan22_ti2v() -> Any:
    """With means and deviations of the released VAE's size (near 0 and 0.6), not its values."""
    from diffusers import WanPipeline

    vae = _kl_wan(
        z_dim=48,
        in_channels=12,
        out_channels=12,
        patch_size=2,
        is_residual=True,
        scale_factor_spatial=16,
        latents_mean=[round(0.2 * math.sin(channel), 4) for channel in range(48)],
        latents_std=[round(0.6 + 0.2 * math.cos(channel), 4) for channel in range(48)],
    )
    return WanPipeline(
        tokenizer=_t5_tokenizer(),
        text_encoder=_t5(multilingual=True),
        vae=vae,
        scheduler=_unipc(5.0),
        transformer=_wan_transformer(48),
        expand_timesteps=True,
    )


def _qwen_image(kind: str = "") -> Any:
    import diffusers
    from diffusers import QwenImageTransformer2DModel

    transformer = QwenImageTransformer2DModel(
        in_channels=64,
        out_channels=16,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
    )
    processor = _qwen_processor() if kind else None
    tokenizer = processor.tokenizer if kind else _qwen_tokenizer()
    return getattr(diffusers, f"QwenImage{kind}Pipeline")(
        scheduler=_flow_dynamic(shift=1.0, max_shift=0.9, max_image_seq_len=8192, shift_terminal=0.02),
        vae=_kl_qwen(),
        text_encoder=_qwen25_vl(tokenizer),
        tokenizer=tokenizer,
        transformer=randomize(transformer, gain=1.5),
        **({"processor": processor} if kind else {}),
    )


def _z_image() -> Any:
    from diffusers import ZImagePipeline, ZImageTransformer2DModel

    transformer = ZImageTransformer2DModel(
        in_channels=16,
        dim=64,
        n_layers=2,
        n_refiner_layers=1,
        n_heads=4,
        n_kv_heads=4,
        cap_feat_dim=32,
        axes_dims=[4, 6, 6],
        axes_lens=[1024, 64, 64],
    )
    return ZImagePipeline(
        scheduler=_flow(shift=3.0, use_dynamic_shifting=False),
        vae=_kl_flux(),
        text_encoder=_qwen3(causal=False, layers=3),
        tokenizer=_qwen_tokenizer(),
        transformer=randomize(transformer, gain=1.5),
    )


def _flux2_klein() -> Any:
    from diffusers import Flux2KleinPipeline, Flux2Transformer2DModel

    transformer = Flux2Transformer2DModel(
        in_channels=128,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=3 * 32,
        axes_dims_rope=(4, 4, 4, 4),
        guidance_embeds=False,
    )
    return Flux2KleinPipeline(
        scheduler=_flow_dynamic(),
        vae=_kl_flux2(),
        text_encoder=_qwen3(causal=True, layers=28),
        tokenizer=_qwen_tokenizer(),
        transformer=randomize(transformer, gain=1.5),
        is_distilled=False,
    )


def _hidream() -> Any:
    from diffusers import HiDreamImagePipeline, HiDreamImageTransformer2DModel

    transformer = HiDreamImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=16,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=4,
        caption_channels=[32, 32],
        text_emb_dim=32 + 48,
        num_routed_experts=2,
        num_activated_experts=1,
        axes_dims_rope=(8, 4, 4),
        max_resolution=(32, 32),
        llama_layers=[0, 1],
    )
    return HiDreamImagePipeline(
        scheduler=_flow(shift=3.0),
        vae=_kl_flux(),
        text_encoder=_clip(32, projected=True, positions=248),
        tokenizer=_clip_tokenizer(248),
        text_encoder_2=_clip(48, projected=True, positions=218, activation="gelu"),
        tokenizer_2=_clip_tokenizer(218, "!"),
        text_encoder_3=_t5(32),
        tokenizer_3=_t5_tokenizer(),
        text_encoder_4=_llama(),
        tokenizer_4=_llama_tokenizer(),
        transformer=randomize(transformer, gain=1.5),
    )


def _chroma() -> Any:
    from diffusers import ChromaPipeline, ChromaTransformer2DModel

    transformer = ChromaTransformer2DModel(
        in_channels=64,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        axes_dims_rope=(4, 6, 6),
        approximator_num_channels=64,
        approximator_hidden_dim=32,
        approximator_layers=1,
    )
    randomize(transformer, gain=1.5)
    with torch.no_grad():
        transformer.proj_out.weight.div_(2)  # the approximator's scales are not near 1 as those of a linear layer
    return ChromaPipeline(
        scheduler=_flow(shift=3.0),
        vae=_kl_flux(),
        text_encoder=_t5(32),
        tokenizer=_t5_tokenizer(),
        transformer=transformer,
    )


def _aura_flow() -> Any:
    from diffusers import AuraFlowPipeline, AuraFlowTransformer2DModel

    transformer = AuraFlowTransformer2DModel(
        sample_size=16,
        num_mmdit_layers=1,
        num_single_dit_layers=1,
        attention_head_dim=16,
        num_attention_heads=4,
        joint_attention_dim=32,
        caption_projection_dim=64,
        pos_embed_max_size=1024,
    )
    return AuraFlowPipeline(
        tokenizer=_t5_tokenizer(),
        text_encoder=_t5(multilingual=True),
        vae=_kl_xl(),
        transformer=randomize(transformer, gain=3.0),
        scheduler=_flow(shift=1.73),
    )


def _pixart_sigma() -> Any:
    from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline, PixArtTransformer2DModel

    transformer = PixArtTransformer2DModel(
        num_layers=2,
        num_attention_heads=4,
        attention_head_dim=16,
        cross_attention_dim=64,
        caption_channels=32,
        sample_size=16,
        use_additional_conditions=False,
    )
    return PixArtSigmaPipeline(
        tokenizer=_t5_tokenizer(),
        text_encoder=_t5(32),
        vae=_kl_xl(),
        transformer=randomize(transformer, gain=1.5),
        scheduler=DPMSolverMultistepScheduler(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"),
    )


def _lumina2() -> Any:
    from diffusers import Lumina2Pipeline, Lumina2Transformer2DModel

    transformer = Lumina2Transformer2DModel(
        sample_size=16,
        hidden_size=64,
        num_layers=2,
        num_refiner_layers=1,
        num_attention_heads=4,
        num_kv_heads=2,
        multiple_of=16,
        axes_dim_rope=(4, 6, 6),
        axes_lens=(512, 64, 64),
        cap_feat_dim=32,
    )
    return Lumina2Pipeline(
        transformer=randomize(transformer, gain=2.5),
        scheduler=_flow(shift=6.0),
        vae=_kl_flux(),
        text_encoder=_gemma(),
        tokenizer=_llama_tokenizer(),
    )


def _sana() -> Any:
    from diffusers import DPMSolverMultistepScheduler, SanaPipeline, SanaTransformer2DModel

    transformer = SanaTransformer2DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        num_layers=2,
        num_cross_attention_heads=4,
        cross_attention_head_dim=16,
        cross_attention_dim=64,
        caption_channels=32,
        sample_size=32,
    )
    return SanaPipeline(
        tokenizer=_llama_tokenizer(),
        text_encoder=_gemma(),
        vae=_dc(),
        transformer=randomize(transformer, gain=1.5),
        scheduler=DPMSolverMultistepScheduler(use_flow_sigmas=True, prediction_type="flow_prediction", flow_shift=3.0),
    )


def _krea2() -> Any:
    from diffusers import Krea2Pipeline, Krea2Transformer2DModel

    transformer = Krea2Transformer2DModel(
        in_channels=64,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=64,
        timestep_embed_dim=32,
        text_hidden_dim=32,
        num_text_layers=3,
        text_num_attention_heads=4,
        text_num_key_value_heads=2,
        text_intermediate_size=64,
        num_layerwise_text_blocks=1,
        num_refiner_text_blocks=1,
        axes_dims_rope=(4, 6, 6),
    )
    randomize(transformer, gain=2.0)
    with torch.no_grad():
        transformer.final_layer.linear.weight.div_(2)  # whose scales are not near 1
    return Krea2Pipeline(
        scheduler=_flow_dynamic(max_image_seq_len=6400),
        vae=_kl_qwen(),
        text_encoder=_qwen3_vl(),
        tokenizer=_qwen_tokenizer(),
        transformer=transformer,
        text_encoder_select_layers=(1, 2, 3),
    )


def _ideogram4() -> Any:
    from diffusers import Ideogram4Pipeline, Ideogram4Transformer2DModel

    def network() -> Any:
        made = Ideogram4Transformer2DModel(
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=4,
            intermediate_size=64,
            adaln_dim=32,
            llm_features_dim=13 * 32,
            mrope_section=(4, 2, 2),
        )
        return randomize(made, gain=1.5)

    return Ideogram4Pipeline(
        scheduler=_flow(shift=1.0),
        vae=_kl_flux2(),
        text_encoder=_qwen3_vl(36),
        tokenizer=_qwen_tokenizer(),
        transformer=network(),
        unconditional_transformer=network(),
    )


def _kandinsky5(kind: str) -> Any:
    import diffusers
    from tokenizers.pre_tokenizers import ByteLevel

    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=16,
        out_visual_dim=16,
        in_text_dim=32,
        in_text_dim2=32,
        time_dim=32,
        model_dim=64,
        ff_dim=128,
        num_text_blocks=1,
        num_visual_blocks=2,
        axes_dims=(4, 6, 6),
        visual_cond=kind == "T2V",
    )
    randomize(transformer, gain=1.5)
    with torch.no_grad():
        transformer.out_layer.out_layer.weight.div_(2.3)  # whose scales are not near 1
    made = getattr(diffusers, f"Kandinsky5{kind}Pipeline")(
        transformer=transformer,
        vae=_kl_hunyuan() if kind == "T2V" else _kl_flux(),
        text_encoder=None,
        tokenizer=None,
        text_encoder_2=_clip(32),
        tokenizer_2=_clip_tokenizer(),
        scheduler=_flow(shift=5.0),
    )
    words = ByteLevel(add_prefix_space=False).pre_tokenize_str(made.prompt_template)
    processor = _qwen_processor(" ".join(word for word, _ in words))
    made.register_modules(tokenizer=processor, text_encoder=_qwen25_vl(processor.tokenizer))
    return made


def _ltx() -> Any:
    from diffusers import LTXPipeline, LTXVideoTransformer3DModel

    transformer = LTXVideoTransformer3DModel(
        in_channels=16,
        out_channels=16,
        num_attention_heads=4,
        attention_head_dim=16,
        cross_attention_dim=64,
        num_layers=2,
        caption_channels=32,
    )
    shifts = {"base_shift": 0.95, "max_shift": 2.05, "base_image_seq_len": 1024, "shift_terminal": 0.1}
    return LTXPipeline(
        scheduler=_flow_dynamic(shift=1.0, **shifts),
        vae=_kl_ltx(),
        text_encoder=_t5(32),
        tokenizer=_t5_tokenizer(),
        transformer=randomize(transformer, gain=1.5),
    )


def _hunyuan_video() -> Any:
    from diffusers import HunyuanVideoPipeline, HunyuanVideoTransformer3DModel
    from diffusers.pipelines.hunyuan_video.pipeline_hunyuan_video import DEFAULT_PROMPT_TEMPLATE

    transformer = HunyuanVideoTransformer3DModel(
        num_attention_heads=4,
        attention_head_dim=16,
        num_layers=1,
        num_single_layers=1,
        num_refiner_layers=1,
        text_embed_dim=32,
        pooled_projection_dim=32,
        rope_axes_dim=(4, 6, 6),
    )
    words = DEFAULT_PROMPT_TEMPLATE["template"]
    tokenizer = _llama_tokenizer(words, ("<|start_header_id|>", "<|end_header_id|>"))
    return HunyuanVideoPipeline(
        text_encoder=_llama(tokenizer, layers=4),
        tokenizer=tokenizer,
        transformer=randomize(transformer, gain=1.5),
        vae=_kl_hunyuan(),
        scheduler=_flow(shift=7.0),
        text_encoder_2=_clip(32),
        tokenizer_2=_clip_tokenizer(),
    )


def _oobleck(channels: int = 8) -> Any:
    """A VAE of sounds, whose latents have a deviation near one and sounds one near 0.3."""
    from diffusers import AutoencoderOobleck

    vae = AutoencoderOobleck(
        encoder_hidden_size=2 * channels,
        downsampling_ratios=[2, 4, 4],
        channel_multiples=[1, 2, 4],
        decoder_channels=2 * channels,
        decoder_input_channels=channels,
        audio_channels=2,
        sampling_rate=800,
    )
    randomize(vae)
    with torch.no_grad():
        latents = vae.encode(0.3 * torch.randn(1, 2, 2048)).latent_dist
        scale = latents.mean.std((0, 2)).reshape(-1, 1, 1)
        vae.encoder.conv2.weight_g[:channels] /= scale
        vae.encoder.conv2.bias[:channels] /= scale.flatten()
        vae.encoder.conv2.weight_g[channels:] *= 0.1
        vae.encoder.conv2.bias[channels:] = LOG_VARIANCE
        vae.decoder.conv2.weight_g *= 0.3 / vae.decode(torch.randn(1, channels, 64)).sample.std()
    return vae


def _stable_audio() -> Any:
    pytest.importorskip("torchsde", reason="Stable Audio's scheduler needs torchsde, of the extra audio")
    from diffusers import CosineDPMSolverMultistepScheduler, StableAudioDiTModel, StableAudioPipeline
    from diffusers.pipelines.stable_audio import StableAudioProjectionModel

    transformer = StableAudioDiTModel(
        sample_size=64,
        in_channels=8,
        out_channels=8,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=4,
        num_key_value_attention_heads=2,
        cross_attention_dim=32,
        cross_attention_input_dim=32,
        global_states_input_dim=64,
        time_proj_dim=32,
    )
    tokenizer = _t5_tokenizer()
    tokenizer.model_max_length = 32
    return StableAudioPipeline(
        vae=_oobleck(),
        text_encoder=_t5(32),
        projection_model=randomize(StableAudioProjectionModel(32, 32, 0, 512)),
        tokenizer=tokenizer,
        transformer=randomize(transformer, gain=1.5),
        scheduler=CosineDPMSolverMultistepScheduler(solver_order=1),
    )


def _ace_step(*, turbo: bool = False) -> Any:
    from diffusers import (
        AceStepConditionEncoder,
        AceStepPipeline,
        AceStepTransformer1DModel,
        FlowMatchEulerDiscreteScheduler,
    )

    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16, "sliding_window": 16}
    transformer = AceStepTransformer1DModel(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=2,
        in_channels=24,
        audio_acoustic_hidden_dim=8,
        is_turbo=turbo,
        **heads,
    )
    encoder = AceStepConditionEncoder(
        hidden_size=64,
        intermediate_size=64,
        text_hidden_dim=32,
        timbre_hidden_dim=8,
        num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
        **heads,
    )
    encoder.silence_latent.copy_(torch.randn(encoder.silence_latent.shape))
    tokenizer = _qwen_tokenizer()
    return AceStepPipeline(
        vae=_oobleck(),
        text_encoder=_qwen3(causal=False, layers=2),
        tokenizer=tokenizer,
        transformer=randomize(transformer, gain=1.5),
        condition_encoder=randomize(encoder),
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
    )


# Beside a pipeline --------------------------------------------------------------------------------------------------


def controlnets(pipe: Any, count: int = 1, **settings: Any) -> list[Any]:
    """ControlNets that go with a pipeline, drawn like its network."""
    import diffusers

    kind = type(pipe).__name__
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = []
        for _ in range(count):
            if hasattr(pipe, "unet"):
                net = diffusers.ControlNetModel.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8, 8, 8))
            elif kind == "ZImagePipeline":
                shape = {"dim": 64, "n_refiner_layers": 1, "n_heads": 4, "n_kv_heads": 4}
                places = {"control_layers_places": [0], "control_refiner_layers_places": [0], "control_in_dim": 16}
                net = diffusers.ZImageControlNetModel(**(shape | places | settings))
            else:
                own = getattr(
                    diffusers, kind.removesuffix("Pipeline").replace("StableDiffusion3", "SD3") + "ControlNetModel"
                )
                config = dict(pipe.transformer.config)
                taken = inspect.signature(own.__init__).parameters
                net = own(**{name: value for name, value in (config | settings).items() if name in taken})
            made.append(randomize(net, gain=1.5).eval().requires_grad_(False))
    return made


def with_controlnet(pipe: Any, count: int = 1, *, several: bool | None = None, **settings: Any) -> Any:
    """A ControlNet pipeline of a pipeline's parts.

    Args:
        pipe: of a family that has such a class.
        count: of ControlNets.
        several: whether they are in the module of several; by default where they are.
        settings: of the ControlNets.
    """
    import diffusers

    nets = controlnets(pipe, count, **settings)
    own = getattr(diffusers, type(pipe).__name__.replace("Pipeline", "ControlNetPipeline"))
    held: Any = nets if count > 1 or several else nets[0]
    if count > 1 or several:
        part = own.__name__.replace("StableDiffusion3", "SD3").replace("ControlNetPipeline", "MultiControlNetModel")
        held = getattr(diffusers, part, list)(nets)
    more = {"StableDiffusionPipeline": {"requires_safety_checker": False},
            "StableDiffusionXLPipeline": {"add_watermarker": False}}.get(type(pipe).__name__, {})  # fmt: skip
    made = own(**pipe.components, controlnet=held, **more)
    made.set_progress_bar_config(disable=True)
    return made


def with_ip_adapter(pipe: Any) -> Any:
    """The pipeline itself, of Stable Diffusion, SDXL, SD 3 or FLUX.1, with an IP-Adapter in its network."""
    from transformers import CLIPImageProcessor

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        siglip = "StableDiffusion3" in type(pipe).__name__
        encoder = _vision(siglip=siglip).eval().requires_grad_(False)
        if hasattr(pipe, "unet"):
            _adapt_unet(pipe.unet)
        elif siglip:
            _adapt_sd3(pipe.transformer)
        else:
            _adapt_flux(pipe.transformer)
    extractor = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    pipe.register_modules(image_encoder=encoder, feature_extractor=extractor)
    denoiser(pipe).eval().requires_grad_(False)
    return pipe


def _vision(*, siglip: bool) -> Any:
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection, SiglipVisionConfig, SiglipVisionModel

    shape = {"hidden_size": 16, "intermediate_size": 32, "num_attention_heads": 2, "image_size": 32, "patch_size": 16}
    if siglip:
        return SiglipVisionModel(SiglipVisionConfig(num_hidden_layers=2, vision_use_head=False, **shape))
    return CLIPVisionModelWithProjection(CLIPVisionConfig(num_hidden_layers=1, projection_dim=24, **shape))


def _adapt_unet(unet: Any) -> None:
    width = unet.config.cross_attention_dim
    weights: dict[str, Tensor] = {}
    for number, key in enumerate(key for key in unet.attn_processors if "attn2" in key):
        attention = unet.get_submodule(key.removesuffix(".processor"))
        for part in ("k", "v"):
            drawn = torch.randn(attention.inner_dim, width) / math.sqrt(width)
            weights[f"{2 * number + 1}.to_{part}_ip.weight"] = drawn
    unet._load_ip_adapter_weights([{"ip_adapter": weights, "image_proj": _projection(width)}])


def _projection(width: int) -> dict[str, Tensor]:
    return {
        "proj.weight": torch.randn(4 * width, 24) / math.sqrt(24),
        "proj.bias": torch.zeros(4 * width),
        "norm.weight": torch.ones(width),
        "norm.bias": torch.zeros(width),
    }


def _adapt_flux(transformer: Any) -> None:
    width, inner = transformer.config.joint_attention_dim, transformer.inner_dim
    weights: dict[str, Tensor] = {}
    for number in range(len(transformer.transformer_blocks)):
        for part in ("k", "v"):
            weights[f"{number}.to_{part}_ip.weight"] = torch.randn(inner, width) / math.sqrt(width)
            weights[f"{number}.to_{part}_ip.bias"] = torch.zeros(inner)
    transformer._load_ip_adapter_weights([{"ip_adapter": weights, "image_proj": _projection(width)}])


def _adapt_sd3(transformer: Any) -> None:
    from diffusers.models.attention_processor import SD3IPAdapterJointAttnProcessor2_0
    from diffusers.models.embeddings import IPAdapterTimeImageProjection

    width = transformer.config.attention_head_dim * transformer.config.num_attention_heads
    head = transformer.config.attention_head_dim
    transformer.set_attn_processor(
        {
            name: randomize(SD3IPAdapterJointAttnProcessor2_0(width, width, head, 32))
            for name in transformer.attn_processors
        }
    )
    transformer.image_proj = randomize(
        IPAdapterTimeImageProjection(
            embed_dim=16, output_dim=width, hidden_dim=32, depth=1, dim_head=16, heads=2, num_queries=4,
            timestep_in_dim=16,
        )
    )  # fmt: skip


BUILDERS: dict[str, Callable[[], Any]] = {
    "ddpm": _ddpm,
    "ddim": _ddim,
    "ldm": _ldm,
    "sd15": _sd15,
    "sd21": _sd21,
    "sdxl": _sdxl,
    "sd3": _sd3,
    "sd3_no_t5": lambda: _sd3(t5=False),
    "flux_dev": _flux_dev,
    "flux_kontext": _flux_kontext,
    "flux_schnell": _flux_schnell,
    "qwen_image": _qwen_image,
    "qwen_image_edit": lambda: _qwen_image("Edit"),
    "qwen_image_edit_plus": lambda: _qwen_image("EditPlus"),
    "z_image": _z_image,
    "flux2_klein": _flux2_klein,
    "hidream": _hidream,
    "chroma": _chroma,
    "aura_flow": _aura_flow,
    "pixart_sigma": _pixart_sigma,
    "lumina2": _lumina2,
    "sana": _sana,
    "krea2": _krea2,
    "ideogram4": _ideogram4,
    "kandinsky5_image": lambda: _kandinsky5("T2I"),
    "kandinsky5": lambda: _kandinsky5("T2V"),
    "ltx": _ltx,
    "hunyuan_video": _hunyuan_video,
    "wan": _wan,
    "wan22": _wan22,
    "wan22_ti2v": _wan22_ti2v,
    "stable_audio": _stable_audio,
    "ace_step": _ace_step,
    "sd15_inpaint": _sd15_inpaint,
    "sdxl_inpaint": _sdxl_inpaint,
    "flux_fill": _flux_fill,
    "sd3_controlnet_inpaint": _sd3_controlnet_inpaint,
}
