"""The HTTP API in this process: jobs from upload to result, refusals, limits, restarts."""

from __future__ import annotations

import base64
import io
import json
import time
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image, features

from paintback import methods
from paintback.images import read_picture, read_settings
from paintback.models.catalogue import recommended
from paintback.web.config import Limits, offers
from paintback.web.store import Store
from tests.images.test_heic import TURNED
from tests.web.sites import Site, events, hole, photograph, png

NOBODY = "0" * 32


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_job_from_upload_to_result(site, tmp_path) -> None:
    given = site.pictures()
    job = site.ask(**given, method="ddnm", fields={"eta": 1}, steps=3, samples=2, seed=5)
    assert job["request"]["seed"] == 5 and job["outputs"] == [] and job["error"] is None
    stream = events(site.http.get(f"/api/jobs/{job['id']}/events").text)
    names = [name for name, _ in stream]
    assert names[-1] == "job" and {"progress", "preview", "job"} <= set(names)
    fractions = [data["fraction"] for name, data in stream if name == "progress"]
    assert fractions == sorted(fractions) and fractions[-1] <= 1
    preview = next(data for name, data in stream if name == "preview")
    assert preview["image"].startswith("data:image/webp;base64,") and len(preview["box"]) == 4

    done = stream[-1][1]
    assert done["state"] == "done"
    assert [output["seed"] for output in done["outputs"]] == [5, 6]
    assert all(output["evaluations"] == 3 and output["seconds"] > 0 for output in done["outputs"])
    mask = hole() > 0
    files = []
    for output in done["outputs"]:
        answer = site.http.get(f"/api/pictures/{output['picture']}")
        assert answer.headers["content-type"] == "image/png"
        files.append(answer.content)
        made = pixels(answer.content)
        assert (made[~mask] == photograph()[~mask]).all()
        assert (made[mask] != photograph()[mask]).any()
    assert files[0] != files[1]

    spread = pixels(site.http.get(f"/api/pictures/{done['spread']}").content)
    assert (spread[..., 3] == np.where(mask, 255, 0)).all() and done["spread_largest"] > 0

    # the PNG carries the job as everywhere, which the command line remakes bit for bit
    result = tmp_path / "result.png"
    result.write_bytes(files[1])
    settings = read_settings(result)
    assert settings["seed"] == 6 and settings["photo"] == "photo.png" and settings["mask"] == "mask.png"
    assert settings["model"] == "photo" and str(tmp_path) not in json.dumps(settings)
    from paintback.painting.request import Request
    from paintback.tasks.inpaint import Inpainter

    (tmp_path / "photo.png").write_bytes(png(photograph()))
    (tmp_path / "mask.png").write_bytes(png(hole()))
    again = Request.from_settings(settings)
    output = Inpainter.from_pretrained("photo")(
        tmp_path / "photo.png", tmp_path / "mask.png", request=again, output_type="picture"
    )
    assert (output.images[0].pixels == read_picture(result).pixels).all()

    # dropped back, it comes with its settings, and they make the same job
    back = site.send(files[1], "back.png").json()
    assert back["settings"]["web"] == {**given}
    body = {key: value for key, value in back["settings"].items() if key != "web"}
    second = site.wait(site.ask(**{**body, **back["settings"]["web"]})["id"])
    assert pixels(site.http.get(f"/api/pictures/{second['outputs'][0]['picture']}").content).tobytes() == (
        pixels(files[1]).tobytes()
    )


def test_what_is_left_open_is_filled_in(site) -> None:
    job = site.ask(**site.pictures())
    request = job["request"]
    own = recommended("photo")
    whole = asdict(methods.get(own.method, **own.fields))
    assert [request[name] for name in ("model", "method", "fields", "steps", "seed", "quality")] == [
        "photo", own.method, whole, own.num_inference_steps, 0, "good",
    ]  # fmt: skip
    site.http.post(f"/api/jobs/{job['id']}/stop")
    given = site.pictures()
    fast = site.ask(**given, quality="fast", seed=None)
    assert fast["request"]["steps"] < own.num_inference_steps and 0 <= fast["request"]["seed"] < 2**31
    assert site.wait(fast["id"])["outputs"][0]["evaluations"] <= 10
    own_steps = site.ask(**given, quality="fast", steps=2, method="ddnm", seed=-1)["request"]
    assert (own_steps["steps"], own_steps["method"]) == (2, "ddnm")


def test_quality_strength_padding_and_average_are_the_requests(site) -> None:
    given = {**site.pictures(), "method": "ddnm", "steps": 4}
    plain = site.wait(site.ask(**given)["id"])["outputs"][0]
    for more, evaluations in (
        ({"average": 3}, 12),
        ({"quality": "best"}, 32),
        ({"strength": 0.5}, 2),
        ({"padding": 8}, 4),
    ):
        job = site.wait(site.ask(**given, **more)["id"])
        output = job["outputs"][0]
        assert job["state"] == "done" and output["evaluations"] == evaluations, more
        name, value = next(iter(more.items()))
        sent = site.send(site.http.get(f"/api/pictures/{output['picture']}").content).json()
        assert sent["settings"][name] == value and sent["settings"]["steps"] == 4
        first, second = (pixels(site.http.get(f"/api/pictures/{one['picture']}").content) for one in (plain, output))
        assert (first != second).any() and (first[hole() == 0] == second[hole() == 0]).all()
    two = site.wait(site.ask(**given, quality="best", samples=2)["id"])["outputs"]
    assert [one["evaluations"] for one in two] == [4, 4]  # best draws for a single answer alone
    for more, words in (({"average": 65}, "average is at most 64"), ({"strength": 0}, "strength must be above 0"),
                        ({"height": 64}, "height"), ({"seed": 2**60}, "seed must be at most")):  # fmt: skip
        answer = site.http.post("/api/jobs", json={**given, **more})
        if answer.status_code == 201:  # what a model takes is known once it is loaded
            ended = site.wait(answer.json()["id"])
            assert ended["state"] == "failed" and words in ended["error"]
        else:
            assert words in answer.json()["detail"], answer.text


def test_a_mask_is_read_by_the_rule_of_the_command_line(site) -> None:
    dark = site.send(png(np.dstack([255 - hole()] * 3)), "mask.png").json()["id"]
    read = {
        kind: pixels(site.http.get(f"/api/pictures/{dark}/mask", params={"mask_is": kind}).content)
        for kind in ("white", "black")
    }
    assert (read["black"] == (hole() > 0)).all() and (read["white"] == (hole() == 0)).all()
    half = np.zeros((64, 64, 3), np.uint8)
    half[20:30, 20:30] = 200, 0, 0
    answer = site.http.get(f"/api/pictures/{site.send(png(half)).json()['id']}/mask")
    assert (pixels(answer.content)[20:30, 20:30]).all()
    assert site.http.get(f"/api/pictures/{dark}/mask", params={"mask_is": "blue"}).status_code == 422
    answer = site.http.get(f"/api/pictures/{dark}/mask", params={"mask_is": "alpha"})
    assert answer.status_code == 409 and "no transparency" in answer.json()["detail"]


def test_a_job_that_would_take_too_long_is_refused_beforehand(open_site) -> None:
    site = open_site()
    given = site.pictures()
    speed = None
    while speed is None:  # a sample of a second tells the speed
        assert site.wait(site.ask(**given, method="ddnm", steps=400)["id"])["state"] == "done"
        speed = site.http.app.state.store.speed("photo")
    site = open_site(limits=Limits(seconds=5))  # which remembers it
    assert site.wait(site.ask(**given, method="ddnm", steps=3)["id"])["state"] == "done"  # and has loaded the model
    answer = site.http.post("/api/jobs", json={**given, "method": "lanpaint", "steps": 1000, "samples": 16})
    assert answer.status_code == 409 and answer.json()["detail"].startswith("It would take ")
    assert "a job may take 5 s here" in answer.json()["detail"]
    assert site.wait(site.ask(**given, method="ddnm", steps=3)["id"])["state"] == "done"


def test_a_result_is_a_picture_to_continue_from_and_to_extend(site) -> None:
    first = site.wait(site.ask(**site.pictures(), steps=2)["id"])
    picture = first["outputs"][0]["picture"]
    about = site.http.get(f"/api/pictures/{picture}/about").json()
    assert (about["width"], about["height"], about["bits"]) == (64, 64, 8)
    second = site.wait(site.ask(photo=picture, outpaint=[0, 0, 8, 0], steps=2)["id"])
    assert second["state"] == "done", second["error"]
    made = pixels(site.http.get(f"/api/pictures/{second['outputs'][0]['picture']}").content)
    assert made.shape == (64, 72, 3)
    assert (made[:, :64] == pixels(site.http.get(f"/api/pictures/{picture}").content)).all()


def test_a_picture_is_shown_as_browsers_can(site) -> None:
    buffer = io.BytesIO()
    Image.fromarray(photograph(32)).save(buffer, "TIFF")
    sent = site.send(buffer.getvalue(), "../../etc/scan.tif", "image/tiff").json()
    assert sent["name"] == "scan.tif"
    answer = site.http.get(f"/api/pictures/{sent['id']}/view")
    assert answer.headers["content-type"] == "image/png"
    assert (pixels(answer.content) == photograph(32)).all()


@pytest.mark.parametrize(
    ("form", "media"),
    [("PNG", "png"), ("JPEG", "jpeg"), ("WEBP", "webp"), ("TIFF", "tiff"), ("BMP", "bmp"), ("GIF", "gif"),
     ("PPM", "x-portable-anymap"), ("AVIF", "avif"), ("HEIC", "heic")],
)  # fmt: skip
def test_a_file_is_served_as_what_it_is(shared: Site, form: str, media: str) -> None:
    buffer = io.BytesIO()
    if form == "HEIC":
        pytest.importorskip("pi_heif")
        buffer.write(base64.b64decode(TURNED))
    elif form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow has no AVIF")
    else:
        Image.fromarray(photograph(32)).save(buffer, form)
    sent = shared.send(buffer.getvalue(), f"a.{form.lower()}", f"image/{media}").json()
    answer = shared.http.get(f"/api/pictures/{sent['id']}")
    assert answer.headers["content-type"] == f"image/{media}" and answer.content == buffer.getvalue()
    view = shared.http.get(f"/api/pictures/{sent['id']}/view")
    assert view.headers["content-type"] == "image/png" and pixels(view.content).shape[:2] == (
        sent["height"], sent["width"],
    )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "status", "words"),
    [
        ({"photo": NOBODY}, 404, "no picture"),
        ({"mask": NOBODY}, 404, "no picture"),
        ({"photo": "../../etc/passwd"}, 422, "photo"),
        ({"mask": "/etc/passwd"}, 422, "mask"),
        ({"mask": None}, 409, "neither a mask"),
        ({"model": "/etc/passwd"}, 409, "no model"),
        ({"model": "owner/name"}, 409, "no model"),
        ({"method": "nothing"}, 409, "no method"),
        ({"method": "trained"}, 409, "not run as"),
        ({"fields": {"nothing": 1}}, 409, "no field"),
        ({"fields": {"eta": 7}}, 409, "eta"),
        ({"fields": {"eta": "/etc/passwd"}}, 409, "eta"),
        ({"method": "aid", "fields": {"guidance": "/etc/passwd"}}, 409, "no field"),
        ({"method": 'aid:guidance="/etc/passwd"'}, 409, "no method"),
        ({"thin_method": 'aid:guidance="/etc/passwd"'}, 409, "no field 'guidance'"),
        ({"thin_method": "lanpaint:inner_steps=100000000"}, 409, "at most 1000"),
        ({"thin_method": "nothing"}, 409, "no method"),
        ({"method": "daps", "fields": {"ode_steps": 10**7}}, 409, "at most 1000"),
        ({"grid": ",".join(f"{1 - k / 2000:.4f}" for k in range(1500))}, 409, "steps is at most 1000"),
        ({"prompt": "a spoon"}, 409, "reads no text"),
        ({"steps": 0}, 422, "steps"),
        ({"grid": "1-"}, 422, "grid must list finite numbers with commas between; got '1-'."),
        ({"sigmas": "9," + "9" * 400}, 422, "sigmas must list finite numbers"),
        ({"step_distilled": "yes"}, 409, "leave step_distilled out"),
        ({"step_distilled": "perhaps"}, 422, "step_distilled"),
        ({"samples": 17}, 409, "at most 16"),
        ({"fields": {"eta": [1]}}, 409, "eta"),
        ({"fields": {"eta": {"a": 1}}}, 409, "eta"),
        ({"method": "fmm", "fields": {"level": 10**400}}, 409, "fmm has no field"),
        ({"outpaint": [8000, 0, 0, 8000]}, 409, "pixels"),
        ({"outpaint": [-1, 0, 0, 0]}, 422, "outpaint"),
        ({"colour": "red"}, 422, "colour"),
    ],
)  # fmt: skip
def test_a_job_is_refused_in_a_sentence(shared: Site, change, status, words) -> None:
    answer = shared.http.post("/api/jobs", json={**shared.given, "method": "ddnm", **change})
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert words in detail and detail.endswith((".", "?")) and str(shared.config.data) not in detail
    if status == 409:
        assert shared.http.post("/api/plans", json={**shared.given, "method": "ddnm", **change}).status_code == 409


def test_a_plan_extends_no_picture_that_would_be_too_large(shared: Site, monkeypatch) -> None:
    def reads(*_):
        raise AssertionError("the picture was read")

    monkeypatch.setattr("paintback.web.app.read", reads)
    for outpaint, words in (([900] * 4, "more than 1000000 pixels"), ([33_000, 0, 0, 0], "pixels")):
        for path in ("/api/plans", "/api/jobs"):
            answer = shared.http.post(path, json={**shared.given, "outpaint": outpaint})
            assert answer.status_code == 409 and words in answer.json()["detail"], answer.text


def test_a_thin_holes_method_may_have_what_any_method_may(shared: Site) -> None:
    given = {**shared.given, "thin_method": "lanpaint:inner_steps=3", "steps": 1}
    assert shared.http.post("/api/plans", json=given).status_code == 200


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One server for requests that leave nothing behind."""
    from starlette.testclient import TestClient

    from paintback.web.app import make_app
    from paintback.web.config import Config

    config = Config(tmp_path_factory.mktemp("web"), offers(), Limits(pixels=1_000_000, upload_bytes=2**20), threads=1)
    with TestClient(make_app(config), base_url="http://127.0.0.1") as client:
        site = Site(client, config)
        site.given = site.pictures()
        yield site


def test_masks_that_do_not_fit_are_refused_at_once(shared: Site) -> None:
    for mask, words in ((np.zeros((64, 64), np.uint8), "empty"), (np.full((64, 64), 255, np.uint8), "everywhere"),
                        (hole(32), "32 x 32")):  # fmt: skip
        sent = shared.send(png(mask)).json()["id"]
        answer = shared.http.post("/api/jobs", json={"photo": shared.given["photo"], "mask": sent})
        assert answer.status_code == 409 and words in answer.json()["detail"]


def test_uploads_are_refused_in_a_sentence(shared: Site) -> None:
    whole = png(photograph())
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    for data, status, words in (
        (whole[: len(whole) // 2], 415, "truncated"),
        (b"", 415, "not a picture"),
        (b"#!/bin/sh\n", 415, "not a picture"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", 415, "not a picture"),
        (png(np.zeros((1001, 1000), np.uint8)), 413, "at most 1000000"),
        (png(noise), 413, "larger than 1 MiB"),
    ):
        answer = shared.send(data, "holiday.png")
        assert answer.status_code == status, answer.text
        detail = answer.json()["detail"]
        assert words in detail and "'holiday.png'" in detail and detail.endswith(".")
        assert str(shared.config.data) not in detail and "max_pixels" not in detail

    def pieces():
        yield from (bytes(2**18) for _ in range(8))

    answer = shared.http.post("/api/pictures", content=pieces(), headers={"content-type": "image/png"})
    assert answer.status_code == 413  # though it did not say beforehand how long it would be
    assert not list((shared.config.data / "pictures").glob("*.part"))


def test_only_this_machines_own_page_is_served(shared: Site) -> None:
    get, post = shared.http.get, shared.http.post
    assert get("/").status_code == 200
    assert get("/", headers={"host": "localhost:8040"}).status_code == 200
    assert get("/", headers={"host": "[::1]:8040"}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "", "192.168.0.2:8040"):
        assert get("/", headers={"host": host}).status_code == 421
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9"):
        answer = post("/api/jobs", json={}, headers={"origin": origin})
        assert answer.status_code == 403 and answer.json()["detail"].endswith(".")
    assert get("/api/jobs", headers={"sec-fetch-site": "cross-site"}).status_code == 403
    assert post("/api/jobs", json={}, headers={"origin": "http://127.0.0.1"}).status_code == 422
    headers = get("/").headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/static/../app.py",
        "/static/%2e%2e/app.py",
        "/examples/..%2f..%2fweb/app.py",
        "/api/pictures/..%2f..%2fjobs.sqlite",
        "/api/pictures/lock",
        "/docs",
        "/redoc",
    ],
)
def test_no_path_of_a_request_reaches_the_disk(shared: Site, path) -> None:
    assert shared.http.get(path).status_code in (404, 422)


def test_the_page_needs_nothing_from_elsewhere(shared: Site) -> None:
    page = shared.http.get("/")
    text = page.text
    for path in sorted({part.split('"')[0] for part in text.split('="/')[1:]} - {""}):
        answer = shared.http.get("/" + path)
        assert answer.status_code == 200, path
        text += answer.text
    for line in text.replace("http://www.w3.org/2000/svg", "").splitlines():
        assert "://" not in line, line
    tag = page.headers["etag"]
    assert shared.http.get("/", headers={"if-none-match": tag}).status_code == 304


def test_a_token_is_asked_for_elsewhere(open_site) -> None:
    site = open_site(token="sesame-123", hosts=frozenset({"paint.example"}))
    site.http.base_url = "http://paint.example"
    assert site.http.get("/").status_code == 401
    assert site.http.get("/api/options").status_code == 401
    assert site.http.get("/?token=wrong").status_code == 401
    assert site.http.get("/api/jobs", headers={"authorization": "Bearer sesame-123"}).status_code == 200
    answer = site.http.get("/?token=sesame-123", follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"] == "/"
    assert "HttpOnly" in answer.headers["set-cookie"] and "SameSite=Strict" in answer.headers["set-cookie"]
    assert site.http.get("/").status_code == 200  # the cookie is shown now


def test_the_queue_has_limits(open_site) -> None:
    site = open_site(workers=0, limits=Limits(waiting=5, waiting_per_client=3))
    given = site.pictures()
    jobs = [site.ask(**given) for _ in range(3)]
    assert [job["ahead"] for job in jobs] == [0, 1, 2]
    answer = site.http.post("/api/jobs", json=given)
    assert answer.status_code == 429 and "3 jobs" in answer.json()["detail"]
    stopped = site.http.post(f"/api/jobs/{jobs[0]['id']}/stop").json()
    assert stopped["state"] == "stopped" and stopped["outputs"] == []
    assert site.ask(**given)["ahead"] == 2
    assert site.http.delete(f"/api/jobs/{jobs[1]['id']}").status_code == 409
    assert site.http.delete(f"/api/jobs/{jobs[0]['id']}").status_code == 204
    assert site.http.get(f"/api/jobs/{jobs[0]['id']}").status_code == 404
    assert len(site.http.get("/api/jobs").json()) == 3


def test_a_running_job_stops_and_keeps_the_last_prediction(site) -> None:
    job = site.ask(**site.pictures(), method="ddnm", steps=1000, samples=3)["id"]
    while not (site.http.get(f"/api/jobs/{job}").json()["progress"] or {}).get("step"):
        time.sleep(0.05)
    site.http.post(f"/api/jobs/{job}/stop")
    end = site.wait(job)
    assert end["state"] == "stopped"
    assert len(end["outputs"]) == 1 and end["outputs"][0]["stopped"]
    assert site.http.get(f"/api/pictures/{end['outputs'][0]['picture']}").status_code == 200
    assert site.http.delete(f"/api/jobs/{job}").status_code == 204
    assert site.http.get(f"/api/pictures/{end['outputs'][0]['picture']}").status_code == 404


def test_a_job_that_takes_too_long_fails(open_site) -> None:
    site = open_site(limits=Limits(seconds=0.2))
    for _ in range(2):  # before the model is loaded, and later, when its speed is known
        answer = site.http.post("/api/jobs", json={**site.pictures(), "steps": 1000})
        said = answer.json().get("detail") or site.wait(answer.json()["id"])["error"]
        assert " 0.2 s" in said and said.endswith(".")


def test_one_failure_does_not_keep_the_next_job(site) -> None:
    given = site.pictures()
    job = site.ask(**given, model="fashion", method="ding", steps=2)  # grey pictures only
    end = site.wait(job["id"])
    assert end["state"] == "failed" and "grey" in end["error"] and end["outputs"] == []
    assert site.wait(site.ask(**given, steps=1)["id"])["state"] == "done"


def test_a_restart_keeps_the_queue_and_what_was_finished(open_site) -> None:
    site = open_site(workers=0)
    given = site.pictures()
    asked = [site.ask(**given, steps=2, samples=2, seed=k)["id"] for k in (10, 20)]
    site = open_site()
    first = [site.wait(job) for job in asked]
    assert [len(job["outputs"]) for job in first] == [2, 2]
    assert [output["seed"] for job in first for output in job["outputs"]] == [10, 11, 20, 21]


def test_a_server_that_goes_down_leaves_its_job_waiting(open_site) -> None:
    site = open_site()
    job = site.ask(**site.pictures(), method="ddnm", steps=400, samples=2)["id"]
    while not (site.http.get(f"/api/jobs/{job}").json()["progress"] or {}).get("step"):
        time.sleep(0.05)
    site = open_site(workers=0)
    assert site.http.get(f"/api/jobs/{job}").json()["state"] == "waiting"


def test_one_folder_one_server(site) -> None:
    with pytest.raises(ValueError, match="Another paintback serve"):
        Store(site.config.data)


def test_options_say_what_there_is(shared: Site) -> None:
    from paintback import methods

    options = shared.http.get("/api/options").json()
    assert [method["name"] for method in options["methods"]] == methods.names()
    ding = next(method for method in options["methods"] if method["name"] == "ding")
    eta = next(field for field in ding["fields"] if field["name"] == "eta")
    assert eta["choices"] and eta["help"] and eta["default"] == "square"
    assert "guidance" not in [
        field["name"] for method in options["methods"] if method["name"] == "aid" for field in method["fields"]
    ]
    assert {model["name"] for model in options["models"]} == {"photo", "fashion", "self"}


def test_models_come_from_the_configured_list() -> None:
    found = offers({"mine": "somewhere/mine"})
    assert found["mine"].source == "somewhere/mine" and found["mine"].takes_text
    with pytest.raises(ValueError, match="already"):
        offers({"photo": "x"})


def test_openapi_describes_every_route(shared: Site) -> None:
    described = shared.http.get("/api/openapi.json").json()
    assert set(described["paths"]) == {
        "/api/options", "/api/pictures", "/api/pictures/{picture}", "/api/pictures/{picture}/about",
        "/api/pictures/{picture}/view", "/api/pictures/{picture}/mask", "/api/jobs", "/api/jobs/{job}",
        "/api/jobs/{job}/stop", "/api/jobs/{job}/events", "/api/archive", "/api/models/{model}/load", "/api/plans",
        "/api/pictures/{picture}/find", "/api/pictures/{picture}/small",
    }  # fmt: skip
    from paintback.painting.request import Request
    from paintback.painting.request import options as entries

    schema = described["components"]["schemas"]["JobRequest"]["properties"]
    assert list(schema) == [one.name for one in entries(Request) if "http" in one.where]
    for name in ("strength", "padding", "average", "quality", "mask_is"):
        assert name in schema and schema[name]["description"]
