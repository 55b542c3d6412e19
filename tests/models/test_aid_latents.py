"""AID beside latent models: a module is trained on their latents by the command, saved, loaded and run."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from paintback.cli.main import main
from paintback.models import load
from paintback.models.base import Told
from paintback.models.guidance import Guidance, GuidanceConfig, load_guidance
from paintback.tasks.inpaint import Inpainter
from tests.models import tiny_pipelines as tiny

SIDE = 64


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photographs")
    rng = np.random.default_rng(0)
    for k in range(3):
        Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), np.uint8)).save(folder / f"{k}.png")
    return folder


def edm2(folder):
    """A tiny EDM2 of latents, with a VAE beside it."""
    from paintback.models import checkpoints
    from paintback.models import edm2 as family
    from tests.models.test_edm2 import LATENTS, save_tiny_vae, state

    save_tiny_vae(folder / "vae")
    path = folder / "latent.safetensors"
    config = checkpoints._json(family.make_config(LATENTS))
    checkpoints.write_checkpoint(checkpoints.Checkpoint("edm2", config, state(LATENTS)), path)
    return path


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sd15", "edm2"])
def test_train_save_load_run(name, photographs, tmp_path, tmp_path_factory):
    model = tiny.folder(name, tmp_path_factory) if name == "sd15" else edm2(tmp_path)
    usual = ["--actor", "score", "--steps", 2, "--batch", 4, "--rollout", 2, "--size", SIDE, "--quiet"]
    options = {"guidance_scale": 1.0} if name == "sd15" else {"prompt": "class 2"}
    usual += [] if name == "sd15" else ["--prompt", "class 2"]
    with pytest.raises(SystemExit) as stop:
        main([str(a) for a in ["train", "aid", "--model", model, "--data", photographs, "--out", tmp_path, *usual]])
    assert not stop.value.code
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2 and np.isfinite(lines[-1]["cost"])

    (path,) = tmp_path.glob("aid-*.safetensors")
    module, header = load_guidance(path)
    assert module.config.channels == 4 and header["actor"] == "score"
    loaded = load(model)
    schedule = loaded.denoiser_at((SIDE, SIDE), Told(**options)).schedule
    assert module.config.sigma_max == pytest.approx(min(80.0, schedule.at(1.0).ratio))
    # the paper's bound on a network of released size, whose module is as wide as the bound lets it
    with torch.device("meta"):
        wide = Guidance(GuidanceConfig(channels=4).within(8_600_000))
    assert 0.9 * 8_600_000 < sum(p.numel() for p in wide.parameters()) <= 8_600_000
    with safe_open(path, "pt") as file:
        assert all(torch.isfinite(file.get_tensor(key)).all() for key in file.keys())  # noqa: SIM118

    picture = np.asarray(Image.open(photographs / "0.png"))
    hole = np.zeros((SIDE, SIDE), bool)
    hole[16:48, 16:48] = True
    made = [
        Inpainter(loaded)(
            picture, hole, method="aid", fields={"guidance": str(path)}, num_inference_steps=3,
            generator=torch.Generator().manual_seed(0), output_type="np", **options,
        )
        for _ in range(2)
    ]  # fmt: skip
    assert np.array_equal(made[0].images[0], made[1].images[0])
    assert made[0].evaluations == 3
    np.testing.assert_allclose(made[0].images[0][~hole], picture[~hole] / 255, atol=1e-6)


def test_grey_pictures_and_odd_sides_are_refused(photographs, tmp_path, tmp_path_factory, capsys):
    model = tiny.folder("sd15", tmp_path_factory)
    with pytest.raises(SystemExit) as stop:
        main(
            [str(a) for a in ["train", "aid", "--model", model, "--data", photographs, "--out", tmp_path, "--size", 60]]
        )
    assert stop.value.code == 2
    assert "multiple of 8" in capsys.readouterr().err
