"""The papers' suites on stand-in pictures at a small size, with their models' classes at tiny random weights."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from paintback import methods
from paintback.bench.metrics.features import InceptionFeatures
from paintback.bench.pictures import scoring, worker
from paintback.bench.pictures.benchmark import Setting, run_benchmark
from paintback.bench.pictures.cases import make_cases
from paintback.bench.pictures.report import write_report
from paintback.bench.pictures.runner import cells_of
from paintback.bench.pictures.suite import load_suite, suite_names
from paintback.bench.pictures.summary import ALL, write_summary
from paintback.methods.base import Method, Result
from paintback.models import edm, edm2
from tests.bench.pictures.conftest import pie_entry, write_pictures, write_pie
from tests.bench.pictures.test_run import painted
from tests.models import persistent, test_convert, test_edm2
from tests.models import research_reference as reference
from tests.models import tiny_pipelines as tiny

PROMPTS = {"000.png": "a red fox", "001.png": "two blue foxes"}


@dataclass(frozen=True)
class Plan:
    """How a suite is tried.

    Attributes:
        model: makes the model from (folder, tmp_path_factory) and says where it is.
        size: of the pictures in place of the suite's.
        other: method beside ding.
        budget: evaluations and gradients.
        rows: of the network for an evaluation: 2 under guidance.
    """

    model: Any
    size: int
    other: str
    budget: int
    rows: int = 1


def pipeline(name):
    return lambda folder, factory: tiny.folder(name, factory)


def adm_file(folder, factory):
    return test_convert.adm_file(folder)


def edm_file(folder, factory):
    fields = reference.EDM["ddpmpp-vp"]
    return persistent.edm(folder / "edm.pkl", fields, reference.state_for(edm.Edm(edm.make_config(fields))))


def edm2_file(folder, factory):
    """Of latents, with classes, and its VAE beside it."""
    from diffusers import AutoencoderKL

    fields = test_edm2.LATENTS
    with torch.device("meta"):
        network = edm2.Edm2(edm2.make_config(fields))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vae = AutoencoderKL(
            block_out_channels=(8, 8, 8, 8),
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            latent_channels=4,
            norm_num_groups=4,
        )
    vae.save_pretrained(folder / "vae")
    return persistent.edm2(folder / "edm2.pkl", fields, reference.state_for(network), {})


PLANS = {
    "aid-afhqv2-64": Plan(edm_file, 16, "diffpir", 6),
    "aid-ffhq-64": Plan(edm_file, 16, "dps", 6),
    "aid-imagenet-512": Plan(edm2_file, 32, "ddnm", 5),
    "ding-div2k-768": Plan(pipeline("sd3"), 96, "psld", 6, rows=2),
    "ding-ffhq-768": Plan(pipeline("sd3"), 96, "flowdps", 6, rows=2),
    "ding-pie-768": Plan(pipeline("sd3"), 96, "ddnm", 5, rows=2),
    "fcs-imagenet-512": Plan(pipeline("sd15"), 48, "fcs", 11, rows=2),
    "lanpaint-celebahq-256": Plan(pipeline("ldm"), 48, "lanpaint", 12),
    "lanpaint-imagenet-256": Plan(adm_file, 16, "lanpaint", 12),
}
MASKS = [{"name": "half", "kind": "half", "side": "right"}, {"name": "top", "kind": "half", "side": "top"}]
QUICK = ("aid-ffhq-64",)


def test_every_suite_of_a_paper_has_a_plan():
    assert set(PLANS) == {name for name in suite_names() if load_suite(name).source}


def small(name, size):
    """The suite at another size, its masks with it."""
    suite = load_suite(name)
    pixels = {"box": ("size",), "checkerboard": ("cell",)}
    masks = [
        {k: max(1, v * size // suite.size) if k in pixels.get(mask["kind"], ()) else v for k, v in mask.items()}
        for mask in suite.masks
    ]
    return dataclasses.replace(suite, size=size, masks=masks)


def stand_in(suite, folder):
    """Two pictures where the suite looks for them."""
    if suite.data["kind"] == "pie":
        runs = [512 * 100, 512 * 200]
        return write_pie(folder, {"a": pie_entry("a", runs), "b": pie_entry("b", runs, "two [blue] foxes")})
    if "captions" in suite.data:
        folder.mkdir()
        classes = {"000.png": "class 2", "001.png": 4}
        prompts = classes if suite.name.startswith("aid") else PROMPTS
        (folder / suite.data["captions"]).write_text(json.dumps(prompts))
    return write_pictures(folder, 2, (suite.size, suite.size + 10))


@pytest.fixture
def runs(monkeypatch):
    """What every run of a method gave, and the sizes that pictures were painted at."""
    seen: dict[str, list[Any]] = {"results": [], "sizes": [], "prompts": []}
    sample = Method.sample

    def watched(self: Method, *given: Any, **named: Any) -> Result:
        result = sample(self, *given, **named)
        seen["results"].append((self.name, result))
        return result

    monkeypatch.setattr(Method, "sample", watched)
    call = worker.Inpainter.__call__

    def painting(self: Any, image: Any, mask: Any, prompt: Any = None, **named: Any) -> Any:
        output = call(self, image, mask, prompt, **named)
        seen["sizes"] += [scale.size for scale in output.scales]
        seen["prompts"].append(prompt)
        return output

    monkeypatch.setattr(worker.Inpainter, "__call__", painting)
    return seen


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in PLANS]
)
def test_the_suite_is_painted_scored_and_summarised(name, runs, here, tmp_path, tmp_path_factory):
    plan = PLANS[name]
    suite = small(name, plan.size)
    data, out = stand_in(suite, tmp_path / "data"), tmp_path / "out"
    model = plan.model(tmp_path, tmp_path_factory)
    chosen = {label: methods.get(label) for label in ("ding", plan.other)}
    cells, refused = cells_of(chosen, plan.budget, None, {})
    assert not refused
    finished = run_benchmark(suite, Setting(data, model=str(model)), cells, out)
    assert [one.error for one in finished] == [None, None]

    # pictures: the suite's size, whatever the model learnt from; known pixels are the truth
    first, further = make_cases(suite, data)
    assert not further
    made = painted(out)
    assert len(made) == 2 * len(first) == 2 * 2 * len(suite.masks)
    for case in first:
        for label in chosen:
            pixels = made[label, case.picture, case.mask, 0]
            assert pixels.shape == (plan.size, plan.size, 3)
            assert np.array_equal(pixels[~case.hole], case.truth[~case.hole])
            assert not np.array_equal(pixels[case.hole], case.truth[case.hole])
    assert set(runs["sizes"]) == {(plan.size, plan.size)}
    if suite.data["kind"] == "pie":
        assert {prompt for some in runs["prompts"] for prompt in some} == {"a red fox", "two blue foxes"}
    elif suite.prompt is not None:
        assert {prompt for some in runs["prompts"] for prompt in some} == {suite.prompt}
    elif "captions" not in suite.data:
        assert set(runs["prompts"]) == {None}

    # cost: evaluations are of the denoiser, and one of two rows under guidance is one
    for label, method in chosen.items():
        steps = next(cell.steps for cell in cells if cell.label == label)
        full = [result for method_name, result in runs["results"] if method_name == label][1:]  # the first warms up
        assert {(result.evaluations, result.vjps) for result in full} == {
            (method.evaluations(steps), method.vjps(steps))
        }
        assert {result.network_rows for result in full} == {plan.rows * method.evaluations(steps)}

    # numbers
    write_summary(out)
    summary = json.loads((out / "summary.json").read_text())
    without = {"fid", "patch_fid", "lpips", "clip"}
    assert {key for key, told in summary["protocol"]["metrics"].items() if told is None} == without & set(suite.metrics)
    rows = summary["rows"]
    masks = [mask["name"] for mask in suite.masks]
    assert sorted((row["label"], row["mask"]) for row in rows) == sorted((k, m) for k in chosen for m in (*masks, ALL))
    for row in rows:
        assert set(row["means"]) == set(suite.metrics) - without
        assert row["evaluations"] + row["vjps"] <= plan.budget
        assert row["pictures"] == 2 and 0 < row["means"]["psnr"] < 60
        if "context_psnr" in row["means"]:
            assert row["means"]["context_psnr"] == row["means"]["context_psnr_released"] == 100
    page = write_report(out, tmp_path / "report", data=data)[1].read_text()
    assert all(f"<td>{label}</td>" in page for label in chosen)


@pytest.mark.slow
def test_networks_that_the_suites_ask_for(here, tmp_path, tmp_path_factory, monkeypatch):
    """FID, LPIPS and CLIP are scored where their networks are given, with the prompt of every picture."""
    suite = dataclasses.replace(small("ding-ffhq-768", 64), metrics=["fid", "clip"], masks=MASKS)
    data, out = write_pictures(tmp_path / "data", 4, (64, 64)), tmp_path / "out"
    asked = []

    class Clip:
        name, sha256 = "tiny", "0"

        def __call__(self, pictures, prompts):
            asked.extend(prompts)
            return pictures.mean((1, 2, 3)) * 100

    network = InceptionFeatures(network=lambda shown: shown.float().mean((2, 3)))
    told = {"fid": {"network": network.name}, "clip": {"network": "tiny"}}
    opened = scoring.Resources(None, {"inception": network}, None, Clip(), told)
    monkeypatch.setattr("paintback.bench.pictures.benchmark.open_resources", lambda *given, **named: opened)
    cells, _ = cells_of({"ddnm": methods.get("ddnm")}, 2, None, {})
    (finished,) = run_benchmark(suite, Setting(data, model=str(tiny.folder("sd15", tmp_path_factory))), cells, out)
    assert finished.error is None
    write_summary(out)
    rows = json.loads((out / "summary.json").read_text())["rows"]
    made, shown = painted(out), {row["mask"]: row["means"] for row in rows}
    assert asked == ["a high-quality photo of a face"] * 8
    truth = {(case.picture, case.mask): case.truth for case in make_cases(suite, data)[0]}
    for mask in ("half", "top"):
        grey = [pixels.mean() / 2.55 for (_, _, m, _), pixels in made.items() if m == mask]
        assert shown[mask]["clip"] == pytest.approx(np.mean(grey), abs=1e-3)
        a, b = (
            np.array([pixels.mean((0, 1)) for key, pixels in some.items() if mask in key])
            for some in (made, truth)
        )  # fmt: skip
        gap = ((a.mean(0) - b.mean(0)) ** 2).sum()
        assert shown[mask]["fid"] >= gap - 1e-3
