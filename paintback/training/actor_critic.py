"""AID's guidance problem and the updates of its actor-critic, for any denoiser, actor and critic.

Reference: Huang and Zhou, AID, May 2026, arXiv:2605.13010, read at second hand; policy gradient and martingale loss in
continuous time: Jia and Zhou, arXiv:2111.11232 and 2108.06655.

In EDM's variables, sigma falling from sigma_0 to 0, clock r = sigma_0 - sigma, dt_k = sigma_k - sigma_{k+1}:
    minimise  E[ Psi(x_K) + (beta/2) sum_k ||u_k||^2 dt_k ],    x_{k+1} = x_k + (-(x_k - D_k) / sigma_k + u_k) dt_k
As the paper has it (at second hand): the actor is learnt from a Gaussian policy of fixed covariance around it,
    A_k = u_k + s eps_k,    s^2 = 2 lambda / (beta d),    so that  E (beta/2) ||A||^2 = (beta/2) ||u||^2 + lambda
whose sampled action advances the solver; the terminal cost is Psi - lambda T, which takes the price of exploring away;
    critic:   (1/2) sum_k (V_k - G_k)^2 dt_k,   G_k = Psi(x_K) - lambda T + sum_{j >= k} (beta/2) ||A_j||^2 dt_j
    actor:    sum_k ((A_k - u_k) / s^2)^T (du_k / dphi) delta_k,   delta_k = V_{k+1} - V_k + (beta/2) ||A_k||^2 dt_k
Used at inference is u, without noise.

Its sister papers (Huang and Zhou, ART, arXiv:2601.18681, and arXiv:2607.02137), also at second hand, have two choices
that are fields of `Rules`:
    critic     "td0": the moment condition E sum_k (dV_k/dtheta) delta_k = 0 in place of the martingale loss.
    clock      "index": the solver's steps are equally long on the controller's clock, dt = 1 / K, u is a displacement
               over such a time, x_{k+1} = x_k + (-(x_k - D_k) / sigma_k) (sigma_k - sigma_{k+1}) + u_k dt, and the
               prices are integrals over it: u_k dt = Delta_k (sigma_k - sigma_{k+1}) / sigma_k on both clocks.
Our reconstruction, each a field of `Rules`:
    centred    (i) (beta/2) ||A||^2 is replaced by its mean (beta/2) ||u||^2 + lambda wherever it occurs, and the
               step's own cost enters the actor by its exact gradient beta u dt: same mean, less noise.
    trace      (ii) the baseline is V, and delta_k is sum_{j >= k} trace^{j - k} delta_j: 0 is the paper's TD residual,
               1 is the Monte-Carlo advantage G_k - V_k, which does not lean on the slope of the critic.
    balanced   steps weigh dt_k in the actor and 1 in the critic, where the paper's weigh 1 and dt_k: in EDM's clock
               the last steps are so short that they bring noise to the actor and nothing to the critic. Every step has
               an optimality condition of its own, so the optimum stays for an actor that is free at every step.
    mirrored   the second half of the rows repeats the problems of the first with the opposite noise, and the mean
               advantage of such a pair is taken away from both: what does not depend on the noise's sign, above all
               the luck of the hidden picture, cancels, at a bias of order s^2.
    cells      the policy's noise is the same over squares of so many pixels, still of variance s^2 an entry, so that
               E (beta/2) ||A||^2 stays: far fewer independent directions, and so far less noise in the gradient. The
               actor's finer parts are then taught by the running cost alone. The paper's noise is independent (1).
    informed   the critic sees the hidden picture. The baseline is then no function of what the actor knows, but still
               none of the action, so that the policy gradient keeps its mean; the luck of the hidden picture, most of
               the returns' variance, is explained.
    local      every entry of the action answers for Psi and the later running cost in the window of so many pixels
               around it alone, instead of the whole picture's: the luck of everything farther away is gone, at the
               bias of not seeing an action's far effects. An entry's twin is its baseline (mirrored pairs; no critic).
               Within squares of noise it tells the entries apart, as their windows differ.
    actor      not the paper's: "pathwise", sum_k (du_k / dphi)^T (dV/dx + beta u_k) dt_k, the critic's slope taken
               through the backbone; "adjoint", backpropagation through the whole noiseless rollout, step by step from
               the end, p_K = dPsi/dx, p_k = d/dx_k [ p_{k+1} x_{k+1} + (beta/2) ||u_k||^2 dt_k ] and the same by phi:
               exact, without noise and without a critic. Both differentiate the backbone, "score" never does.
(iii), large batches, Adam and clipping, is `Learner`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
from torch import Tensor, nn

from paintback.denoiser import Denoiser
from paintback.schedules import Time

__all__ = [
    "Actor",
    "Clock",
    "CriticRule",
    "Learner",
    "Rollout",
    "Rules",
    "Task",
    "exploration_std",
    "rollout",
    "running_cost",
]

Actor = Literal["score", "pathwise", "adjoint"]
Clock = Literal["sigma", "index"]
CriticRule = Literal["martingale", "td0"]
Field = Callable[[Tensor, Tensor, Tensor, Tensor, "float | Tensor"], Tensor]


def exploration_std(beta: float, temperature: float, entries: int) -> float:
    """The policy's s: sqrt(2 lambda / (beta d))."""
    return math.sqrt(2 * temperature / (beta * entries))


def running_cost(action: Tensor, beta: float) -> Tensor:
    """(beta/2) ||action||^2 over the last axis: (..., B) from (..., B, d)."""
    return beta / 2 * action.square().sum(-1)


@dataclass(frozen=True)
class Task:
    """A batch of guidance problems.

    Attributes:
        start: (B, ...) states at the first level.
        y: (B, ...) what is given; 0 where hidden.
        known: (B, ...) bool, True = given.
        psi: (B, ...) final states -> (B,) terminal costs; sees the hidden picture, as nothing else does but
        truth: (B, ...) that picture, for a critic that is informed of it in training.
        parts: (B, ...) final states -> (B, ...) what every entry adds to psi, for local credit; what of psi is no sum
            over entries every action answers for.
    """

    start: Tensor
    y: Tensor
    known: Tensor
    psi: Callable[[Tensor], Tensor]
    truth: Tensor | None = None
    parts: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Rules:
    """The problem's numbers and the choices of the update; see the head of this file.

    Attributes:
        beta: price of guidance, of ||u||^2 summed over the d entries as in the paper.
        temperature: lambda.
        actor: "score" (the paper's), "pathwise" or "adjoint".
        replaced: whether D is y on the known part, where actions then have no effect.
        centred: (i).
        trace: (ii).
        balanced: weights of the steps.
        mirrored: pairs of rows; the noise that `Learner.update` is given must be such.
        cells: side of the squares over which that noise is the same.
        critic: "martingale" (ours) or "td0".
        clock: "sigma" (ours) or "index".
        informed: whether the critic sees `Task.truth`; not for the pathwise actor, which would follow it.
        local: radius of the window, pixels; None for the whole picture. For mirrored pairs and pictures (B, C, H, W).
        clip: largest norm of a gradient.
    """

    beta: float
    temperature: float
    actor: Actor = "score"
    replaced: bool = False
    centred: bool = True
    trace: float = 0.0
    balanced: bool = False
    mirrored: bool = False
    cells: int = 1
    critic: CriticRule = "martingale"
    clock: Clock = "sigma"
    informed: bool = False
    local: int | None = None
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.local is not None and not (self.actor == "score" and self.mirrored and self.centred):
            raise ValueError("Local credit is for the score actor with mirrored pairs: the twin is its baseline.")
        if self.local is not None and (self.informed or self.trace != 1.0 or self.critic != "martingale"):
            raise ValueError("Local credit has no critic; leave informed, trace and critic as they are.")
        if self.informed and self.actor == "pathwise":
            raise ValueError("The pathwise actor follows the critic's slope, which must not know the hidden picture.")

    def durations(self, sigmas: Sequence[float], like: Tensor) -> Tensor:
        """Lengths dt of the steps between K + 1 levels on the controller's clock, (K, 1)."""
        lengths: Tensor = -torch.tensor(sigmas, dtype=torch.float64).diff().to(like)[:, None]
        return lengths if self.clock == "sigma" else torch.full_like(lengths, 1 / len(lengths))


@dataclass(frozen=True)
class Rollout:
    """What a rollout keeps; K steps, B rows.

    Attributes:
        x: (K, B, ...) states that the steps start from.
        x0: (K, B, ...) the backbone's pictures there.
        u: (K, B, ...) means of the policy.
        noise: (K, B, ...) eps, or None where the mean itself was used.
        slope: (K, B, ...) dV/dx, or None.
        end: (B, ...) final states.
    """

    x: Tensor
    x0: Tensor
    u: Tensor
    noise: Tensor | None
    slope: Tensor | None
    end: Tensor


@torch.no_grad()
def rollout(
    denoiser: Denoiser,
    actor: Field,
    task: Task,
    sigmas: Sequence[float],
    rules: Rules,
    *,
    std: float = 0.0,
    noise: Tensor | None = None,
    critic: Field | None = None,
) -> Rollout:
    """K Euler steps of the guided probability-flow ODE.

    Args:
        denoiser: the backbone in EDM's coordinates.
        actor: (x, x0, y, known, sigma) -> Delta = sigma u.
        task: the problems.
        sigmas: K + 1 levels, falling, the last one 0.
        rules: the clock, and whether D is y on the known part.
        std: s of the policy.
        noise: (K, B, ...) eps; None follows the mean.
        critic: (x, x0, y, known, sigma) -> (B,), where its slope is wanted.
    """
    x, kept, slopes = task.start, [], []
    times = denoiser.schedule.time_of_ratio(torch.tensor(sigmas[:-1], dtype=torch.float64)).tolist()
    free = ~task.known if rules.replaced else torch.ones_like(task.known)
    lengths = rules.durations(sigmas, task.start).flatten().tolist()
    for k, (t, sigma, after) in enumerate(zip(times, sigmas[:-1], sigmas[1:], strict=True)):
        time = Time(t, 1.0, sigma)
        if critic is None:
            x0 = denoiser(x, time).x0
        else:
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                x0 = denoiser(leaf, time).x0
                value = critic(leaf, x0, task.y, task.known, sigma).sum()
                slopes.append(torch.where(free, torch.autograd.grad(value, leaf)[0], 0.0))
            x0 = x0.detach()
        rate = (sigma - after) / lengths[k] / sigma
        u = torch.where(free, rate * actor(x, x0, task.y, task.known, sigma), 0.0)
        kept.append((x, x0, u))
        action = u if noise is None else u + torch.where(free, std * noise[k], 0.0)
        x = x + (sigma - after) / sigma * (torch.where(free, x0, task.y) - x) + lengths[k] * action
    states, pictures, means = (torch.stack(part) for part in zip(*kept, strict=True))
    return Rollout(states, pictures, means, noise, torch.stack(slopes) if slopes else None, x)


class Learner:
    """An actor, a critic, and one update of both.

    Args:
        denoiser: the backbone, in any coordinates; frozen.
        actor: a module (x, x0, y, known, sigma) -> Delta = sigma u.
        critic: a module (x, x0, y, known, sigma) -> (B,).
        rules: of the problem.
        learning_rate: of Adam, for both.
    """

    def __init__(
        self, denoiser: Denoiser, actor: nn.Module, critic: nn.Module, rules: Rules, learning_rate: float = 1e-4
    ) -> None:
        self.denoiser, self.actor, self.critic, self.rules = denoiser.in_coordinates("edm"), actor, critic, rules
        self.optimisers = [torch.optim.Adam(module.parameters(), learning_rate) for module in (actor, critic)]

    def set_learning_rate(self, rate: float) -> None:
        """Of both optimisers."""
        for optimiser in self.optimisers:
            optimiser.param_groups[0]["lr"] = rate

    @torch.no_grad()
    def costs(self, task: Task, sigmas: Sequence[float], actor: Field | None = None) -> dict[str, float]:
        """What the actor costs without noise: terminal "psi", "effort" (beta/2) sum ||u||^2 dt, and their sum "cost".

        Args:
            task: the problems.
            sigmas: the levels.
            actor: another one, such as the average of this one.
        """
        run = rollout(self.denoiser, actor or self.actor, task, sigmas, self.rules)
        dt = self.rules.durations(sigmas, run.u)
        effort = running_cost(run.u.flatten(2), self.rules.beta).mul(dt).sum(0).mean().item()
        psi = task.psi(run.end).mean().item()
        size = run.u.flatten(2).norm(dim=2) / self._rates(sigmas, run.u)
        share = (size / run.x0.flatten(2).norm(dim=2).clamp(min=1e-6)).mean().item()
        return {"cost": psi + effort, "psi": psi, "effort": effort, "share": share}

    def update(self, task: Task, sigmas: Sequence[float], noise: Tensor) -> dict[str, float]:
        """A rollout under the exploratory policy, a step of the critic, a step of the actor.

        Args:
            task: the problems.
            sigmas: K + 1 levels, the last one 0.
            noise: (K, B, ...) standard normal.

        Returns:
            "return", mean of the randomised cost; "critic", its root mean square error; "explained", the part of the
            returns' variance that V explains.
        """
        rules = self.rules
        if rules.actor == "adjoint":
            return self._adjoint(task, sigmas)
        std = exploration_std(rules.beta, rules.temperature, math.prod(task.start.shape[1:]))
        run = rollout(
            self.denoiser, self.actor, task, sigmas, rules, std=std, noise=noise,
            critic=self.critic if rules.actor == "pathwise" else None,
        )  # fmt: skip
        if rules.local is None:
            advantage, got = self._advantage(task, run, sigmas, std, noise)
        else:
            advantage, got = self._local_advantage(task, run, sigmas)
        dt = rules.durations(sigmas, run.u)
        u = self._stacked(self.actor, run, task, sigmas).flatten(2) * self._rates(sigmas, run.u)[:, :, None]
        if rules.replaced:
            u = torch.where(task.known.expand_as(task.start).flatten(1), 0.0, u)
        if run.slope is not None:
            loss = ((u * run.slope.flatten(2)).sum(2) + running_cost(u, rules.beta)) * dt
        else:
            # the density is that of a square's mean, of which every entry of u is a part of 1 / cells^2; of a cost that
            # is smaller than its square, only the entries whose window holds it have their part
            part = rules.cells if rules.local is None else min(rules.cells, 2 * rules.local + 1)
            loss = (u * noise.flatten(2) * advantage).sum(2) / (std * part**2)
            if rules.centred:
                loss = loss + running_cost(u, rules.beta) * dt
        self._descend(0, (loss * (dt if rules.balanced else torch.ones_like(dt))).sum(0).mean())
        return got

    def _advantage(
        self, task: Task, run: Rollout, sigmas: Sequence[float], std: float, noise: Tensor
    ) -> tuple[Tensor, dict[str, float]]:
        """A step of the critic, and with it the advantages of the actions, (K, B, 1)."""
        rules = self.rules
        dt = rules.durations(sigmas, run.u)
        mean = running_cost(run.u.flatten(2), rules.beta)
        paid = mean + rules.temperature if rules.centred else running_cost((run.u + std * noise).flatten(2), rules.beta)
        terminal = task.psi(run.end) - rules.temperature * dt.sum()
        returns = terminal + (paid * dt).flip(0).cumsum(0).flip(0)

        seen = self._informed(task) if rules.informed else task
        values = self._stacked(self.critic, run, seen, sigmas)
        error = (values - returns).square()
        delta = torch.cat((values[1:], terminal[None])).detach() - values.detach() + paid * dt
        if rules.critic == "td0":
            # its gradient is minus the moment, not that of a squared error
            self._descend(1, -(values * delta).sum(0).mean())
        else:
            self._descend(1, (error * (torch.ones_like(dt) if rules.balanced else dt)).sum(0).mean() / 2)

        advantage = torch.empty_like(delta)
        ahead = torch.zeros_like(terminal)
        for k in reversed(range(len(delta))):
            ahead = advantage[k] = delta[k] + rules.trace * ahead
        if rules.mirrored:
            advantage = (advantage - advantage.roll(advantage.shape[1] // 2, 1)) / 2
        spread = returns.var(1).mean().item()
        return advantage[:, :, None], {
            "return": returns[0].mean().item(),
            "critic": error.mean().sqrt().item(),
            "explained": 1 - error.mean().item() / max(spread, 1e-12),
        }

    def _local_advantage(self, task: Task, run: Rollout, sigmas: Sequence[float]) -> tuple[Tensor, dict[str, float]]:
        """What came of every entry's window less what came of its twin's, halved, (K, B, d)."""
        rules, reach = self.rules, self.rules.local
        if task.parts is None or reach is None:
            raise ValueError("Local credit needs the task's parts, pictures (B, C, H, W).")
        dt = rules.durations(sigmas, run.u)[..., None, None, None]
        paid = rules.beta / 2 * run.u.square() * dt
        ahead = paid.flip(0).cumsum(0).flip(0) - paid
        end = task.parts(run.end)
        near = (ahead + end).sum(2).flatten(0, 1)[:, None]
        width = 2 * reach + 1
        near = nn.functional.avg_pool2d(near, width, 1, reach, divisor_override=1).reshape(
            len(dt), -1, 1, *near.shape[2:]
        )
        whole = task.psi(run.end)
        rest = whole - end.flatten(1).sum(1)
        cost = (near + rest[:, None, None, None]).expand_as(run.u).flatten(2)
        return (cost - cost.roll(cost.shape[1] // 2, 1)) / 2, {
            "return": (whole + paid.flatten(2).sum((0, 2))).mean().item()
        }

    def _adjoint(self, task: Task, sigmas: Sequence[float]) -> dict[str, float]:
        """A step of the actor along the exact gradient of the noiseless cost; the critic is left alone."""
        rules, dt = self.rules, self.rules.durations(sigmas, task.start).flatten().tolist()
        rates = self._rates(sigmas, task.start).flatten().tolist()
        run = rollout(self.denoiser, self.actor, task, sigmas, rules)
        free = ~task.known if rules.replaced else torch.ones_like(task.known)
        parameters = [p for p in self.actor.parameters() if p.requires_grad]
        total = [torch.zeros_like(p) for p in parameters]
        end = run.end.requires_grad_()
        cost = task.psi(end)
        (ahead,) = torch.autograd.grad(cost.sum(), end)
        times = self.denoiser.schedule.time_of_ratio(torch.tensor(sigmas[:-1], dtype=torch.float64)).tolist()
        for k in reversed(range(len(dt))):
            x = run.x[k].requires_grad_()
            x0 = self.denoiser(x, Time(times[k], 1.0, sigmas[k])).x0
            u = torch.where(free, rates[k] * self.actor(x, x0, task.y, task.known, sigmas[k]), 0.0)
            drift = (sigmas[k] - sigmas[k + 1]) / sigmas[k] * (torch.where(free, x0, task.y) - x)
            after = x + drift + dt[k] * u
            paid = running_cost(u.flatten(1), rules.beta).sum() * dt[k]
            ahead, *slopes = torch.autograd.grad((ahead * after).sum() + paid, [x, *parameters], allow_unused=True)
            weight = dt[k] if rules.balanced else 1.0
            for sum_, slope in zip(total, slopes, strict=True):
                if slope is not None:
                    sum_ += weight / len(x) * slope
        for parameter, gradient in zip(parameters, total, strict=True):
            parameter.grad = gradient
        nn.utils.clip_grad_norm_(parameters, rules.clip)
        self.optimisers[0].step()
        return {"return": cost.mean().item()}

    def _rates(self, sigmas: Sequence[float], like: Tensor) -> Tensor:
        """What u is of Delta at every step, (K, 1): 1 / sigma on sigma's own clock."""
        levels = torch.tensor(sigmas, dtype=torch.float64)
        rates: Tensor = (-levels.diff() / levels[:-1]).to(like)[:, None] / self.rules.durations(sigmas, like)
        return rates

    def _informed(self, task: Task) -> Task:
        """The task for a critic that sees the picture where it costs: in the hole, or everywhere if y is not kept."""
        if task.truth is None:
            raise ValueError("An informed critic needs the task's truth.")
        return replace(task, y=task.truth, known=~task.known if self.rules.replaced else torch.ones_like(task.known))

    def _stacked(self, module: nn.Module, run: Rollout, task: Task, sigmas: Sequence[float]) -> Tensor:
        """A module at all states of a rollout in one call, (K, B, ...)."""
        steps, rows = run.x.shape[:2]
        levels = torch.tensor(sigmas[:-1], dtype=torch.float64).to(run.x).repeat_interleave(rows)
        y, known = (part.expand(steps, *part.shape).flatten(0, 1) for part in (task.y, task.known))
        out: Tensor = module(run.x.flatten(0, 1), run.x0.flatten(0, 1), y, known, levels)
        return out.reshape(steps, rows, *out.shape[1:])

    def _descend(self, which: int, loss: Tensor) -> None:
        optimiser = self.optimisers[which]
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(optimiser.param_groups[0]["params"], self.rules.clip)
        optimiser.step()
