"""What goes over the wire, as pydantic models: the OpenAPI description is made from them."""

from __future__ import annotations

import dataclasses
import sys
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from paintback.web.config import Config
from paintback.web.store import State

__all__ = ["FieldView", "JobRequest", "JobView", "MethodView", "ModelView", "Options", "OutputView", "PictureView",
           "Problem", "job_view", "options"]  # fmt: skip

MOST = 1000  # of any whole number among a method's fields: a step must end
ID = r"^[0-9a-f]{32}$"
Id = Annotated[str, Field(pattern=ID)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Margin = Annotated[int, Field(ge=0, le=8192)]


class Problem(BaseModel):
    """What went wrong, in one sentence."""

    detail: str


class JobRequest(BaseModel):
    """The job as everywhere in Paintback, with ids of pictures in place of paths, and how many samples.

    What a PNG carries may be sent as it is once `photo` and `mask` are ids: device, dtype and threads are the server's
    own, sha256 and versions are written down anew.
    """

    model_config = ConfigDict(extra="forbid")

    photo: Id = Field(description="Id of the picture.")
    mask: Id | Literal["alpha"] | None = Field(None, description="Id of the mask, white = repaint; or its alpha.")
    model: Annotated[str, Field(max_length=200)] = Field("photo", description="A name from /api/options.")
    method: Annotated[str, Field(max_length=50)] | None = Field(None, description="None for the model's own.")
    fields: dict[str, bool | int | Finite | str | None] = Field(default_factory=dict, description="Of the method.")
    steps: Annotated[int, Field(ge=1, le=MOST)] | None = Field(None, description="Grid intervals.")
    seed: Annotated[int, Field(ge=0, le=2**53 - 17)] | None = Field(
        None, description="Of the first sample, the next have seed + 1, ...; None for a random one."
    )
    samples: Annotated[int, Field(ge=1, le=64)] = 1
    prompt: Annotated[str, Field(max_length=4000)] | None = None
    negative_prompt: Annotated[str, Field(max_length=4000)] | None = None
    guidance: Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)] | None = None
    grow: Annotated[float, Field(ge=-500, le=500, allow_inf_nan=False)] = 0
    blur: Annotated[float, Field(ge=0, le=500, allow_inf_nan=False)] = 0
    outpaint: tuple[Margin, Margin, Margin, Margin] = Field((0, 0, 0, 0), description="Left, top, right, bottom.")
    height: Annotated[int, Field(ge=1, le=4096)] | None = None
    width: Annotated[int, Field(ge=1, le=4096)] | None = None
    device: Annotated[str, Field(max_length=50)] | None = Field(None, description="Not looked at.")
    dtype: Annotated[str, Field(max_length=50)] | None = Field(None, description="Not looked at.")
    threads: int | None = Field(None, description="Not looked at.")
    sha256: dict[str, str] = Field(default_factory=dict, description="Not looked at.")
    versions: dict[str, str] = Field(default_factory=dict, description="Not looked at.")


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


class MethodView(BaseModel):
    """A method."""

    name: str
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


class LimitsView(BaseModel):
    """What the server takes."""

    upload_bytes: int
    pixels: int
    samples: int
    waiting_per_client: int
    steps: int = MOST


class Options(BaseModel):
    """What there is to choose from."""

    version: str
    models: list[ModelView]
    methods: list[MethodView]
    limits: LimitsView


def options(config: Config) -> Options:
    """What there is to choose from; torch is imported."""
    from paintback import __version__, methods
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
            )
        )
    kinds = [
        MethodView(
            name=kind.name,
            title=kind.title,
            paper=kind.paper,
            gradients=kind.needs_vjp,
            docs=(sys.modules[kind.__module__].__doc__ or "").strip(),
            fields=_fields(kind),
        )
        for kind in methods.types().values()
    ]
    limits = {name: getattr(config.limits, name) for name in LimitsView.model_fields if name != "steps"}
    return Options(version=__version__, models=models, methods=kinds, limits=LimitsView(**limits))


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


def check_fields(method: MethodView, values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a request, refused where they are none that may be set from outside.

    Raises:
        ValueError: in one sentence.
    """
    known = {entry.name: entry for entry in method.fields}
    good = {}
    for name, value in values.items():
        entry = known.get(name)
        if entry is None:
            if value is None:  # what a PNG of a default run carries
                continue
            raise ValueError(f"{method.name} has no field {name!r} here; it has {', '.join(known)}.")
        if entry.type == "choice":
            if value is not None and value not in entry.choices:
                raise ValueError(f"{name} must be one of {', '.join(entry.choices)}; got {value!r}.")
        elif isinstance(value, str) or (value is None and entry.default is not None):
            raise ValueError(f"{name} must be a number or a switch; got {value!r}.")
        elif value is not None and not isinstance(value, bool) and abs(value) > 1e9:
            raise ValueError(f"{name} is out of range; got {value!r}.")
        elif entry.type == "int" and entry.high is not None and value is not None and value > entry.high:
            raise ValueError(f"{name} must be at most {entry.high:g}; got {value!r}.")
        if entry.type in ("float", "number") and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        good[name] = value
    return good


def job_view(row: dict[str, Any], progress: Any = None) -> JobView:
    """A job's row, and its progress where it runs."""
    names = ProgressView.model_fields
    return JobView(
        **{name: row[name] for name in JobView.model_fields if name in row and name not in ("outputs", "request")},
        request=JobRequest(**row["request"]),
        outputs=[OutputView(**output) for output in row["outputs"]],
        progress=None if progress is None else ProgressView(**{name: getattr(progress, name) for name in names}),
    )
