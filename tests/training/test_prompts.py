"""A tiny prior that is trained with prompts learns what a word means, keeps its words, and steers by guidance."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import paintback as pb
from paintback.models.embedded import load_embedded, load_unet
from paintback.models.unet import UNet, UNetConfig
from paintback.training.data import Pictures
from paintback.training.learner import PriorTraining
from paintback.training.prior import held_out_loss, train_prior

NETWORK = UNetConfig(channels=3, widths=(8, 16), blocks=1)
WORDS = ("blue", "red", "square")


class Squares(Pictures):
    """A red or a blue square on white, with a prompt that names it."""

    channels, size, count, vocabulary = 3, 16, 2, WORDS

    def batch(self, seed: int, step: int, size: int) -> Tensor:
        pictures = torch.ones(size, 3, 16, 16)
        pictures[:, :, 4:12, 4:12] = -1
        for picture, prompt in zip(pictures, self.prompts(seed, step, size), strict=True):
            picture[0 if prompt.startswith("red") else 2, 4:12, 4:12] = 1
        return pictures

    def prompts(self, seed: int, step: int, size: int) -> list[str]:
        drawn = np.random.default_rng((seed, step)).random(size)
        return ["red square" if one < 0.5 else "Blue square" for one in drawn]

    def spread(self, seed: int, size: int) -> tuple[Tensor, list[int]]:
        return self.batch(seed, 0, size), list(range(size))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """200 steps, more of them at high noise than by default."""
    training = PriorTraining(
        steps=200, batch=16, learning_rate=1e-2, warmup=3, sample_every=1000, sigma_mean=0.5, prompt_drop=0.3
    )
    out = tmp_path_factory.mktemp("run")
    return train_prior(Squares(), out, network=NETWORK, training=training, progress=False)


def redness(picture: Tensor) -> float:
    """Red minus blue in the middle of (..., 3, 16, 16)."""
    middle = picture[..., 6:10, 6:10].mean((-2, -1)).reshape(-1, 3).mean(0)
    return float(middle[0] - middle[2])


def test_the_words_are_learnt_and_kept(trained):
    model = load_embedded(trained)
    assert model.vocabulary.words == WORDS
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 80
    red, blue, none = (redness(model.denoiser(prompt, guidance_scale=1)(x, 1.0).x0) for prompt in ("red", "blue", None))
    assert red > 0.5
    assert blue < -0.5
    assert blue + 0.3 < none < red - 0.3
    loss = held_out_loss(model.network, Squares(), batches=4)
    assert held_out_loss(model.network, Squares(), batches=4, vocabulary=model.vocabulary) < loss


def test_guidance_and_negative_prompts_steer(trained):
    """More guidance is more of the word, and a negative prompt is less of it."""
    model = load_embedded(trained)
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 80
    plain, strong = (redness(model.denoiser("red", guidance_scale=scale)(x, 1.0).x0) for scale in (1.0, 3.0))
    against = redness(model.denoiser("square", "red", guidance_scale=3.0)(x, 1.0).x0)
    assert strong > plain + 0.3
    assert against < plain - 0.3


def test_the_inpainter_paints_the_word(trained):
    white = np.ones((16, 16, 3), np.float32)
    hole = np.zeros((16, 16), bool)
    hole[4:12, 4:12] = True
    inpainter = pb.Inpainter.from_pretrained(trained)
    shown = {}
    for prompt in ("red square", "blue square"):
        out = inpainter(
            white,
            hole,
            prompt,
            method="ding",
            num_inference_steps=8,
            guidance_scale=2.0,
            generator=torch.Generator().manual_seed(0),
            output_type="pt",
        )
        shown[prompt] = redness(torch.as_tensor(out.images))
    assert shown["red square"] > shown["blue square"] + 0.3


def test_resuming_keeps_the_words(trained, tmp_path):
    again = train_prior(
        Squares(),
        tmp_path,
        network=NETWORK,
        training=PriorTraining(steps=202, batch=4, sample_every=1000),
        resume=trained,
        progress=False,
    )
    model, header = load_unet(again)
    assert header["step"] == "202"
    assert json.loads(header["vocabulary"]) == list(WORDS)
    assert model.config.vocabulary == len(WORDS)


def test_dropped_prompts_teach_no_word(tmp_path):
    moved = {}
    for drop in (0.0, 1.0):
        training = PriorTraining(steps=5, batch=4, warmup=1, weight_decay=0.0, sample_every=1000, prompt_drop=drop)
        path = train_prior(Squares(), tmp_path / str(drop), network=NETWORK, training=training, progress=False)
        moved[drop] = load_unet(path)[0].words
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = UNet(UNetConfig(channels=3, widths=(8, 16), blocks=1, vocabulary=len(WORDS))).words
    assert torch.equal(moved[1.0], start)
    assert (moved[0.0] != start).any(1).all()
