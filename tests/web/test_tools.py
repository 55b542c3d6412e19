"""What the page asks for besides pictures and jobs: plans, masks that are found, archives, lists."""

from __future__ import annotations

import io
import re
import time
import zipfile

import numpy as np
import pytest
from PIL import Image

from paintback import methods
from paintback.methods.base import FAMILIES
from tests.web.sites import events, photograph, png

NOBODY = "0" * 32


def mask_in(answer) -> np.ndarray:
    assert answer.status_code == 200, answer.text
    return np.asarray(Image.open(io.BytesIO(answer.content))).astype(bool)


def test_the_model_is_loaded_and_a_plan_says_what_a_job_takes(site) -> None:
    assert site.http.post("/api/models/photo/load").status_code == 202
    assert site.http.post("/api/models/nobody/load").status_code == 404
    given = {**site.pictures(), "method": "ddnm", "samples": 2, "steps": 4}
    for _ in range(600):
        plan = site.http.post("/api/plans", json=given).json()
        if plan["seconds"] is not None:
            break
        assert plan["loading"]
        time.sleep(0.1)
    assert plan["seconds"] > 0 and (plan["evaluations"], plan["vjps"], plan["ahead"]) == (8, 0, 0)
    assert not site.http.get("/api/jobs").json()  # nothing was asked for
    longer = site.http.post("/api/plans", json={**given, "steps": 400}).json()
    assert 50 * plan["seconds"] < longer["seconds"] < 200 * plan["seconds"]
    job = site.ask(**given)
    stream = events(site.http.get(f"/api/jobs/{job['id']}/events").text)
    assert stream[-1][1]["outputs"][0]["evaluations"] == 4
    shown = [name for name, _ in stream].index("preview")
    steps = [data["step"] for name, data in stream[:shown] if name == "progress"]
    assert len([step for step in steps if step]) == 1  # from the first look at a step on
    for wrong, status in (({**given, "photo": NOBODY}, 404), ({**given, "steps": "many"}, 422), ({}, 422),
                          ({**given, "method": "nobody"}, 409)):  # fmt: skip
        assert site.http.post("/api/plans", json=wrong).status_code == status


def test_masks_are_found_and_refined(site) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("skimage")
    photo = photograph(128)
    photo[:] = 120
    photo[40:80, 50:90] = 220, 60, 30
    photo[10:13, 100:103] = 255
    picture = site.send(png(photo)).json()["id"]
    at = f"/api/pictures/{picture}/find"
    thing = mask_in(site.http.post(at, json={"words": "object-at=70,60"}))
    assert thing[42:78, 52:88].all() and not thing[:30].any()
    assert mask_in(site.http.post(at, json={"words": "same-as=70,60"}))[60, 60]
    assert mask_in(site.http.post(at, json={"words": "dust"}))[11, 101]
    rough = np.zeros((128, 128), np.uint8)
    rough[34:86, 44:96] = 255
    mask = site.send(png(rough), "mask.png").json()["id"]
    fine = mask_in(site.http.post(at, json={"mask": mask}))
    assert fine[40:80, 50:90].all() and fine.sum() < 0.85 * (rough > 0).sum()
    small = site.send(png(rough[:64]), "small.png").json()["id"]
    for asked, status, words in (
        ({}, 409, "neither a word nor a mask"),
        ({"words": "text"}, 409, "No text was found"),
        ({"words": "rust"}, 409, "cannot be looked for"),
        ({"words": "object-at=999,1"}, 409, "no pixel 999,1"),
        ({"mask": small}, 409, "The mask is 128 x 64"),
        ({"mask": NOBODY}, 404, "no picture"),
        ({"words": "dust", "sensitivity": 0}, 422, "sensitivity"),
    ):
        answer = site.http.post(at, json=asked)
        assert answer.status_code == status and words in answer.json()["detail"], answer.text


def test_a_wish_to_find_something_is_at_most_a_mebibyte(open_site) -> None:
    site = open_site(workers=0)
    picture = site.send(png(photograph())).json()["id"]
    body = b'{"words": "rust"' + b" " * 2**20 + b"}"
    for content in (body, iter([body[:9], body[9:], b" " * 2**20])):  # declared, and in pieces
        answer = site.http.post(f"/api/pictures/{picture}/find", content=content)
        assert answer.status_code == 413 and "longer than 1048576 bytes" in answer.json()["detail"], answer.text


def test_large_pictures_are_looked_at_smaller(open_site) -> None:
    pytest.importorskip("cv2")
    pytest.importorskip("skimage")
    from paintback.web.config import Limits

    site = open_site(limits=Limits())
    photo = np.full((1500, 4500, 3), 120, np.uint8)
    photo[600:900, 2000:2400] = 220, 60, 30
    picture = site.send(png(photo)).json()["id"]
    thing = mask_in(site.http.post(f"/api/pictures/{picture}/find", json={"words": "object-at=2200,700"}))
    assert thing.shape == (1500, 4500) and thing[610:890, 2010:2390].all() and thing.sum() < 1.3 * 300 * 400


def test_results_come_as_one_file_and_lists_in_parts(site) -> None:
    given = {**site.pictures(), "method": "ddnm", "steps": 1, "seed": 3}
    made = [site.wait(site.ask(**given)["id"]) for _ in range(3)]
    ids = [job["id"] for job in made]
    answer = site.http.get(f"/api/archive?jobs={','.join(ids)}")
    assert answer.headers["content-type"] == "application/zip"
    with zipfile.ZipFile(io.BytesIO(answer.content)) as found:
        assert found.testzip() is None
        assert found.namelist() == ["photo-ddnm-3.png", "photo-ddnm-3-2.png", "photo-ddnm-3-3.png"]
        picture = made[0]["outputs"][0]["picture"]
        assert found.read("photo-ddnm-3.png") == site.http.get(f"/api/pictures/{picture}").content
    assert site.http.get(f"/api/archive?jobs={NOBODY}").status_code == 404
    assert site.http.get("/api/archive?jobs=../etc").status_code == 422
    small = site.http.get(f"/api/pictures/{picture}/small")
    assert small.headers["content-type"] == "image/webp" and Image.open(io.BytesIO(small.content)).size == (64, 64)
    assert [job["id"] for job in site.http.get("/api/jobs").json()] == ids[::-1]
    assert [job["id"] for job in site.http.get(f"/api/jobs?before={ids[2]}&most=1").json()] == [ids[1]]
    assert site.http.get(f"/api/jobs?before={ids[0]}").json() == []


def test_every_method_has_a_family_and_masks_are_named_as_in_batches(site) -> None:
    assert len(FAMILIES) == 5
    assert {kind.family for kind in methods.types().values() if kind.__module__.startswith("paintback.")} == set(
        FAMILIES
    )
    options = site.http.get("/api/options").json()
    assert {method["family"] for method in options["methods"]} == {family["name"] for family in options["families"]}
    assert all(family["help"].endswith(".") for family in options["families"])
    pattern = re.compile(options["mask_names"].replace("(?<", "(?P<"), re.IGNORECASE)
    assert pattern.fullmatch("cup-mask")["stem"] == "cup" and not pattern.fullmatch("cup")
