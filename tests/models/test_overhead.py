"""What a run costs over the bare network, on a pipeline whose U-Net is large enough to be worth measuring."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch

from tests.models import tiny_pipelines as tiny


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Stable Diffusion's pipeline with a U-Net of 58 million random weights."""
    from diffusers import UNet2DConditionModel

    pipe = tiny.build("sd15")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pipe.unet = UNet2DConditionModel(
            sample_size=32,
            layers_per_block=1,
            block_out_channels=(128, 256, 384, 384),
            cross_attention_dim=pipe.unet.config.cross_attention_dim,
        )
    assert 5e7 < sum(parameter.numel() for parameter in pipe.unet.parameters()) < 6e7
    path = tmp_path_factory.mktemp("middle")
    pipe.save_pretrained(path)
    return path


def measure(folder, method, steps):
    """`paintback bench overhead` in a process of its own, whose memory is the method's alone."""
    command = [sys.executable, "-m", "paintback", "bench", "overhead", "--model", folder, "--prompt", "a fox"]
    command += ["--method", method, "--size", "256", "--steps", str(steps), "--threads", "1", "--format", "json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = json.loads(done.stdout)
    print(method, {key: found[key] for key in ("ratio", "peak_memory_bytes", "bare_peak_memory_bytes")})
    return found


@pytest.mark.slow
def test_forward_methods_take_the_memory_of_bare_forwards(folder):
    """DING needs no more than the unconditional loop; DPS, with its gradient, does."""
    ding, dps = measure(folder, "ding", 3), measure(folder, "dps", 3)
    assert (ding["evaluations"], dps["evaluations"]) == (5, 3)
    assert ding["peak_memory_bytes"] <= 1.1 * ding["bare_peak_memory_bytes"]
    assert dps["peak_memory_bytes"] > 1.2 * ding["peak_memory_bytes"]


@pytest.mark.timing
@pytest.mark.parametrize("method", ["ding", "lanpaint"])
def test_within_a_twentieth_of_the_bare_forwards(folder, method):
    assert measure(folder, method, 4)["ratio"] <= 1.05
