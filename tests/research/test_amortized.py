"""AID's rival: it begins as the backbone, sees what is given alone, learns, resumes, and is measured with AID."""

import json
import struct
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

import paintback as pb
from paintback.cli.main import main
from paintback.models.embedded import UNetDenoiser
from paintback.models.unet import UNet, UNetConfig
from paintback.training.data import Pictures
from paintback.training.learner import PriorTraining, edm_loss
from paintback.training.masks import mixed_masks
from research.aid_quality import aid_quality
from research.amortized import Amortized, ConditionalUNet, amortized, load_amortized, train_amortized
from research.command import run

CONFIG = UNetConfig(channels=1, widths=(8, 8), blocks=1)
RECIPE = PriorTraining(steps=4, batch=8, learning_rate=5e-3, warmup=2, ema=(7.0,))


class Bars(Pictures):
    """8 x 8 pictures, black but for a bright bar."""

    channels, size, count = 1, 8, 6

    def batch(self, seed, step, size):
        rng = torch.Generator().manual_seed(seed * 1000 + step)
        x = torch.full((size, 1, 8, 8), -1.0)
        for row, top in enumerate(torch.randint(6, (size,), generator=rng).tolist()):
            x[row, :, top : top + 2] = 1.0
        return x


@pytest.fixture(scope="module")
def backbone():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(CONFIG)
        torch.nn.init.normal_(network.outlet.weight, std=0.1)
    return network.eval().requires_grad_(False)


def train(backbone, out, **more):
    resume = more.pop("resume", False)
    return train_amortized(
        backbone, Bars(), out, name="tiny", training=replace(RECIPE, **more), resume=resume, progress=False
    )


def draw(network, backbone, y, known, seed=0):
    observation = pb.Observation(y, known)
    generators = [torch.Generator().manual_seed(seed + k) for k in range(len(y))]
    return Amortized(network=network).sample(UNetDenoiser(backbone), observation, 5, generators)


def test_begins_as_the_backbone_under_fixed_replacement(backbone):
    y, known = Bars().batch(0, 0, 3), mixed_masks(0, 0, 3, 8)
    got = draw(ConditionalUNet.beginning_as(backbone), backbone, y, known)
    method = pb.methods.get("aid", guidance=lambda x, *rest: torch.zeros_like(x), known="replaced")
    generators = [torch.Generator().manual_seed(k) for k in range(3)]
    want = method.sample(UNetDenoiser(backbone), pb.Observation(y, known), 5, generators)
    torch.testing.assert_close(got.x, want.x)
    assert got.evaluations == want.evaluations == 5


def test_hidden_values_never_reach_it_and_known_ones_do(backbone):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        network = ConditionalUNet(CONFIG)
        torch.nn.init.normal_(network.outlet.weight, std=0.1)
    network.requires_grad_(False)
    y, known = Bars().batch(0, 0, 2), mixed_masks(0, 0, 2, 8)
    one = draw(network, backbone, y, known).x
    torch.testing.assert_close(draw(network, backbone, torch.where(known, y, 5.0), known).x, one)
    other = draw(network, backbone, torch.where(known, -y, y), known).x
    assert (other - one)[~known].abs().max() > 1e-3
    assert torch.equal(one[known], y[known])


def test_loss_is_that_of_the_hidden_part(backbone):
    network = ConditionalUNet.beginning_as(backbone).requires_grad_(False)
    x0, known = Bars().batch(0, 0, 4), mixed_masks(0, 0, 4, 8)
    rng = torch.Generator().manual_seed(0)
    sigma, noise = torch.rand(4, generator=rng) + 0.1, torch.randn(x0.shape, generator=rng)
    parts = [float(edm_loss(network, x0, sigma, noise, part)) for part in (known, ~known)]
    hidden = float((~known).float().mean())
    assert hidden * parts[0] + (1 - hidden) * parts[1] == pytest.approx(float(edm_loss(backbone, x0, sigma, noise)))


def test_learns_resumes_and_says_what_it_is(backbone, tmp_path):
    before = torch.get_rng_state()
    first = load_amortized(train(backbone, tmp_path / "a"))[0].state_dict()
    assert torch.equal(before, torch.get_rng_state())
    again, header = load_amortized(train(backbone, tmp_path / "b"))
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in first.items())
    assert (header["kind"], header["backbone"], header["step"]) == ("amortized", "tiny", "4")
    assert load_amortized(train(backbone, tmp_path / "a", steps=6, resume=True))[1]["step"] == "6"
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == [
        "amortized.safetensors",
        "log.jsonl",
        "state.safetensors",
    ]
    with pytest.raises(ValueError, match="6 steps already"):
        train(backbone, tmp_path / "a", steps=6, resume=True)

    losses = []
    for network in (
        ConditionalUNet.beginning_as(backbone),
        load_amortized(train(backbone, tmp_path / "c", steps=30))[0],
    ):
        rng = torch.Generator().manual_seed(7)
        x0, sigma = Bars().batch(9, 0, 64), torch.full((64,), 0.7)
        with torch.no_grad():
            losses.append(
                float(edm_loss(network, x0, sigma, torch.randn(x0.shape, generator=rng), mixed_masks(9, 0, 64, 8)))
            )
    assert losses[1] < 0.8 * losses[0]


def test_other_files_are_refused(backbone, tmp_path):
    save_file(backbone.state_dict(), tmp_path / "prior.safetensors", {"config": json.dumps(CONFIG.to_dict())})
    with pytest.raises(ValueError, match="does not hold an amortized model"):
        load_amortized(tmp_path / "prior.safetensors")
    with pytest.raises(ValueError, match=r"python -m research\.amortized"):
        load_amortized(tmp_path / "nothing.safetensors")
    with pytest.raises(ValueError, match="does not hold weights of an embedded model"):
        pb.models.load(str(train(backbone, tmp_path, steps=1)))


def test_the_commands_train_it_and_the_table_has_its_row(tmp_path, capsys):
    tiny = tmp_path / "tiny.safetensors"
    save_file(UNet(CONFIG).state_dict(), tiny, {"config": json.dumps(CONFIG.to_dict())})
    pictures = Bars().batch(0, 0, 16).add(1).mul(127.5).byte().numpy()[:, 0]
    data = tmp_path / "bars-idx3-ubyte"
    data.write_bytes(b"\0\0\x08\x03" + struct.pack(">III", *pictures.shape) + pictures.tobytes())
    usual = ["--model", tiny, "--data", data, "--out", tmp_path / "out", "--quiet"]

    def call(start, *arguments):
        with pytest.raises(SystemExit) as stop:
            start([str(text) for text in (*usual, *arguments)])
        return stop.value.code or 0

    def quality(*arguments):
        return call(lambda given: run(aid_quality, given), "--count", 2, *arguments)

    assert not call(lambda given: run(amortized, given), "--steps", 1, "--batch", 4)
    assert not call(lambda given: main(["train", "aid", *given]), "--steps", 1, "--batch", 4, "--rollout", 3)
    capsys.readouterr()
    rival = tmp_path / "out" / "amortized.safetensors"
    more = ["--only", "4:9", "--sigma-low", 0, "--sigma-low", 0.7, "--beside", "ddnm"]
    assert not quality("--rival", rival, *more)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[1] for line in lines if line.startswith("| box")] == [
        "replacement", "aid, silent below 0", "aid, silent below 0.7", "ddnm", "amortized"
    ]  # fmt: skip
    assert quality("--only", "4-9") == 2
    assert quality("--only", "4:99") == 2
    assert capsys.readouterr().err.count("\n") == 2
