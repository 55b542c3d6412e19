"""What pipelines are told is held against what their networks read, for every family, before anything is computed."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

import paintback as pb
from paintback.models.diffusers import from_pipe, refusals
from tests.models import tiny_pipelines as tiny


@pytest.fixture(scope="module")
def pipes():
    made = {}

    def get(name):
        if name not in made:
            made[name] = tiny.build(name)
            made[name].set_progress_bar_config(disable=True)
        return made[name]

    return get


def tell(pipe, **told):
    """Has a pipeline paint by what it is told; what is refused is refused before that."""
    mask = np.zeros((64, 64), bool)
    mask[24:40, 24:40] = True
    inpainter = pb.Inpainter.from_pipe(pipe)
    inpainter.set_progress_bar_config(disable=True)
    return inpainter(np.full((64, 64, 3), 0.5, np.float32), mask, num_inference_steps=1, **told)


@pytest.mark.parametrize("name", tiny.TEXT_TO_IMAGE + tiny.TRAINED)
def test_a_text_and_its_embeddings_are_not_both_taken(pipes, name):
    with pytest.raises(ValueError, match=r"Got prompt and prompt_embeds, .* leave one of them out"):
        tell(pipes(name), prompt="a fox", prompt_embeds=torch.zeros(1, 4, 8))


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd15_inpaint"])
def test_a_negative_text_neither(pipes, name):
    with pytest.raises(ValueError, match="Got negative_prompt and negative_prompt_embeds"):
        tell(pipes(name), negative_prompt="rain", negative_prompt_embeds=torch.zeros(1, 4, 8))


POOLED = (
    "sdxl",
    "sd3",
    "sd3_no_t5",
    "flux_dev",
    "flux_schnell",
    "flux_kontext",
    "sdxl_inpaint",
    "flux_fill",
    "sd3_controlnet_inpaint",
)


OTHER_EMBEDDINGS = {
    "hidream",
    "flux2_klein",
    "krea2",
    "kandinsky5_image",
    "ideogram4",
}  # of several layers, or none at all


def test_krea_2_names_embeddings_of_another_width(pipes):
    mask = torch.ones(1, 4, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"^prompt_embeds is \(1, 4, 3, 7\), and .* reads vectors of 32 numbers"):
        tell(pipes("krea2"), prompt_embeds=torch.zeros(1, 4, 3, 7), prompt_embeds_mask=mask)


@pytest.mark.parametrize("name", sorted({*tiny.TEXT_TO_IMAGE, *tiny.TRAINED} - OTHER_EMBEDDINGS))
def test_embeddings_of_another_width_are_named(pipes, name):
    pooled = {"pooled_prompt_embeds": torch.zeros(1, 7)} if name in POOLED else {}
    if "prompt_attention_mask" in getattr(from_pipe(pipes(name)), "embeds", ()):
        pooled["prompt_attention_mask"] = torch.ones(1, 4)
    if name in tiny.EDITING:
        pooled["reference_images"] = np.zeros((64, 64, 3), np.uint8)
    with pytest.raises(ValueError, match=r"^prompt_embeds is \(1, 4, 7\), and .* reads vectors of \d+ numbers"):
        tell(pipes(name), prompt_embeds=torch.zeros(1, 4, 7), **pooled)


@pytest.mark.parametrize("name", POOLED)
def test_pooled_embeddings_of_another_width_are_named(pipes, name):
    model = from_pipe(pipes(name))
    right = next(model.network.config[key] for key in refusals.WIDTHS if model.network.config.get(key) is not None)
    right = right[0] if isinstance(right, tuple | list) else right
    with pytest.raises(ValueError, match=r"^pooled_prompt_embeds is \(1, 7\), and"):
        tell(pipes(name), prompt_embeds=torch.zeros(1, 4, right), pooled_prompt_embeds=torch.zeros(1, 7))


def test_sdxl_needs_both_embeddings(pipes):
    with pytest.raises(ValueError, match="needs pooled_prompt_embeds too"):
        tell(pipes("sdxl"), prompt_embeds=torch.zeros(1, 4, 8))


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd15_inpaint"])
def test_an_ip_adapter_is_refused(pipes, name, monkeypatch):
    from diffusers.models.embeddings import ImageProjection, MultiIPAdapterImageProjection

    pipe = pipes(name)
    monkeypatch.setattr(pipe.unet, "encoder_hid_proj", MultiIPAdapterImageProjection([ImageProjection(8, 8, 1)]))
    with pytest.raises(ValueError, match=r"has an IP-Adapter.* call pipe.unload_ip_adapter\(\) first"):
        tell(pipe, prompt="a fox")
    monkeypatch.undo()
    tell(pipe, prompt="a fox")


@pytest.mark.parametrize("name", ["sd15", "sd21", "sdxl", "ddpm", "ddim", "ldm"])
def test_a_flow_scheduler_is_refused_by_networks_of_noise(pipes, name):
    from diffusers import FlowMatchEulerDiscreteScheduler

    pipe = copy.copy(pipes(name))
    pipe.scheduler = FlowMatchEulerDiscreteScheduler()
    with pytest.raises(ValueError, match="trained on a schedule of noise; give the pipeline a DDIMScheduler"):
        from_pipe(pipe)
