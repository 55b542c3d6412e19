"""What can be asked of Paintback, said once: names, types, limits, defaults, help texts, and where each may be asked.

To add an option, add one annotated field to `Request`:

    warmth: Annotated[float, Field(ge=0, le=1, description="How warm the colours are."), Ask()] = 0.5

It is then an option of the command line (`--warmth`), a column of manifests, an entry of the HTTP API and of the page's
form, part of the settings in every PNG, and a keyword of `pb.inpaint` and of `Request` in Python, because all of these
read `options(Request)`, `Request.model_json_schema()` or the model itself. `Ask` says what is otherwise: another flag,
a keyword that diffusers has another name for, or that it belongs to some entry points alone. What is left to do is to
use the value, in `painting` or `tasks`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import ConfigDict, Field, WithJsonSchema, field_serializer, field_validator
from pydantic.json_schema import SkipJsonSchema

from paintback.painting.asking import NUMBER, Ask, Asked, Option, options, sentence

__all__ = [
    "ALPHA",
    "LARGEST_SEED",
    "QUALITIES",
    "Ask",
    "Asked",
    "AudioRequest",
    "LayersRequest",
    "Option",
    "Quality",
    "Request",
    "SuperresRequest",
    "numbers",
    "options",
    "sentence",
]

ALPHA = "alpha"  # in place of a mask: the picture's transparency
LARGEST_SEED = 2**63 - 1
MOST_SHOWN = 16  # reference pictures of a request
SECONDS = r"[0-9.][0-9.eE+-]*:[0-9.][0-9.eE+-]*"
HOLES = rf"^{SECONDS}(,{SECONDS})*$"
NUMBERS = rf"^{NUMBER}(,{NUMBER})*$"
GRIDS = rf"^(model|uniform|karras|log_snr|{NUMBER}(,{NUMBER})*)$"
MASK_KINDS = r"^(auto|alpha|white|black|nonzero|colou?r=#([0-9a-fA-F]{3}|[0-9a-fA-F]{6}))$"

Quality = Literal["fast", "good", "best"]
QUALITIES: tuple[str, ...] = get_args(Quality)


def numbers(text: str) -> list[float] | None:
    """The numbers of a list with commas between; None for a name."""
    return [float(part) for part in text.split(",")] if text[0].isdigit() else None


# What several requests share.
Side = Annotated[int, Field(ge=0, le=65_536)]
Photo = Annotated[
    str | None, Field(min_length=1, description="Path or URL of the picture."), Ask("file", python="image")
]
ModelName = Annotated[
    str,
    Field(min_length=1, max_length=4096, description="A name from `paintback models`, a path or a Hub id."),
    Ask("everyday", where=frozenset({"cli", "http"})),
]
Text = Annotated[
    str | None, Field(max_length=10_000, description="What to paint, for models that read text."), Ask("everyday")
]
NegativeText = Annotated[
    str | None, Field(max_length=10_000, description="What not to paint, likewise."), Ask("everyday")
]
Samples = Annotated[
    int,
    Field(ge=1, le=10_000, description="How many answers, each with a seed of its own."),
    Ask("everyday", python="num_images_per_prompt", where=frozenset({"python", "cli", "http"})),
]
Seed = Annotated[
    int | None,
    Field(
        ge=-1,
        le=LARGEST_SEED,
        description="Of the first sample, the next have seed + 1, ...; -1 or none for a random one.",
    ),
    Ask("everyday", python="generator"),
]
Fields = Annotated[
    dict[str, Any],
    Field(description="The method's fields, by name."),
    Ask("advanced", flag="--set", metavar="NAME=VALUE"),
]
Steps = Annotated[
    int | None,
    Field(ge=1, le=100_000, description="Sampling steps; none for what quality and model say."),
    Ask("advanced", python="num_inference_steps"),
]
Guidance = Annotated[
    float | None,
    Field(ge=0, le=1000, description="Scale of classifier-free guidance; none for the model's own."),
    Ask("advanced", python="guidance_scale"),
]
Device = Annotated[
    str | None,
    Field(min_length=1, max_length=100, description="cpu, cuda, mps; none for cuda where there is one."),
    Ask("machine", where=frozenset({"cli"})),
]
Dtype = Annotated[
    Literal["float32", "bfloat16", "float16"] | None,
    Field(description="Of the network; none for the model's own, on CUDA bfloat16 or float16 for pipelines."),
    Ask("machine", where=frozenset({"cli"})),
]
Offloading = Annotated[
    Literal["none", "model", "group", "sequential"] | None,
    Field(description="Which modules of a pipeline wait in the host's memory; none of them where this is left out."),
    Ask("machine", where=frozenset({"cli"})),
]
Distilled = Annotated[
    Literal["yes", "no"] | None,
    Field(
        description="Whether the model was trained to paint in a few steps; as its name says where this is left out."
    ),
    Ask("machine", where=frozenset({"cli", "manifest", "http"})),
]
Threads = Annotated[
    int | None, Field(ge=1, le=4096, description="CPU threads."), Ask("machine", where=frozenset({"cli"}))
]
Hashes = Annotated[
    dict[str, str], Field(description="Of the files; filled in by the run."), Ask("record", where=frozenset())
]
Versions = Annotated[
    dict[str, str], Field(description="Of the packages; filled in by the run."), Ask("record", where=frozenset())
]
Embedding = Annotated[
    SkipJsonSchema[Any],
    Field(exclude=True, description="In place of the text, as the model's pipeline makes it."),
    Ask("record", where=frozenset({"python"})),
]

Told = Annotated[
    SkipJsonSchema[Any],
    Field(exclude=True, description="For pipelines that have it, as diffusers does."),
    Ask("record", where=frozenset({"python"})),
]
Other = Annotated[
    str | None,
    Field(max_length=10_000, description="For a pipeline's further text encoder; none for the same as the first."),
    Ask("advanced", where=frozenset({"python", "cli"})),
]


class Request(Asked):
    """One wish: what is to be painted, and how.

    Every entry point takes these entries; the head of the file says how to add one. An explicit `method`, `steps`,
    `samples` or `average` beats `quality`. Where neither `mask` nor `outpaint` says what is missing, there is nothing
    to do, and `check_files` says so.
    """

    model_config = ConfigDict(json_schema_extra={"required": ["photo"]})

    photo: Photo = None
    mask: Annotated[
        str | None,
        Field(min_length=1, description='Path or URL of the mask (white = repaint), or "alpha".'),
        Ask("file", python="mask_image"),
    ] = None
    mask_is: Annotated[
        str | None,
        Field(
            pattern=MASK_KINDS,
            description="Which part of the mask is repainted: auto, alpha, white, black, nonzero or colour=#RRGGBB.",
        ),
        Ask("everyday", metavar="WHAT"),
    ] = None
    model: ModelName = "photo"
    quality: Annotated[
        Quality,
        Field(
            description="fast: at most ten evaluations; good: the model's recommended sampler, averaged in thin holes; "
            "best: eight draws of it."
        ),
        Ask("everyday"),
    ] = "good"
    prompt: Text = None
    negative_prompt: NegativeText = None
    samples: Samples = 1
    seed: Seed = 0
    grow: Annotated[
        float,
        Field(ge=-8192, le=8192, description="Pixels to grow the mask by; below 0 it shrinks."),
        Ask(python="mask_grow"),
    ] = 0.0
    blur: Annotated[
        float, Field(ge=0, le=8192, description="Pixels over which the seam is blended."), Ask(python="mask_blur")
    ] = 0.0
    match_colour: Annotated[
        bool,
        Field(
            description="Bring the colours of what a model with a VAE paints to those around the hole, where its VAE "
            "shifts them."
        ),
        Ask("advanced"),
    ] = True
    outpaint: Annotated[
        tuple[Side, Side, Side, Side],
        Field(description="Pixels to add left, top, right and bottom; the mask may then be left out."),
        Ask(metavar="L,T,R,B"),
    ] = (0, 0, 0, 0)
    method: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=100,
            description="A name from `paintback methods`, or trained; none for the model's own.",
        ),
        Ask("advanced"),
    ] = None
    fields: Fields = {}  # noqa: RUF012 - copied by pydantic
    thin_method: Annotated[
        str | None,
        Field(
            min_length=1,
            max_length=200,
            description="NAME:FIELD=VALUE... in place of `method` where the hole is thin, for models of pixels; none "
            "for the model's own, or for `method` where that is named.",
        ),
        Ask("advanced", metavar="TEXT"),
    ] = None
    steps: Steps = None
    timesteps: Annotated[
        str | None,
        Field(
            max_length=20_000,
            pattern=NUMBERS,
            description="The model's own timesteps in place of steps, falling, with commas between.",
        ),
        Ask("advanced", metavar="T,T,..."),
    ] = None
    sigmas: Annotated[
        str | None,
        Field(
            max_length=20_000,
            pattern=NUMBERS,
            description="Noise levels as the model's scheduler takes them, in place of steps, falling, likewise.",
        ),
        Ask("advanced", metavar="S,S,..."),
    ] = None
    grid: Annotated[
        str | None,
        Field(
            max_length=20_000,
            pattern=GRIDS,
            description="How the steps are spaced: model (as its scheduler does), uniform, karras, log_snr, or times "
            "falling from at most 1; none for the method's own.",
        ),
        Ask("advanced", metavar="NAME"),
    ] = None
    average: Annotated[
        int | None,
        Field(
            ge=1,
            le=1000,
            description="Draws whose mean is the answer, best for thin holes; none for what quality says.",
        ),
        Ask("advanced"),
    ] = None
    strength: Annotated[
        float,
        Field(
            gt=0,
            le=1,
            description="Below 1 the hidden part is not forgotten: it is noised to this fraction of the steps.",
        ),
        Ask("advanced"),
    ] = 1.0
    guidance: Guidance = None
    reference_images: Annotated[
        tuple[Annotated[Any, WithJsonSchema({"type": "string", "minLength": 1})], ...] | None,
        Field(
            max_length=MOST_SHOWN,
            description="A picture to go by, or several, for models that learnt to; often the one that is painted in.",
        ),
        Ask("advanced", flag="--reference", metavar="FILE"),
    ] = None
    true_cfg_scale: Annotated[
        float | None,
        Field(
            ge=0, le=1000, description="Of guidance by two calls, for models whose guidance is an input of the network."
        ),
        Ask("advanced", flag="--true-cfg"),
    ] = None
    prompt_2: Other = None
    prompt_3: Other = None
    negative_prompt_2: Other = None
    negative_prompt_3: Other = None
    clip_skip: Annotated[
        int | None,
        Field(ge=0, le=100, description="Last layers of CLIP that are left out; none for the pipeline's own."),
        Ask("advanced", where=frozenset({"python", "cli"})),
    ] = None
    max_sequence_length: Annotated[
        int | None,
        Field(ge=1, le=10_000, description="Tokens of a prompt; none for the pipeline's own."),
        Ask("advanced", where=frozenset({"python", "cli"})),
    ] = None
    guidance_rescale: Annotated[
        float | None,
        Field(ge=0, le=1, description="Share of the guided output that is scaled to the deviation without guidance."),
        Ask("advanced", where=frozenset({"python", "cli"})),
    ] = None
    padding: Annotated[
        int | None,
        Field(
            ge=0,
            le=65_536,
            description="Pixels of context around the hole that are looked at; none for the model's own.",
        ),
        Ask("advanced", python="padding_mask_crop"),
    ] = None
    height: Annotated[
        int | None, Field(ge=1, le=65_536, description="Height to paint at, for models with a VAE."), Ask("advanced")
    ] = None
    width: Annotated[
        int | None, Field(ge=1, le=65_536, description="Width to paint at, likewise."), Ask("advanced")
    ] = None
    latent_mask: Annotated[
        Literal["all", "majority", "any"],
        Field(description="Which cells of a VAE count as known: those of which all, most or any pixels are."),
        Ask("advanced"),
    ] = "all"
    leaky_encoding: Annotated[
        bool,
        Field(description="Encode the picture with what the mask hides, as some papers do; the model then knows it."),
        Ask("advanced"),
    ] = False
    guidance_2: Annotated[
        float | None,
        Field(ge=0, le=1000, description="Guidance of a second network for low noise; none for the same as the first."),
        Ask("advanced", python="guidance_scale_2", where=frozenset({"python", "cli"}), clips=True),
    ] = None
    window: Annotated[
        int | None,
        Field(ge=1, description="Frames of a clip that are painted together; none for the model's own."),
        Ask("advanced", where=frozenset({"python", "cli"}), clips=True),
    ] = None
    overlap: Annotated[
        int,
        Field(ge=1, description="Frames that a window of a clip shares with the one before."),
        Ask("advanced", where=frozenset({"python", "cli"}), clips=True),
    ] = 17
    device: Device = None
    dtype: Dtype = None
    offload: Offloading = None
    step_distilled: Distilled = None
    threads: Threads = None
    sha256: Hashes = {}  # noqa: RUF012
    versions: Versions = {}  # noqa: RUF012
    prompt_embeds: Embedding = None
    negative_prompt_embeds: Embedding = None
    pooled_prompt_embeds: Embedding = None
    negative_pooled_prompt_embeds: Embedding = None
    prompt_attention_mask: Embedding = None
    negative_prompt_attention_mask: Embedding = None
    prompt_embeds_mask: Embedding = None
    negative_prompt_embeds_mask: Embedding = None
    prompt_embeds_t5: Embedding = None
    negative_prompt_embeds_t5: Embedding = None
    prompt_embeds_llama3: Embedding = None
    negative_prompt_embeds_llama3: Embedding = None
    cross_attention_kwargs: Told = None
    joint_attention_kwargs: Told = None
    attention_kwargs: Told = None
    ip_adapter_image: Told = None
    ip_adapter_image_embeds: Told = None
    control_image: Told = None
    controlnet_conditioning_scale: Told = None
    control_guidance_start: Told = None
    control_guidance_end: Told = None
    control_mode: Told = None
    guess_mode: Told = None
    skip_guidance_layers: Told = None
    skip_layer_guidance_scale: Told = None
    skip_layer_guidance_start: Told = None
    skip_layer_guidance_stop: Told = None

    @field_validator("timesteps", "sigmas", "grid", mode="before")
    @classmethod
    def _listed(cls, value: Any) -> Any:
        """Lists of numbers, arrays and tensors as text."""
        if hasattr(value, "tolist"):
            value = value.tolist()
        if isinstance(value, list | tuple) and value and all(isinstance(one, int | float) for one in value):
            return ",".join(repr(one) for one in value)
        return value

    @field_validator("reference_images", mode="before")
    @classmethod
    def _several(cls, value: Any) -> Any:
        """One picture as a list of one, which only Python may give as something else than its path."""
        pictures = value if isinstance(value, tuple) else (value,)
        if value is None or not pictures:
            return None
        wrong = [
            one
            for one in pictures
            if one is None or isinstance(one, int | float | dict) or (isinstance(one, str) and not one)
        ]
        if wrong:
            raise ValueError(f"reference_images must be pictures or their paths; got {wrong[0]!r}.")
        return pictures

    @field_serializer("reference_images", when_used="json")
    def _paths(self, value: tuple[Any, ...] | None) -> list[str] | None:
        """The paths, where all are; other pictures live in Python alone."""
        return list(value) if value and all(isinstance(one, str) for one in value) else None

    @property
    def listed(self) -> int | None:
        """The intervals of the times that `grid`, `timesteps` or `sigmas` lists; None where none does."""
        for text in (self.grid, self.timesteps, self.sigmas):
            if text is not None and (values := numbers(text)):
                return len(values) - (len(values) > 1 and values[-1] == 0 and self.timesteps is None)
        return None

    def check_files(self) -> None:
        """Refuses a request that names no photo, or nothing to paint.

        Raises:
            ValueError: in one sentence.
        """
        if self.photo is None:
            raise ValueError("The job names no photo; give its path.")
        if self.mask is None and not any(self.outpaint):
            raise ValueError("The job names neither a mask nor outpaint; give one of them.")


class SuperresRequest(Asked):
    """One picture to be enlarged: what `paintback superres` takes, and its settings in a PNG."""

    model_config = ConfigDict(json_schema_extra={"required": ["photo"]})

    photo: Photo = None
    scale: Annotated[int, Field(ge=2, le=8, description="Times the sides."), Ask("everyday")] = 2
    model: ModelName = "photo"
    prompt: Text = None
    negative_prompt: NegativeText = None
    samples: Samples = 1
    seed: Seed = 0
    kernel: Annotated[
        Literal["bicubic", "area"], Field(description="How the photo was made smaller."), Ask("everyday")
    ] = "bicubic"
    sigma: Annotated[float, Field(ge=0, le=10, description="Noise in the photo: its std, white = 1."), Ask()] = 0.0
    method: Annotated[
        str, Field(min_length=1, max_length=100, description="A method that takes operators."), Ask("advanced")
    ] = "fcs"
    fields: Fields = {}  # noqa: RUF012
    steps: Steps = None
    guidance: Guidance = None
    project: Annotated[
        bool, Field(description="Move a noiseless sample so that made smaller it is the photo."), Ask("advanced")
    ] = True
    tile: Annotated[
        int | None,
        Field(ge=8, le=65_536, description="Side of the tiles that the network sees; none for the model's own."),
        Ask("advanced"),
    ] = None
    device: Device = None
    dtype: Dtype = None
    offload: Offloading = None
    step_distilled: Distilled = None
    threads: Threads = None
    sha256: Hashes = {}  # noqa: RUF012
    versions: Versions = {}  # noqa: RUF012


class LayersRequest(Asked):
    """One picture to be taken apart: what `paintback layers` takes, and its settings in a PNG."""

    model_config = ConfigDict(json_schema_extra={"required": ["photo"]})

    photo: Photo = None
    prompt_1: Annotated[
        str | None, Field(max_length=10_000, description="What layer 1 shows, for models that read text."), Ask()
    ] = None
    prompt_2: Annotated[str | None, Field(max_length=10_000, description="What layer 2 shows, likewise."), Ask()] = None
    model: ModelName = "photo"
    seed: Seed = 0
    fields: Fields = {}  # noqa: RUF012
    steps: Steps = 20
    guidance: Guidance = None
    device: Device = None
    dtype: Dtype = None
    offload: Offloading = None
    step_distilled: Distilled = None
    threads: Threads = None
    sha256: Hashes = {}  # noqa: RUF012
    versions: Versions = {}  # noqa: RUF012


class AudioRequest(Asked):
    """One sound with missing seconds: what `paintback audio` takes, and the settings in its JSON."""

    model_config = ConfigDict(json_schema_extra={"required": ["sound", "hole", "model"]})

    sound: Annotated[str | None, Field(min_length=1, description="Path of the WAV file."), Ask("file")] = None
    hole: Annotated[
        str | None,
        Field(max_length=100_000, pattern=HOLES, description="START:END in seconds, with commas between several."),
        Ask("file"),
    ] = None
    model: Annotated[
        str | None,
        Field(min_length=1, max_length=4096, description="A pipeline of sounds: its folder or Hub id."),
        Ask("everyday", where=frozenset({"cli"})),
    ] = None
    prompt: Text = None
    negative_prompt: NegativeText = None
    samples: Annotated[
        int,
        Field(ge=1, le=10_000, description="How many answers, each with a seed of its own."),
        Ask("everyday", where=frozenset({"cli"})),
    ] = 1
    seed: Seed = 0
    fade: Annotated[
        float,
        Field(ge=0, le=10_000, description="Milliseconds inside the hole over which its ends are joined."),
        Ask("everyday"),
    ] = 10.0
    lyrics: Annotated[str | None, Field(max_length=100_000, description="Of the song, for ACE-Step."), Ask()] = None
    vocal_language: Annotated[
        str | None, Field(max_length=100, description="Of the lyrics, such as en; likewise."), Ask()
    ] = None
    bpm: Annotated[int | None, Field(ge=1, le=1000, description="Beats a minute; likewise."), Ask()] = None
    keyscale: Annotated[str | None, Field(max_length=100, description='Such as "C major"; likewise.'), Ask()] = None
    timesignature: Annotated[str | None, Field(max_length=100, description="Such as 4; likewise."), Ask()] = None
    method: Annotated[
        str | None,
        Field(min_length=1, max_length=100, description="A name from `paintback methods`; none for the model's own."),
        Ask("advanced"),
    ] = None
    fields: Fields = {}  # noqa: RUF012
    steps: Steps = None
    guidance: Guidance = None
    device: Device = None
    dtype: Dtype = None
    offload: Offloading = None
    step_distilled: Distilled = None
    threads: Threads = None
    sha256: Hashes = {}  # noqa: RUF012
    versions: Versions = {}  # noqa: RUF012
