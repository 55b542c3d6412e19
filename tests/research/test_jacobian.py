"""The analysis of a denoiser's derivative: closed forms of Gaussian and made-up linear denoisers, and the command."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from paintback.denoiser import Codec, Denoiser, Prediction, predict
from paintback.models.unet import UNet, UNetConfig
from paintback.observation import Observation
from paintback.priors import GaussianMixture
from paintback.schedules import EDM, VP, Time
from research.command import run as run_study
from research.jacobian import __main__ as study
from research.jacobian import derivative as analysis
from research.jacobian import holes, report, suite
from research.jacobian.derivative import Estimate

SHAPE = (1, 4, 4)
SIGMA = 0.7


class Made(Denoiser):
    """x0 = J x + bend x^2, entry by entry."""

    def __init__(self, j: Tensor, bend: float = 0.0) -> None:
        super().__init__(EDM())
        self.j, self.bend = j, bend

    def predict(self, x: Tensor, time: Time) -> Prediction:
        x0 = (x.flatten(1) @ self.j.T).view(x.shape) + self.bend * x.square()
        return predict("x0", x0, x, time, rows=len(x))


def turned(generator: torch.Generator, n: int = 16) -> Tensor:
    return torch.linalg.qr(torch.randn(n, n, generator=generator, dtype=torch.float64))[0]


def lopsided() -> tuple[Tensor, Tensor, Tensor]:
    """J = S + K, the eigenvalues of S from -0.2 to 1.3, and those of K / i, 0.5 the largest."""
    generator = torch.Generator().manual_seed(0)
    values = torch.linspace(-0.2, 1.3, 16, dtype=torch.float64)
    angles = torch.linspace(0.1, 0.5, 8, dtype=torch.float64)
    blocks = torch.block_diag(*(torch.tensor([[0.0, a], [-a, 0.0]], dtype=torch.float64) for a in angles))
    p, q = turned(generator), turned(generator)
    return p @ torch.diag(values) @ p.T + q @ blocks @ q.T, values, angles


@pytest.fixture(scope="module")
def prior() -> GaussianMixture:
    generator = torch.Generator().manual_seed(1)
    p = turned(generator)
    return GaussianMixture(
        torch.zeros(1, 16, dtype=torch.float64), (p * torch.linspace(0.05, 2, 16, dtype=torch.float64)) @ p.T[None]
    )


def draw(*shape: int, seed: int = 5) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -------------------------------------------------------------------------------------------------------- derivatives


def test_a_gaussian_has_a_symmetric_derivative_with_known_eigenvalues(prior: GaussianMixture) -> None:
    denoiser = analysis.pixel_denoiser(prior.denoiser(VP(), SHAPE))  # and alpha = 1 whatever the model's coordinates
    time = analysis.level_time(denoiser, SIGMA)
    assert time.alpha == pytest.approx(1) and time.sigma == pytest.approx(SIGMA)
    j = analysis.matrix(denoiser, time, draw(*SHAPE), chunk=5)
    covariance = prior.covariances[0]
    torch.testing.assert_close(j, covariance @ torch.linalg.inv(covariance + SIGMA**2 * torch.eye(16)))
    wanted = torch.linspace(0.05, 2, 16, dtype=torch.float64)
    wanted = wanted / (wanted + SIGMA**2)
    spectrum, values = analysis.exact_spectrum(j)
    torch.testing.assert_close(values, wanted)
    assert (spectrum.smallest, spectrum.largest) == pytest.approx((float(wanted[0]), float(wanted[-1])))
    assert spectrum.skew < 1e-12 and analysis.exact_asymmetry(j) < 1e-12
    at = analysis.Linearised(denoiser, time, draw(2, *SHAPE))
    generator = torch.Generator().manual_seed(0)
    assert all(ratio < 1e-12 for ratio, _ in analysis.estimate_asymmetry(at, generator, 3))
    for found in analysis.estimate_spectrum(at, generator, 16):
        assert (found.smallest, found.largest, found.skew) == pytest.approx(
            (float(wanted[0]), float(wanted[-1]), 0), abs=1e-6
        )


def test_a_made_up_derivative_is_found() -> None:
    j, values, angles = lopsided()
    denoiser, time = Made(j), EDM().at(0.5)
    torch.testing.assert_close(analysis.matrix(denoiser, time, draw(*SHAPE)), j)
    ratio = float(math.sqrt(2) * angles.norm() / values.norm())
    assert analysis.exact_asymmetry(j) == pytest.approx(ratio)
    spectrum, all_values = analysis.exact_spectrum(j)
    torch.testing.assert_close(all_values, values)
    assert (spectrum.largest, spectrum.smallest, spectrum.skew) == pytest.approx((1.3, -0.2, 0.5))
    x = draw(2, *SHAPE)
    at = analysis.Linearised(denoiser, time, x)
    v = draw(2, *SHAPE, seed=6)
    for product, wanted in (
        (at.forward, j),
        (at.transposed, j.T),
        (at.symmetric, (j + j.T) / 2),
        (at.skew, (j - j.T) / 2),
    ):
        torch.testing.assert_close(product(v).flatten(1), v.flatten(1) @ wanted.T)
    generator = torch.Generator().manual_seed(0)
    for estimate, error in analysis.estimate_asymmetry(at, generator, 400):
        assert 0 < error < 0.02 and abs(estimate - ratio) < 4 * error
    for found in analysis.estimate_spectrum(at, generator, 16):
        assert (found.largest, found.smallest, found.skew) == pytest.approx((1.3, -0.2, 0.5), abs=1e-6)
        assert max(found.residuals) < 1e-6
    for found in analysis.estimate_spectrum(at, generator, 6):  # inside, and no farther off than the residual
        assert -0.2 <= found.smallest < found.largest <= 1.3 and found.skew <= 0.5
        distances = ((values - found.largest).abs().min(), (values - found.smallest).abs().min())
        assert all(d <= r + 1e-9 for d, r in zip(distances, found.residuals, strict=False))
        assert (angles - found.skew).abs().min() <= found.residuals[2] + 1e-9
        assert min(found.residuals) > 1e-6


def test_the_estimates_standard_error_is_right() -> None:
    at = analysis.Linearised(Made(lopsided()[0]), EDM().at(0.5), draw(200, *SHAPE))
    found = torch.tensor(analysis.estimate_asymmetry(at, torch.Generator().manual_seed(3), 20))
    assert float(found[:, 1].mean()) == pytest.approx(float(found[:, 0].std()), rel=0.15)


def test_a_complete_krylov_space_is_no_trouble() -> None:
    at = analysis.Linearised(Made(0.5 * torch.eye(16, dtype=torch.float64)), EDM().at(0.5), draw(1, *SHAPE))
    (found,) = analysis.estimate_spectrum(at, torch.Generator().manual_seed(0), 8)
    assert (found.largest, found.smallest, found.skew) == pytest.approx((0.5, 0.5, 0))


def test_the_error_of_differences_has_a_closed_form() -> None:
    j, bend = lopsided()[0], 0.3
    denoiser = Made(j, bend)
    time = analysis.level_time(denoiser, SIGMA)
    x, v = draw(2, *SHAPE), draw(2, *SHAPE, seed=6)
    at = analysis.Linearised(denoiser, time, x)
    exact = v.flatten(1) @ j.T + 2 * bend * (x * v).flatten(1)
    torch.testing.assert_close(at.forward(v).flatten(1), exact)
    found = analysis.difference_errors(denoiser, time, x, at, v, (0.01, 0.5))
    for label, h in (
        ("0.01", 0.01 * SIGMA / v.flatten(1).square().mean(1).sqrt()),
        ("0.5", 0.5 * SIGMA / v.flatten(1).square().mean(1).sqrt()),
        ("FCS", 0.005 * math.sqrt(1 + SIGMA**2) / v.flatten(1).abs().amax(1)),
    ):
        wanted = h * bend * v.flatten(1).square().norm(dim=1) / exact.norm(dim=1)
        assert found[label].each == pytest.approx(wanted.tolist(), rel=1e-3)


def test_latent_models_and_unknown_levels_are_refused() -> None:
    denoiser = Made(torch.eye(16))
    with pytest.raises(ValueError, match=r"no noise level 100; its levels end at 80\."):
        analysis.level_time(denoiser, 100)
    denoiser.codec = type("Latent", (Codec,), {})()
    with pytest.raises(ValueError, match="give a pixel model"):
        analysis.pixel_denoiser(denoiser)


# --------------------------------------------------------------------------------------------------------------- holes


def test_a_gaussians_conditional_mean_is_exact(prior: GaussianMixture) -> None:
    """Once by J, once by the posterior's own denoiser on the hidden entries."""
    denoiser = analysis.pixel_denoiser(prior.denoiser(EDM(), SHAPE))
    time = analysis.level_time(denoiser, SIGMA)
    truth = prior.sample(3, torch.Generator().manual_seed(2)).view(3, *SHAPE)
    x = truth + SIGMA * draw(3, *SHAPE)
    known = torch.zeros(SHAPE, dtype=torch.bool)
    known[0, 0] = True  # as many entries as the largest number of steps
    wanted = []
    for row in range(3):
        posterior = prior.posterior(Observation(truth[row], known))
        mean = posterior.denoiser(EDM())(x[row][~known][None], time).x0[0]
        wanted.append(float((mean - truth[row][~known]).square().mean()))
    at = analysis.Linearised(denoiser, time, x)
    found = holes.iterative_errors(denoiser, time, x, at, truth, known)
    assert found["J, CG 4"].each == pytest.approx(wanted, rel=1e-6)
    assert found["J^T, CG 4"].each == pytest.approx(wanted, rel=1e-6)
    assert found["J, CG 1"].each != pytest.approx(wanted, rel=1e-4)
    j = analysis.matrix(denoiser, time, x[0])
    solved = holes.solved_errors(j, time.sigma, at.x0[0], truth[0], known)
    assert all(solved[label] == pytest.approx(wanted[0], rel=1e-6) for label in ("J, solved", "S, solved"))
    # c says that y is noisy, with a variance of c sigma^2
    mean = GaussianMixture(at.x0[:1].flatten(1), SIGMA**2 * (j + j.T)[None] / 2).posterior(
        Observation(truth[0], known, SIGMA * math.sqrt(0.1)), joint=False
    )
    damped = float((mean.means[0] - truth[0][~known]).square().mean())
    for label in ("J + 0.1, solved", "S + 0.1, solved", "S >= 0 + 0.1, solved"):
        assert solved[label] == pytest.approx(damped, rel=1e-6)
    assert found["J + 0.1, CG 4"].each[0] == pytest.approx(damped, rel=1e-6)


def test_a_diagonal_covariance_leaves_the_hole_alone() -> None:
    j = torch.diag(torch.linspace(0.1, 1, 16, dtype=torch.float64))
    denoiser = Made(j)
    time = analysis.level_time(denoiser, SIGMA)
    truth, x = draw(2, *SHAPE), draw(2, *SHAPE, seed=6)
    known = holes.known_masks(SHAPE)["half"]
    at = analysis.Linearised(denoiser, time, x)
    found = holes.iterative_errors(denoiser, time, x, at, truth, known)
    base = ((at.x0 - truth)[:, :, :, 2:]).square().mean((1, 2, 3))
    assert found[holes.DIAGONAL].each == pytest.approx(base.tolist())
    assert all(one.each == pytest.approx(base.tolist()) for one in found.values())
    solved = holes.solved_errors(j, SIGMA, at.x0[0], truth[0], known)
    assert list(solved.values()) == pytest.approx([float(base[0])] * len(solved))


def test_unsymmetric_systems_are_solved_as_they_are() -> None:
    j = lopsided()[0]
    truth, x0 = draw(*SHAPE), draw(*SHAPE, seed=6)
    known = holes.known_masks(SHAPE)["box"]
    m = known.flatten()
    assert int((~m).sum()) == 4
    found = holes.solved_errors(j, SIGMA, x0, truth, known)
    e = (truth - x0).flatten()
    for label, v in (("J, solved", j), ("S, solved", (j + j.T) / 2)):
        mean = v[~m][:, m] @ torch.linalg.solve(v[m][:, m], e[m])
        assert found[label] == pytest.approx(float((mean - e[~m]).square().mean()), rel=1e-6)
    assert found["J, solved"] != pytest.approx(found["S, solved"], rel=1e-3)


def test_the_angle_in_the_hole() -> None:
    where = torch.tensor([True, True, False])
    a, b = torch.tensor([[1.0, 0.0, 9.0]]), torch.tensor([[1.0, 1.0, -9.0]])
    assert analysis.cosine(a, b, where).mean == pytest.approx(math.sqrt(0.5))


# -------------------------------------------------------------------------------------------------------------- report


def test_means_and_ratios() -> None:
    assert (Estimate((1.0, 3.0)).mean, Estimate((1.0, 3.0)).error) == (2, 1)
    assert Estimate((1.0,)).error is None
    errors = {"diagonal": Estimate((1.0, 3.0, 100.0)), "V": Estimate((1.0, 2.0))}
    ratio, error = report.beside_diagonal(errors, "V")
    assert ratio == 0.75
    # residuals .25 and -.25, a standard error of .25, over the mean 2
    assert error == pytest.approx(0.125)
    assert report.beside_diagonal({**errors, "V": Estimate((1.0,))}, "V") == (1.0, None)


def test_the_red_square_is_that_of_the_matrix() -> None:
    generator = torch.Generator().manual_seed(0)
    j = torch.randn(192, 192, generator=generator, dtype=torch.float64)
    settings = suite.Settings(levels=(0.5, 2.0))
    found = suite.red_square(Made(j), draw(3, 8, 8), settings)
    assert [one.sigma for one in found] == [0.5, 2.0]
    e = found[0].e
    assert e[:, 3:5, 3:5].amax((1, 2)).tolist() == [1, -1, -1]
    assert e.abs().sum() == 3 * 4
    torch.testing.assert_close(found[1].forward.flatten(), j @ e.flatten())
    torch.testing.assert_close(found[1].transposed.flatten(), j.T @ e.flatten())
    grey = suite.red_square(Made(j[:64, :64]), draw(1, 8, 8), settings)[0].e
    assert grey.unique().tolist() == [0, 1]


# ------------------------------------------------------------------------------------------------------------- command


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Any:
    def run(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            run_study(study.jacobian, [str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(stop.value.code or 0), captured.out, captured.err

    return run


def weights(path: Path, channels: int) -> Path:
    """A tiny network with random weights."""
    config = UNetConfig(channels=channels, widths=(8,), blocks=1)
    network = UNet(config)
    generator = torch.Generator().manual_seed(0)
    state = {name: torch.randn(w.shape, generator=generator) * 0.1 for name, w in network.state_dict().items()}
    save_file(state, path, {"config": json.dumps(config.to_dict())})
    return path


@pytest.fixture
def idx(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 8), dtype=np.uint8)
    path = tmp_path / "noise-idx3-ubyte"
    path.write_bytes(b"\0\0\x08\x03" + struct.pack(">III", *pixels.shape) + pixels.tobytes())
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name in "ab":
        pixels = np.random.default_rng(ord(name)).integers(0, 256, (24, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


SMALL = ("--levels", "0.1,2", "--pictures", "3", "--spectra", "2", "--probes", "2", "--iterations", "3", "-q")


@pytest.mark.parametrize("colours", [1, pytest.param(3, marks=pytest.mark.slow)])
def test_the_command_writes_its_files(call: Any, tmp_path: Path, idx: Path, folder: Path, colours: int) -> None:
    model = weights(tmp_path / "tiny.safetensors", colours)
    data = ("--data", idx) if colours == 1 else ("--data", folder, "--size", "20")
    code, out, err = call("--model", model, *data, *SMALL, "-o", tmp_path / "o")
    assert code == 0, err
    made = tmp_path / "o"
    assert {path.name for path in made.iterdir()} == {"jacobian.json", "jacobian.md", "jacobian.png", "red-square.png"}
    assert out == (made / "jacobian.md").read_text() + "\n"
    assert "### Hidden box: conjugate gradients" in out
    exact = colours == 1
    assert ("### Hidden half: solved" in out) == exact
    found = json.loads((made / "jacobian.json").read_text())
    about = found["protocol"]
    assert about["shape"] == ([1, 8, 8] if exact else [3, 20, 20])
    assert len(about["weights_sha256"]) == 64 and about["data"] == data[1].name and len(about["pictures"]) == 3
    assert str(tmp_path) not in json.dumps(found)
    assert [level["sigma"] for level in found["levels"]] == [0.1, 2.0]
    for level in found["levels"]:
        assert len(level["spectra"]) == len(level["asymmetry"]["each"]) == 2
        assert len(level["eigenvalues"]) == (64 if exact else 0)
        assert len(level["holes"]["box"]["J, CG 2"]["each"]) == 3
        assert level["asymmetry"]["mean"] > 1e-3
        assert all(0 <= error < 1 for error in level["asymmetry_errors"])
        assert level["differences"]["0.01"]["mean"] < 0.1
        if exact:
            assert len(level["holes"]["half"]["S, solved"]["each"]) == 2
    for name in ("jacobian.png", "red-square.png"):
        with Image.open(made / name) as image:
            assert image.width > 200
    code, out, _ = call("--model", model, *data, *SMALL, "-o", tmp_path / "again", "--format", "json")
    assert code == 0 and json.loads(out) == found


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--levels", "0.1,x"], "--levels takes positive numbers"),
        (["--levels", "0"], "--levels takes positive numbers"),
        (["--levels", "100"], "no noise level 100"),
        (["--model", "dingo"], "no model"),
        (["--model", "photo"], "takes 3 colours"),
    ],
)
def test_the_command_refuses(call: Any, tmp_path: Path, idx: Path, arguments: list[str], part: str) -> None:
    model = weights(tmp_path / "tiny.safetensors", 1)
    code, out, err = call("--model", model, "--data", idx, *SMALL, *arguments, "-o", tmp_path / "o")
    assert (code, out) == (2, "")
    assert part in err
    assert not (tmp_path / "o").exists()


def test_the_default_levels_are_the_modules() -> None:
    assert tuple(map(float, study.LEVELS.split(","))) == analysis.LEVELS
