"""Networks that give features of pictures, for Frechet distances, and CLIP's score of a picture and a text.

References:
    AlexNet: Krizhevsky, Sutskever and Hinton, NeurIPS 2012; the weights are those that come with LPIPS, Zhang et al.,
    CVPR 2018, arXiv:1801.03924.
    FID: Heusel et al., NeurIPS 2017, arXiv:1706.08500, with the Inception network of 2015-12-05 as torch-fidelity
    has it (Obukhov et al., doi:10.5281/zenodo.4957738).
    CLIP score: Hessel et al., CLIPScore, EMNLP 2021, arXiv:2104.08718, with the factor 100 in place of 2.5.
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from paintback.bench.lpips import PADDINGS, SCALE, SHIFT, STRIDES
from paintback.bench.metrics.classifier import ClassifierFeatures

__all__ = ["AlexNetFeatures", "ClassifierFeatures", "ClipScore", "FeatureNetwork", "InceptionFeatures"]

INCEPTION = "weights-inception-2015-12-05-6726825d.pth"
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"


class FeatureNetwork(Protocol):
    """What every network here has.

    Attributes:
        name: of the network and the layer.
        distance: what the Frechet distance of these features is called.
        sha256: of its weights.
        size: what it brings pictures to, and by which filter.
    """

    name: str
    distance: str
    sha256: str
    size: str

    def __call__(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, d)."""
        ...


class AlexNetFeatures:
    """AlexNet's fifth convolution after its ReLU, averaged over space: 256 features.

    A Frechet distance of these is not FID and is not comparable with it.

    Args:
        path: LPIPS' weights; see `paintback.bench.lpips.LPIPS`.

    Raises:
        ValueError: if the file does not hold them.
    """

    name = "AlexNet conv5"
    distance = "Frechet distance (AlexNet conv5)"
    size = "224 x 224, bilinear with antialiasing"

    def __init__(self, path: Path) -> None:
        try:
            state = load_file(path)
            self._layers = [(state[f"conv{k}.weight"], state[f"conv{k}.bias"]) for k in range(1, 6)]
        except (OSError, SafetensorError, KeyError) as error:
            raise ValueError(
                f"{path} does not hold AlexNet's conv1..5.weight and conv1..5.bias; give LPIPS' weights (safetensors)."
            ) from error
        self.sha256 = _digest([path])

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, 256), not negative."""
        _check(pictures)
        x = F.interpolate(pictures.float(), (224, 224), mode="bilinear", antialias=True) * 2 - 1
        shift, scale = (torch.tensor(v, device=x.device).reshape(1, 3, 1, 1) for v in (SHIFT, SCALE))
        x = (x - shift) / scale
        for number, (weight, bias) in enumerate(self._layers):
            if number in (1, 2):
                x = F.max_pool2d(x, 3, 2)
            x = F.conv2d(x, weight.to(x.device), bias.to(x.device), STRIDES[number], PADDINGS[number]).relu()
        return x.mean((2, 3))


class InceptionFeatures:
    """FID's Inception network, its last average: 2048 features. Needs the extra `fid`.

    Pictures are rounded to bytes and resized by the network itself, as TensorFlow 1 did, which numbers in papers rest
    on. The distance is called FID only where the weights are the published ones.

    Args:
        path: the published file, `weights-inception-2015-12-05-6726825d.pth`; None for where torch.hub keeps it,
            which fetches it if need be.
        network: another network in place of it, from bytes (B, 3, H, W) to (B, d) or a tuple that begins so.

    Raises:
        ValueError: if torch-fidelity is missing, or the file is not there or does not hold the weights.
    """

    size = "299 x 299, bilinear as in TensorFlow 1"

    def __init__(self, path: Path | None = None, network: Callable[[Tensor], Any] | None = None) -> None:
        if network is not None:
            self._network = network
            self.name, self.sha256 = "injected network", "none"
            self.size = "left to the injected network"
            self.distance = f"Frechet distance ({self.name})"
            return
        kind, url = _torch_fidelity()
        raw = _inception_file(path, url).read_bytes()
        try:
            torch.load(io.BytesIO(raw), "cpu", weights_only=True)  # torch-fidelity's own reading would run any pickle
            self._network = kind("inception-v3-compat", ["2048"], feature_extractor_weights_path=io.BytesIO(raw))
        except Exception as error:
            raise ValueError(
                f"{path or INCEPTION} does not hold the weights of FID's Inception ({type(error).__name__}); "
                f"give {INCEPTION} of torch-fidelity."
            ) from error
        self.sha256 = hashlib.sha256(raw).hexdigest()
        self.name = "Inception 2015-12-05, pool 3"
        standard = self.sha256 == INCEPTION_SHA256
        if not standard:
            self.name = f"Inception with other weights, {self.sha256[:8]}"
        self.distance = "FID" if standard else f"Frechet distance ({self.name})"

    @torch.no_grad()
    def __call__(self, pictures: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] -> (B, d), float32."""
        _check(pictures)
        if isinstance(self._network, torch.nn.Module):
            self._network.to(pictures.device)
        made = self._network(_to_bytes(pictures))
        features: Tensor = made[0] if isinstance(made, tuple) else made
        return features.float()


class ClipScore:
    """CLIP's score of pictures and texts, 100 max(cos, 0). Needs the extra `models`.

    Args:
        model: a folder or a Hub id of a CLIP model with its processor, such as openai/clip-vit-large-patch14.

    Attributes:
        name: the model's.
        sha256: of its weights, the files one after the other in the order of their names.
        size: what the processor brings pictures to.

    Raises:
        ValueError: if transformers is missing, or there is no such model.
    """

    def __init__(self, model: str | Path) -> None:
        try:
            from huggingface_hub import snapshot_download
            from transformers import CLIPModel, CLIPProcessor
        except ImportError:
            raise ValueError(
                "CLIP needs transformers, which is not installed; run pip install 'paintback[models]'."
            ) from None
        try:
            folder = Path(model)
            if not folder.is_dir():
                folder = Path(snapshot_download(str(model), allow_patterns=["*.json", "*.txt", "*.safetensors"]))
            self._model = CLIPModel.from_pretrained(folder, use_safetensors=True).eval().requires_grad_(False)
            self._processor = CLIPProcessor.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{model} is no folder or Hub id of a CLIP model with its processor and safetensors weights "
                f"({type(error).__name__})."
            ) from error
        self.name = f"CLIP {model}" if not Path(model).is_dir() else f"CLIP {folder.name}"
        self.sha256 = _digest(sorted(folder.glob("*.safetensors")))
        side = self._model.config.vision_config.image_size
        self.size = f"{side} x {side}, as the model's processor does it"

    @torch.no_grad()
    def __call__(self, pictures: Tensor, prompts: Sequence[str]) -> Tensor:
        """Scores of pictures.

        Args:
            pictures: (B, 3, H, W) in [0, 1].
            prompts: B texts; what the model's text encoder has no room for is cut off.

        Returns:
            (B,) float32, from 0 to 100.

        Raises:
            ValueError: if there are more or fewer texts than pictures.
        """
        _check(pictures)
        if len(prompts) != len(pictures):
            raise ValueError(f"There are {len(prompts)} texts for {len(pictures)} pictures; give one for each.")
        self._model.to(pictures.device)
        shown = list(_to_bytes(pictures).permute(0, 2, 3, 1).cpu().numpy())
        given = self._processor(
            text=list(prompts), images=shown, return_tensors="pt", padding=True, truncation=True
        ).to(pictures.device)
        made = self._model(**given)
        cosine: Tensor = F.cosine_similarity(made.image_embeds.float(), made.text_embeds.float())
        return 100 * cosine.clamp(min=0)


def _torch_fidelity() -> tuple[Any, str]:
    """Its network and the address of the weights."""
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3
    except (ImportError, RuntimeError, OSError) as error:  # a torchvision of another torch fails in all these ways
        raise ValueError(
            f"FID needs torch-fidelity and a torchvision that fits torch ({error}); run pip install 'paintback[fid]'."
        ) from error
    return FeatureExtractorInceptionV3, URL_INCEPTION_V3


def _inception_file(path: Path | None, url: str) -> Path:
    if path is None:
        path = Path(torch.hub.get_dir()) / "checkpoints" / INCEPTION
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                torch.hub.download_url_to_file(url, str(path), hash_prefix=INCEPTION_SHA256, progress=False)
            except (OSError, RuntimeError) as error:
                raise ValueError(f"{url} could not be fetched ({error}); put the file at {path}.") from error
    if not path.is_file():
        raise ValueError(f"There is no file {path}; give {INCEPTION} of torch-fidelity.")
    return path


def _check(pictures: Tensor) -> None:
    if pictures.ndim != 4 or pictures.shape[1] != 3:
        raise ValueError(f"Pictures must be (B, 3, H, W) in [0, 1]; got {tuple(pictures.shape)}.")


def _to_bytes(pictures: Tensor) -> Tensor:
    return (pictures * 255).round().clamp(0, 255).byte()


def _digest(paths: Iterable[Path]) -> str:
    total = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            while part := file.read(1 << 20):
                total.update(part)
    return total.hexdigest()
