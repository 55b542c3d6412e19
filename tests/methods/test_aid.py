"""AID: an untrained module is the backbone, the closed-form optimum is reached, one action a step, honest errors."""

import json
import math
from dataclasses import dataclass, replace

import pytest
import torch
from safetensors.torch import save_file

import paintback as pb
from paintback.methods.aid import Aid, GuidedDenoiser, name_of
from paintback.methods.base import Method
from paintback.methods.solvers import SOLVERS
from paintback.models import guidance as room
from paintback.models.embedded import UNetDenoiser
from paintback.models.guidance import Guidance, GuidanceConfig, find_guidance, load_guidance
from paintback.models.unet import UNet, UNetConfig
from paintback.schedules import EDM, VP, Flow, log_snr

SCHEDULES = [VP(), Flow(), EDM()]
IDS = ["vp", "flow", "edm"]
SMALL = GuidanceConfig(channels=1, width=8, blocks=2, unshuffle=2)


@pytest.fixture(scope="module")
def backbone():
    """A tiny untrained network that is not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(UNetConfig(channels=1, widths=(8, 8), blocks=1))
        torch.nn.init.normal_(network.outlet.weight, std=0.1)
    return UNetDenoiser(network.eval().requires_grad_(False), shape=(1, 8, 8), name="tiny")


@pytest.fixture(scope="module")
def module():
    """A module as if trained: its last layers are not zero."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = Guidance(SMALL)
        for layer in (net.trunk.outlet, net.trunk.number):
            torch.nn.init.normal_(layer.weight, std=0.1)
    return net.eval().requires_grad_(False)


@pytest.fixture
def observation():
    y = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(2)) * 2 - 1
    known = torch.ones(1, 8, 8, dtype=torch.bool)
    known[:, 2:6, 3:7] = False
    return pb.Observation(y, known)


def seeds(*numbers):
    return [torch.Generator().manual_seed(n) for n in numbers]


def sample(method, denoiser, observation, steps=6, generators=(0, 1, 2), **more):
    return method.sample(denoiser, observation, steps, seeds(*generators), num_samples=len(generators), **more)


# ------------------------------------------------------------------------------------------- the untrained module


@dataclass(frozen=True)
class Plain(Method):
    """The backbone alone under a solver."""

    name = "plain"
    edm_coordinates = "edm"
    solver: str = "euler"

    def step(self, run, x_t, t, s):
        return SOLVERS[self.solver](run, lambda x, time: (x, run.denoise(x, time)), x_t, t, s)


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m", "ancestral"])
def test_untrained_equals_the_backbone_exactly(solver, backbone, observation):
    alone = sample(Plain(solver=solver), backbone, observation)
    guided = sample(Aid(guidance=Guidance(SMALL), solver=solver), backbone, observation)
    assert torch.equal(guided.x, alone.x)
    assert guided.evaluations == alone.evaluations


def test_untrained_critic_and_actor_are_zero():
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    known = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.5
    assert not Guidance(SMALL)(x, x, x + 1, known, 0.7).any()
    assert not room.Critic(SMALL)(x, x, x + 1, known, 0.7).any()


def test_under_one_percent_of_the_photo_model():
    backbone = sum(p.numel() for p in UNet(UNetConfig()).parameters())
    config = GuidanceConfig(channels=3).within(0.01 * backbone)
    own = sum(p.numel() for p in Guidance(config).parameters())
    assert backbone > 5_500_000
    assert 0.008 * backbone < own < 0.01 * backbone


@pytest.mark.parametrize("shape", [(7, 9), (8, 8), (5, 30)])
def test_any_size_and_hidden_values_do_not_matter(shape, module):
    rng = torch.Generator().manual_seed(0)
    x, x0, y = (torch.randn(2, 1, *shape, generator=rng) for _ in range(3))
    known = torch.rand(2, 1, *shape, generator=rng) > 0.5
    out = module(x, x0, y, known, 0.7)
    assert out.shape == x.shape
    assert out.abs().max() > 0
    torch.testing.assert_close(module(x, x0, torch.where(known, y, 99.0), known, 0.7), out)
    torch.testing.assert_close(module(x, x0, y, known, torch.tensor([0.7, 0.7])), out)


def test_module_is_silent_below_its_lowest_level(module):
    quiet = Guidance(replace(SMALL, sigma_low=0.5))
    quiet.load_state_dict(module.state_dict())
    x = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    assert not quiet(x, x, x, x > 0, 0.49).any()
    assert torch.equal(quiet(x, x, x, x > 0, 0.5), module(x, x, x, x > 0, 0.5))
    both = quiet(x, x, x, x > 0, torch.tensor([0.4, 0.6]))
    assert not both[0].any() and both[1].any()


def test_module_names_the_shape_it_takes(module):
    x = torch.zeros(2, 3, 8, 8)
    with pytest.raises(ValueError, match=r"\(B, 1, H, W\); got \(2, 3, 8, 8\)"):
        module(x, x, x, x > 0, 1.0)


# -------------------------------------------------------------------------------------------- the guided denoiser

C, G, BETA = 1.0, 0.7, 0.5


def optimum(x, x0, y, known, sigma):
    """Sigma u* of a scalar problem: data N(0, c^2), Psi = (x - g)^2 / 2."""
    phi = C / math.hypot(C, sigma)
    return -sigma / BETA * phi * (phi * x - G) / (1 + C * math.atan(sigma / C) / BETA)


@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
@pytest.mark.parametrize(("solver", "tolerance"), [("euler", 2e-2), ("heun", 1e-2), ("dpmpp_2m", 2e-2)])
def test_closed_form_guidance_ends_where_the_theory_says(schedule, solver, tolerance):
    prior = pb.priors.GaussianMixture([[0.0]], [[[C**2]]])
    observation = pb.Observation(torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.bool))
    sigma = 4.0
    method = Aid(guidance=optimum, solver=solver, bounded=False)
    got = sample(
        method, prior.denoiser(schedule), observation, 400, range(8),
        grid=log_snr(sigma_min=1e-3, sigma_max=sigma),
    ).x  # fmt: skip
    start = sigma * torch.stack([torch.randn(1, generator=g) for g in seeds(*range(8))]).double()
    phi = C / math.hypot(C, sigma)
    want = G + (phi * start - G) / (1 + C * math.atan(sigma / C) / BETA)
    torch.testing.assert_close(got, want, atol=tolerance, rtol=0)


@pytest.mark.parametrize("known", ["guided", "replaced"])
@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m", "ancestral"])
def test_coordinates_do_not_matter(solver, known):
    prior = pb.priors.GaussianMixture([[0.5, -0.3]], [[[1.0, 0.8], [0.8, 1.0]]])
    observation = pb.Observation(torch.tensor([0.9, 0.0], dtype=torch.float64), torch.tensor([True, False]))

    def guide(x, x0, y, known, sigma):
        return 0.3 * sigma / (1 + sigma) * (y - x0) + 0.01 * x / (1 + sigma)

    ends = [
        sample(
            Aid(guidance=guide, solver=solver, known=known, bounded=False), prior.denoiser(schedule), observation, 10,
            grid=log_snr(sigma_min=0.1, sigma_max=50.0),
        ).x
        for schedule in SCHEDULES
    ]  # fmt: skip
    torch.testing.assert_close(ends[0], ends[1], atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ends[0], ends[2], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("known", ["guided", "replaced"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m", "ancestral"])
def test_finite_on_default_grids(schedule, solver, known, backbone, module, observation):
    """Flow starts at alpha = 0, where the noise level is infinite."""
    prior = pb.priors.GaussianMixture(torch.zeros(1, 64), torch.eye(64)[None])
    denoiser = prior.denoiser(schedule, shape=(1, 8, 8))
    result = sample(Aid(guidance=module, solver=solver, known=known), denoiser, observation, 5)
    assert result.x.isfinite().all()
    assert result.x.abs().max() < 20


def test_prediction_stays_tied_to_its_state(backbone, module, observation):
    known, y = observation.known[None], observation.y[None]
    for replaced in (False, True):
        guided = GuidedDenoiser(backbone, module, y, known, replaced=replaced)
        x = torch.randn(1, 1, 8, 8, generator=torch.Generator().manual_seed(3)) * 2
        got, time = guided(x, 0.5), EDM().at(0.5)
        torch.testing.assert_close(time.alpha * got.x0 + time.sigma * got.x1, x, atol=1e-5, rtol=1e-5)
        assert (got.x0 - backbone(x, 0.5).x0).abs().max() > 1e-3
        assert torch.allclose(got.x0[known], y[known], atol=1e-6) == replaced


def test_replaced_part_walks_straight_from_its_noise_to_y(backbone, module, observation):
    states = []
    method = Aid(guidance=module, known="replaced")
    sample(method, backbone, observation, callback=lambda k, t, x, x0: states.append((t, x)))
    first = torch.stack([torch.randn(1, 8, 8, generator=g) for g in seeds(0, 1, 2)])
    known = observation.known.expand_as(first)
    for t, x in states:
        want = observation.y + (first - observation.y / 80) * float(EDM()(t)[1])
        torch.testing.assert_close(x[known], want[known], atol=1e-4, rtol=1e-4)


# ------------------------------------------------------------------------------------------------- cost, batches


@pytest.mark.parametrize("solver", ["euler", "heun", "dpmpp_2m", "ancestral"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=IDS)
def test_cost_and_one_action_a_step(solver, schedule, observation):
    calls = []

    def guide(x, x0, y, known, sigma):
        calls.append(sigma)
        return torch.zeros_like(x)

    prior = pb.priors.GaussianMixture(torch.zeros(1, 64), torch.eye(64)[None])
    method = Aid(guidance=guide, solver=solver, bounded=False)
    result = sample(method, prior.denoiser(schedule, shape=(1, 8, 8)), observation, 7)
    times = pb.schedules.make_grid(schedule, 7)
    assert result.evaluations == method.evaluations(7, times)
    assert (result.vjps, len(calls)) == (0, 7)
    if schedule is not SCHEDULES[1]:
        assert result.evaluations == method.evaluations(7) == (13 if solver == "heun" else 7)


def test_heun_holds_the_action():
    """On a backbone whose picture is always 0, x moves by u dr; a changed action would show in the second stage."""
    denoiser = pb.priors.GaussianMixture([[0.0]], [[[1e-12]]]).denoiser(EDM())
    observation = pb.Observation(torch.zeros(1, dtype=torch.float64), torch.zeros(1, dtype=torch.bool))
    t, s = EDM().at(0.6), EDM().at(0.3)
    states = []
    Aid(guidance=lambda x, x0, y, known, sigma: sigma * torch.full_like(x, sigma), solver="heun", bounded=False).sample(
        denoiser, observation, grid=[t.t, s.t, 0.0], generator=seeds(0), num_samples=1,
        callback=lambda k, time, x, x0: states.append(x),
    )  # fmt: skip
    x = t.sigma * torch.randn(1, generator=seeds(0)[0]).double()
    slope = x / t.sigma - t.sigma
    trial = x + (s.sigma - t.sigma) * slope
    want = x + (s.sigma - t.sigma) * (slope + trial / s.sigma - t.sigma) / 2
    torch.testing.assert_close(states[0][0], want, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("known", ["guided", "replaced"])
def test_sample_does_not_depend_on_its_batch(known, backbone, module, observation):
    method = Aid(guidance=module, known=known)
    together, alone = (sample(method, backbone, observation, generators=g).x for g in ((4, 5, 6), (5,)))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-5)
    assert (together[0] - together[1]).abs().max() > 1e-2


def test_noisy_observation_is_not_pasted(backbone, module, observation):
    noisy = pb.Observation(observation.y, observation.known, sigma=0.3)
    result = sample(Aid(guidance=module, known="replaced"), backbone, noisy)
    assert result.x.isfinite().all()
    assert (result.residual > 1e-3).all()


# ---------------------------------------------------------------------------------------------- finding a module


def write(path, module, **header):
    meta = {"kind": "aid", "backbone": "tiny", "clock": "edm", "beta": "1", "actor": "score", "known": "replaced"}
    save_file(module.state_dict(), path, {**meta, "config": json.dumps(vars(SMALL)), **header})
    return path


def test_a_module_is_found_by_the_models_name(backbone, module, observation, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "WEIGHTS", tmp_path)
    write(tmp_path / "aid-tiny.safetensors", module)
    assert find_guidance("tiny") == tmp_path / "aid-tiny.safetensors"
    assert find_guidance("other") is None and find_guidance("tiny", "adjoint") is None
    assert find_guidance("../tiny") is None
    other = Guidance(SMALL)
    write(tmp_path / "aid-tiny-adjoint.safetensors", other, actor="adjoint")
    assert find_guidance("tiny", "adjoint") == tmp_path / "aid-tiny-adjoint.safetensors"
    torch.testing.assert_close(
        sample(Aid(guidance="adjoint"), backbone, observation).x,
        sample(Aid(guidance=other.eval(), known="replaced"), backbone, observation).x,
    )
    assert name_of(backbone.in_coordinates("vp")) == "tiny"
    found = sample(Aid(), backbone, observation).x
    torch.testing.assert_close(found, sample(Aid(guidance=module, known="replaced"), backbone, observation).x)
    path = write(tmp_path / "mine.safetensors", module, known="guided")
    torch.testing.assert_close(
        sample(Aid(guidance=str(path)), backbone, observation).x,
        sample(Aid(guidance=module), backbone, observation).x,
    )


def test_none_fits(observation, tmp_path, monkeypatch, backbone):
    monkeypatch.setattr(room, "WEIGHTS", tmp_path)
    with pytest.raises(ValueError, match="`paintback train aid --model tiny`"):
        sample(Aid(), backbone, observation)
    prior = pb.priors.GaussianMixture(torch.zeros(1, 64), torch.eye(64)[None])
    with pytest.raises(ValueError, match="`paintback train aid --model NAME`"):
        sample(Aid(), prior.denoiser(VP(), shape=(1, 8, 8)), observation)
    with pytest.raises(ValueError, match="There is no guidance"):
        sample(Aid(guidance="nowhere.safetensors"), backbone, observation)
    save_file({"a": torch.zeros(1)}, tmp_path / "else.safetensors", {"kind": "prior"})
    with pytest.raises(ValueError, match="does not hold a guidance"):
        load_guidance(tmp_path / "else.safetensors")


def test_fields_and_names():
    assert "aid" in pb.methods.names()
    with pytest.raises(ValueError, match="solver must be one of"):
        pb.methods.get("aid", solver="rk4")
    with pytest.raises(ValueError, match="known must be one of guided, replaced"):
        pb.methods.get("aid", known="pasted")


@pytest.mark.parametrize("name", ["fashion", "photo"])
def test_the_shipped_module_is_found_without_being_told(name):
    path = find_guidance(name)
    assert path == room.WEIGHTS / f"aid-{name}.safetensors"
    model = pb.models.load(name)
    denoiser = model.denoiser()
    y = torch.zeros(model.channels, 32, 32)
    known = torch.ones(model.channels, 32, 32, dtype=torch.bool)
    known[:, 8:24, 8:24] = False
    observation = pb.Observation(y, known)
    found = sample(pb.methods.get("aid"), denoiser, observation, 3, (0,))
    told = sample(Aid(guidance=str(path)), denoiser, observation, 3, (0,))
    assert torch.equal(found.x, told.x)
    assert not torch.equal(
        found.x, sample(pb.methods.get("replacement", path="fixed"), denoiser, observation, 3, (0,)).x
    )
    assert path.stem not in [card.name for card in pb.models.catalogue()]
    with pytest.raises(ValueError, match="does not hold weights of an embedded model"):
        pb.models.load(str(path))


def test_shipped_modules_are_whole():
    """Every shipped module has a header, a card, and under about 1 % of its backbone's parameters."""
    for path in room.WEIGHTS.glob("aid-*.safetensors"):
        own, header = load_guidance(path)
        assert header["backbone"] == path.stem.removeprefix("aid-").removesuffix("-adjoint")
        assert path.with_name(f"aid-{header['backbone']}.md").is_file()
        card = pb.models.find(header["backbone"])
        assert sum(p.numel() for p in own.parameters()) < 0.01 * card.parameters
        assert path.stem not in [card.name for card in pb.models.catalogue()]


@pytest.mark.parametrize("seed", range(12))
def test_a_trained_modules_action_stays_within_what_is_known(seed, backbone, tmp_path):
    """Whatever the module says: on hidden entries no value beyond those known of the channel and the model's own."""
    pick = torch.Generator().manual_seed(seed)
    wild = Guidance(SMALL)
    for layer in (wild.trunk.outlet, wild.trunk.number):
        torch.nn.init.normal_(layer.weight, std=3.0, generator=pick)
    y = 0.1 * torch.rand(3, 1, 8, 8, generator=pick) + torch.rand(3, 1, 1, 1, generator=pick)
    known = torch.rand(3, 1, 8, 8, generator=pick) > 0.4
    x = torch.randn(3, 1, 8, 8, generator=pick)
    time = backbone.schedule.at(0.3 + 0.6 * float(torch.rand((), generator=pick)))
    plain = backbone.predict(x, time).x0
    free, held = (
        GuidedDenoiser(backbone, wild, y, known, replaced=True, bounded=bounded).predict(x, time).x0
        for bounded in (False, True)
    )
    low = torch.minimum(plain, torch.where(known, y, math.inf).amin((1, 2, 3), keepdim=True))
    high = torch.maximum(plain, torch.where(known, y, -math.inf).amax((1, 2, 3), keepdim=True))
    inside = (held >= low - 1e-6) & (held <= high + 1e-6)
    assert inside[~known].all()
    assert not ((free >= low - 1e-6) & (free <= high + 1e-6))[~known].all()  # it would have left it
    torch.testing.assert_close(held, torch.where(known, free, free.clamp(low, high)))
