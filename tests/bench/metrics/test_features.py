"""The networks of the Frechet distances and CLIP's score, with random weights where the real ones are large."""

from __future__ import annotations

import hashlib
import os
import sys
import types

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import nn

from paintback.bench.lpips import LPIPS
from paintback.bench.metrics import features
from paintback.bench.metrics.frechet import Moments, frechet_distance

SHAPES = {1: (64, 3, 11), 2: (192, 64, 5), 3: (384, 192, 3), 4: (256, 384, 3), 5: (256, 256, 3)}
CLIP_LETTERS = [chr(k) for k in range(ord("a"), ord("z") + 1)]


@pytest.fixture(scope="module")
def alexnet(tmp_path_factory):
    """AlexNet's convolutions under LPIPS' names, random."""
    rng = torch.Generator().manual_seed(0)
    state = {}
    for number, (outputs, inputs, side) in SHAPES.items():
        scale = (2 / (inputs * side**2)) ** 0.5
        state[f"conv{number}.weight"] = scale * torch.randn(outputs, inputs, side, side, generator=rng)
        state[f"conv{number}.bias"] = 0.1 * torch.randn(outputs, generator=rng)
    path = tmp_path_factory.mktemp("alexnet") / "lpips.safetensors"
    save_file(state, path)
    return path


def test_alexnet_is_the_published_stack(alexnet):
    """The same layers written as torchvision's `alexnet().features`, up to the last ReLU."""
    network = features.AlexNetFeatures(alexnet)
    layers = [nn.Conv2d(3, 64, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(64, 192, 5, 1, 2), nn.ReLU()]
    layers += [nn.MaxPool2d(3, 2), nn.Conv2d(192, 384, 3, 1, 1), nn.ReLU(), nn.Conv2d(384, 256, 3, 1, 1), nn.ReLU()]
    layers += [nn.Conv2d(256, 256, 3, 1, 1), nn.ReLU()]
    stack = nn.Sequential(*layers)
    from safetensors.torch import load_file

    state = list(load_file(alexnet).items())
    convolutions = [layer for layer in layers if isinstance(layer, nn.Conv2d)]
    for number, layer in enumerate(convolutions, 1):
        layer.load_state_dict({k.split(".")[1]: v for k, v in state if k.startswith(f"conv{number}.")})
    pictures = torch.rand(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    # LPIPS' scaling of [-1, 1] is ImageNet's of [0, 1], rounded: (2 x - 1 + 0.03) / 0.458 = (x - 0.485) / 0.229
    mean, std = (torch.tensor(v).reshape(1, 3, 1, 1) for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        expected = stack((pictures - mean) / std).mean((2, 3))
    made = network(pictures)
    assert made.shape == (2, 256)
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4)
    assert made.min() >= 0 and made.std() > 0.01


def test_lpips_says_where_pictures_differ(alexnet, tmp_path):
    """Its map is 0 for equal pictures, largest at what was changed, and has about the distance for its mean."""
    from safetensors.torch import load_file

    heads = {f"lin{number}.weight": torch.ones(SHAPES[number][0]) for number in SHAPES}
    save_file({**load_file(alexnet), **heads}, tmp_path / "lpips.safetensors")
    distance = LPIPS(tmp_path / "lpips.safetensors")
    a = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(3)) * 2 - 1
    b = a.clone()
    b[:, :, :16, :16] = 0.0
    there = distance.where(a, b)
    assert there.shape == (2, 1, 64, 64) and float(distance.where(a, a).max()) == 0
    assert there[:, :, :16, :16].mean() > 3 * there[:, :, 48:, 48:].mean()
    torch.testing.assert_close(there.mean((1, 2, 3)), distance(a, b), rtol=0.1, atol=0)


def test_alexnet_says_what_it_is(alexnet, tmp_path):
    network = features.AlexNetFeatures(alexnet)
    assert network.distance == "Frechet distance (AlexNet conv5)"
    assert network.sha256 == hashlib.sha256(alexnet.read_bytes()).hexdigest()
    assert "224" in network.size
    small = torch.rand(3, 3, 48, 64, generator=torch.Generator().manual_seed(2))
    by_hand = F.interpolate(small, (224, 224), mode="bilinear", antialias=True)
    torch.testing.assert_close(network(small), network(by_hand))
    torch.testing.assert_close(network(small)[1:2], network(small[1:2]), rtol=1e-4, atol=1e-5)
    save_file({"conv1.weight": torch.zeros(1)}, tmp_path / "part.safetensors")
    for path in (tmp_path / "part.safetensors", tmp_path / "none.safetensors"):
        with pytest.raises(ValueError, match="does not hold AlexNet's"):
            features.AlexNetFeatures(path)
    with pytest.raises(ValueError, match=r"\(B, 3, H, W\)"):
        network(small[:, :1])


def test_distances_of_alexnet_features_grow_with_noise(alexnet):
    network = features.AlexNetFeatures(alexnet)
    rng = torch.Generator().manual_seed(3)
    coarse = torch.rand(12, 3, 5, 5, generator=rng)
    pictures = F.interpolate(coarse, (32, 32), mode="bilinear")
    noise = torch.randn(pictures.shape, generator=rng)
    truth = Moments().update(network(pictures))
    distances = [
        frechet_distance(truth, Moments().update(network((pictures + s * noise).clamp(0, 1)))) for s in (0, 0.1, 0.3)
    ]
    assert distances[0] == pytest.approx(0, abs=1e-6)
    assert distances[0] < distances[1] < distances[2]


class Means(nn.Module):
    """Features that can be told beforehand: the mean byte of every channel."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, pictures):
        assert pictures.dtype == torch.uint8
        return (pictures.double().mean((2, 3)) * self.scale,)


def test_an_injected_network_sees_bytes_and_is_not_called_fid():
    network = features.InceptionFeatures(network=Means())
    pictures = torch.tensor([0.0, 0.5, 1.0]).reshape(1, 3, 1, 1).expand(2, 3, 6, 6)
    assert network(pictures).tolist() == [[0, 128, 255]] * 2
    assert network(pictures).dtype == torch.float32
    assert network(pictures * 2 - 0.5).tolist() == [[0, 128, 255]] * 2  # clamped
    assert "FID" not in network.distance
    assert network.sha256 == "none"


@pytest.fixture
def fidelity(monkeypatch):
    """A stand-in for torch-fidelity's module, which needs torchvision: the same constructor and reading."""

    class Extractor(Means):
        def __init__(self, name, features_list, feature_extractor_weights_path=None):
            super().__init__()
            assert (name, features_list) == ("inception-v3-compat", ["2048"])
            self.load_state_dict(torch.load(feature_extractor_weights_path, weights_only=False))

    module = types.ModuleType("torch_fidelity.feature_extractor_inceptionv3")
    module.FeatureExtractorInceptionV3 = Extractor
    module.URL_INCEPTION_V3 = "file:///nowhere/weights.pth"
    monkeypatch.setitem(sys.modules, "torch_fidelity", types.ModuleType("torch_fidelity"))
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", module)
    return module


def test_fid_only_with_the_published_weights(fidelity, tmp_path, monkeypatch):
    path = tmp_path / "weights.pth"
    torch.save({"scale": torch.tensor(2.0)}, path)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    other = features.InceptionFeatures(path)
    assert other.distance == f"Frechet distance (Inception with other weights, {digest[:8]})"
    assert other.sha256 == digest
    assert other(torch.ones(1, 3, 4, 4)).tolist() == [[510] * 3]
    monkeypatch.setattr(features, "INCEPTION_SHA256", digest)
    assert features.InceptionFeatures(path).distance == "FID"
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    with pytest.raises(ValueError, match="could not be fetched"):
        features.InceptionFeatures()
    path.rename(tmp_path / "hub" / "checkpoints" / features.INCEPTION)
    assert features.InceptionFeatures().sha256 == digest


def test_a_pickle_that_runs_code_is_not_read(fidelity, tmp_path):
    class Harm:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "harm"),)

    torch.save({"scale": Harm()}, tmp_path / "harm.pth")
    with pytest.raises(ValueError, match="does not hold the weights of FID's Inception"):
        features.InceptionFeatures(tmp_path / "harm.pth")
    assert not (tmp_path / "harm").exists()
    with pytest.raises(ValueError, match="There is no file"):
        features.InceptionFeatures(tmp_path / "none.pth")


def test_without_torch_fidelity_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(ValueError, match=r"paintback\[fid\]"):
        features.InceptionFeatures()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A folder with a random CLIP model of two layers, its tokenizer (letters) and its image processor."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

    tokens = [*CLIP_LETTERS, *(letter + "</w>" for letter in CLIP_LETTERS), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {token: number for number, token in enumerate(tokens)}
    start, end = vocabulary["<|startoftext|>"], vocabulary["<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab=vocabulary, merges=[], pad_token="<|endoftext|>", model_max_length=12)
    text = {
        "vocab_size": len(tokens), "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "max_position_embeddings": 12, "bos_token_id": start, "eos_token_id": end,
        "pad_token_id": end,
    }  # fmt: skip
    vision = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 8,
    }  # fmt: skip
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=8))
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.4)
    path = tmp_path_factory.mktemp("clip") / "tiny-clip"
    model.save_pretrained(path)
    size = {"height": 32, "width": 32}
    CLIPProcessor(CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=size), tokenizer).save_pretrained(path)
    return path


def test_clip_score_is_a_hundred_times_the_cosine(clip):
    from transformers import CLIPModel

    score = features.ClipScore(clip)
    pictures = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    prompts = ["a red fox", "b", "waves", "a longer text than the twelve tokens that there is room for"]
    made = score(pictures, prompts)
    model = CLIPModel.from_pretrained(clip).eval()
    # the processor by hand: no resizing at this size, CLIP's mean and deviation
    mean = torch.tensor([0.48145466, 0.4578275, 0.40821073]).reshape(3, 1, 1)
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).reshape(3, 1, 1)
    pixels = ((pictures * 255).round() / 255 - mean) / std
    expected = []
    for picture, prompt in zip(pixels, prompts, strict=True):
        letters = [number for word in prompt.split() for number in _spelled(word)][:10]
        tokens = torch.tensor([[2 * 26, *letters, 2 * 26 + 1]])
        with torch.no_grad():
            out = model(input_ids=tokens, pixel_values=picture[None])
        expected.append(100 * max(0.0, float(F.cosine_similarity(out.image_embeds, out.text_embeds))))
    assert made.tolist() == pytest.approx(expected, abs=1e-3)
    assert made.max() > 1  # not all are cut off at zero
    assert len(set(made.tolist())) > 1


def _spelled(word):
    """The tokens of a word where no letters merge: the last one carries the end of the word."""
    return [ord(letter) - ord("a") for letter in word[:-1]] + [26 + ord(word[-1]) - ord("a")]


def test_clip_says_what_it_is(clip, tmp_path):
    score = features.ClipScore(str(clip))
    assert score.name == "CLIP tiny-clip"
    assert score.sha256 == hashlib.sha256((clip / "model.safetensors").read_bytes()).hexdigest()
    pictures = torch.rand(2, 3, 40, 50, generator=torch.Generator().manual_seed(1))
    both, alone = score(pictures, ["a", "b"]), score(pictures[:1], ["a"])
    assert both[:1].tolist() == pytest.approx(alone.tolist(), abs=1e-3)
    with pytest.raises(ValueError, match="one for each"):
        score(pictures, ["a"])
    with pytest.raises(ValueError, match="no folder or Hub id of a CLIP model"):
        features.ClipScore(tmp_path)
    with pytest.raises(ValueError, match="no folder or Hub id of a CLIP model"):
        features.ClipScore("nobody/has-this-model")
