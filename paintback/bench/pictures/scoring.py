"""Measures what was painted: one file of scores beside every part."""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from paintback.bench.lpips import LPIPS
from paintback.bench.metrics import classifier, features, pixels
from paintback.bench.metrics.frechet import patches
from paintback.bench.pictures.cases import Case
from paintback.bench.pictures.cell import read_rows, write_rows
from paintback.bench.pictures.suite import Suite

__all__ = ["Resources", "Scorer", "bring_to", "open_resources", "score_parts"]

FEATURES = {
    "frechet_alexnet": "alexnet",
    "frechet_classifier": "classifier",
    "fid": "inception",
    "patch_fid": "inception",
}


@dataclass(frozen=True)
class Resources:
    """The networks that metrics need; None for those that were not given.

    Attributes:
        lpips: distance.
        features: by the names in `FEATURES`.
        classify: pictures to classes.
        clip: pictures and prompts to scores.
        told: what each metric is measured with, for the protocol; None where it is left out.
    """

    lpips: LPIPS | None
    features: dict[str, Any]
    classify: Callable[[Tensor], Tensor] | None
    clip: Any | None
    told: dict[str, Any]


def open_resources(suite: Suite, *, lpips: Path | None, clip: str | None, inception: bool) -> Resources:
    """Opens what a suite's metrics need.

    Args:
        suite: that names the metrics.
        lpips: file of its weights; None leaves LPIPS and AlexNet's features out.
        clip: folder or Hub id of a CLIP model; None leaves its score out.
        inception: whether to load the standard network of FID.

    Raises:
        ValueError: if a file does not hold what it should.
    """
    made: dict[str, Any] = {}
    told: dict[str, Any] = {}
    classify: Callable[[Tensor], Tensor] | None = None
    distance = LPIPS(lpips) if lpips is not None and "lpips" in suite.metrics else None
    if lpips is not None and "frechet_alexnet" in suite.metrics:
        made["alexnet"] = features.AlexNetFeatures(lpips)
    if {"frechet_classifier", "accuracy"} & set(suite.metrics):
        made["classifier"] = classifier.ClassifierFeatures()
        classify = made["classifier"].classify
    if inception and {"fid", "patch_fid"} & set(suite.metrics):
        made["inception"] = features.InceptionFeatures()
    score = features.ClipScore(clip) if clip is not None and "clip" in suite.metrics else None
    for metric in suite.metrics:
        network = made.get(FEATURES.get(metric, ""))
        if metric == "lpips":
            told[metric] = (
                None
                if distance is None
                else {"network": "AlexNet, LPIPS 0.1", "sha256": _sha256(lpips), "size": suite.lpips_size}
            )
        elif metric == "clip":
            told[metric] = None if score is None else {"network": score.name, "sha256": score.sha256}
        elif metric == "accuracy":
            told[metric] = {"network": made["classifier"].name, "sha256": made["classifier"].sha256}
        elif metric in FEATURES:
            told[metric] = (
                None if network is None else {"network": network.name, "sha256": network.sha256, "size": network.size}
            )
        else:
            told[metric] = {"range": 1.0}
    return Resources(distance, made, classify, score, told)


class Scorer:
    """Scores rows of parts against the cases they were painted from.

    Args:
        suite: what is measured.
        resources: its networks.
        cases: all of them.
    """

    def __init__(self, suite: Suite, resources: Resources, cases: Sequence[Case]) -> None:
        self.suite, self.resources = suite, resources
        self.truths: dict[tuple[str, int], Any] = {}
        self.cases = {(case.picture, case.mask, case.sample): case for case in cases}

    def measures(self, metric: str) -> bool:
        """Whether the suite asks for a metric and its network is there."""
        return metric in self.suite.metrics and self.resources.told.get(metric) is not None

    @torch.no_grad()
    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """A row of scores and features for each row of a part."""
        found = [self.cases[row["picture"], row["mask"], row["sample"]] for row in rows]
        truth = torch.stack([_tensor(case.truth) for case in found])
        made = torch.stack([_tensor(np.asarray(Image.open(io.BytesIO(row["png"])))) for row in rows])
        hole = torch.stack([torch.from_numpy(case.hole)[None] for case in found])
        scores: dict[str, Sequence[Any]] = {}
        for metric in self.suite.metrics:
            if metric == "psnr":
                scores[metric] = pixels.psnr(truth, made, hole).tolist()
            elif metric == "ssim":
                scores[metric] = pixels.ssim(truth, made, hole).tolist()
            elif metric == "context_psnr":
                scores[metric] = pixels.context_psnr(truth, made, hole).tolist()
            elif metric == "context_psnr_released":
                scores[metric] = pixels.context_psnr_released(truth, made, hole).tolist()
            elif metric == "lpips" and self.resources.lpips is not None:
                a, b = (bring_to(_colour(one), self.suite.lpips_size) * 2 - 1 for one in (truth, made))
                scores[metric] = self.resources.lpips(a, b).tolist()
            elif metric == "accuracy" and self.resources.classify is not None:
                guess = self.resources.classify(_colour(made))
                scores[metric] = [float(g == case.label) for g, case in zip(guess.tolist(), found, strict=True)]
            elif metric == "clip" and self.resources.clip is not None:
                scores[metric] = self.resources.clip(_colour(made), [case.prompt or "" for case in found]).tolist()
            elif metric in FEATURES and (network := self.resources.features.get(FEATURES[metric])) is not None:
                numbers = [case.number for case in found]
                scores[f"{metric}_made"] = self._features(metric, network, made, numbers)
                scores[f"{metric}_truth"] = self._of_truth(metric, network, truth, numbers)
        return [
            {
                **{key: row[key] for key in ("picture", "number", "mask", "sample")},
                **{k: v[n] for k, v in scores.items()},
            }
            for n, row in enumerate(rows)
        ]

    def _features(self, metric: str, network: Any, pictures: Tensor, numbers: Sequence[int]) -> list[Any]:
        """Of every picture its features, or those of its patches."""
        shown = _colour(pictures)
        if metric != "patch_fid":
            features: list[Any] = network(shown).tolist()
            return features
        cut = [patches(one[None], seed=self.suite.seed, first=k) for one, k in zip(shown, numbers, strict=True)]
        patched: list[Any] = network(torch.cat(cut)).unflatten(0, (len(shown), -1)).tolist()
        return patched

    def _of_truth(self, metric: str, network: Any, truth: Tensor, numbers: Sequence[int]) -> list[Any]:
        """The same of the truth, which is kept: every mask and every method meets it again."""
        new = {k: n for n, k in enumerate(numbers) if (metric, k) not in self.truths}
        if new:
            places = list(new.values())
            found = self._features(metric, network, truth[places], [numbers[n] for n in places])
            self.truths.update({(metric, k): one for k, one in zip(new, found, strict=True)})
        return [self.truths[metric, k] for k in numbers]


def score_parts(folder: Path, scorer: Scorer) -> int:
    """Scores the parts of a cell that have no scores yet.

    Returns:
        How many there were.
    """
    count = 0
    for part in sorted(folder.glob("part-*.parquet")):
        path = part.with_name(part.name.replace("part-", "score-"))
        if not path.exists():
            write_rows(scorer(read_rows(part)), path)
            count += 1
    return count


def bring_to(pictures: Tensor, size: int | None) -> Tensor:
    """Pictures of that side, by bicubic interpolation with antialiasing; None leaves them."""
    if size is None or size == pictures.shape[-1]:
        return pictures
    return torch.nn.functional.interpolate(pictures, (size, size), mode="bicubic", antialias=True).clamp(0, 1)


def _tensor(shown: np.ndarray) -> Tensor:
    array = shown[..., None] if shown.ndim == 2 else shown
    return torch.from_numpy(np.array(array)).permute(2, 0, 1).float() / 255


def _colour(pictures: Tensor) -> Tensor:
    return pictures.expand(-1, 3, -1, -1) if pictures.shape[1] == 1 else pictures


def _sha256(path: Path | None) -> str:
    import hashlib

    assert path is not None
    return hashlib.sha256(path.read_bytes()).hexdigest()
