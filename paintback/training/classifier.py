"""A small classifier of an IDX file's pictures: the yardstick for fills of Fashion-MNIST, where no other network fits.

Reference: the network is a plain stack of 3 x 3 convolutions with batch normalisation (Ioffe and Szegedy, ICML 2015,
arXiv:1502.03167) and a global average; the learning rate makes one cycle (Smith, arXiv:1708.07120).

Its penultimate features serve the "Frechet distance (fashion classifier)", its decision the accuracy of fills.
"""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from paintback.training.data import IdxPictures, read_idx
from paintback.training.learner import whole

__all__ = [
    "Classifier",
    "ClassifierConfig",
    "ClassifierTraining",
    "LabelledPictures",
    "accuracy",
    "load_classifier",
    "train_classifier",
]


@dataclass(frozen=True)
class ClassifierConfig:
    """What a `Classifier` is built from; stored in the header of its weights.

    Attributes:
        channels: colours of a picture.
        size: side of the pictures it learnt from, in pixels.
        widths: channels of the four convolutions, the last one the number of features.
        classes: how many.
    """

    channels: int = 1
    size: int = 32
    widths: tuple[int, int, int, int] = (32, 64, 64, 128)
    classes: int = 10


class Classifier(nn.Module):
    """Pixel-unshuffle by 2, four convolutions, halved in size after the second, a global average, one linear layer.

    Args:
        config: the shape.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        widths = (4 * config.channels, *config.widths)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(a, b, 3, padding=1, bias=False) for a, b in zip(widths, widths[1:], strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for width in config.widths)
        self.head = nn.Linear(config.widths[-1], config.classes)

    def features(self, x: Tensor) -> Tensor:
        """The penultimate features.

        Args:
            x: (B, channels, size, size), in [-1, 1].

        Returns:
            (B, widths[-1]), not negative.
        """
        x = F.pixel_unshuffle(x, 2)
        for number, (convolution, norm) in enumerate(zip(self.convolutions, self.norms, strict=True)):
            x = F.relu(norm(convolution(x)))
            if number == 1:
                x = F.max_pool2d(x, 2)
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (B, classes), of pictures in [-1, 1], (B, channels, size, size)."""
        logits: Tensor = self.head(self.features(x))
        return logits


class LabelledPictures:
    """The pictures of an IDX file, padded as for the prior, with the labels beside it.

    Args:
        path: the pictures, (N, H, W) unsigned bytes.
        labels: their classes, (N,) unsigned bytes; None for the file that is called like the pictures' with
            labels-idx1 in place of images-idx3.

    Attributes:
        pictures: (N, size, size), uint8.
        labels: (N,), int64.
        size: side of a picture in pixels.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if the files are not such files, or do not belong together.
    """

    def __init__(self, path: Path, labels: Path | None = None) -> None:
        if labels is None:
            labels = path.with_name(path.name.replace("images-idx3", "labels-idx1"))
            if labels == path:
                raise ValueError(f"The labels of {path} cannot be told from its name; give them with --labels.")
        for file in (path, labels):
            if not file.is_file():
                raise FileNotFoundError(f"There is no file {file}; give an IDX file of pictures, and its labels.")
        source = IdxPictures(path, mirror=False)
        classes = read_idx(labels)
        if classes.shape != (source.count,):
            raise ValueError(
                f"{labels} holds labels of shape {classes.shape} for {source.count} pictures; "
                f"give the labels of {path}."
            )
        self.pictures, self.size = source.pictures, source.size
        self.labels = torch.from_numpy(classes.astype(np.int64))

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class ClassifierTraining:
    """How a classifier is trained.

    Attributes:
        epochs: passes over all pictures.
        batch: pictures of a step.
        learning_rate: of AdamW, the highest; it rises over the first fifth of the steps and falls to zero, linearly.
        weight_decay: of AdamW.
        shift: pixels by which a picture is moved at most, in both directions.
        seed: of the initial weights, the order of the pictures, mirroring and shifts.
        autocast: compute in bfloat16 where that is safe.
    """

    epochs: int = 12
    batch: int = 256
    learning_rate: float = 4e-3
    weight_decay: float = 0.02
    shift: int = 2
    seed: int = 0
    autocast: bool = False


def train_classifier(
    data: LabelledPictures,
    out: Path,
    *,
    training: ClassifierTraining,
    widths: tuple[int, int, int, int] = ClassifierConfig.widths,
    progress: bool = True,
) -> Path:
    """Trains a classifier and keeps it, in float16, in `out/classifier.safetensors`.

    Beside it: `log.jsonl`, one line an epoch (epoch, pictures seen, loss, CPU seconds).

    Args:
        data: what to train on.
        out: folder of the results, made if missing.
        training: the recipe.
        widths: channels of the convolutions.
        progress: show a progress bar.

    Returns:
        The path of the weights.

    Raises:
        ValueError: if there are fewer pictures than one step takes.
    """
    if len(data) < training.batch:
        raise ValueError(f"A step takes {training.batch} pictures and there are {len(data)}; choose a smaller batch.")
    config = ClassifierConfig(size=data.size, widths=widths, classes=int(data.labels.max()) + 1)
    with torch.random.fork_rng(devices=[]):  # modules draw their weights from the global generator
        torch.manual_seed(training.seed)
        model = Classifier(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    out.mkdir(parents=True, exist_ok=True)
    optimiser = torch.optim.AdamW(
        model.parameters(), training.learning_rate, betas=(0.9, 0.99), weight_decay=training.weight_decay
    )
    a_pass = len(data) // training.batch
    steps, step, began, lines = a_pass * training.epochs, 0, time.process_time(), []
    with tqdm(total=steps, disable=not progress, unit="step") as bar:
        for epoch in range(training.epochs):
            rng = np.random.default_rng((training.seed, epoch))
            order, total = torch.from_numpy(rng.permutation(len(data))), 0.0
            for rows in order[: a_pass * training.batch].split(training.batch):
                place = step / steps
                for group in optimiser.param_groups:
                    group["lr"] = training.learning_rate * min((place + 1 / steps) / 0.2, (1 - place) / 0.8)
                x = _augmented(data.pictures[rows], training.shift, rng).contiguous(memory_format=torch.channels_last)
                with torch.autocast("cpu", torch.bfloat16, enabled=training.autocast):
                    loss = F.cross_entropy(model(x).float(), data.labels[rows])
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                optimiser.step()
                total += loss.item()
                step += 1
                bar.update()
            seen, seconds = (epoch + 1) * a_pass * training.batch, time.process_time() - began
            lines.append({"epoch": epoch + 1, "pictures": seen, "loss": total / a_pass, "seconds": seconds})
            bar.set_postfix(loss=f"{total / a_pass:.4f}", refresh=False)
    header = {
        "kind": "classifier",
        "config": json.dumps(asdict(config)),
        "training": json.dumps(asdict(training)),
        "loss": f"{lines[-1]['loss']:.5f}",
        "seconds": f"{lines[-1]['seconds']:.0f}",
    }
    state = {
        key: (value.half() if value.is_floating_point() else value).contiguous()
        for key, value in model.state_dict().items()
    }
    with whole(out / "log.jsonl") as temporary:
        temporary.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with whole(out / "classifier.safetensors") as temporary:
        save_file(state, temporary, header)
        temporary.chmod(0o644)
    return out / "classifier.safetensors"


def _augmented(pictures: Tensor, shift: int, rng: np.random.Generator) -> Tensor:
    """(B, 1, H, W) in [-1, 1], half of them mirrored, each moved by up to `shift` pixels, black coming in."""
    side = pictures.shape[-1]
    padded = F.pad(pictures, (shift,) * 4)
    rows, columns = (
        torch.from_numpy(rng.integers(2 * shift + 1, size=len(pictures)))[:, None] + torch.arange(side)
        for _ in range(2)
    )
    columns = torch.where(torch.from_numpy(rng.random(len(pictures)) < 0.5)[:, None], columns.flip(1), columns)
    moved = padded[torch.arange(len(pictures))[:, None, None], rows[:, :, None], columns[:, None, :]]
    return moved.float().div_(127.5).sub_(1)[:, None]


def load_classifier(path: Path) -> tuple[Classifier, dict[str, str]]:
    """Reads a classifier and the header of its weights.

    Args:
        path: a safetensors file that `paintback train classifier` wrote.

    Returns:
        The network in float32, in eval mode, without gradients, and the header.

    Raises:
        ValueError: if the file is not such a file.
    """
    try:
        with safe_open(path, "pt") as file:
            header: dict[str, str] = file.metadata() or {}
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        fields = json.loads(header["config"])
        with torch.device("meta"):  # no initial weights: they would draw from torch's global generator
            network = Classifier(ClassifierConfig(**{**fields, "widths": tuple(fields["widths"])}))
        network.load_state_dict(
            {key: value.float() if value.is_floating_point() else value for key, value in state.items()}, assign=True
        )
    except (OSError, SafetensorError, KeyError, json.JSONDecodeError, TypeError, RuntimeError) as error:
        raise ValueError(
            f"{path} does not hold weights of a classifier ({type(error).__name__}); make some with "
            "`paintback train classifier`."
        ) from error
    return network.eval().requires_grad_(False), header


@torch.no_grad()
def accuracy(model: Classifier, data: LabelledPictures, *, batch: int = 500) -> float:
    """The part of the pictures whose class is told right, as they are, neither mirrored nor moved.

    Args:
        model: in eval mode.
        data: pictures of the model's size.
        batch: pictures at a time.

    Raises:
        ValueError: if the pictures are of another size.
    """
    if data.size != model.config.size:
        raise ValueError(
            f"The pictures are {data.size} pixels wide and the classifier learnt from {model.config.size}; "
            "give pictures of that size."
        )
    right = 0
    for pictures, labels in zip(data.pictures.split(batch), data.labels.split(batch), strict=True):
        right += int((model(pictures.float().div(127.5).sub(1)[:, None]).argmax(1) == labels).sum())
    return right / len(data)
