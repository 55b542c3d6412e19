"""Makes research_reference.safetensors: what other people's implementations of ADM, EDM and EDM2 compute.

They are not dependencies of the tests: azula needs torchvision and gdown, Modulus needs CUDA packages. So their
networks were run once, by this script, with weights that `weights` below makes from nothing but a name and a shape; the
tests fill Paintback's networks with the same weights and compare. To make the file again:

    pip install --no-deps --target DIR azula==0.11.1 nvidia-modulus==0.9.0 denoising-diffusion-pytorch==2.3.4 einops
    PYTHONPATH=DIR python tests/models/research_reference.py

azula: MIT, the network of guided diffusion and its denoiser. Modulus: Apache-2.0, EDM's networks and preconditionings.
denoising-diffusion-pytorch: MIT, magnitude-preserving layers of EDM2 and a U-Net of them, which differs from EDM2's in
details; each is undone below where it is used.
"""

from __future__ import annotations

import sys
import types
import zlib
from pathlib import Path

import numpy as np
import torch

PLACE = Path(__file__).with_suffix(".safetensors")
STEPS = (0, 300, 600, 750)  # above, azula's alpha, made of a sigma in float32, is too coarse to compare x0
SIGMAS = (0.01, 0.5, 3.0, 60.0)

# Fields of AdmConfig; the sizes are the smallest that have every part of the networks in them.
ADM = {
    "plain": {"size": 16, "width": 32, "multipliers": (1, 2), "blocks": 1, "attention": (1,), "head_channels": 32},
    "classes": {
        "size": 16, "width": 32, "multipliers": (1, 2), "blocks": 2, "attention": (0, 1), "head_channels": 32,
        "classes": 5, "new_attention_order": True, "betas": "cosine",
    },
    "convolutions": {
        "size": 16, "width": 32, "multipliers": (1, 1, 2), "blocks": 1, "attention": (2,), "heads": 4,
        "resblock_updown": False, "scale_shift": False, "out_channels": 3,
    },
}  # fmt: skip
_SMALL = {"img_resolution": 16, "model_channels": 32, "channel_mult": (1, 2), "num_blocks": 1, "attn_resolutions": (8,)}
_NCSN = {
    "embedding_type": "fourier", "channel_mult_noise": 2, "encoder_type": "residual", "resample_filter": (1, 3, 3, 1),
}  # fmt: skip
_ADM = {"dhariwal": True, "model_channels": 64, "channel_mult": (1, 2), "label_dim": 5}
# Fields of EdmConfig.
EDM = {
    "ddpmpp": {**_SMALL, "label_dim": 5, "augment_dim": 9},
    "ddpmpp-vp": {**_SMALL, "preconditioning": "vp"},
    "ncsnpp": {**_SMALL, **_NCSN, "augment_dim": 9},
    "ncsnpp-ve": {**_SMALL, **_NCSN, "preconditioning": "ve", "encoder_type": "skip", "decoder_type": "skip"},
    "adm": {**_SMALL, **_ADM},
    "adm-iddpm": {**_SMALL, **_ADM, "preconditioning": "iddpm", "M": 100},
}
# Fields of Edm2Config. The other implementation has no attention in the places where EDM2's network has it, and
# changes widths elsewhere; so its network is compared without both, and its blocks with them.
EDM2 = {
    "img_resolution": 16, "img_channels": 4, "label_dim": 5, "model_channels": 32, "channel_mult": (1, 1, 1),
    "num_blocks": 2, "attn_resolutions": (), "channel_mult_emb": 4,
}  # fmt: skip
EDM2_BLOCKS = {
    "encoder": {"encoder": True, "attention": False},
    "encoder-attention": {"encoder": True, "attention": True},
    "decoder": {"encoder": False, "attention": False},
    "decoder-attention": {"encoder": False, "attention": True},
}


def weights(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    """Numbers that depend on a name and a shape alone, of a layer's usual magnitude."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else 25
    return torch.from_numpy(np.asarray(random.standard_normal(shape) / fan_in**0.5)).float()


def state_for(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A state dict for a network, its fixed filters and tables as they are."""
    return {
        name: value if name.endswith("resample_filter") or name == "u" else weights(name, tuple(value.shape))
        for name, value in network.state_dict().items()
    }


def inputs(name: str, shape: tuple[int, ...], classes: int) -> tuple[torch.Tensor, torch.Tensor | None]:
    """A batch of two states, and one-hot labels."""
    x = weights(f"input of {name}", (2, int(np.prod(shape)))).view(2, *shape) * int(np.prod(shape)) ** 0.5
    return x, torch.eye(classes)[[1, classes - 1]] if classes else None


def thin(value: torch.Tensor) -> torch.Tensor:
    """Every second row and column of a batch of pictures; each of them depends on the whole input."""
    value = value.detach().float()
    return (value[..., ::2, ::2] if value.ndim == 4 else value).contiguous().clone()


def adm() -> dict[str, torch.Tensor]:
    """x0 and the raw output of azula's ADM at a few discrete times."""
    sys.modules["gdown"] = types.ModuleType("gdown")
    from azula.noise import Schedule
    from azula.plugins.adm import make_model

    found = {}
    for name, fields in ADM.items():
        model = make_model(
            learn_var=fields.get("out_channels", 6) == 6,
            discrete_schedule=fields.get("betas", "linear"),
            image_size=fields["size"],
            num_channels=fields["width"],
            channel_mult=fields["multipliers"],
            attention_resolutions=[fields["size"] >> level for level in fields["attention"]],
            num_classes=fields.get("classes"),
            num_res_blocks=fields["blocks"],
            num_heads=fields.get("heads", 1),
            num_head_channels=-1 if fields.get("heads") else fields["head_channels"],
            use_scale_shift_norm=fields.get("scale_shift", True),
            resblock_updown=fields.get("resblock_updown", True),
            use_new_attention_order=fields.get("new_attention_order", False),
        ).eval()
        model.backbone.load_state_dict(state_for(model.backbone))
        x, labels = inputs(name, (3, 16, 16), fields.get("classes", 0))
        label = None if labels is None else labels.argmax(1)
        for step in STEPS:
            time = torch.full((2,), step)
            sigma = model.sigmas[step]

            class _At(Schedule):
                def __call__(self, t, sigma=sigma):
                    return (1 - sigma.double() ** 2).sqrt().float().expand(2), sigma.expand(2)

            model.schedule = _At()
            found[f"adm/{name}/{step}/raw"] = model.backbone(x, time, y=label)
            found[f"adm/{name}/{step}/x0"] = model(x, torch.zeros(2), label=label).mean
    return found


def edm() -> dict[str, torch.Tensor]:
    """D(x, sigma) of Modulus' EDM networks."""
    meta, module = types.ModuleType("modulus.models.meta"), types.ModuleType("modulus.models.module")
    meta.ModelMetaData = type("ModelMetaData", (), {})

    class Module(torch.nn.Module):
        def __init__(self, meta=None):
            super().__init__()

    module.Module = Module
    _bare("modulus")
    _bare("modulus.models")
    nvtx = types.ModuleType("nvtx")
    nvtx.annotate = _Nothing
    torch.cuda.nvtx.range_push = torch.cuda.nvtx.range_pop = lambda *_: None
    sys.modules |= {"modulus.models.meta": meta, "modulus.models.module": module, "nvtx": nvtx}
    from modulus.models import diffusion

    kinds = {"edm": "EDMPrecond", "vp": "VPPrecond", "ve": "VEPrecond", "iddpm": "iDDPMPrecond"}
    found = {}
    for name, fields in EDM.items():
        given = {"img_channels": 3, **fields, "dropout": 0.0}
        kind = kinds[given.pop("preconditioning", "edm")]
        adm = given.pop("dhariwal", False)
        network = getattr(diffusion, kind)(model_type="DhariwalUNet" if adm else "SongUNet", **given)
        network.load_state_dict(state_for(network))
        if kind == "iDDPMPrecond":
            found[f"edm/{name}/u"] = network.u
        network.train()  # in eval mode Modulus normalises by the unbiased variance, unlike the published networks
        x, labels = inputs(name, (3, 16, 16), fields.get("label_dim", 0))
        for sigma in SIGMAS:
            found[f"edm/{name}/{sigma}"] = network(x * sigma, torch.full((2,), sigma), labels)
    return found


def _bare(package: str) -> None:
    """A package without what its __init__ imports."""
    parts = package.split(".")
    root = next(place for place in map(Path, sys.path) if place.joinpath(*parts).is_dir())
    sys.modules[package] = types.ModuleType(package)
    sys.modules[package].__path__ = [str(root.joinpath(*parts))]


class _Nothing:
    """In place of nvtx.annotate."""

    def __init__(self, *_args, **_kwargs):
        pass

    def __call__(self, function):
        return function

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def edm2() -> dict[str, torch.Tensor]:
    """The U-Net and the blocks of denoising-diffusion-pytorch, with EDM2's weights and its details."""
    import torch.nn.functional as F

    _bare("denoising_diffusion_pytorch")
    from denoising_diffusion_pytorch import karras_unet as ddp

    def l2norm(t, dim=-1, eps=1e-4):  # the paper's algorithm 1 adds eps to the root mean square
        return t / (t.norm(dim=dim, keepdim=True) + 1e-4 * t.shape[dim] ** 0.5)

    def unpadded(self, x):  # the paper's fan-in counts the channel of ones
        x = F.pad(x, (0, 0, 0, 0, 0, 1), value=1.0) if self.concat_ones_to_input else x
        weight = ddp.normalize_weight(self.weight) / self.weight[0].numel() ** 0.5
        return F.conv2d(x, weight, padding="same")

    def resize(x, size, mode):  # halving is a mean either way; doubling is repetition in EDM2
        return interpolate(x, size, mode="nearest" if size[0] > x.shape[-2] else mode)

    branch = 0.7  # its sums name the branch first and the trunk second, EDM2's the other way round, with t = 0.3
    interpolate = F.interpolate
    ddp.l2norm, ddp.Conv2d.forward = l2norm, unpadded
    ddp.F = types.SimpleNamespace(**{**vars(F), "interpolate": resize})

    network = ddp.KarrasUnet(
        image_size=16, dim=32, dim_max=32, num_classes=5, channels=4, num_downsamples=2, num_blocks_per_stage=2,
        attn_res=(), fourier_dim=32, dropout=0.0,
    ).eval()  # fmt: skip
    for block in (*network.downs, *network.mids, *network.ups):
        block.res_mp_add.t = branch
    phases, freqs = weights("unet.emb_fourier.phases", (32,)), weights("unet.emb_fourier.freqs", (32,))
    network.to_time_emb[0].forward = lambda t: (t[:, None] * freqs + phases).cos() * 2**0.5
    _put(network.to_time_emb[1], "unet.emb_noise")
    _put(network.to_class_emb, "unet.emb_label")
    _put(network.input_block, "unet.enc.16x16_conv")
    _put(network.output_block[0], "unet.out_conv")
    network.output_block[1].gain.data = weights("unet.out_gain", ())
    encoders = [f"16x16_block{k}" for k in (0, 1)]
    decoders = [f"4x4_block{k}" for k in (0, 1, 2)]
    for side in (8, 4):
        encoders += [f"{side}x{side}_down", *(f"{side}x{side}_block{k}" for k in (0, 1))]
    for side in (8, 16):
        decoders += [f"{side}x{side}_up", *(f"{side}x{side}_block{k}" for k in (0, 1, 2))]
    for block, name in zip(network.downs, encoders, strict=True):
        _put_block(block, f"unet.enc.{name}")
    for block, name in zip(network.mids, ("4x4_in0", "4x4_in1"), strict=True):
        _put_block(block, f"unet.dec.{name}")
    for block, name in zip(network.ups, decoders, strict=True):
        _put_block(block, f"unet.dec.{name}")
    x, labels = inputs("edm2", (4, 16, 16), 5)
    found = {"edm2/network": network(x, torch.tensor([-1.0, 0.7]), class_labels=labels)}

    for name, fields in EDM2_BLOCKS.items():
        wide = {
            "emb_dim": 128,
            "dropout": 0.0,
            "has_attn": fields["attention"],
            "attn_dim_head": 32,
            "mp_add_t": branch,
        }
        if fields["encoder"]:  # its encoder changes widths only where it halves the sides
            block = ddp.Encoder(32, 64, downsample=True, **wide).eval()
        else:
            block = ddp.Decoder(32, 64, **wide).eval()
        if fields["attention"]:
            block.attn = ddp.Attention(64, heads=2, dim_head=32, num_mem_kv=0, mp_add_t=branch)
            # its rows are q, k, v of all heads; EDM2's are head, channel, then q, k, v
            rows = torch.arange(192).view(2, 32, 3).permute(2, 0, 1).flatten()
            block.attn.to_qkv.weight.data = weights(f"{name}.attn_qkv.weight", (192, 64, 1, 1))[rows]
            _put(block.attn.to_out, f"{name}.attn_proj")
        _put_block(block, name)
        skip = block.downsample_conv if fields["encoder"] else block.res_conv
        _put(skip, f"{name}.conv_skip")
        x, _ = inputs(name, (32, 8, 8), 0)
        found[f"edm2/{name}"] = block(x, weights(f"embedding of {name}", (2, 128)) * 128**0.5)
    return found


def _put(layer: torch.nn.Module, name: str) -> None:
    layer.weight.data = weights(f"{name}.weight", tuple(layer.weight.shape))


def _put_block(block: torch.nn.Module, name: str) -> None:
    _put(block.block1[1], f"{name}.conv_res0")
    _put(block.block2[2], f"{name}.conv_res1")
    _put(block.to_emb[0], f"{name}.emb_linear")
    block.to_emb[1].gain.data = weights(f"{name}.emb_gain", ())
    # its network always has a convolution where it halves the sides, EDM2's only where the width changes, elsewhere
    if getattr(block, "downsample_conv", None) is not None and name.endswith("_down"):
        block.downsample_conv = torch.nn.Identity()
    if hasattr(getattr(block, "res_conv", None), "weight"):
        _put(block.res_conv, f"{name}.conv_skip")


def main() -> None:
    """Writes the file."""
    from importlib.metadata import version

    from safetensors.torch import save_file

    torch.set_num_threads(1)
    found = {}
    with torch.no_grad():
        for part in (adm, edm, edm2):
            found |= {name: thin(value) for name, value in part().items()}
    packages = ("azula", "nvidia-modulus", "denoising-diffusion-pytorch", "torch", "numpy")
    save_file(found, PLACE, {name: version(name) for name in packages})
    print(f"{PLACE}: {len(found)} tensors")


if __name__ == "__main__":
    main()
