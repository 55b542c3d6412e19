"""Models of pipelines beside the mathematics: classes, keywords, stale state, memory, offloading, and what is sent."""

from __future__ import annotations

import collections
import json
import traceback
import warnings
import weakref

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import paintback as pb
from paintback.denoiser import NetworkDenoiser
from paintback.images.regions import Box
from paintback.methods.run import Run
from paintback.models.diffusers import from_pipe, loading
from paintback.models.diffusers.families import FAMILIES, rebuilt, sibling
from paintback.models.embedded import UNetDenoiser
from paintback.models.tiles import HoleTiles, TiledDenoiser, Tiles
from paintback.models.unet import UNet, UNetConfig
from tests.models import tiny_pipelines as tiny

SIZE = (64, 64)


def inpainter(pipe):
    made = pb.Inpainter.from_pipe(pipe)
    made.set_progress_bar_config(disable=True)
    return made


def scene():
    mask = np.zeros(SIZE, bool)
    mask[16:40, 16:40] = True
    return np.random.default_rng(0).random((*SIZE, 3), np.float32), mask


def paint(own, method="replacement", steps=2, **more):
    more = {"prompt": "a red fox", "height": 64, "width": 64, "generator": 0, "output_type": "np", **more}
    return own(*scene(), method=method, num_inference_steps=steps, **more)


# ------------------------------------------------------------------------------------------------------------- classes


def test_every_class_of_a_family_is_taken_by_the_rule():
    import diffusers

    names = [name for name in dir(diffusers) if name.endswith("Pipeline") and not name.startswith("_")]
    others = {name: sibling(name) for name in names if name not in FAMILIES and sibling(name) in FAMILIES}
    for wanted in ("StableDiffusionImg2ImgPipeline", "StableDiffusionXLControlNetPipeline", "FluxInpaintPipeline",
                   "QwenImageImg2ImgPipeline", "ZImageInpaintPipeline", "StableDiffusion3InpaintPipeline",
                   "Flux2KleinInpaintPipeline", "LatentConsistencyModelPipeline"):  # fmt: skip
        assert wanted in others, wanted


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        (
            "sd15",
            "StableDiffusionInpaintPipeline",
        ),  # what AutoPipelineForInpainting makes of a checkpoint of 4 channels
        ("sd15", "StableDiffusionImg2ImgPipeline"),
        ("sd15", "LatentConsistencyModelPipeline"),
        ("sdxl", "StableDiffusionXLInpaintPipeline"),
        ("sd3", "StableDiffusion3Img2ImgPipeline"),
        ("flux_dev", "FluxInpaintPipeline"),
    ],
)
def test_classes_for_other_tasks_paint_as_the_family_does(name, kind):
    import diffusers

    pipe = tiny.build(name)
    other = rebuilt(pipe, getattr(diffusers, kind))
    model = from_pipe(other)
    assert type(model) is type(from_pipe(pipe))
    assert model.given is other
    assert model.network is other.components["unet" if name.startswith("sd1") or name == "sdxl" else "transformer"]
    look = [one.denoiser("a fox", size=SIZE)(torch.ones(1, *one.codec.shape(SIZE)), 0.5).x0 for one in
            (model, from_pipe(pipe))]  # fmt: skip
    assert torch.equal(*look)


def test_a_class_of_ones_own_is_that_which_it_derives_from():
    from diffusers import StableDiffusionPipeline

    class Mine(StableDiffusionPipeline):
        """A user's."""

    assert type(from_pipe(rebuilt(tiny.build("sd15"), Mine))).__name__ == "StableDiffusion"


# --------------------------------------------------------------------------------------------------------- stale state


def test_moving_and_casting_the_pipe_later_is_seen():
    pipe = tiny.build("sd15")
    own = inpainter(pipe)
    before = paint(own).images[0]
    pipe.to(torch.float64)
    assert own.model.dtype == torch.float64
    after = paint(own).images[0]
    assert after.shape == before.shape
    assert not np.array_equal(before, after)  # the embeddings are made anew, in the new dtype
    assert abs(before - after).max() < 1e-3
    pipe.unet = pipe.unet.to(torch.float32)
    assert own.model.network is pipe.unet


def test_a_changed_text_encoder_is_asked_again():
    pipe = tiny.build("sd15")
    model = from_pipe(pipe)
    first = model.denoiser("a fox", size=SIZE).condition
    assert model.denoiser("a fox", size=SIZE).condition is first
    with torch.no_grad():
        for weight in pipe.text_encoder.parameters():
            weight.data.mul_(1.01)  # as fusing LoRA does, behind the version counter
    assert not torch.equal(model.denoiser("a fox", size=SIZE).condition, first)


def test_options_of_the_network_reach_both_transformers():
    from paintback.tasks.checks import prepare_network

    pipe = tiny.build("wan22")
    prepare_network(from_pipe(pipe), channels_last=False, compile=True, gradient_checkpointing=True)
    for network in (pipe.transformer, pipe.transformer_2):
        assert network.gradient_checkpointing
        assert network._compiled_call_impl is not None


# ------------------------------------------------------------------------------------------------------------ keywords


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("sdxl", {"clip_skip": 1}),
        ("sdxl", {"prompt_2": "a blue whale"}),
        ("sd3", {"prompt_2": "a blue whale", "prompt_3": "a stone"}),
        ("sd3", {"max_sequence_length": 8}),
        ("flux_dev", {"prompt_2": "a blue whale"}),
        ("z_image", {"max_sequence_length": 8}),
    ],
)
def test_words_reach_the_text_encoders(name, words):
    model = from_pipe(tiny.build(name))
    plain, told = (model.denoiser("a red fox", size=SIZE, **more).condition for more in ({}, words))
    assert plain.shape != told.shape or not torch.equal(plain, told)


@pytest.mark.parametrize(
    ("name", "words", "sentence"),
    [
        ("sd15", {"prompt_2": "a"}, "takes no prompt_2"),
        ("z_image", {"guidance_rescale": 0.5}, "knows no guidance_rescale; lower guidance_scale"),
        ("sd3", {"cross_attention_kwargs": {"scale": 1.0}}, "its pipeline takes joint_attention_kwargs"),
        ("flux_dev", {"clip_skip": 1}, "takes no clip_skip"),
    ],
)
def test_words_that_a_family_lacks_are_refused(name, words, sentence):
    with pytest.raises(ValueError, match=sentence):
        from_pipe(tiny.build(name)).denoiser("a red fox", size=SIZE, **words)


def test_guidance_rescale_is_the_pipelines():
    from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg

    model = from_pipe(tiny.build("sd15"))
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    plain, rescaled = (
        model.denoiser("a red fox", size=SIZE, **more)(x, 0.5) for more in ({}, {"guidance_rescale": 0.7})
    )
    wanted = rescale_noise_cfg(plain.x1, plain.conditional.x1, 0.7)
    assert (rescaled.x1 - wanted).abs().max() < 1e-4
    assert (rescaled.x1 - plain.x1).abs().max() > 0.01


def test_skip_layer_guidance_is_the_pipelines():
    pipe = tiny.build("sd3")
    words = {"skip_guidance_layers": [0], "skip_layer_guidance_start": 0.1, "skip_layer_guidance_stop": 0.6}
    noise = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(1))
    theirs = pipe("a red fox", height=64, width=64, num_inference_steps=4, latents=noise, output_type="latent", **words)
    denoiser = from_pipe(pipe).denoiser("a red fox", size=SIZE, **words)
    times, x, rows = denoiser.grid(4), noise, []
    denoiser = denoiser.along(times.tolist())
    for t, s in zip(times[:-1].tolist(), times[1:].tolist(), strict=True):
        seen = denoiser(x, t)
        rows.append(seen.rows)
        x = (1 - s) * seen.x0 + s * seen.x1
    assert rows == [2, 3, 3, 2]
    assert (x - theirs.images).abs().max() < 2e-4 * theirs.images.abs().max()


def test_what_attention_layers_are_told_reaches_the_network():
    pipe = tiny.build("sd15")
    seen = []
    pipe.unet.register_forward_pre_hook(lambda _, args, words: seen.append(words["cross_attention_kwargs"]),
                                        with_kwargs=True)  # fmt: skip
    from_pipe(pipe).denoiser("a", size=SIZE, cross_attention_kwargs={"scale": 0.5})(torch.zeros(1, 4, 8, 8), 0.5)
    assert seen == [{"scale": 0.5}]


# -------------------------------------------------------------------------------------------------------------- memory


class Saved:
    """Bytes of the tensors that autograd has saved, now and at the peak."""

    def __init__(self):
        self.now = self.peak = 0

    def pack(self, tensor):
        class Held:
            value = tensor.detach()  # an output would hold its own graph

        held, size = Held(), tensor.numel() * tensor.element_size()
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(held, self.drop, size)
        return held

    def drop(self, size):
        self.now -= size

    def __enter__(self):
        self.hooks = torch.autograd.graph.saved_tensors_hooks(self.pack, lambda held: held.value)
        self.hooks.__enter__()
        return self

    def __exit__(self, *error):
        self.hooks.__exit__(*error)


def test_gradients_keep_one_guided_evaluation_with_frozen_weights():
    pipe = tiny.build("sd3")
    denoiser = from_pipe(pipe).denoiser("a red fox", size=SIZE)
    x = torch.randn(1, *denoiser.shape).requires_grad_()
    with Saved() as one, torch.enable_grad():
        denoiser(x, 0.5)
    for part in pipe.components.values():
        if isinstance(part, torch.nn.Module):
            part.requires_grad_()
    for method in ("dps", "mmps", pb.methods.get("copaint", iterations=3)):
        with Saved() as saved:
            paint(inpainter(pipe), method, steps=3)
        assert one.peak * 0.9 < saved.peak <= 1.1 * one.peak, method
    with Saved() as decoding, torch.enable_grad():
        pipe.vae.requires_grad_(False)
        from_pipe(pipe).codec.decode(x)
        pipe.vae.requires_grad_()
    for method in ("ldps", pb.methods.get("p2l", prompt_steps=2)):  # the decoder's graph stands beside the network's
        with Saved() as saved:
            paint(inpainter(pipe), method, steps=3)
        assert one.peak < saved.peak <= 1.1 * (one.peak + decoding.peak), method
    assert all(weight.requires_grad and weight.grad is None for weight in pipe.transformer.parameters())


def test_an_earlier_gradient_says_that_its_graph_is_gone():
    denoiser = NetworkDenoiser(lambda x, clock: x**2, pb.schedules.Flow(), "flow")
    run = pb.methods.get("dps").open(denoiser, pb.Observation(torch.zeros(1, 3), torch.ones(3, dtype=torch.bool)), 3)
    _, first = run.linearise(torch.ones(1, 3), run.times[1])
    _, second = run.linearise(torch.ones(1, 3), run.times[1])
    assert second(torch.ones(1, 3)).shape == (1, 3)
    with pytest.raises(RuntimeError, match="a later linearise of the same run has freed it"):
        first(torch.ones(1, 3))


# ---------------------------------------------------------------------------------------------------------- offloading


def offload(pipe, monkeypatch):
    """Whole-model offloading without a device to come from: weights are NaN while they are away."""
    from accelerate.hooks import CpuOffload, UserCpuOffloadHook, add_hook_to_module

    moved = collections.Counter()

    class Away(CpuOffload):
        home = None

        def init_hook(self, module):
            if self.home is None:
                moved[type(module).__name__] += 1
                self.home = [weight.data for weight in module.parameters()]
                for weight in module.parameters():
                    weight.data = torch.full_like(weight, torch.nan)
            return module

        def pre_forward(self, module, *args, **words):
            if self.prev_module_hook is not None:
                self.prev_module_hook.offload()
            if self.home is not None:
                for weight, data in zip(module.parameters(), self.home, strict=True):
                    weight.data = data
                self.home = None
            return args, words

    def enable(device=None):
        last = None
        for name in pipe.model_cpu_offload_seq.split("->"):
            module = getattr(pipe, name, None)
            if module is not None:
                hook = Away("cpu", last)
                add_hook_to_module(module, hook)
                last = UserCpuOffloadHook(module, hook)
        pipe._all_hooks = [last]

    monkeypatch.setattr(pipe, "maybe_free_model_hooks", lambda: [enable_again(pipe)])

    def enable_again(pipe):
        for name in pipe.model_cpu_offload_seq.split("->"):
            module = getattr(pipe, name, None)
            if module is not None:
                module._hf_hook.init_hook(module)

    enable()
    return moved


@pytest.mark.parametrize("method", ["ldps", "psld", "p2l", "ding"])
def test_offloading_leaves_together_what_a_step_needs(method, monkeypatch):
    wanted = paint(inpainter(tiny.build("sd15")), method).images[0]
    pipe = tiny.build("sd15")
    moved = offload(pipe, monkeypatch)
    assert np.isnan(np.asarray(pipe.unet.conv_in.weight.detach())).all()
    own = inpainter(pipe)
    for _ in range(2):
        np.testing.assert_allclose(paint(own, method).images[0], wanted, atol=1e-5)
    assert moved["UNet2DConditionModel"] == 3  # at first, and after every call
    assert np.isnan(np.asarray(pipe.unet.conv_in.weight.detach())).all()


def enlarge(model, **more):
    more = {"prompt": "a red fox", "generator": 0, "num_inference_steps": 2, "progress_bar": False, **more}
    return pb.superres(np.zeros((32, 32, 3), np.float32), 2, model=model, **more)


def test_enlarging_leaves_them_together_too(monkeypatch):
    pipe = tiny.build("sd15")
    moved = offload(pipe, monkeypatch)
    enlarge(from_pipe(pipe), fields={"inner_steps": 1})
    assert moved["UNet2DConditionModel"] == 2


def test_enlarging_says_what_a_model_and_a_method_do_not_fit_in(monkeypatch):
    model = from_pipe(tiny.build("sd15"), step_distilled=True)
    with pytest.warns(UserWarning, match="Method fcs takes .* is step-distilled.*, or take another model;"):
        enlarge(model, fields={"inner_steps": 1}, num_inference_steps=1)
    monkeypatch.setattr(model.network.conv_in, "_hf_hook", type("Hook", (), {"offload": True})(), raising=False)
    with pytest.raises(ValueError, match="Method psld takes gradients, and sequential offloading"):
        enlarge(model, method="psld")


def test_planning_gives_the_modules_back_too(monkeypatch):
    pipe = tiny.build("sd15")
    offload(pipe, monkeypatch)
    inpainter(pipe).plan(*scene(), "a red fox", method="ding", num_inference_steps=2)
    assert np.isnan(np.asarray(next(pipe.text_encoder.parameters()).detach())).all()


def test_weights_are_estimated_and_what_does_not_fit_is_said(tmp_path_factory, monkeypatch):
    path = tiny.folder("sd15", tmp_path_factory)
    pipe = tiny.build("sd15")
    parts = loading.estimate(path, torch.float32)
    for name in ("unet", "vae", "text_encoder"):
        assert parts[name] == sum(4 * weight.numel() for weight in pipe.components[name].state_dict().values())
    half = loading.estimate(path, torch.bfloat16)
    assert sum(half.values()) < 0.6 * sum(parts.values())
    monkeypatch.setattr("paintback.resources.free_bytes", lambda where: int(max(parts.values()) * 1.2))
    with pytest.raises(
        ValueError, match=r"^The weights of .* need .* in float32, and cpu has .* free; offload='model'"
    ):
        pb.Inpainter.from_pretrained(path)
    monkeypatch.setattr("paintback.resources.free_bytes", lambda where: 1000)
    with pytest.raises(ValueError, match="offload='group' fits, bfloat16"):
        pb.Inpainter.from_pretrained(path)
    with pytest.raises(ValueError, match="leave it out on cpu"):
        pb.Inpainter.from_pretrained(path, offload="group", device="cpu")

    def full(where):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB.")

    monkeypatch.setattr(pipe, "to", full)
    with pytest.raises(loading.Unfit, match="do not fit cuda"):  # for which others are let go
        loading.place(pipe, torch.device("cuda"))
    with pytest.raises(ValueError, match="is no pipeline of diffusers and takes no offload"):
        pb.Inpainter.from_pretrained("photo", offload="model")
    assert json.loads((path / "model_index.json").read_text())["_class_name"] == "StableDiffusionPipeline"


def test_running_out_of_memory_says_what_fits(monkeypatch):
    pipe = tiny.build("sd15")

    def full(*given, **words):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(pipe.unet, "forward", full)
    with pytest.raises(MemoryError, match=r'memory of cpu did not do .* offload="model".*fewer answers'):
        paint(inpainter(pipe))


# ----------------------------------------------------------------------------------------------------- host and device


class Copies(TorchDispatchMode):
    """Counts what goes between the CPU and the device "meta", which has no numbers: a copy that waits, or a question.

    A question (`bool`, `item`) is answered by 1.
    """

    def __init__(self):
        super().__init__()
        self.waits, self.sent = collections.Counter(), 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        words = kwargs or {}
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        asked = str(function).startswith("aten._local_scalar_dense") and tensors[0].device.type == "meta"
        out = 1 if asked else function(*args, **words)
        crossed = torch.is_tensor(out) and out.device.type == "meta" and any(t.device.type == "cpu" for t in tensors)
        if crossed and words.get("non_blocking"):
            self.sent += 1
        elif asked or crossed:
            stack = [frame for frame in traceback.extract_stack() if "/paintback/" in frame.filename]
            self.waits[f"{stack[-1].filename.rpartition('/')[2]}:{stack[-1].lineno} {function}"] += 1
        return out


@pytest.mark.parametrize("method", [name for name in pb.methods.names() if name != "aid"])
def test_no_run_waits_for_the_device(method, monkeypatch):
    made = torch.Tensor.new_tensor
    scalars = []
    monkeypatch.setattr(torch.Tensor, "new_tensor", lambda *a, **k: scalars.append(1) or made(*a, **k))
    monkeypatch.setattr(Run, "settle", lambda run: None)  # the one question, at the end
    denoiser = NetworkDenoiser(lambda x, clock: 0.9 * x, pb.schedules.Flow(), "flow")
    y, known = torch.zeros(2, 3, 8, 8, device="meta"), torch.ones(2, 1, 8, 8, dtype=torch.bool, device="meta")
    own = pb.methods.get(method)
    with Copies() as copies, torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = own.open(denoiser, pb.Observation(y, known), 4, generator=torch.Generator().manual_seed(0))
        copies.waits.clear()  # what is asked before the run begins
        list(own.states(run))
    assert not copies.waits
    assert not scalars
    assert copies.sent >= 1  # the noise, from a generator of the CPU


def shipped(kind, where):
    """A shipped network that is told where its crop lies, as it stands in a painting; two rows of 32 x 32 cells."""
    with torch.device(where):
        network = UNet(UNetConfig(widths=(8,), blocks=1, place=True)).eval().requires_grad_(False)
    inner, shapes = UNetDenoiser(network), [(64, 64), (48, 64)]
    if kind == "placed":
        return inner.placed([(0, 0, 32, 32), (8, 16, 40, 48)], shapes, 1)
    if kind == "tiled":
        return TiledDenoiser(inner, 24, 4, 4)
    tiles, values = Tiles(16, ((0, 0), (10, 16))), torch.zeros(2, 3, 32, 32, device=where)
    return HoleTiles(inner, [tiles, Tiles(8, ((3, 5),))], values, [Box(0, 0, 32, 32), Box(8, 16, 40, 48)], shapes)


@pytest.mark.parametrize("kind", ["placed", "tiled", "hole tiles"])
def test_the_shipped_networks_do_not_wait_for_the_device(kind):
    denoiser, x = shipped(kind, "meta"), torch.zeros(4, 3, 32, 32, device="meta")
    with Copies() as copies, torch.no_grad():
        for t in (0.9, 0.3):
            denoiser(x, t)
            sent, copies.sent = copies.sent, 0
    assert not copies.waits
    assert not sent  # of the last look: what was sent before is there


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("method", ["replacement", "ding", "lanpaint", "fmm", "daps", "flowdps", "ddnm"])
def test_no_run_synchronises_on_cuda(method):
    denoiser = NetworkDenoiser(lambda x, clock: 0.9 * x, pb.schedules.Flow(), "flow")
    y, known = torch.zeros(2, 3, 8, 8, device="cuda"), torch.ones(2, 1, 8, 8, dtype=torch.bool, device="cuda")
    own = pb.methods.get(method)
    run = own.open(denoiser, pb.Observation(y, known), 4, generator=torch.Generator().manual_seed(0))
    states = own.states(run)
    torch.cuda.set_sync_debug_mode("error")
    try:
        with torch.no_grad():
            for _ in range(3):
                next(states)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", ["sd15", "sdxl", "sd3", "flux_dev", "qwen_image", "flux2_klein"])
def test_a_look_sends_nothing_that_it_sent_before(name):
    """Clocks are filled in on the device, ids are made once for a size."""
    pipe = tiny.build(name)
    denoiser = from_pipe(pipe).denoiser("a red fox", size=SIZE)
    x = torch.zeros(1, *denoiser.shape)
    made, parts = [], [one for one in dir(pipe) if one.startswith("_prepare_latent_i")]
    for part in parts:
        own = getattr(pipe, part)
        setattr(pipe, part, lambda *a, own=own: made.append(1) or own(*a))
    for t in (0.9, 0.5, 0.3):
        denoiser(x, t)
    assert len(made) == (1 if name.startswith("flux") else 0)


# ------------------------------------------------------------------------------------------------------------ callback


@pytest.mark.parametrize("name", ["sd15", "sd3"])
def test_the_callback_is_told_what_diffusers_tells(name):
    """The scheduler's timesteps, at which steps began; the latents that it returns are gone on from."""
    pipe = tiny.build(name)
    theirs, ours = [], []

    def tell(_, index, timestep, state):
        theirs.append(float(timestep))
        return state

    pipe("a red fox", height=64, width=64, num_inference_steps=3, output_type="latent", callback_on_step_end=tell)
    own = inpainter(pipe)
    paint(own, steps=3, callback_on_step_end=lambda _, index, timestep, state: ours.append(timestep))
    assert ours == pytest.approx(sorted(set(theirs), reverse=True), abs=1e-3)  # PNDM takes one of them twice

    def wipe(_, index, timestep, state):
        return {"latents": torch.zeros_like(state["latents"])} if index == 0 else {}

    plain, wiped = (paint(own, steps=3, callback_on_step_end=one).images[0] for one in (None, wipe))
    assert not np.array_equal(plain, wiped)


def test_a_returned_state_is_gone_on_from():
    denoiser = NetworkDenoiser(lambda x, clock: 0.0 * x, pb.schedules.Flow(), "flow")
    nothing = pb.Observation(torch.zeros(1, 3), torch.zeros(3, dtype=torch.bool))
    moved = pb.methods.get("replacement").sample(
        denoiser, nothing, 4, torch.Generator().manual_seed(0),
        callback=lambda step, t, x, x0: torch.full_like(x, 7.0) if step == 1 else None,
    )  # fmt: skip
    assert torch.equal(moved.x, torch.full((1, 3), 7.0))


# ------------------------------------------------------------------------------------------------------- many pictures


def test_pictures_of_one_size_share_a_batch_of_a_latent_model():
    own = inpainter(tiny.build("sd15"))
    picture, mask = scene()
    pictures, masks = [picture, picture[::-1].copy()], [mask, mask.T.copy()]
    calls = []
    own.model.network.register_forward_pre_hook(lambda _, args: calls.append(len(args[0])))

    def seeds():
        return [torch.Generator().manual_seed(k) for k in range(2)]

    given = {"prompt": "a red fox", "method": "ding", "num_inference_steps": 3, "output_type": "np"}
    given |= {"height": 64, "width": 64}
    alone = own(pictures, masks, generator=seeds(), **given)
    apart = calls.copy()
    calls.clear()
    shared = own(pictures, masks, generator=seeds(), batch_size=2, **given)
    assert calls == [2 * rows for rows in apart[: len(apart) // 2]]
    for k in range(2):
        np.testing.assert_allclose(shared.images[k], alone.images[k], atol=1e-4)
        assert np.array_equal(shared.images[k][~masks[k]], pictures[k][~masks[k]])
    assert shared.evaluations == alone.evaluations
