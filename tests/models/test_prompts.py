"""Prompts of embedded models: vocabulary, conditioning, classifier-free guidance, and that old weights still load."""

from __future__ import annotations

import json
import warnings

import pytest
import torch
from safetensors.torch import save_file

import paintback as pb
from paintback.models.catalogue import Sampler, catalogue
from paintback.models.embedded import EmbeddedModel, UNetDenoiser, load_embedded, load_unet
from paintback.models.unet import UNet, UNetConfig
from paintback.models.vocabulary import Vocabulary, split_words
from paintback.training.export import export_prior

WORDS = Vocabulary(("apple", "car", "green", "red"))
CONFIG = UNetConfig(channels=3, widths=(8, 8), blocks=1, vocabulary=len(WORDS))


def random_unet(config: UNetConfig = CONFIG) -> UNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = UNet(config)
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        if config.vocabulary:
            torch.nn.init.normal_(network.words)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def model() -> EmbeddedModel:
    return EmbeddedModel(
        name="tiny",
        channels=3,
        multiple=4,
        size=(16, 16),
        training_size=16,
        network=random_unet(),
        device=torch.device("cpu"),
        dtype=torch.float32,
        vocabulary=WORDS,
        guidance_scale=2.5,
    )


def states(rows: int = 3) -> torch.Tensor:
    return torch.randn(rows, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 10


def test_words_are_lower_case_letters_and_digits():
    assert split_words("Red apple: CAT’s e-mail, 1st_place (ÉTÉ)!") == [
        "red", "apple", "cat's", "e", "mail", "1st", "place", "été"
    ]  # fmt: skip
    assert split_words(" -- !") == []


def test_rows_are_means_of_one_hots():
    assert WORDS.row("Red apple").tolist() == [0.5, 0, 0, 0.5]
    assert WORDS.row("red RED apple unheard").tolist() == pytest.approx([1 / 3, 0, 0, 2 / 3])
    assert WORDS.unknown("an unheard red an apple") == ["an", "unheard"]
    rows = WORDS.rows(["", "green", "pear"])
    assert rows.shape == (3, 4)
    assert rows.tolist() == [[0, 0, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]


def test_the_network_takes_mixtures_of_words_and_zeros_are_no_prompt():
    network, x, clock = random_unet(), states(), torch.tensor([-0.5, 0.0, 0.5])
    rows = WORDS.rows(["red apple", "", "car"])
    together = network(x, clock, rows)
    for k in range(3):
        alone = network(x[k : k + 1], clock[k : k + 1], rows[k : k + 1])
        torch.testing.assert_close(together[k : k + 1], alone, rtol=1e-5, atol=1e-5)
    without = network(x, clock)
    torch.testing.assert_close(together[1], without[1], rtol=1e-5, atol=1e-5)
    for k in (0, 2):
        assert (together[k] - without[k]).abs().mean() > 1e-3
    torch.testing.assert_close(network(x, clock, torch.zeros(3, 4)), without, rtol=1e-5, atol=1e-5)


def test_the_network_is_differentiable_in_the_prompt():
    network, rows = random_unet(), WORDS.rows(["red apple"] * 3).requires_grad_()
    network(states(), torch.zeros(3), rows).square().sum().backward()
    assert rows.grad is not None
    assert (rows.grad.abs() > 0).all()


def test_a_network_without_vocabulary_takes_no_words():
    network = random_unet(UNetConfig(channels=3, widths=(8, 8), blocks=1))
    assert not [key for key in network.state_dict() if key.startswith(("words", "prompt"))]
    with pytest.raises(ValueError, match="no vocabulary"):
        network(states(), torch.zeros(3), torch.zeros(3, 4))


@pytest.mark.parametrize(("prompt", "negative"), [("red apple", None), ("red apple", "green car"), (None, "car")])
@pytest.mark.parametrize("scale", [0.0, 3.0, None])
def test_guidance_is_the_formula_of_two_calls(model, prompt, negative, scale):
    x, t = states(), 0.8
    guided = model.denoiser(prompt, negative, scale)(x, t)
    upper, lower = (model.denoiser(text, guidance_scale=1)(x, t) for text in (prompt, negative))
    w = 2.5 if scale is None else scale
    torch.testing.assert_close(guided.x0, lower.x0 + w * (upper.x0 - lower.x0), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(guided.x1, lower.x1 + w * (upper.x1 - lower.x1), rtol=1e-4, atol=1e-4)
    assert guided.rows == 2 * len(x)
    assert guided.conditional is not None
    torch.testing.assert_close(guided.conditional.x0, upper.x0, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(guided.guided(1.0).x0, upper.x0, rtol=1e-5, atol=1e-5)


def test_scale_one_is_one_call_of_the_conditional_model(model):
    x, t = states(), 0.8
    seen = model.denoiser("red apple", "car", 1.0)(x, t)
    assert seen.rows == len(x)
    assert seen.conditional is None
    want = UNetDenoiser(model.network, condition=WORDS.row("red apple")[None])(x, t)
    torch.testing.assert_close(seen.x0, want.x0)
    assert (seen.x0 - model.denoiser()(x, t).x0).abs().mean() > 1e-2


def test_no_prompt_is_the_unconditional_model_at_any_scale(model):
    x, t = states(), 0.8
    plain = UNetDenoiser(model.network)(x, t)
    for prompt, scale in ((None, None), ("", 7.0), (None, 1.0)):
        denoiser = model.denoiser(prompt, None, scale)
        assert denoiser.condition is None
        seen = denoiser(x, t)
        assert torch.equal(seen.x0, plain.x0)
        assert seen.rows == len(x)


def test_another_condition_is_another_prompt(model):
    x, t = states(), 0.8
    changed = model.denoiser("red apple").with_condition(WORDS.rows(["car"]))(x, t)
    torch.testing.assert_close(changed.x0, model.denoiser("car")(x, t).x0)
    rows = WORDS.rows(["car", "red apple", "car"])
    mixed = model.denoiser("green").with_condition(rows)(x, t)
    torch.testing.assert_close(mixed.x0[1], model.denoiser("red apple")(x, t).x0[1], rtol=1e-4, atol=1e-4)


def test_guidance_without_the_other_row_is_refused(model):
    with pytest.raises(ValueError, match="unconditional"):
        UNetDenoiser(model.network, condition=WORDS.rows(["car"]), guidance_scale=2.0)


@pytest.mark.parametrize(("texts", "name"), [(("banana pie", None), "prompt"), ((None, "...?"), "negative_prompt")])
def test_no_known_word_is_an_error(model, texts, name):
    with pytest.raises(ValueError, match=f"knows none of the words of the {name} '") as error:
        model.denoiser(*texts)
    assert str(error.value).count(". ") == 0


def test_unknown_words_are_named_in_one_warning(model):
    with pytest.warns(UserWarning, match="'a', 'shiny' in the prompt") as caught:
        found = model.denoiser("a shiny red apple")
    assert len(caught) == 1
    assert torch.equal(found.condition, WORDS.rows(["red apple"]))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.denoiser("Red, apple!", "car")


def test_models_without_vocabulary_refuse_prompts_as_before():
    plain = pb.Inpainter.from_pretrained("fashion").model
    with pytest.raises(ValueError, match="takes no prompt; leave it out"):
        plain.denoiser("shoe")
    with pytest.raises(ValueError, match="takes no negative_prompt"):
        plain.denoiser(None, "shoe")
    with pytest.raises(ValueError, match="has no guidance"):
        plain.denoiser(None, None, 2.0)


def test_the_inpainter_paints_the_prompt_and_p2l_tunes_it(model):
    inpainter = pb.Inpainter(model)
    inpainter.set_progress_bar_config(disable=True)
    image, hole = torch.rand(1, 3, 16, 16, generator=torch.Generator().manual_seed(0)), torch.zeros(16, 16)
    hole[4:12, 4:12] = 1

    def paint(method, **more):
        generator = torch.Generator().manual_seed(0)
        return inpainter(
            image, hole, method=method, num_inference_steps=4, generator=generator, output_type="pt", **more
        )

    plain, apple, car = (paint("ding", prompt=prompt) for prompt in (None, "red apple", "car"))
    assert not torch.equal(apple.images, car.images)
    assert not torch.equal(apple.images, plain.images)
    known = hole == 0
    assert torch.equal(apple.images[..., known], image[..., known])
    tuned = paint("p2l", prompt="red apple")
    assert (tuned.evaluations, paint("p2l").evaluations) == (4 + 4 * 5, 4)


def write(path, network, **header):
    fields = {"config": json.dumps(network.config.to_dict()), "step": "7", **header}
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path, fields)
    return path


def test_weights_bring_their_vocabulary_and_guidance(model, tmp_path):
    words = ("äpfel", "car", "green", "red")
    raw = write(tmp_path / "raw.safetensors", model.network, vocabulary=json.dumps(words))
    shipped = export_prior(
        raw, tmp_path / "mine.safetensors", size=16, training_size=16, sampler=Sampler("ddnm"), guidance_scale=1.5
    )
    loaded = load_embedded(shipped)
    assert loaded.vocabulary.words == words
    assert (loaded.guidance_scale, loaded.size, loaded.sampler.method) == (1.5, (16, 16), "ddnm")
    x = states()
    want = UNetDenoiser(model.network, condition=WORDS.rows(["red car"]))(x, 0.8)
    seen = loaded.denoiser("Red car", guidance_scale=1)(x, 0.8)
    torch.testing.assert_close(seen.x0, want.x0, rtol=2e-2, atol=2e-2)  # float16


def test_a_vocabulary_of_another_length_is_no_model(model, tmp_path):
    wrong = write(tmp_path / "wrong.safetensors", model.network, vocabulary='["one"]')
    with pytest.raises(ValueError, match="does not hold weights"):
        load_embedded(wrong)


def test_old_weights_load_as_they_did(tmp_path):
    network = random_unet(UNetConfig(channels=3, widths=(8, 8), blocks=1))
    fields = network.config.to_dict()
    del fields["vocabulary"]  # headers from before there were prompts
    old = write(tmp_path / "old.safetensors", network, config=json.dumps(fields))
    loaded, _ = load_unet(old)
    assert loaded.config.vocabulary == 0
    x, clock = states(), torch.zeros(3)
    assert torch.equal(loaded(x, clock), network.to(memory_format=torch.channels_last)(x, clock))
    for card in (card for card in catalogue() if card.parameters):
        assert (load_unet(card.weights)[0].config.vocabulary > 0) == (card.vocabulary > 0)
