"""What goes over the wire, as pydantic models: the OpenAPI description is made from them."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BaseModel, Field, create_model, model_validator

from paintback.painting.request import MOST_SHOWN, Ask, Asked, Request
from paintback.painting.request import options as asked
from paintback.web.config import Config, Offer
from paintback.web.store import State

__all__ = ["OTHERS", "EntryView", "FieldView", "JobRequest", "JobView", "MethodView", "ModelView", "Options",
           "OutputView", "PictureView", "Problem", "job_view", "options"]  # fmt: skip

MOST = 1000  # steps, and any whole number among a method's fields: a step must end
MOST_DRAWS = 64  # for an answer
LARGEST_SEED = 2**53 - 17  # and some samples more are numbers that JavaScript holds
LARGEST_SIDE = 4096  # that a model with a VAE is asked to paint at
ID = r"^[0-9a-f]{32}$"
Id = Annotated[str, Field(pattern=ID)]


class Problem(BaseModel):
    """What went wrong, in one sentence."""

    detail: str


class _Posted(Asked):
    """What a client may ask for: a request, with ids of pictures in place of paths.

    What a PNG carries may be sent as it is once `photo`, `mask` and `reference_images` are ids: entries of other entry
    points, such as the device, are the server's own and are not looked at.
    """

    @model_validator(mode="before")
    @classmethod
    def _of_others(cls, data: Any) -> Any:
        if not isinstance(data, Mapping):
            return data
        return {name: value for name, value in data.items() if name in cls.model_fields or name not in OTHERS}

    @property
    def listed(self) -> int | None:
        """As `Request` has it, of whose entries a job is made."""
        count: int | None = Request.listed.fget(self)  # type: ignore[attr-defined]
        return count


OTHERS = frozenset(one.name for one in asked(Request) if "http" not in one.where)
if TYPE_CHECKING:
    JobRequest = Request
else:
    JobRequest = create_model(
        "JobRequest",
        __base__=_Posted,
        __doc__=_Posted.__doc__,
        **{name: (entry.annotation, entry) for name, entry in Request.model_fields.items() if name not in OTHERS}
        | {
            "photo": (Annotated[Id, Ask("file")], Field(description="Id of the picture.")),
            "seed": (
                Annotated[int | None, Ask("everyday")],
                Field(0, ge=-1, le=LARGEST_SEED, description=Request.model_fields["seed"].description),
            ),
            "mask": (
                Annotated[Id | Literal["alpha"] | None, Ask("file")],
                Field(None, description='Id of the mask (white = repaint), or "alpha".'),
            ),
            "reference_images": (
                Annotated[tuple[Id, ...] | None, Ask("advanced")],
                Field(None, max_length=MOST_SHOWN, description="Ids of pictures to go by, for models that learnt to."),
            ),
        },
    )


class PictureView(BaseModel):
    """A picture that the server keeps."""

    id: Id
    name: str
    width: int
    height: int
    grey: bool
    transparent: bool
    bits: int
    settings: dict[str, Any] | None = Field(None, description="What a PNG of Paintback was made with.")


class OutputView(BaseModel):
    """One sample."""

    number: int
    picture: Id
    seed: int
    evaluations: float
    vjps: float
    seconds: float
    peak_memory_bytes: int | None
    stopped: bool


class ProgressView(BaseModel):
    """How far a running job is."""

    sample: int
    samples: int
    step: int
    steps: int
    fraction: float
    seconds: float
    left: float | None
    note: str | None = Field(description="What it waits for.")


class JobView(BaseModel):
    """A job and what has come of it."""

    id: Id
    state: State
    ahead: int = Field(description="Jobs that come before it.")
    created: float
    started: float | None
    finished: float | None
    error: str | None
    request: JobRequest = Field(description="With everything filled in that was left open.")
    outputs: list[OutputView]
    progress: ProgressView | None
    spread: Id | None = Field(description="Picture of where the samples disagree.")
    spread_largest: float | None = Field(description="The deviation that its brightest colour stands for.")


class FieldView(BaseModel):
    """A field of a method."""

    name: str
    type: Literal["bool", "int", "float", "number", "choice"]
    default: bool | int | float | str | None
    low: float | None
    high: float | None
    choices: list[str]
    help: str


class EntryView(BaseModel):
    """An entry of a job, as `Request` says it: what the page makes its form of."""

    name: str
    kind: Literal["text", "int", "float", "flag", "choice", "sides", "fields", "files"]
    default: Any
    nullable: bool
    low: float | None
    above: float | None
    high: float | None
    choices: list[str]
    pattern: str | None
    help: str
    group: Literal["file", "everyday", "advanced", "machine", "record"]


class MethodView(BaseModel):
    """A method."""

    name: str
    family: str | None
    title: str
    paper: str
    gradients: bool = Field(description="Whether it needs gradients through the network, which take time and memory.")
    docs: str
    fields: list[FieldView]


class ModelView(BaseModel):
    """A model that may be asked for."""

    name: str
    title: str
    takes_text: bool
    trained: bool = Field(description="Whether it takes the mask itself, and no method.")
    grey: bool
    method: str = Field(description="What it is sampled with best.")
    fields: dict[str, Any]
    steps: int
    without: list[str] = Field(description="Entries of a job that it takes none of.")


class LimitsView(BaseModel):
    """What the server takes."""

    upload_bytes: int
    pixels: int
    samples: int
    waiting_per_client: int
    steps: int = MOST


class FamilyView(BaseModel):
    """Methods that are much alike."""

    name: str
    title: str
    help: str = Field(description="What they do, in plain words.")


class Options(BaseModel):
    """What there is to choose from."""

    version: str
    models: list[ModelView]
    families: list[FamilyView] = Field(description="Of methods, in the order in which they are offered.")
    mask_names: str = Field(description="What a mask's name without its suffix is like, its picture's as `stem`.")
    methods: list[MethodView]
    entries: list[EntryView] = Field(description="Of a job, in the order in which they are offered.")
    limits: LimitsView


def options(config: Config) -> Options:
    """What there is to choose from; torch is imported."""
    from paintback import __version__, methods
    from paintback.batch.pairs import NAMED
    from paintback.methods.base import FAMILIES
    from paintback.models.catalogue import recommended

    models = []
    for offer in config.models.values():
        own = recommended(offer.source)
        models.append(
            ModelView(
                name=offer.name,
                title=offer.title,
                takes_text=offer.takes_text,
                trained=offer.trained,
                grey=offer.grey,
                method=own.method,
                fields=own.fields,
                steps=own.num_inference_steps,
                without=list(_without(offer)),
            )
        )
    kinds = [
        MethodView(
            name=kind.name,
            family=kind.family,
            title=kind.title,
            paper=kind.paper,
            gradients=kind.needs_vjp,
            docs=(sys.modules[kind.__module__].__doc__ or "").strip(),
            fields=_fields(kind),
        )
        for kind in methods.types().values()
    ]
    limits = {name: getattr(config.limits, name) for name in LimitsView.model_fields if name != "steps"}
    return Options(
        version=__version__,
        models=models,
        families=[FamilyView(name=name, title=title, help=line) for name, (title, line) in FAMILIES.items()],
        mask_names=NAMED.pattern.replace("(?P<", "(?<"),  # as JavaScript writes it
        methods=kinds,
        entries=entries(),
        limits=LimitsView(**limits),
    )


def entries() -> list[EntryView]:
    """What a job may say, in the order of `Request`."""
    return [
        EntryView(**{name: getattr(one, name) for name in EntryView.model_fields})
        for one in asked(Request)
        if one.name in JobRequest.model_fields
    ]


def _without(offer: Offer) -> tuple[str, ...]:
    """Entries that a model is known to take none of, before it is loaded."""
    from paintback.models.catalogue import find, is_pipeline, takes_references

    text = () if offer.takes_text else ("prompt", "negative_prompt", "guidance", "true_cfg_scale")
    if offer.trained:
        return (*text, "method", "fields", "latent_mask", "leaky_encoding", "step_distilled", "reference_images")
    pixels = (
        ("height", "width", "latent_mask", "leaky_encoding", "match_colour") if find(offer.source) is not None else ()
    )
    few: tuple[str, ...] = () if is_pipeline(offer.source) else ("step_distilled",)
    few += () if takes_references(offer.source) else ("reference_images",)
    return (*text, *pixels, *(("true_cfg_scale",) if pixels and not text else ()), *few)


def _fields(kind: Any) -> list[FieldView]:
    """The fields that may be set from outside: none that takes a path or another text."""
    found = []
    for entry in dataclasses.fields(kind):
        meta, default = entry.metadata, entry.default
        choices = list(meta.get("choices", ()))
        name = "choice" if choices else "number" if default is None else type(default).__name__
        if name not in ("choice", "number", "bool", "int", "float") or (name == "number" and "path" in meta["help"]):
            continue
        high = meta.get("high")
        if name == "int":
            high = min(MOST, high) if high is not None else MOST
        found.append(
            FieldView.model_validate(
                {
                    "name": entry.name,
                    "type": name,
                    "default": default,
                    "low": meta.get("low"),
                    "high": high,
                    "choices": choices,
                    "help": meta.get("help", ""),
                }
            )
        )
    return found


def check_fields(methods: list[MethodView], method: str, values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request's method, refused where they are none that may be set from outside.

    Args:
        methods: that there are.
        method: the name of the one.
        values: of its fields.

    Raises:
        ValueError: in one sentence.
    """
    kind = next((one for one in methods if one.name == method), None)
    if kind is None:
        raise ValueError(f"There is no method {method!r}; choose one of {', '.join(one.name for one in methods)}.")
    known = {entry.name: entry for entry in kind.fields}
    good = {}
    for name, value in values.items():
        entry = known.get(name)
        if entry is None:
            if value is None:  # what a PNG of a default run carries
                continue
            raise ValueError(f"{method} has no field {name!r} here; it has {', '.join(known)}.")
        if entry.type == "choice":
            if value is not None and (not isinstance(value, str) or value not in entry.choices):
                raise ValueError(f"{name} must be one of {', '.join(entry.choices)}; got {value!r}.")
        elif not isinstance(value, bool | int | float) and (value is not None or entry.default is not None):
            raise ValueError(f"{name} must be a number or a switch; got {value!r}.")
        elif value is not None and not isinstance(value, bool) and not abs(value) <= 1e9:
            raise ValueError(f"{name} is out of range; got {value!r}.")
        elif entry.type == "int" and entry.high is not None and value is not None and value > entry.high:
            raise ValueError(f"{name} must be at most {entry.high:g}; got {value!r}.")
        if entry.type in ("float", "number") and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        good[name] = value
    return good


def job_view(row: dict[str, Any], progress: Any = None) -> JobView:
    """A job's row, and its progress where it runs; entries of another version are left alone."""
    names = ProgressView.model_fields
    return JobView(
        **{name: row[name] for name in JobView.model_fields if name in row and name not in ("outputs", "request")},
        request=JobRequest(
            **{name: value for name, value in row["request"].items() if name in JobRequest.model_fields}
        ),
        outputs=[OutputView(**output) for output in row["outputs"]],
        progress=None if progress is None else ProgressView(**{name: getattr(progress, name) for name in names}),
    )
