"""Random draws that go through the generators that were passed, and through nothing else."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Generators", "fresh_seed", "one_or_each", "seed_from_system"]


def seed_from_system() -> int:
    """A fresh 53-bit seed from the operating system (exact in JSON); no global generator is touched."""
    return int.from_bytes(os.urandom(7), "big") >> 3


def fresh_seed(generator: torch.Generator) -> int | None:
    """The seed that makes a generator's next draws again, or None for one that has drawn before."""
    seed = generator.initial_seed()
    twin = torch.Generator(device=generator.device).manual_seed(seed)
    return seed if torch.equal(twin.get_state(), generator.get_state()) else None


def one_or_each(
    generator: torch.Generator | Sequence[torch.Generator] | None, count: int
) -> tuple[torch.Generator | list[torch.Generator], list[int | None]]:
    """The generators of a call that makes a number of pictures, and for each picture the seed that makes it alone.

    There is none, and None stands for it, where one generator draws several pictures, or one that has drawn before.

    Args:
        generator: one for all; a list of one per picture; None for one per picture, seeded by the operating system
            with consecutive seeds.
        count: of the pictures.

    Raises:
        ValueError: for a list of another length.
    """
    if generator is None:
        first = seed_from_system()
        generator = [torch.Generator().manual_seed(first + k) for k in range(count)]
    if isinstance(generator, torch.Generator):
        return generator, [fresh_seed(generator)] if count == 1 else [None] * count
    if len(generator) != count:
        raise ValueError(f"Got {len(generator)} generators for {count} pictures to make; give one, or one for each.")
    shared = Counter(map(id, generator))
    return list(generator), [fresh_seed(one) if shared[id(one)] == 1 else None for one in generator]


class Generators:
    """Standard normal draws for a batch.

    One generator draws the whole batch in one call. A list has one generator per sample, and then a sample's draws do
    not depend on the batch that it is in. Draws are made in float32 on the generator's device and cast, so that
    float32 and float64 runs see the same noise.

    Args:
        generator: one generator, a list of one per sample, or None for one seeded by the operating system.
        batch: number of samples.

    Raises:
        ValueError: if a list's length is not the batch size.
    """

    def __init__(self, generator: torch.Generator | Sequence[torch.Generator] | None, batch: int) -> None:
        if generator is None:
            generator = torch.Generator().manual_seed(seed_from_system())
        if not isinstance(generator, torch.Generator) and len(generator) != batch:
            raise ValueError(
                f"Got a list of {len(generator)} generators for {batch} samples; give one generator or one per sample."
            )
        self.generator = generator

    def normal(self, like: Tensor) -> Tensor:
        """Standard normal noise of like's shape, dtype and device; the first axis is the batch."""
        if isinstance(self.generator, torch.Generator):
            return _sent(_draw(self.generator, like.shape), like)
        rows = [_draw(generator, like.shape[1:]) for generator in self.generator]
        return _sent(torch.stack(rows), like)

    def uniform(self, like: Tensor) -> Tensor:
        """Uniform noise in [0, 1) of like's shape, dtype and device; the first axis is the batch."""
        if isinstance(self.generator, torch.Generator):
            return _sent(torch.rand(like.shape, generator=self.generator, device=self.generator.device), like)
        rows = [torch.rand(like.shape[1:], generator=g, device=g.device) for g in self.generator]
        return _sent(torch.stack(rows), like)


def _draw(generator: torch.Generator, shape: torch.Size) -> Tensor:
    return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)


def _sent(drawn: Tensor, like: Tensor) -> Tensor:
    """A draw on another tensor's device and in its dtype; neither the host nor a CUDA device waits for the other."""
    if drawn.device == like.device:
        return drawn.to(like.dtype)
    if like.device.type == "cuda" and drawn.device.type == "cpu":
        drawn = drawn.pin_memory()  # else the copy waits for everything before it
    return drawn.to(like.device, non_blocking=like.device.type != "mps").to(like.dtype)
