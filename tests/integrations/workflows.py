"""Writes the example workflows of the node pack: python -m tests.integrations.workflows

One graph for each family of models: crop, encode, mask, sample by a method of Paintback, decode, stitch, compare.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

PACK = Path(__file__).resolve().parents[2] / "integrations" / "comfyui"
SEED = [1, "fixed"]
SIZES = {"CLIPTextEncode": (320, 110), "LoadImage": (300, 320), "SaveImage": (420, 320)}

# outputs of the nodes that are used, by their types
OUTPUTS: dict[str, list[str]] = {
    "CheckpointLoaderSimple": ["MODEL", "CLIP", "VAE"], "UNETLoader": ["MODEL"], "CLIPLoader": ["CLIP"],
    "DualCLIPLoader": ["CLIP"], "VAELoader": ["VAE"], "LoadImage": ["IMAGE", "MASK"], "LoadImageMask": ["MASK"],
    "CLIPTextEncode": ["CONDITIONING"], "FluxGuidance": ["CONDITIONING"], "ModelSamplingAuraFlow": ["MODEL"],
    "ModelSamplingSD3": ["MODEL"], "VAEEncode": ["LATENT"], "VAEDecode": ["IMAGE"], "RandomNoise": ["NOISE"],
    "CFGGuider": ["GUIDER"], "BasicGuider": ["GUIDER"], "BasicScheduler": ["SIGMAS"], "KSamplerSelect": ["SAMPLER"],
    "SamplerCustomAdvanced": ["LATENT"], "SaveImage": [], "LoadVideo": ["VIDEO"], "CreateVideo": ["VIDEO"],
    "GetVideoComponents": ["IMAGE", "AUDIO", "FLOAT"], "SaveVideo": [],
    "TinyModel": ["MODEL", "CONDITIONING", "CONDITIONING"], "TinyEncode": ["LATENT"], "TinyDecode": ["IMAGE"],
}  # fmt: skip


class Graph:
    """A graph in the form that ComfyUI's page saves and loads."""

    def __init__(self, pack: ModuleType) -> None:
        self.pack, self.nodes, self.links = pack, [], []  # type: ignore[var-annotated]

    def add(self, kind: str, at: tuple[int, int], widgets: list[Any], **sockets: tuple[int, int]) -> int:
        """A node with its widgets' values and links (node, output) into its sockets; its number."""
        number, inputs = len(self.nodes) + 1, []
        types = OUTPUTS.get(kind) or list(getattr(self.pack.NODE_CLASS_MAPPINGS.get(kind), "RETURN_TYPES", ()))
        for slot, (name, (source, output)) in enumerate(sockets.items()):
            link = len(self.links) + 1
            type_of = self.nodes[source - 1]["outputs"][output]
            self.links.append([link, source, output, number, slot, type_of["type"]])
            type_of["links"].append(link)
            inputs.append({"name": name, "type": type_of["type"], "link": link})
        width, height = SIZES.get(kind, (300, 60 + 24 * (len(widgets) + max(len(sockets), len(types)))))
        self.nodes.append({
            "id": number, "type": kind, "pos": [350 * at[0], at[1]], "size": [min(width, 290), height],
            "flags": {}, "order": number - 1, "mode": 0, "inputs": inputs,
            "outputs": [{"name": one, "type": one, "links": [], "slot_index": k} for k, one in enumerate(types)],
            "properties": {"Node name for S&R": kind}, "widgets_values": widgets,
        })  # fmt: skip
        return number

    def method(self, kind: str, at: tuple[int, int], **values: Any) -> int:
        """A sampler of the pack, its widgets at their defaults but for the given ones."""
        inputs = self.pack.NODE_CLASS_MAPPINGS[kind].INPUT_TYPES()
        told = {**inputs["required"], **inputs["optional"]}
        return self.add(kind, at, [values.get(name, one[1]["default"]) for name, one in told.items()])

    def json(self) -> dict[str, Any]:
        """What is saved: the columns side by side, the nodes of each below each other in the order of their rows."""
        for column in {node["pos"][0] for node in self.nodes}:
            top = 0
            for node in sorted((one for one in self.nodes if one["pos"][0] == column), key=lambda one: one["pos"][1]):
                node["pos"] = [column, top]
                top += node["size"][1] + 60
        return {
            "last_node_id": len(self.nodes), "last_link_id": len(self.links), "nodes": self.nodes, "links": self.links,
            "groups": [], "config": {}, "extra": {}, "version": 0.4,
        }  # fmt: skip


def family(
    pack: ModuleType, *, checkpoint: str | None = None, parts: dict[str, list[Any]] | None = None, sampler: str,
    values: dict[str, Any] | None = None, shift: tuple[str, float] | None = None, guidance: float | None = None,
    cfg: float | None = None, scheduler: str = "normal", steps: int = 20, side: int = 512, clip: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """The graph of one family."""
    graph = Graph(pack)
    if checkpoint:
        loader = graph.add("CheckpointLoaderSimple", (0, 0), [checkpoint])
        model, text, vae = (loader, 0), (loader, 1), (loader, 2)
    else:
        made = [graph.add(kind, (0, k), words) for k, (kind, words) in enumerate((parts or {}).items())]
        model, text, vae = (made[0], 0), (made[1], 0), (made[2], 0)
    if shift:
        model = (graph.add(shift[0], (1, 0), [shift[1]], model=model), 0)
    told = (graph.add("CLIPTextEncode", (1, 1), ["a wooden bench in a park"], clip=text), 0)
    if clip:
        video = graph.add("GetVideoComponents", (1, 5), [], video=(graph.add("LoadVideo", (0, 4), ["clip.mp4"]), 0))
        shown = (video, 0)
        mask = (graph.add("LoadImageMask", (0, 6), ["mask.png", "red", "image"]), 0)
    else:
        picture = graph.add("LoadImage", (0, 4), ["photo-with-mask.png", "image"])
        shown, mask = (picture, 0), (picture, 1)
    crop = graph.add("PaintbackCrop", (2, 4), [64, 16, side], image=shown, mask=mask)
    latent = graph.add("VAEEncode", (3, 4), [], pixels=(crop, 0), vae=vae)
    masked = graph.add("PaintbackLatentMask", (3, 5), ["all", 0], samples=(latent, 0), mask=(crop, 1))
    if guidance is not None:
        told = (graph.add("FluxGuidance", (2, 1), [guidance], conditioning=told), 0)
    if cfg is None:
        guider = graph.add("BasicGuider", (3, 1), [], model=model, conditioning=told)
    else:
        without = graph.add("CLIPTextEncode", (1, 2), ["text, watermark"], clip=text)
        guider = graph.add("CFGGuider", (3, 1), [cfg], model=model, positive=told, negative=(without, 0))
    noise = graph.add("RandomNoise", (3, 0), SEED)
    method = graph.method(sampler, (2, 2), **(values or {}))
    sigmas = graph.add("BasicScheduler", (3, 2), [scheduler, steps, 1.0], model=model)
    out = graph.add(
        "SamplerCustomAdvanced", (4, 1), [], noise=(noise, 0), guider=(guider, 0), sampler=(method, 0),
        sigmas=(sigmas, 0), latent_image=(masked, 0),
    )  # fmt: skip
    decoded = graph.add("VAEDecode", (4, 3), [], samples=(out, 0), vae=vae)
    whole = graph.add("PaintbackStitch", (4, 4), [], stitch=(crop, 2), image=(decoded, 0))
    if clip:
        film = graph.add("CreateVideo", (5, 2), [16.0], images=(whole, 0))
        graph.add("SaveVideo", (5, 3), ["paintback", "auto", "auto"], video=(film, 0))
    else:
        pair = graph.add("PaintbackGrid", (4, 5), [8], image_1=shown, image_2=(whole, 0))
        graph.add("SaveImage", (5, 1), ["paintback"], images=(pair, 0))
    return graph.json()


def eraser(pack: ModuleType) -> dict[str, Any]:
    """Without a checkpoint: the shipped model `photo`, and the picture as its own model."""
    graph = Graph(pack)
    picture = graph.add("LoadImage", (0, 0), ["photo-with-mask.png", "image"])
    grown = graph.add("PaintbackGrowMask", (1, 3), [2, 1], mask=(picture, 1))
    made = [
        graph.add(
            "PaintbackEraser", (2, 3 * k), [name, "good", *SEED, 0, "own", 0], image=(picture, 0), mask=(grown, 0)
        )
        for k, name in enumerate(("photo", "self"))
    ]
    grid = graph.add("PaintbackGrid", (3, 1), [8], image_1=(picture, 0), image_2=(made[0], 0), image_3=(made[1], 0))
    graph.add("SaveImage", (4, 0), ["paintback"], images=(grid, 0))
    return graph.json()


def parts(model: str, loader: str, clips: list[str], vae: str) -> dict[str, list[Any]]:
    """The loaders of a model that comes in three files."""
    return {"UNETLoader": [model, "default"], loader: [*clips, "default"], "VAELoader": [vae]}


def made(pack: ModuleType) -> dict[str, dict[str, Any]]:
    """All workflows by name."""
    flux = parts("flux1-dev.safetensors", "DualCLIPLoader", ["t5xxl_fp16.safetensors", "clip_l.safetensors", "flux"], "ae.safetensors")  # fmt: skip  # noqa: E501
    qwen = parts("qwen_image_fp8_e4m3fn.safetensors", "CLIPLoader", ["qwen_2.5_vl_7b_fp8_scaled.safetensors", "qwen_image"], "qwen_image_vae.safetensors")  # fmt: skip  # noqa: E501
    image = parts("z_image_turbo_bf16.safetensors", "CLIPLoader", ["qwen_3_4b.safetensors", "lumina2"], "ae.safetensors")  # fmt: skip  # noqa: E501
    wan = parts("wan2.1_t2v_1.3B_fp16.safetensors", "CLIPLoader", ["umt5_xxl_fp8_e4m3fn_scaled.safetensors", "wan"], "wan_2.1_vae.safetensors")  # fmt: skip  # noqa: E501
    flow = {"scheduler": "simple"}
    return {
        "eraser": eraser(pack),
        "sd15-lanpaint": family(
            pack,
            checkpoint="v1-5-pruned-emaonly-fp16.safetensors",
            sampler="PaintbackLanPaint",
            cfg=5.0,
            scheduler="karras",
        ),
        "sdxl-ding": family(
            pack,
            checkpoint="sd_xl_base_1.0.safetensors",
            sampler="PaintbackDING",
            values={"delayed": True},
            cfg=5.0,
            scheduler="karras",
            side=1024,
        ),
        "flux-lanpaint": family(pack, parts=flux, sampler="PaintbackLanPaint", guidance=3.5, side=1024, **flow),
        "qwen-image-ding": family(
            pack, parts=qwen, shift=("ModelSamplingAuraFlow", 3.1), sampler="PaintbackDING", cfg=2.5, side=1024, **flow
        ),
        "z-image-fcs": family(
            pack,
            parts=image,
            shift=("ModelSamplingAuraFlow", 3.0),
            sampler="PaintbackFCS",
            cfg=1.0,
            steps=9,
            side=1024,
            **flow,
        ),
        "wan-ding": family(
            pack,
            parts=wan,
            shift=("ModelSamplingSD3", 8.0),
            sampler="PaintbackDING",
            cfg=6.0,
            side=480,
            clip=True,
            **flow,
        ),
    }


def load_pack() -> ModuleType:
    """The pack, with the stand-in where no ComfyUI has been imported."""
    from tests.integrations import standin

    if "comfy" not in sys.modules:
        standin.install()
    spec = importlib.util.spec_from_file_location(
        "paintback_nodes", PACK / "__init__.py", submodule_search_locations=[str(PACK)]
    )
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["paintback_nodes"] = module
    spec.loader.exec_module(module)
    return module


if __name__ == "__main__":
    (PACK / "workflows").mkdir(exist_ok=True)
    for name, graph in made(load_pack()).items():
        (PACK / "workflows" / f"{name}.json").write_text(json.dumps(graph, separators=(",", ":")) + "\n")
