"""What nobody's code was recorded for, tied to the recorded runs by identities.

Each of the following must leave a recorded case's numbers as they are: another sample beside it in the batch;
its mask said as a linear operator; a codec that turns the picture. Classifier-free guidance between two predictions
must be the run on their mixture. So what is known of a method on one picture, a mask and one prediction holds for
batches, operators, guidance and latent models.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from paintback import methods
from paintback.denoiser import Codec, Denoiser, NetworkDenoiser, Prediction, predict
from paintback.methods.base import Method
from paintback.observation import LinearOperator, Observation
from paintback.schedules import Schedule, Time
from tests.golden.runs import CASES, Case, Ours, run
from tests.golden.variants import Net

CLOSE = 1e-11  # in float64
# schedules of time travel are long and tell the order of the grid points alone
PARAMETERS = [pytest.param(path, id=path.stem) for path in CASES if "-schedule-" not in path.stem]
# PnP-DM draws y's own noise too, which has another shape behind an operator; tests/methods has its law
WITH_OPERATOR = [path for path in CASES if Case.read(path).method().takes_operator and "pnpdm" not in path.stem]
LANPAINT = [path for path in CASES if path.stem.startswith("lanpaint")]
DECODES = [name for name, kind in methods.types().items() if kind.decodes]


def close(path: Path) -> float:
    """FCS divides rounding by the step of its finite differences, .005."""
    return 1e-7 if path.stem.startswith("fcs") else CLOSE


def apart(ours: Ours, other: Ours, row: slice = slice(None), *, where: Tensor | None = None) -> float:
    """The largest difference of states and results; `row` is taken of the first."""
    pairs = [*zip(ours.states, other.states, strict=True), (ours.result.x, other.result.x)]
    seen = torch.ones_like(other.result.x, dtype=torch.bool) if where is None else where.expand_as(other.result.x)
    return max(float((a[row] - b)[seen].abs().max()) for a, b in pairs)


@pytest.mark.parametrize("path", PARAMETERS)
def test_another_sample_in_the_batch_changes_nothing(path: Path, monkeypatch: pytest.MonkeyPatch):
    """The first row has another y, mask, noise and start; the second is the recorded one."""
    case = Case.read(path)
    alone = run(case, case.method(), monkeypatch)

    def beside(value: Tensor) -> Tensor:
        return torch.cat((value.flip(-1) * 0.5, value))

    initial = case.given.get("initial")
    both = run(
        case,
        case.method(),
        monkeypatch,
        observation=Observation(
            beside(case.given["y"]), torch.cat((case.known.flip(-1), case.known)), sigma=case.sigma
        ),
        initial=None if initial is None else beside(initial.expand_as(case.given["y"])),
        drawn=lambda draw: torch.cat((draw.flip(-1), draw)),
    )
    assert apart(both, alone, slice(1, 2)) < close(path)
    assert both.result.evaluations == alone.result.evaluations
    assert both.result.vjps == alone.result.vjps


class Kept(LinearOperator):
    """The known entries of a picture (B, C, H, W) as a vector (B, n), in a shuffled order and with changed signs."""

    def __init__(self, known: Tensor) -> None:
        generator = torch.Generator().manual_seed(0)
        self.shape, places = known.shape[1:], known[0].flatten().nonzero()[:, 0]
        self.places = places[torch.randperm(len(places), generator=generator)]
        self.signs = torch.randint(2, (len(places),), generator=generator) * 2.0 - 1

    def __call__(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, self.places] * self.signs.to(x)

    def transpose(self, y: Tensor) -> Tensor:
        x = y.new_zeros(len(y), self.shape.numel())
        x[:, self.places] = y * self.signs.to(y)
        return x.unflatten(1, self.shape)

    pseudo_inverse = transpose  # the rows are orthonormal


@pytest.mark.parametrize("path", WITH_OPERATOR, ids=lambda path: path.stem)
def test_a_mask_may_be_said_as_a_linear_operator(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Compared in the hole: known entries are pasted at the end for a mask alone."""
    case = Case.read(path)
    operator, denoiser = Kept(case.known), Net(case.schedule)
    denoiser.shape = tuple(case.known.shape[1:])
    said = run(
        case,
        case.method(),
        monkeypatch,
        denoiser=denoiser,
        observation=Observation(operator(case.given["y"])[0], sigma=case.sigma, operator=operator),
    )
    assert apart(said, run(case, case.method(), monkeypatch), where=~case.known) < close(path)


def test_many_methods_take_an_operator():
    assert {Case.read(path).meta["method"] for path in WITH_OPERATOR} >= {
        "ddnm", "dps", "fcs", "flowchef", "flowdps", "mmps", "pigdm", "pnpflow", "psld", "reddiff"
    }  # fmt: skip


# Guidance ------------------------------------------------------------------------------------------------------------

SCALE = 3.0


class Clocked:
    """The recorded network as one that takes a clock and a condition (B, 1), by which its picture is made brighter."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule, self.net = schedule, Net(schedule)

    def __call__(self, x: Tensor, clock: Tensor, condition: Tensor) -> Tensor:
        time = self.schedule.at(float(clock[0]))
        return self.net.x0hat(x, time.alpha, time.sigma) * (1 + condition[:, :, None, None])


class Mixed(Denoiser):
    """One prediction: what guidance makes of those under the two conditions."""

    def __init__(self, schedule: Schedule, conditional: float, unconditional: float) -> None:
        super().__init__(schedule)
        self.network, self.both = Clocked(schedule), (conditional, unconditional)

    def predict(self, x: Tensor, time: Time) -> Prediction:
        clock = torch.full((len(x),), time.t, dtype=torch.float32)
        under, without = (self.network(x, clock, x.new_full((len(x), 1), value)) for value in self.both)
        return predict("x0", without + SCALE * (under - without), x, time, rows=len(x))


def guided(schedule: Schedule, conditional: float, unconditional: float) -> NetworkDenoiser:
    """The same by classifier-free guidance."""
    rows = (torch.full((1, 1), value, dtype=torch.float64) for value in (conditional, unconditional))
    return NetworkDenoiser(
        Clocked(schedule), schedule, "x0", clock=lambda time: time.t,
        condition=next(rows), unconditional=next(rows), guidance_scale=SCALE,
    )  # fmt: skip


@pytest.mark.parametrize("path", PARAMETERS)
def test_guidance_is_a_run_on_the_mixture(path: Path, monkeypatch: pytest.MonkeyPatch):
    """Twice the rows, as many evaluations."""
    case = Case.read(path)
    both = run(case, case.method(), monkeypatch, denoiser=guided(case.schedule, 0.1, -0.05))
    one = run(case, case.method(), monkeypatch, denoiser=Mixed(case.schedule, 0.1, -0.05))
    assert apart(both, one) < 10 * close(path)
    assert (both.result.evaluations, both.result.vjps) == (one.result.evaluations, one.result.vjps)
    assert both.result.network_rows == 2 * one.result.network_rows


@pytest.mark.parametrize("path", LANPAINT, ids=lambda path: path.stem)
def test_lanpaint_with_a_second_scale(path: Path, monkeypatch: pytest.MonkeyPatch):
    """The model's own scale given as `cfg_big` is no second one; another one is."""
    case, fields = Case.read(path), Case.read(path).meta["fields"]
    denoiser = guided(case.schedule, 0.1, -0.05)
    one, same, other = (
        run(case, methods.get("lanpaint", **{**fields, "cfg_big": scale}), monkeypatch, denoiser=denoiser)
        for scale in (None, SCALE, -0.5)
    )
    assert apart(same, one) < CLOSE
    assert apart(other, one) > 1e-3


# Codecs --------------------------------------------------------------------------------------------------------------


class Turned(Codec):
    """A codec whose latents are the picture upside down, its colours in another order, its signs changed."""

    def encode(self, picture: Tensor) -> Tensor:
        return -picture.flip(-2, -3)

    decode = encode  # its own inverse


class Behind(Denoiser):
    """The recorded denoiser behind that codec."""

    def __init__(self, schedule: Schedule) -> None:
        super().__init__(schedule)
        self.net, self.codec = Net(schedule), Turned()

    def predict(self, x: Tensor, time: Time) -> Prediction:
        seen = self.net.predict(self.codec.decode(x), time)
        return Prediction(self.codec.encode(seen.x0), self.codec.encode(seen.x1), rows=len(x))


def behind(case: Case, method: Method, monkeypatch: pytest.MonkeyPatch) -> Ours:
    """The run in latents, its states and result decoded."""
    codec, y, initial = Turned(), case.given["y"], case.given.get("initial")
    ours = run(
        case,
        method,
        monkeypatch,
        denoiser=Behind(case.schedule),
        observation=Observation(
            codec.encode(y), case.known.flip(-2, -3), case.sigma, picture=Observation(y, case.known, case.sigma)
        ),
        initial=None if initial is None else codec.encode(initial),
        drawn=codec.encode,
    )
    ours.states = [codec.decode(state) for state in ours.states]
    ours.result = replace(ours.result, x=codec.decode(ours.result.x))
    return ours


@pytest.mark.parametrize("path", PARAMETERS)
def test_a_turned_codec_turns_the_run(path: Path, monkeypatch: pytest.MonkeyPatch):
    case = Case.read(path)
    assert apart(behind(case, case.method(), monkeypatch), run(case, case.method(), monkeypatch)) < close(path)


@pytest.mark.parametrize("name", DECODES)
def test_methods_that_decode_see_the_picture(name: str, monkeypatch: pytest.MonkeyPatch):
    """On the observation of a recorded case, each with fields as they come; its draws are those of one method."""
    case = Case.read(CASES[0].with_name("dps.npz"))
    case.tape = []  # every draw is 0
    case.given["initial"] = 0.3 * torch.ones_like(case.given["y"]).cumsum(-1).cos()
    method = methods.get(name)
    straight = run(case, method, monkeypatch)
    assert apart(behind(case, method, monkeypatch), straight) < 1e-8
    assert straight.result.x.std() > 0.01


def test_without_a_codec_the_latent_methods_are_dps(monkeypatch: pytest.MonkeyPatch):
    """LDPS is DPS, and PSLD is DPS whose zeta is omega + gamma: so the recorded DPS is theirs too."""
    case = Case.read(CASES[0].with_name("dps.npz"))
    zeta = case.meta["fields"]["zeta"]
    recorded = run(case, case.method(), monkeypatch)
    assert apart(run(case, methods.get("ldps", zeta=zeta), monkeypatch), recorded) < CLOSE
    glued = methods.get("psld", omega=0.7 * zeta, gamma=0.3 * zeta)
    assert apart(run(case, glued, monkeypatch), recorded) < CLOSE
