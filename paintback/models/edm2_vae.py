"""The space of latent EDM2 models: Stable Diffusion's VAE, which the user brings, scaled as EDM2 has it.

Reference: Karras et al., CVPR 2024, arXiv:2312.02696; the VAE: Rombach et al. 2022, arXiv:2112.10752.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from paintback.models.latent import LatentCodec

__all__ = ["Edm2Codec", "load_vae"]


class Edm2Codec(LatentCodec):
    """Stable Diffusion's VAE, its latents brought to mean 0 and standard deviation 0.5.

    Args:
        vae: a diffusers `AutoencoderKL`; its mean stands for its Gaussian.
        scale: factor of each latent channel.
        bias: added after it.
    """

    factor, channels = 8, 4

    def __init__(self, vae: nn.Module, scale: tuple[float, ...], bias: tuple[float, ...]) -> None:
        self.vae = vae
        self.scale, self.bias = (torch.tensor(values)[:, None, None] for values in (scale, bias))

    @property
    def _dtype(self) -> torch.dtype:
        return next(self.vae.parameters()).dtype

    def encode(self, picture: Tensor) -> Tensor:
        z: Tensor = self.vae.encode(picture.to(self._dtype)).latent_dist.mean  # type: ignore[operator]
        return z.to(picture.dtype) * self.scale.to(picture) + self.bias.to(picture)

    def decode(self, x: Tensor) -> Tensor:
        z = (x - self.bias.to(x)) / self.scale.to(x)
        out: Tensor = self.vae.decode(z.to(self._dtype)).sample  # type: ignore[operator]
        return out.to(x.dtype)


def load_vae(folder: Path, *, device: torch.device, dtype: torch.dtype) -> nn.Module:
    """The user's VAE.

    Args:
        folder: that of a diffusers `AutoencoderKL`, with config.json and its weights as safetensors.
        device: where it runs.
        dtype: of the network.

    Raises:
        ValueError: if it is not there, or is none of Stable Diffusion's.
    """
    if not (folder / "config.json").is_file():
        raise ValueError(
            f"This EDM2 model paints in the latents of Stable Diffusion's VAE, and there is none in {folder}; put the "
            "folder of a diffusers AutoencoderKL (such as sd-vae-ft-mse) there."
        )
    try:
        from diffusers import AutoencoderKL
    except ImportError as error:
        raise ValueError(
            "Latent EDM2 models need diffusers; install it with pip install 'paintback[models]'."
        ) from error
    try:
        vae, report = AutoencoderKL.from_pretrained(
            folder, local_files_only=True, dtype=dtype, use_safetensors=True, output_loading_info=True
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(f"{folder} does not hold an AutoencoderKL: {str(error).splitlines()[0]}") from error
    if missing := report["missing_keys"]:
        raise ValueError(f"The weights of the VAE in {folder} lack {len(missing)} of its tensors; copy them again.")
    if vae.config.latent_channels != 4 or len(vae.config.block_out_channels) != 4:
        raise ValueError(
            f"The VAE in {folder} has {vae.config.latent_channels} latent channels at 1/"
            f"{2 ** (len(vae.config.block_out_channels) - 1)} of the size; EDM2 models need 4 at 1/8."
        )
    network: nn.Module = vae.to(device).eval().requires_grad_(False)
    return network
