"""What a suite is: a small JSON file that names pictures, masks, model, seeds and metrics."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

__all__ = ["DATA_KINDS", "MASK_KINDS", "METRICS", "Suite", "load_suite", "suite_names"]

FOLDER = Path(__file__).resolve().parents[1] / "suites"
DATA_KINDS = ("idx", "folder", "pie")
MASK_KINDS = {
    "box": ("size",),
    "half": ("side",),
    "lines": ("width", "count"),
    "free_form": ("coverage",),
    "checkerboard": ("cell",),
    "text": ("size",),
    "hidden": ("top", "left", "bottom", "right"),  # the rectangle between these fractions of the sides
    "outside": ("top", "left", "bottom", "right"),  # all but it
    "own": (),  # what the data brings with every picture
}
METRICS = (
    "psnr", "ssim", "context_psnr", "context_psnr_released", "lpips", "clip", "accuracy", "fid", "patch_fid",
    "frechet_alexnet", "frechet_classifier",
)  # fmt: skip


@dataclass(frozen=True)
class Suite:
    """What is measured on what.

    Attributes:
        name: of the file, without its ending.
        title: one line for a reader.
        data: kind (of `DATA_KINDS`), what a user must give as the data's folder ("needs"), for IDX files the names of
            pictures and labels, for folders the name of a JSON file of prompts by picture ("captions", optional).
            `first` and `stop` choose pictures, `validation` ([first, stop], optional) those to tune on, with one mask
            each, or with all of them where `validation_pairing` is "all".
        size: side of the pictures, pixels; larger ones are cut from the middle ("crop"), or first brought to it by
            their shorter side ("resize").
        fit: "crop" or "resize"; see `size`.
        model: name, folder or Hub id of the model.
        masks: kind (of `MASK_KINDS`), its settings, and the name to report.
        pairing: "all": every mask on every picture; "cycle": picture k has mask k modulo their number.
        metrics: of `METRICS`.
        samples: of every hole; the metrics are means over them.
        diversity: of the first `pictures` there are `samples` of every hole, and their spread is reported.
        gradient_pictures: how many pictures methods with gradients paint; None for all.
        prompt: for all pictures where the data brings none; None for none.
        guidance_scale: None for the model's own.
        seed: of masks and samples.
        lpips_size: side that pictures are brought to for LPIPS; None leaves them as they are.
        source: paper or place that the suite follows.
    """

    name: str
    title: str
    data: dict[str, Any]
    size: int
    model: str
    masks: list[dict[str, Any]]
    metrics: list[str]
    fit: str = "crop"
    pairing: str = "all"
    samples: int = 1
    diversity: dict[str, int] = field(default_factory=lambda: {"pictures": 0, "samples": 1})
    gradient_pictures: int | None = None
    prompt: str | None = None
    guidance_scale: float | None = None
    seed: int = 0
    lpips_size: int | None = None
    source: str = ""

    def __post_init__(self) -> None:
        where = f"The suite {self.name!r}"
        if not self.name or Path(self.name).name != self.name:
            raise ValueError(f"{where} needs a name that a file can have; leave the folder out of it.")
        for name, value, least in (
            ("size", self.size, 1),
            ("samples", self.samples, 1),
            ("seed", self.seed, 0),
            ("gradient_pictures", self.gradient_pictures, 1),
            ("lpips_size", self.lpips_size, 1),
        ):
            if not (_whole(value, least) or (value is None and name in ("gradient_pictures", "lpips_size"))):
                raise ValueError(f"{where} has {name} {value!r}; give a whole number of at least {least}.")
        for name, text, valid in (("fit", self.fit, ("crop", "resize")), ("pairing", self.pairing, ("all", "cycle"))):
            if text not in valid:
                raise ValueError(f"{where} has {name} {text!r}; valid are {' and '.join(valid)}.")
        if not (set(self.diversity) == {"pictures", "samples"} and all(_whole(v, 0) for v in self.diversity.values())):
            raise ValueError(f"{where} has diversity {self.diversity!r}; give whole numbers for pictures and samples.")
        if self.diversity["samples"] < 1:
            raise ValueError(f"{where} has no samples for diversity; give at least 1.")
        _check_data(where, self.data)
        _check_masks(where, self.masks, self.size, self.data["kind"])
        if unknown := [metric for metric in self.metrics if metric not in METRICS]:
            raise ValueError(f"{where} asks for the metric {unknown[0]!r}; valid are {', '.join(METRICS)}.")
        if "accuracy" in self.metrics and self.data["kind"] != "idx":
            raise ValueError(f"{where} asks for accuracy, and its data has no labels; leave it out, or give IDX files.")
        told = self.prompt is not None or "captions" in self.data or self.data["kind"] == "pie"
        if "clip" in self.metrics and not told:
            raise ValueError(f"{where} asks for clip and has no prompts; give prompt or captions, or leave it out.")

    @property
    def tunes_on_reported(self) -> bool:
        """Whether pictures to tune on are among those to report, if both come from the same folder."""
        if "validation" not in self.data:
            return False
        (first, stop), end = self.data["validation"], self.data.get("stop")
        return stop > self.data.get("first", 0) and (end is None or first < end)

    def to_dict(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], name: str) -> Suite:
        """Reads a suite.

        Raises:
            ValueError: for what is missing, unknown or out of range.
        """
        known = {entry.name for entry in fields(cls)}
        if unknown := [key for key in values if key not in known]:
            raise ValueError(f"The suite {name!r} has an entry {unknown[0]!r}; valid are {', '.join(sorted(known))}.")
        if lacking := [
            entry for entry in ("title", "data", "size", "model", "masks", "metrics") if entry not in values
        ]:
            raise ValueError(f"The suite {name!r} lacks {lacking[0]!r}.")
        try:
            return cls(**{"name": name, **values})
        except (TypeError, AttributeError) as error:
            raise ValueError(f"The suite {name!r} has an entry of the wrong type ({error}).") from None


def _whole(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_data(where: str, data: Mapping[str, Any]) -> None:
    if not isinstance(data, Mapping) or data.get("kind") not in DATA_KINDS:
        kind = data.get("kind") if isinstance(data, Mapping) else data
        raise ValueError(f"{where} has data of kind {kind!r}; valid are {', '.join(DATA_KINDS)}.")
    own = {"idx": ("pictures", "labels"), "folder": ("captions",)}.get(data["kind"], ())
    if wrong := sorted(set(data) - {"kind", "needs", "first", "stop", "validation", "validation_pairing", *own}):
        raise ValueError(f"{where} has data of kind {data['kind']}, which takes no {wrong[0]!r}.")
    for entry in ("needs", *(own if data["kind"] == "idx" else ())):
        if not isinstance(data.get(entry), str):
            raise ValueError(f"{where} has data without {entry!r}; give a text.")
    first, stop = data.get("first", 0), data.get("stop")
    if not _whole(first, 0) or not (stop is None or _whole(stop, first + 1)):
        raise ValueError(f"{where} takes the pictures from {first!r} to {stop!r}; give whole numbers that rise.")
    if (pairing := data.get("validation_pairing", "cycle")) not in ("all", "cycle"):
        raise ValueError(f"{where} has validation_pairing {pairing!r}; valid are all and cycle.")
    if "validation" in data:
        chosen = data["validation"]
        if not (isinstance(chosen, Sequence) and len(chosen) == 2 and _whole(chosen[0], 0)) or not _whole(
            chosen[1], chosen[0] + 1
        ):
            raise ValueError(f"{where} has validation {chosen!r}; give two whole numbers that rise.")


def _check_masks(where: str, masks: Sequence[Any], size: int, data: str) -> None:
    if not masks:
        raise ValueError(f"{where} names no masks.")
    for mask in masks:
        if not isinstance(mask, Mapping) or mask.get("kind") not in MASK_KINDS:
            kind = mask.get("kind") if isinstance(mask, Mapping) else mask
            raise ValueError(f"{where} has a mask of kind {kind!r}; valid: {', '.join(MASK_KINDS)}.")
        kind, entries = mask["kind"], MASK_KINDS[mask["kind"]]
        if wrong := sorted(set(mask) - {"kind", "name", *entries}):
            raise ValueError(f"{where}: a mask of kind {kind} takes no {wrong[0]!r}.")
        if lacking := [entry for entry in ("name", *entries) if entry not in mask]:
            raise ValueError(f"{where}: a mask of kind {kind} lacks {lacking[0]!r}.")
        for entry in entries:
            if not _fits(entry, mask[entry], size if kind == "box" else None):
                raise ValueError(f"{where}: the mask {mask['name']!r} cannot have {entry} {mask[entry]!r}.")
        if "top" in entries and not (mask["top"] < mask["bottom"] and mask["left"] < mask["right"]):
            raise ValueError(f"{where}: the mask {mask['name']!r} has no area; top and left come before the others.")
        if kind == "own" and data != "pie":
            raise ValueError(f"{where}: data of kind {data} brings no masks of its own; take another kind of mask.")
    if len({mask["name"] for mask in masks}) < len(masks):
        raise ValueError(f"{where} has two masks of one name.")


def _fits(entry: str, value: Any, most: int | None) -> bool:
    """Whether a mask can have this setting."""
    if entry == "side":
        return value in ("left", "right", "top", "bottom")
    if entry in ("size", "cell", "count"):
        return _whole(value, 1) and (most is None or value <= most)
    if not _number(value):
        return False
    if entry == "width":
        return bool(value > 0)
    return bool(0 < value < 1) if entry == "coverage" else bool(0 <= value <= 1)


def suite_names() -> list[str]:
    """Those that the package brings."""
    return sorted(path.stem for path in FOLDER.glob("*.json"))


def load_suite(name: str) -> Suite:
    """Reads a suite of the package by name, or one's own by path.

    >>> load_suite("fashion-32").size
    32

    Raises:
        ValueError: if there is none, or it is wrong.
    """
    path = Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"
    if not path.is_file():
        raise ValueError(f"There is no suite {name!r}; valid are {', '.join(suite_names())}, or the path of a .json.")
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON ({error}).") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path} holds a JSON {type(values).__name__}; a suite is an object.")
    return Suite.from_dict(values, path.stem)
