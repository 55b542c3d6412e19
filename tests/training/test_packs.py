"""Packs: drawn by the weights of their sources, split by original, cut as means, the same for the same seed."""

from __future__ import annotations

import csv
import io
import json

import numpy as np
import pytest
import torch
from PIL import Image

from paintback.cli.main import main
from paintback.models.unet import UNet, UNetConfig
from paintback.training.crops import Crops, augment, cut, draw_crops
from paintback.training.drawings import draw
from paintback.training.packs import PackPictures, read_table, read_weights, split_of


def write_pack(folder, pictures, *, name="pack"):
    """A pack of (source, original, pixels)."""
    blob, rows = b"", []
    for source, original, pixels in pictures:
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, "PNG")
        rows.append(
            {"offset": len(blob), "length": len(file.getvalue()), "source": source, "licence": "CC0-1.0",
             "original": original, "crop": "full"}
        )  # fmt: skip
        blob += file.getvalue()
    (folder / f"{name}.bin").write_bytes(blob)
    with (folder / f"{name}.csv").open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0])
        table.writeheader()
        table.writerows(rows)
    return folder / f"{name}.bin"


def flat(colour, shape=(40, 50)):
    return np.full((*shape, 3), colour, np.uint8)


@pytest.fixture
def pack(tmp_path):
    """Two pictures of source a (dark), one of b (bright), and one of c; their originals train."""
    names = [name for name in map(str, range(200)) if split_of(name) == "train"]
    return write_pack(
        tmp_path,
        [("a", names[0], flat(10)), ("a", names[1], flat(20)), ("b", names[2], flat(200)), ("c", names[3], flat(250))],
    )


def test_pictures_are_drawn_by_the_weights_of_their_sources(pack):
    pictures = PackPictures([pack], weights={"a": 1, "b": 3, "c": 0}, size=32, plain=True)
    assert pictures.by_source == {"a": 2, "b": 1}
    x = pictures.batch(0, 0, 4000)
    values = ((x[:, 0, 0, 0] + 1) * 127.5).round()
    share = {value: float((values == value).float().mean()) for value in (10, 20, 200, 250)}
    assert share[250] == 0
    assert abs(share[200] - 0.75) < 0.03
    assert abs(share[10] - share[20]) < 0.03


def test_a_pack_lends_its_weight_to_sources_without_one(pack):
    pictures = PackPictures([pack], weights={"pack": 1, "a": 0}, size=32, plain=True)
    assert pictures.by_source == {"pack": 2}
    assert PackPictures([pack], size=32).count == 4


def test_drawings_are_a_source_and_differ_by_split(pack):
    pictures = PackPictures([pack], weights={"a": 1, "drawn": 1}, size=32)
    assert pictures.by_source == {"a": 2, "drawn": 400}
    one, two = draw(6, seed=0), draw(6, seed=1)
    assert all(picture.shape == (144, 144, 3) and picture.dtype == np.uint8 for picture in one)
    assert not any(np.array_equal(a, b) for a, b in zip(one, two, strict=True))
    assert all(np.array_equal(a, b) for a, b in zip(one, draw(6, seed=0), strict=True))


def test_faces_of_a_panorama_lie_on_one_side_of_the_split():
    for k in range(300):
        sides = {split_of(f"cube_crops/place{k}_0{face}.png") for face in range(6)} | {split_of(f"hdri/place{k}.webp")}
        assert len(sides) == 1
    held = sum(split_of(f"{k}.jpg") == "val" for k in range(4000))
    assert 60 < held < 140


def test_a_batch_is_a_function_of_seed_and_step(pack):
    pictures = PackPictures([pack], size=16, sizes=(16, 32))
    one, again, other = pictures.placed(3, 4, 8), pictures.placed(3, 4, 8), pictures.placed(3, 6, 8)
    assert torch.equal(one[0], again[0])
    assert torch.equal(one[1], again[1])
    assert not torch.equal(one[1], other[1])
    assert one[0].shape == (8, 3, 16, 16)
    assert pictures.placed(3, 5, 8)[0].shape == (2, 3, 32, 32)


def test_cells_are_means_and_places_say_where():
    ramp = np.linspace(0, 255, 96).astype(np.uint8)
    picture = torch.from_numpy(np.stack([np.tile(ramp, (96, 1)), np.tile(ramp[:, None], (1, 96)), np.zeros((96, 96))]))
    one = torch.ones(2)
    crops = Crops(24 * one, 48 * one, 2 * one, 16, torch.tensor([False, True]), torch.tensor([True, True]))
    x = cut(picture[None].expand(2, -1, -1, -1).to(torch.uint8), crops, 16)
    expected = picture[:, 24:56, 48:80].unflatten(-1, (16, 2)).unflatten(-3, (16, 2)).mean((-1, -3)) / 127.5 - 1
    assert (x[0] - expected).abs().max() < 0.02
    assert (x[1] - expected.flip(-1)).abs().max() < 0.02
    places = crops.places(torch.tensor([[96, 96], [96, 96]]))
    zoom = np.log2(96 / 2 / 64)
    assert np.allclose(places[0], [-0.5, 0.0, 56 / 48 - 1, 80 / 48 - 1, zoom, 1])
    assert np.allclose(places[1], [-0.5, 1 - 80 / 48, 56 / 48 - 1, 0.0, zoom, 1])  # the mirrored picture's place


def test_crops_lie_inside_and_span_the_scales():
    sides = torch.tensor([[144, 216]]).expand(4000, 2)
    for side in (64, 128):
        crops = draw_crops(sides, side, torch.Generator().manual_seed(0))
        assert crops.top.min() >= 0
        assert (crops.top + crops.cell * side).max() <= 144 + 1e-3
        assert (crops.left + crops.cell * side).max() <= 216 + 1e-3
        assert 0.49 < crops.cell.min() < 0.6
        assert abs(crops.cell.max() - 144 / side) < 0.02
        assert 0.7 < crops.known.float().mean() < 0.8
        assert (crops.places(sides)[~crops.known] == 0).all()


def test_changes_stay_in_range_and_leave_many_crops_alone():
    rng = torch.Generator().manual_seed(0)
    x = torch.rand(400, 3, 32, 32, generator=rng) * 2 - 1
    y = augment(x, rng)
    assert y.isfinite().all()
    assert y.abs().max() <= 1
    same = (x == y).flatten(1).all(1).float().mean()
    assert 0.3 < same < 0.6


def test_a_place_changes_what_is_painted_and_none_is_a_place_of_zeros():
    torch.manual_seed(0)
    network = UNet(UNetConfig(widths=(8, 16), blocks=1, heads=2, place=True))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    x, noise = torch.randn(2, 3, 16, 24), torch.zeros(2)
    place = torch.tensor([[-1.0, -1, 0, 0, 1, 1], [0.0, 0, 1, 1, 1, 1]])
    assert torch.equal(network(x, noise), network(x, noise, place=torch.zeros(2, 6)))
    assert (network(x, noise) - network(x, noise, place=place)).abs().max() > 1e-3
    assert (network(x, noise, place=place) - network(x, noise, place=place.flip(0))).abs().max() > 1e-3
    with pytest.raises(ValueError, match="takes no place"):
        UNet(UNetConfig(widths=(8, 16), blocks=1))(x, noise, place=place)


def test_frequencies_keep_their_precision_in_half_precision():
    network = UNet(UNetConfig(widths=(8, 16), blocks=1))
    before = network.frequencies.clone()
    network.to(torch.bfloat16)
    assert network.inlet.weight.dtype == torch.bfloat16
    assert torch.equal(network.frequencies, before)


@pytest.mark.parametrize(
    ("text", "match"), [("[]", "does not hold weights"), ('{"a": "x"}', "weights"), ('{"a": -1}', "weights")]
)
def test_weights_that_are_none(text, match, tmp_path):
    path = tmp_path / "w.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=match):
        read_weights(path)


def test_tables_that_are_none(pack):
    table = pack.with_suffix(".csv")
    table.write_text(table.read_text().replace("offset", "at"))
    with pytest.raises(ValueError, match="offset, length, source"):
        read_table(pack)
    table.write_text("offset,length,source,original\n0,99999999,a,b\n")
    with pytest.raises(ValueError, match="beyond the end"):
        read_table(pack)
    table.write_text("offset,length,source,original\n0,3,a,b\n")
    with pytest.raises(ValueError, match="holds no picture"):
        PackPictures([pack], size=16)
    with pytest.raises(ValueError, match="no picture of a source"):
        PackPictures([pack], weights={"z": 1})


def run(words, *more, code=0):
    with pytest.raises(SystemExit) as stop:
        main([*words, *more])
    assert stop.value.code == code


@pytest.mark.slow
def test_the_command_trains_on_packs_in_time_and_goes_on_where_it_was(pack, tmp_path, capsys):
    weights = tmp_path / "w.json"
    weights.write_text('{"a": 1, "b": 1, "drawn": 1}')
    words = [
        "train", "prior", "--data", str(pack), "--weights", str(weights), "--out", str(tmp_path / "out"),
        "--size", "16", "--sizes", "16,32", "--widths", "8,16,16", "--blocks", "1", "--batch", "4", "--quiet", "--bf16",
    ]  # fmt: skip
    run(words, "--steps", "4")
    lines = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    assert json.loads(lines[-1])["pictures"] == 4 + 1 + 4 + 1
    run(words, "--minutes", "0.05", "--resume")
    lines = (tmp_path / "out" / "log.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    assert last["step"] > 4
    assert last["seconds"] < 60
    assert (tmp_path / "out" / "state.safetensors").is_file()
    assert (tmp_path / "out" / "model-2.safetensors").is_file()
    capsys.readouterr()
    run(words, "--data", str(tmp_path), code=2)
    assert "go with packs" in capsys.readouterr().err
