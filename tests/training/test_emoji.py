"""The emoji: their split, their pictures and prompts, and a tiny model that learns what a word means."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from paintback.cli.main import main
from paintback.models.embedded import load_embedded, load_unet
from paintback.models.unet import UNet, UNetConfig
from paintback.models.vocabulary import Vocabulary
from paintback.training.emoji import (
    EmojiPictures,
    base_of,
    code_points,
    emoji_pictures,
    read_entries,
    split_of,
)
from paintback.training.prior import PriorTraining, held_out_loss, train_prior

NETWORK = UNetConfig(channels=3, widths=(8, 16), blocks=1)
TONES = ("1f3fb", "1f3fc", "1f3fd", "1f3fe", "1f3ff")


def of_split(split: str, start: int) -> int:
    """The first code point from `start` on that belongs to a split."""
    while split_of((start,)) != split:
        start += 1
    return start


RED, BLUE = of_split("train", 0x1F534), of_split("train", 0x1F535)
BLUE = of_split("train", RED + 1)
VAL, TEST, HAND = of_split("val", 0x1F400), of_split("test", 0x1F400), of_split("test", 0x1F440)


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    """Four single emoji, and a hand with skin tones; VAL is named in emojibase's other way."""
    emoji = [
        {"hexcode": f"{RED:X}", "label": "red circle", "tags": ["geometric", "red"], "group": 8},
        {"hexcode": f"{BLUE:X}", "label": "Blue circle", "tags": ["geometric", "ocean"], "group": 5},
        {"hexcode": f"{VAL:X}-FE0F", "label": "grey cat", "tags": ["pet"], "group": 3},
        {"hexcode": f"{TEST:X}", "label": "half moon", "group": 3},
        {
            "hexcode": f"{HAND:X}",
            "label": "hand",
            "tags": ["wave"],
            "group": 1,
            "skins": [{"hexcode": f"{HAND:X}-{tone.upper()}", "label": f"hand: tone {tone}"} for tone in TONES],
        },
    ]
    path = tmp_path_factory.mktemp("labels") / "data.json"
    path.write_text(json.dumps(emoji))
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Squares of one colour on nothing; TEST has a dark left half and a half transparent right half."""
    path = tmp_path_factory.mktemp("package") / "assets"
    path.mkdir()
    for points, colour in (
        (f"{RED:x}", (255, 0, 0)),
        (f"{BLUE:x}", (0, 0, 255)),
        (f"{VAL:x}", (128, 128, 128)),
        (f"{HAND:x}", (200, 150, 100)),
        *((f"{HAND:x}-{tone}", (100, 20 * k, 50)) for k, tone in enumerate(TONES)),
    ):
        picture = Image.new("RGBA", (256, 256), (0, 0, 0, 0))
        picture.paste((*colour, 255), (64, 64, 192, 192))
        picture.save(path / f"{points}.webp", lossless=True)
    moon = Image.new("RGBA", (256, 256), (0, 0, 0, 128))
    moon.paste((0, 0, 0, 255), (0, 0, 128, 256))
    moon.save(path / f"{TEST:x}.webp", lossless=True)
    (path / "README.md").write_text("no picture")
    return path.parent


@pytest.mark.parametrize(
    "family",
    [
        "1f44b 1f44b-1f3fb 1f44b-1f3ff",
        "1f3c3 1f3c3-1f3fd-200d-2640-fe0f 1f3c3-200d-27a1-fe0f 1f3c3-200d-2640-fe0f-200d-27a1-fe0f",
        "1f9d1-200d-1f373 1f468-200d-1f373 1f469-1f3fc-200d-1f373",
        "1f9d1 1f468 1f469-1f3fb",
        "1f9d2 1f466 1f467-1f3fe",
        "1f9d3 1f474 1f475",
        "1f46a 1f468-200d-1f469-200d-1f466 1f469-200d-1f467-200d-1f467 1f9d1-200d-1f9d1-200d-1f9d2",
        "1f491 1f469-200d-2764-fe0f-200d-1f468 1f9d1-1f3fb-200d-2764-fe0f-200d-1f9d1-1f3ff 1f491-1f3fc",
        "1f48f 1f468-200d-2764-fe0f-200d-1f48b-200d-1f468",
        "1f46b 1f46c 1f46d-1f3fb 1f9d1-200d-1f91d-200d-1f9d1",
        "1f91d 1faf1-1f3fb-200d-1faf2-1f3ff",
        "2764 2764-fe0f",
        "1f385 1f936 1f9d1-200d-1f384",
    ],
)
def test_variants_have_one_base(family):
    assert len({base_of(code_points(name)) for name in family.split()}) == 1


def test_different_emoji_have_different_bases():
    names = ["1f468", "1f466", "1f474", "1f468-200d-1f373", "1f468-200d-1f680", "1f46a", "1f491", "1f48f", "1f46b"]
    names += ["1f91d", "1f3fb", "2640", "2764"]
    names += ["2764-fe0f-200d-1f525", "1f1e9-1f1ea", "1f1eb-1f1f7", "0023-fe0f-20e3", "002a-fe0f-20e3"]
    assert len({base_of(code_points(name)) for name in names}) == len(names)


def test_the_split_is_a_tenth_a_twentieth_and_the_rest():
    count = Counter(split_of((point,)) for point in range(0x1F000, 0x1F000 + 4000))
    assert 0.08 < count["test"] / 4000 < 0.12
    assert 0.04 < count["val"] / 4000 < 0.06
    assert set(count) == {"train", "val", "test"}
    assert (split_of((0x1F34E,)), split_of((0x1F9D1, 0x1F373))) == ("train", "train")  # of the shipped weights


def test_no_base_is_in_two_splits(folder, labels):
    splits = {split: read_entries(folder, labels, split) for split in ("train", "val", "test")}
    bases = {split: {entry.base for entry in entries} for split, entries in splits.items()}
    assert bases == {"train": {(RED,), (BLUE,)}, "val": {(VAL,)}, "test": {(TEST,), (HAND,)}}
    assert len(splits["test"]) == 2 + len(TONES)
    assert sum(map(len, splits.values())) == len(read_entries(folder, labels)) == 10


def test_pictures_are_on_white_and_averaged_by_area(folder, labels):
    found = emoji_pictures(folder, labels, "test")
    assert [name for name, _, _ in found] == sorted(name for name, _, _ in found)
    assert len(found) == 2 + len(TONES)
    ((picture, label),) = [(picture, label) for name, picture, label in found if name == f"{TEST:x}"]
    assert label == "half moon"
    assert (picture.shape, picture.dtype) == ((64, 64, 3), np.uint8)
    assert (picture[:, :32] == 0).all()
    assert (abs(picture[:, 32:].astype(int) - 127) <= 1).all()
    ((_, tone, label),) = [row for row in found if row[0] == f"{HAND:x}-{TONES[2]}"]
    assert label == f"hand: tone {TONES[2]}"
    assert (tone[0, 0] == 255).all()
    assert (tone[32, 32] == (100, 40, 50)).all()
    one_each = emoji_pictures(folder, labels, "test", one_per_base=True)
    assert {name for name, _, _ in one_each} == {f"{TEST:x}", f"{HAND:x}"}


@pytest.mark.parametrize("size", [16, 64])
def test_held_out_batches_are_the_plain_pictures(size, folder, labels, tmp_path):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (256, 256, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"{TEST:x}.webp", lossless=True)
    pictures = EmojiPictures(tmp_path, labels, split="test", size=size)
    batch = pictures.batch(0, 0, 2)
    want = torch.nn.functional.avg_pool2d(torch.from_numpy(pixels).permute(2, 0, 1).float(), 256 // size)
    got = (batch[0] + 1) * 127.5
    assert (got - want).abs().max() <= 1.01  # rounded twice
    assert torch.equal(batch[0], batch[1])
    assert pictures.prompts(0, 0, 2) == ["half moon"] * 2


def test_training_pictures_are_moved_scaled_and_mirrored(folder, labels, tmp_path):
    pixels = np.full((256, 256, 3), 255, np.uint8)
    pixels[96:160, 40:104] = 0  # 16 of 64 pixels wide, left of the middle
    for point in (RED, BLUE):  # RED is a symbol, which is not mirrored
        Image.fromarray(pixels).save(tmp_path / f"{point:x}.webp", lossless=True)
    pictures = EmojiPictures(tmp_path, labels)
    x, prompts = pictures.batch(0, 0, 400), pictures.prompts(0, 0, 400)
    ink = (1 - x).mean(1) / 2
    areas = ink.sum((1, 2)).sqrt()
    assert 0.9 * 16 - 0.2 < areas.min() < 0.93 * 16
    assert 1.07 * 16 < areas.max() < 1.1 * 16 + 0.2
    place = torch.arange(64) + 0.5
    across, down = ((ink.sum(dim) * place).sum(1) / ink.sum((1, 2)) for dim in (1, 2))
    right = across > 32
    red = torch.tensor([prompt.startswith("red") for prompt in prompts])
    assert not right[red].any()
    assert 0.4 < right[~red].float().mean() < 0.6
    # the square's middle is at 18, or at 46 mirrored; 14 from the picture's middle, scaled, and moved by at most 3
    off = torch.where(right, across - 46, 18 - across)
    assert off.abs().max() <= 14 * 0.1 + 3.4
    assert off.max() > 2.5
    assert off.min() < -2.5
    assert (down - 32).abs().max() <= 3.4
    assert (down - 32).abs().max() > 2.5


def test_batches_and_prompts_belong_together_and_depend_on_seed_and_step_alone(folder, labels):
    pictures = EmojiPictures(folder, labels, size=16)
    x, prompts = pictures.batch(3, 7, 64), pictures.prompts(3, 7, 64)
    assert torch.equal(x, pictures.batch(3, 7, 64))
    assert prompts == pictures.prompts(3, 7, 64)
    assert not torch.equal(x, pictures.batch(3, 8, 64))
    assert x.shape == (64, 3, 16, 16)
    assert x.abs().max() <= 1
    assert (x[:, :, 0, 0] == 1).all()
    for picture, prompt in zip(x, prompts, strict=True):
        centre = picture[:, 8, 8].tolist()
        assert centre == ([1, -1, -1] if prompt.startswith("red circle") else [-1, -1, 1])
    tails = {prompt.split("circle", 1)[1].strip() for prompt in prompts if prompt.startswith("Blue")}
    assert {"", "geometric", "ocean"} <= tails
    assert tails <= {"", "geometric", "ocean", "geometric ocean", "ocean geometric"}
    assert pictures.vocabulary == ("blue", "circle", "geometric", "red")


def test_bases_weigh_the_same_however_many_variants_they_have(folder, labels):
    pictures = EmojiPictures(folder, labels, split="test")
    hands = sum(prompt.startswith("hand") for prompt in pictures.prompts(0, 0, 1000))
    assert 450 < hands < 550
    x, chosen = pictures.spread(0, 4)
    assert x.shape == (4, 3, 64, 64)
    assert [pictures.entries[k].base for k in chosen].count((TEST,)) == 2


@pytest.fixture(scope="module")
def trained(folder, labels, tmp_path_factory):
    """140 steps on two colours, most of them at high noise."""
    pictures = EmojiPictures(folder, labels, size=16)
    training = PriorTraining(
        steps=140,
        batch=16,
        learning_rate=1e-2,
        warmup=3,
        sample_every=1000,
        ema=(7.0,),
        sigma_mean=1.5,
        prompt_drop=0.3,
    )
    out = tmp_path_factory.mktemp("run")
    return train_prior(pictures, out, network=NETWORK, training=training, progress=False)


def test_the_words_are_learnt_and_kept(trained, folder, labels):
    model = load_embedded(trained)
    assert model.vocabulary.words == ("blue", "circle", "geometric", "red")
    x = torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 80
    centre = {
        prompt: model.denoiser(prompt, guidance_scale=1)(x, 1.0).x0[:, :, 6:10, 6:10].mean((0, 2, 3))
        for prompt in ("red", "blue", None)
    }
    redder = {prompt: float(colour[0] - colour[2]) for prompt, colour in centre.items()}
    assert redder["red"] > 0.5
    assert redder["blue"] < -0.5
    assert redder["blue"] + 0.3 < redder[None] < redder["red"] - 0.3
    pictures = EmojiPictures(folder, labels, size=16)
    loss = held_out_loss(model.network, pictures, batches=4)
    assert held_out_loss(model.network, pictures, batches=4, vocabulary=model.vocabulary) < loss


def test_resuming_keeps_the_words(trained, folder, labels, tmp_path):
    pictures = EmojiPictures(folder, labels, size=16)
    again = train_prior(
        pictures, tmp_path, network=NETWORK, training=PriorTraining(steps=142, batch=4, sample_every=1000),
        resume=trained, progress=False,
    )  # fmt: skip
    model, header = load_unet(again)
    assert header["step"] == "142"
    assert json.loads(header["vocabulary"]) == ["blue", "circle", "geometric", "red"]
    assert model.config.vocabulary == 4


def test_dropped_prompts_teach_no_word(folder, labels, tmp_path):
    pictures = EmojiPictures(folder, labels, size=16)
    moved = {}
    for drop in (0.0, 1.0):
        training = PriorTraining(
            steps=5, batch=4, warmup=1, weight_decay=0.0, ema=(1e9,), sample_every=1000, prompt_drop=drop
        )
        path = train_prior(pictures, tmp_path / str(drop), network=NETWORK, training=training, progress=False)
        moved[drop] = load_unet(path)[0].words
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = UNet(UNetConfig(channels=3, widths=(8, 16), blocks=1, vocabulary=4)).words
    assert torch.equal(moved[1.0], start)
    assert (moved[0.0] != start).any(1).all()


def test_the_commands(folder, labels, tmp_path, capsys):
    out = tmp_path / "run"
    given = ["--data", str(folder), "--labels", str(labels)]
    small = ["--widths", "8,8", "--blocks", "1", "--batch", "2", "--threads", "1", "--lr", "0.3"]

    def call(*arguments: str) -> str:
        with pytest.raises(SystemExit) as stop:
            main(["train", *arguments])
        captured = capsys.readouterr()
        assert not stop.value.code, captured.err
        return captured.out

    call("prior", "--model", "emoji", *given, "--out", str(out), "--steps", "6", "--quiet", *small)
    weights = str(out / "model.safetensors")
    header = load_unet(out / "model.safetensors")[1]
    assert json.loads(header["training"])["sigma_mean"] == -0.8
    assert len(Vocabulary(tuple(json.loads(header["vocabulary"])))) == 4
    losses = {
        more: json.loads(call("loss", "--model", weights, *given, "--batches", "1", "--format", "json", *more))["loss"]
        for more in ((), ("--prompts", "--split", "train"), ("--split", "train"))
    }
    assert len(set(losses.values())) == 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["prior", "--model", "emoji"], "--labels"),
        (["prior", "--labels", "LABELS"], "--labels"),
        (["prior", "--model", "emoji", "--labels", "nowhere.json"], "no file nowhere.json"),
        (["prior", "--model", "emoji", "--labels", "LABELS", "--data", "nowhere"], "no folder nowhere"),
        (["prior", "--model", "emoji", "--labels", "LABELS", "--data", "EMPTY"], "holds no emoji"),
        (["prior", "--model", "emoji", "--labels", "LABELS", "--data", "OTHER"], "has no label"),
        (["prior", "--model", "emoji", "--labels", "LABELS", "--data", "NAMES"], "no emoji's code points"),
        (["prior", "--model", "emoji", "--labels", "LIST"], "not a list of emoji"),
        (["loss", "--model", "photo", "--split", "test"], "--labels"),
        (["loss", "--model", "photo", "--labels", "LABELS", "--prompts"], "takes no prompts"),
    ],
)
def test_wrong_input(arguments, message, folder, labels, tmp_path, capsys):
    (tmp_path / "list.json").write_text("[1, 2]")
    for name, file in (("empty", None), ("other", "1f34e.webp"), ("names", "apple.webp")):
        (tmp_path / name).mkdir()
        if file:
            Image.new("RGBA", (8, 8)).save(tmp_path / name / file)
    places = {"LABELS": labels, "LIST": tmp_path / "list.json"}
    places |= {name.upper(): tmp_path / name for name in ("empty", "other", "names")}
    given = [str(places.get(text, text)) for text in arguments]
    if "--data" not in given:
        given += ["--data", str(folder)]
    if given[0] == "prior":
        given += ["--out", str(tmp_path / "out"), "--steps", "1"]
    with pytest.raises(SystemExit) as stop:
        main(["train", *given])
    captured = capsys.readouterr()
    assert stop.value.code == 2
    assert message in captured.err
    assert captured.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_unknown_split(folder, labels):
    with pytest.raises(ValueError, match="train, val, test"):
        read_entries(folder, labels, "tests")
