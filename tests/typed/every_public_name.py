"""What a user's program may look like that calls every public name; `mypy --strict` must pass on it.

Its annotations say what an editor must know without running anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

import paintback as pb


def version() -> str:
    return pb.__version__


def arrays(image: NDArray[np.uint8], hole: NDArray[np.bool_]) -> object:
    return pb.inpaint(image, hole, quality="good").images


def pictures(path: Path, mask: Image.Image) -> Sequence[object]:
    inpainter: pb.Inpainter = pb.Inpainter.from_pretrained("photo", device="cpu")
    out = inpainter(
        image=path,
        mask_image=mask,
        method=pb.methods.get("lanpaint", inner_steps=10),
        num_inference_steps=8,
        generator=torch.Generator().manual_seed(0),
        mask_blur=2,
    )
    cost: float = out.evaluations + out.vjps + out.seconds
    seeds: list[int | None] = out.seeds
    print(cost, seeds, out.peak_memory_bytes, out.settings["method"], out.stopped)
    images: Sequence[object] = out.images
    return images


def larger_and_apart(image: Image.Image) -> None:
    print(pb.superres(image, 2, num_inference_steps=4).evaluations)
    print(pb.layers(image, ("a window", "a reflection"), num_inference_steps=4).mask.shape)


def clip(path: Path, mask: Path, model: str) -> int:
    out = pb.inpaint_video(path, mask, model=model, num_inference_steps=4)
    return len(out.windows)


def song(path: Path, model: str) -> list[tuple[float, float]]:
    out = pb.inpaint_audio(path, [(3.2, 4.5)], model=model, num_inference_steps=4)
    print(out.audio, out.sampling_rate, out.seeds)
    return out.windows


def posterior() -> torch.Tensor:
    prior = pb.priors.GaussianMixture(torch.zeros(1, 2), torch.eye(2)[None])
    denoiser: pb.Denoiser = prior.denoiser(pb.schedules.VP())
    observation = pb.Observation(torch.tensor([0.3, 0.0]), torch.tensor([True, False]), sigma=0.1)
    prediction: pb.Prediction = denoiser(torch.zeros(1, 2), 0.5)
    exact = prior.posterior(observation)
    result = pb.methods.get("ding").sample(denoiser, observation, num_inference_steps=4, num_samples=3)
    print(exact.mean(), prediction.x0 - prediction.x1, result.residual, pb.methods.names())
    return result.x


def own_network(network: torch.nn.Module) -> pb.Denoiser:
    return pb.NetworkDenoiser(network, pb.schedules.Flow(), "flow")


def own_inpainter(network: torch.nn.Module) -> pb.Inpainter:
    made: pb.Inpainter = pb.Inpainter.from_network(
        network, parametrisation="epsilon", schedule=pb.schedules.VP(), size=64, layout="tiles"
    )
    pb.register(made.model, name="mine")
    return made


def own_policy() -> pb.Inpainter:
    return pb.Inpainter(pb.models.load("fashion"), policy=pb.Policy(widest=16))


def asked(text: str) -> dict[str, object]:
    request = pb.Request.model_validate_json(text)
    print(request.quality, request.strength)
    schema: dict[str, object] = pb.Request.model_json_schema()
    return schema


def rooms(folder: Path) -> None:
    """The rooms of the package that the rest of this file does not enter."""
    print(pb.batch.run([], folder / "out").done)
    print(pb.images.read_picture(folder / "photo.png").shape)
    print(pb.denoiser.predict("x0", torch.zeros(1), torch.zeros(1), pb.schedules.VP().at(0.5)).x0)
    print(pb.observation.AveragePool(2), pb.randomness.seed_from_system(), pb.training.__name__)


def checked(path: Path) -> bool:
    report = pb.check(path, num_inference_steps=2, device="cpu")
    print(report.about, [one.text for one in report.checks])
    return report.passed
