"""Pictures to go by, over HTTP: by the ids of pictures that were sent."""

from __future__ import annotations

import numpy as np
import pytest

from paintback.images import read_settings
from paintback.web.config import offers
from tests.models import tiny_pipelines as tiny
from tests.web.sites import png
from tests.web.test_api import NOBODY, pixels


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_job_names_pictures_to_go_by(open_site, tmp_path, tmp_path_factory) -> None:
    folders = {name: str(tiny.folder(name, tmp_path_factory)) for name in ("flux2_klein", "sd15")}
    site = open_site(models=offers(folders))
    without = {model["name"]: model["without"] for model in site.http.get("/api/options").json()["models"]}
    assert {name for name in without if "reference_images" not in without[name]} == {"flux2_klein"}
    shown = [
        site.send(png(np.random.default_rng(k).integers(0, 256, (64, 80, 3), dtype=np.uint8)), f"{k}.png").json()["id"]
        for k in range(2)
    ]
    wish = {**site.pictures(), "model": "flux2_klein", "method": "replacement", "steps": 2, "seed": 3, "prompt": "a"}
    made = []
    for given in (shown, shown[:1], None):
        job = site.wait(site.ask(**wish, height=32, width=32, reference_images=given)["id"])
        assert job["state"] == "done", job["error"]
        assert job["request"]["reference_images"] == given
        made.append(site.http.get(f"/api/pictures/{job['outputs'][0]['picture']}").content)
    assert len({pixels(one).tobytes() for one in made}) == 3
    (tmp_path / "made.png").write_bytes(made[0])
    kept = read_settings(tmp_path / "made.png")
    assert kept["reference_images"] == ["0.png", "1.png"] and kept["web"]["reference_images"] == shown
    assert {"reference_1", "reference_2"} < kept["sha256"].keys()
    for model in ("photo", "sd15"):
        change = {"reference_images": shown, "model": model, "prompt": None}
        answer = site.http.post("/api/jobs", json={**wish, **change})
        assert answer.status_code == 409 and "goes by no reference pictures" in answer.json()["detail"], answer.text
    answer = site.http.post("/api/jobs", json={**wish, "reference_images": [NOBODY]})
    assert answer.status_code == 404 and "no picture of that id" in answer.json()["detail"], answer.text


def test_what_names_no_pictures_of_the_server_is_refused(open_site) -> None:
    site = open_site()
    wish = {**site.pictures(), "model": "photo", "steps": 1}
    for given, status, words in (
        (["https://example.org/a.png"], 422, "reference_images"),
        (["../../a.png"], 422, "reference_images"),
        (wish["photo"], 422, "reference_images must be a list"),
        ([wish["photo"]], 409, "goes by no reference pictures"),
    ):
        answer = site.http.post("/api/jobs", json={**wish, "reference_images": given})
        assert answer.status_code == status and words in answer.json()["detail"], answer.text
