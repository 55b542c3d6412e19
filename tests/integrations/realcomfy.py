"""What the tests need of a real ComfyUI, named by COMFYUI_PATH: a tiny random model of each kind, and a server."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

UNET = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": [1],
    "channel_mult": [1], "transformer_depth": [1], "transformer_depth_output": [0, 0],
    "transformer_depth_middle": -1, "num_heads": 2, "num_head_channels": -1, "context_dim": 16, "legacy": False,
    "use_spatial_transformer": True, "use_linear_in_transformer": False, "adm_in_channels": None,
    "use_temporal_attention": False, "dtype": torch.float32,
}  # fmt: skip
KINDS = {"eps": "EPS", "v": "V_PREDICTION", "edm": "EDM", "flow": "FLOW"}


def install() -> None:
    """Makes `import comfy` work."""
    sys.path.insert(0, os.environ["COMFYUI_PATH"])
    sys.argv = ["comfyui"]
    import comfy.options

    comfy.options.enable_args_parsing(False)
    import comfy.cli_args

    comfy.cli_args.args.cpu = True


def patcher(kind: str) -> Any:
    """A tiny random network of Stable Diffusion's architecture, sampled as a kind of model."""
    import comfy.model_base
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15(dict(UNET))
    config.set_inference_dtype(torch.float32, None)
    config.sampling_settings = {"shift": 3.0} if kind == "flow" else {}
    cpu = torch.device("cpu")
    model = comfy.model_base.BaseModel(config, comfy.model_base.ModelType[KINDS[kind]], device=cpu)
    generator = torch.Generator().manual_seed(0)
    for weight in model.diffusion_model.parameters():
        fan = weight[0].numel() if weight.ndim > 1 else 1
        spread = fan**-0.5 if weight.ndim > 1 else 0.02
        weight.data = torch.randn(weight.shape, generator=generator) * spread
    for name, weight in model.diffusion_model.named_parameters():
        if weight.ndim == 1 and name.endswith("weight"):
            weight.data += 1
    return comfy.model_patcher.ModelPatcher(model.eval(), cpu, cpu)


def condition(value: float) -> list[Any]:
    """What a text encoder would give."""
    return [[torch.randn(1, 8, 16, generator=torch.Generator().manual_seed(int(10 * value) + 50)), {}]]


def guider(kind: str) -> Any:
    """As the stand-in's."""
    import comfy.samplers

    with torch.inference_mode():
        made = comfy.samplers.CFGGuider(patcher(kind))
    made.set_conds(condition(1.0), condition(-1.0))
    made.set_cfg(2.0)
    return made


class Server:
    """A ComfyUI that runs, asked over HTTP."""

    def __init__(self, port: int) -> None:
        self.at = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.at + path, timeout=60) as answer:
            return json.loads(answer.read())

    def run(self, prompt: dict[str, Any]) -> dict[str, Any]:
        """Posts a graph and waits for it; what its output nodes gave."""
        body = json.dumps({"prompt": prompt}).encode()
        try:
            with urllib.request.urlopen(self.at + "/prompt", body, timeout=60) as answer:
                number = json.loads(answer.read())["prompt_id"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from None
        end = time.monotonic() + 300
        while number not in (found := self.get(f"/history/{number}")):
            assert time.monotonic() < end
            time.sleep(0.1)
        status = found[number]["status"]
        assert status["status_str"] == "success", status["messages"][-1]
        return dict(found[number]["outputs"])


@contextlib.contextmanager
def server(folder: Path, packs: dict[str, Path], arguments: tuple[str, ...] = ()) -> Iterator[Server]:
    """A ComfyUI on the CPU with a folder of its own, in which packs of nodes are linked."""
    for part in ("custom_nodes", "models", "input", "output", "temp", "user"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for name, path in packs.items():
        (folder / "custom_nodes" / name).symlink_to(path)
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    words = ["main.py", "--cpu", "--listen", "127.0.0.1", "--port", str(port), "--base-directory", str(folder)]
    words += ["--disable-api-nodes", "--database-url", f"sqlite:///{folder}/comfy.db", *arguments]
    root = str(Path(__file__).resolve().parents[2])
    env = {**os.environ, "PYTHONPATH": root, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [os.environ.get("COMFYUI_PYTHON", sys.executable), *words],
            cwd=os.environ["COMFYUI_PATH"],
            env=env,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            made, end = Server(port), time.monotonic() + 240
            while True:
                try:
                    made.get("/system_stats")
                    break
                except OSError:
                    assert process.poll() is None and time.monotonic() < end, (folder / "log").read_text()[-3000:]
                    time.sleep(0.5)
            yield made
        finally:
            process.terminate()
            process.wait(30)
