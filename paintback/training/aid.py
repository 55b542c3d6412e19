"""Training AID's guidance beside any frozen denoiser: batches of problems, checkpoints that can be resumed, an average.

The problem and the updates are in `actor_critic.py`. What the paper's text, which we have not seen, would fix and is
our reconstruction here: Psi, the mixture of masks, the levels, and all numbers of `AidTraining`.

    Psi(x) = (1/d) [ w_known ||m (x - y)||^2 + w_hidden ||(1 - m) (x - x*)||^2 ],    x* the hidden picture itself

The levels are those of EDM's grid of K steps, moved by a random part of a step in every batch (the first stays), so
that the module meets all of them.
"""

from __future__ import annotations

import copy
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from paintback.denoiser import Denoiser, Prediction
from paintback.models.guidance import Critic, Guidance, GuidanceConfig, load_guidance
from paintback.schedules import EDM, Time
from paintback.training.actor_critic import Actor, Clock, CriticRule, Learner, Rules, Task
from paintback.training.data import Pictures, prefetch
from paintback.training.learner import whole
from paintback.training.masks import KINDS, mixed_masks
from paintback.training.prior import cut_log

__all__ = [
    "AidTraining",
    "Autocast",
    "Distance",
    "draw_batch",
    "draw_task",
    "export_guidance",
    "levels",
    "psi",
    "psi_parts",
    "train_aid",
]

Distance = Callable[[Tensor, Tensor], Tensor]
"""Two batches of pictures in [-1, 1] to their distances: (B,), or maps of them, (B, 1, H, W), whose mean counts."""

WEIGHTS, STATE, LOG = "aid.safetensors", "state.safetensors", "log.jsonl"


@dataclass(frozen=True)
class AidTraining:
    """How a guidance is trained.

    Attributes:
        actor: "score", the paper's; or "pathwise" or "adjoint", which need gradients through the backbone.
        steps: updates, counted from the very first one.
        batch: rows of an update; half as many pictures when mirrored.
        rollout: K, solver steps of a rollout.
        beta: price of guidance of one entry: the paper's beta is this over d.
        exploration: s, the policy's standard deviation; lambda = beta s^2 / 2.
        trace: 0 for the paper's TD residual, 1 for Monte-Carlo advantages.
        mirrored: pairs of rows with opposite noise.
        balanced: weights of the steps; see `actor_critic.py`.
        cells: side of the squares, moved at random, over which the policy's noise is the same; see `actor_critic.py`.
            Several fall from the first to the last in equal parts of the training.
        critic: "martingale" or "td0"; see `actor_critic.py`.
        clock: "sigma" or "index"; see `actor_critic.py`.
        informed: the critic sees the hidden picture.
        local: radius, pixels, of the window of Psi that an entry of the action answers for; see `actor_critic.py`.
        per_hole: Psi's hidden part is a mean over the hidden entries and not over all, so that small holes teach as
            much as large ones.
        perceptual: weight in Psi of a distance between pictures that is evaluated and never differentiated, such as
            LPIPS; for the score actor.
        known: "guided" by the module alone (the paper), or "replaced": D is y there.
        w_known: weight of the known part in Psi.
        w_hidden: weight of the hidden part.
        learning_rate: of Adam; it falls to a twentieth along a half cosine.
        warmup: updates over which it rises, again after every resume.
        ema: decay of the average of the actor, reached as (1 + k) / (10 + k).
        seed: of pictures, masks, noise and initial weights.
        save_every: seconds of the processor between checkpoints.
        watch_every: updates between looks at the held-out problems.
        autocast: the backbone computes in bfloat16 where that is safe.
    """

    actor: Actor = "score"
    steps: int = 1_000
    batch: int = 64
    rollout: int = 12
    beta: float = 0.3
    exploration: float = 0.1
    trace: float = 1.0
    mirrored: bool = True
    balanced: bool = True
    cells: int | tuple[int, ...] = 1
    critic: CriticRule = "martingale"
    clock: Clock = "sigma"
    informed: bool = False
    local: int | None = None
    per_hole: bool = False
    perceptual: float = 0.0
    known: str = "guided"
    w_known: float = 1.0
    w_hidden: float = 1.0
    learning_rate: float = 1e-3
    warmup: int = 20
    ema: float = 0.98
    seed: int = 0
    save_every: float = 120.0
    watch_every: int = 20
    autocast: bool = False

    def cells_at(self, step: int) -> int:
        """The side of the squares in an update."""
        if isinstance(self.cells, int):
            return self.cells
        return self.cells[min(len(self.cells) - 1, step * len(self.cells) // max(1, self.steps))]

    def rules(self, entries: int, step: int = 0) -> Rules:
        """The numbers of the problem for pictures of d entries."""
        return Rules(
            beta=self.beta / entries,
            temperature=self.beta * self.exploration**2 / 2,
            actor=self.actor,
            replaced=self.known == "replaced",
            trace=self.trace,
            balanced=self.balanced,
            mirrored=self.mirrored,
            cells=self.cells_at(step),
            critic=self.critic,
            clock=self.clock,
            informed=self.informed,
            local=self.local,
        )


class Autocast(Denoiser):
    """A denoiser whose network runs in bfloat16 where that is safe."""

    def __init__(self, inner: Denoiser) -> None:
        super().__init__(inner.schedule)
        self.inner, self.shape = inner, inner.shape

    def predict(self, x: Tensor, time: Time) -> Prediction:
        with torch.autocast(x.device.type, torch.bfloat16):
            return self.inner.predict(x, time)


def levels(steps: int, sigma_max: float = 80.0, shift: float = 0.0) -> list[float]:
    """K + 1 levels of EDM's grid, uniform in t, from sigma_max to 0.

    Args:
        steps: K.
        sigma_max: the first.
        shift: in [0, 1), by how much of a step the inner ones are moved up.
    """
    t = torch.arange(steps, -1, -1, dtype=torch.float64) / steps
    t[1:-1] += shift / steps
    return [float(sigma) for sigma in EDM(sigma_max=sigma_max)(t)[1]]


def psi(
    truth: Tensor, y: Tensor, known: Tensor, w_known: float, w_hidden: float, *, per_hole: bool = False
) -> Callable[[Tensor], Tensor]:
    """Psi of final states, (B, ...) -> (B,); see the head of this file, and `AidTraining.per_hole`."""
    parts = psi_parts(truth, y, known, w_known, w_hidden, per_hole=per_hole)
    return lambda x: parts(x).flatten(1).sum(1)


def psi_parts(
    truth: Tensor, y: Tensor, known: Tensor, w_known: float, w_hidden: float, *, per_hole: bool = False
) -> Callable[[Tensor], Tensor]:
    """What every entry of final states adds to Psi, (B, ...) -> (B, ...)."""
    weight = torch.where(known, w_known, w_hidden).to(truth)
    if per_hole:
        share = (~known).to(truth).mean((1, 2, 3), keepdim=True).clamp(min=1e-3)
        weight = torch.where(known, weight, weight / share)
    target = torch.where(known, y, truth)
    return lambda x: weight * (x - target).square() / x[0].numel()


def draw_task(
    pictures: Tensor,
    known: Tensor,
    noise: Tensor,
    training: AidTraining,
    sigma_max: float,
    distance: Distance | None = None,
) -> Task:
    """The problems of a batch of pictures.

    Args:
        pictures: (B, C, H, W) whole.
        known: (B, 1, H, W) bool.
        noise: (B, C, H, W) standard normal.
        training: the weights of Psi.
        sigma_max: the first level.
        distance: of the perceptual part of Psi, between the pasted picture and the whole one.
    """
    y = torch.where(known, pictures, 0.0)
    squares = psi_parts(pictures, y, known, training.w_known, training.w_hidden, per_hole=training.per_hole)

    def seen(x: Tensor) -> Tensor:
        """The perceptual part, (B,) or by entry."""
        if distance is None or not training.perceptual:
            return x.new_zeros(len(x))
        with torch.no_grad():
            return training.perceptual * distance(torch.where(known, y, x).clamp(-1, 1), pictures)

    def cost(x: Tensor) -> Tensor:
        return squares(x).flatten(1).sum(1) + seen(x).reshape(len(x), -1).mean(1)

    def parts(x: Tensor) -> Tensor:
        more = seen(x)
        return squares(x) + more / x[0].numel() if more.ndim == x.ndim else squares(x)

    return Task(noise * sigma_max, y, known, cost, pictures, parts)


def _in_cells(noise: Tensor, side: int, rng: torch.Generator) -> Tensor:
    """The noise of one entry of every square for all of its entries; the squares begin at a random corner."""
    if side == 1:
        return noise
    corner = torch.randint(side, (2,), generator=rng).tolist()
    square = noise[..., ::side, ::side].repeat_interleave(side, -1).repeat_interleave(side, -2)
    return square.roll(corner, (-2, -1))


def _mirror(x: Tensor, sign: int = 1) -> Tensor:
    return torch.cat((x, sign * x if sign < 0 else x), dim=-4)


def draw_batch(
    pictures: Tensor, training: AidTraining, step: int, sigma_max: float, distance: Distance | None = None
) -> tuple[Task, float, Tensor]:
    """The problems of an update, by its number alone.

    Args:
        pictures: (B, C, H, W) whole; half of the rows where they are mirrored.
        training: the recipe.
        step: the update's number.
        sigma_max: the first level.
        distance: of the perceptual part of Psi.

    Returns:
        The problems, how far the inner levels are moved up, and the policy's noise, (K, rows, C, H, W).
    """
    rng = torch.Generator().manual_seed(training.seed * 1_000_003 + step)
    known = mixed_masks(training.seed, step, len(pictures), pictures.shape[-1])
    first = torch.randn(pictures.shape, generator=rng)
    shift = float(torch.rand((), generator=rng)) * 0.9
    noise = torch.randn(training.rollout, *pictures.shape, generator=rng)
    noise = _in_cells(noise, training.cells_at(step), rng)
    if training.mirrored:
        pictures, known, first, noise = _mirror(pictures), _mirror(known), _mirror(first), _mirror(noise, -1)
    return draw_task(pictures, known, first, training, sigma_max, distance), shift, noise


def train_aid(
    denoiser: Denoiser,
    pictures: Pictures,
    out: Path,
    *,
    backbone: str,
    network: GuidanceConfig,
    training: AidTraining,
    resume: bool = False,
    progress: bool = True,
    distance: Distance | None = None,
) -> Path:
    """Trains a guidance beside a denoiser and keeps its average in `out/aid.safetensors`.

    Beside it: `state.safetensors`, what a resumed run goes on from, and `log.jsonl`, the learning curve on held-out
    masks and noise: the mean cost without exploration ("cost" = "psi" + "effort", and at step 0 that of the backbone
    alone), the size of guidance as a part of D ("share"), the critic's fit, and seconds of the processor.

    Args:
        denoiser: the frozen backbone, in any coordinates.
        pictures: what to train on.
        out: folder of the results, made if missing.
        backbone: the name of the backbone, kept in the header.
        network: the module's shape; on resuming, only its sigma_low counts.
        training: the recipe.
        resume: go on from `out/state.safetensors`; Adam starts anew with a warm-up, the step count goes on.
        progress: show a progress bar.
        distance: of the perceptual part of Psi; asked for where `training.perceptual` is not 0.

    Returns:
        The path of the weights.

    Raises:
        ValueError: if the pictures do not fit the module, or there is nothing left to train.
    """
    if pictures.channels != network.channels:
        raise ValueError(f"The pictures have {pictures.channels} channels and the model {network.channels}.")
    if training.perceptual and (distance is None or training.actor != "score"):
        raise ValueError("A perceptual cost is for the score actor, and needs a distance such as LPIPS.")
    if distance is not None and not training.perceptual:
        raise ValueError("A distance was given and its weight, perceptual, is 0; give both or none.")
    sides = {training.cells_at(step) for step in range(training.steps)}
    if any(pictures.size % side for side in sides):
        raise ValueError(f"cells must divide the pictures' side, {pictures.size}; got {training.cells}.")
    actor, critic, ema, start, before = _open(out / STATE if resume else None, network, training)
    network = actor.config
    if start >= training.steps:
        raise ValueError(f"The weights have seen {start} steps already; ask for more than that, got {training.steps}.")
    out.mkdir(parents=True, exist_ok=True)
    cut_log(out / LOG, start)
    shape = (pictures.channels, pictures.size, pictures.size)
    wrapped = Autocast(denoiser.in_coordinates("edm")) if training.autocast else denoiser
    learner = Learner(wrapped, actor, critic, training.rules(math.prod(shape)), training.learning_rate)
    count = training.batch // 2 if training.mirrored else training.batch
    watched, grid = (
        _held_out(pictures, training, network.sigma_max, distance),
        levels(training.rollout, network.sigma_max),
    )
    began = saved = time.process_time()

    def note(step: int, more: dict[str, float]) -> dict[str, float]:
        line = {"step": step, **learner.costs(watched, grid, ema), **more}
        line["seconds"] = before + time.process_time() - began
        with (out / LOG).open("a") as log:
            log.write(json.dumps({key: round(value, 6) for key, value in line.items()}) + "\n")
        return line

    if start == 0:
        note(0, {})
    averages: dict[str, float] = {}
    bar = tqdm(
        prefetch(pictures, training.seed, start, training.steps, count),
        initial=start, total=training.steps, disable=not progress, unit="step",
    )  # fmt: skip
    for step, (batch, _) in enumerate(bar, start):
        learner.rules = training.rules(math.prod(shape), step)
        task, shift, noise = draw_batch(batch, training, step, network.sigma_max, distance)
        done = step - start
        fall = 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / training.steps))
        learner.set_learning_rate(training.learning_rate * fall * min(1.0, (done + 1) / training.warmup))
        got = learner.update(task, levels(training.rollout, network.sigma_max, shift), noise)
        averages = {key: averages.get(key, value) * 0.95 + 0.05 * value for key, value in got.items()}
        if done >= training.warmup or start == 0:
            decay = min(training.ema, (1 + done) / (10 + done)) if start == 0 else training.ema
            torch._foreach_lerp_(list(ema.parameters()), list(actor.parameters()), 1 - decay)
        last = step + 1 == training.steps
        if last or (step + 1) % training.watch_every == 0:
            line = note(step + 1, averages)
            bar.set_postfix(cost=f"{line['cost']:.4f}", psi=f"{line['psi']:.4f}", refresh=False)
        now = time.process_time()
        if last or now - saved > training.save_every:
            saved = now
            _save(out, actor, critic, ema, backbone, training, step + 1, before + now - began)
    return out / WEIGHTS


def _held_out(pictures: Pictures, training: AidTraining, sigma_max: float, distance: Distance | None) -> Task:
    """The problems that the learning curve is measured on: fixed pictures, masks and noise of a seed of their own."""
    seed = training.seed + 7919
    batch = pictures.batch(seed, 0, 64)
    first = torch.randn(batch.shape, generator=torch.Generator().manual_seed(seed))
    return draw_task(batch, mixed_masks(seed, 0, 64, pictures.size), first, training, sigma_max, distance)


def _open(
    state: Path | None, network: GuidanceConfig, training: AidTraining
) -> tuple[Guidance, Critic, Guidance, int, float]:
    """Actor, critic, average, steps and seconds so far: new ones, or those of a run that was stopped."""
    if state is not None and not state.is_file():
        raise ValueError(f"There is no {state} to resume from; leave --resume out, or give the folder of a run.")
    header: dict[str, str] = {}
    if state is not None:
        with safe_open(state, "pt") as file:
            header = file.metadata() or {}
            values = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        network = replace(GuidanceConfig(**json.loads(header["config"])), sigma_low=network.sigma_low)
    with torch.random.fork_rng(devices=[]):  # modules draw their weights from the global generator
        torch.manual_seed(training.seed)
        actor = Guidance(network)
        critic = Critic(replace(network, width=16, blocks=2), training.w_known)
    ema = copy.deepcopy(actor).requires_grad_(False)
    if state is not None:
        for prefix, module in (("actor", actor), ("critic", critic), ("ema", ema)):
            module.load_state_dict({k[len(prefix) + 1 :]: v for k, v in values.items() if k.startswith(prefix + ".")})
    for module in (actor, critic, ema):
        module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return actor, critic, ema, int(header.get("step", 0)), float(header.get("seconds", 0))


def _save(
    out: Path,
    actor: nn.Module,
    critic: nn.Module,
    ema: Guidance,
    backbone: str,
    training: AidTraining,
    step: int,
    seconds: float,
) -> None:
    header = {
        "kind": "aid",
        "backbone": backbone,
        "clock": "edm",
        "beta": repr(training.beta),
        "actor": training.actor,
        "known": training.known,
        "config": json.dumps(asdict(ema.config)),
        "training": json.dumps(asdict(training)),
        "masks": ",".join(KINDS),
        "step": str(step),
        "seconds": f"{seconds:.0f}",
    }
    named = {"actor": actor, "critic": critic, "ema": ema}
    state = {f"{name}.{key}": v for name, module in named.items() for key, v in module.state_dict().items()}
    for name, tensors in ((STATE, state), (WEIGHTS, ema.state_dict())):
        with whole(out / name) as temporary:
            save_file({key: value.contiguous() for key, value in tensors.items()}, temporary, header)


def export_guidance(checkpoint: Path, out: Path, *, sigma_low: float | None = None, share: float = 1.0) -> Path:
    """Writes the weights of `train_aid` as float16, to ship them.

    Args:
        checkpoint: `aid.safetensors` of a training run.
        out: the file to write.
        sigma_low: the level below which the module is silent; None as trained.
        share: the part of its action that is kept.

    Returns:
        `out`.
    """
    module, header = load_guidance(checkpoint)
    for layer in (module.trunk.outlet, module.trunk.number):  # the action is linear in both
        for weights in layer.parameters():
            weights.mul_(share)
    if sigma_low is not None:
        header["config"] = json.dumps(asdict(replace(module.config, sigma_low=sigma_low)))
    half = {key: value.to(torch.float16).contiguous() for key, value in module.state_dict().items()}
    with whole(out) as temporary:
        save_file(half, temporary, header)
        temporary.chmod(0o644)
    return out
