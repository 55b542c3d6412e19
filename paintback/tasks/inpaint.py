"""Inpainter: picture and mask in, picture out."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar, overload

import numpy as np
import PIL.Image
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Unpack

from paintback import models
from paintback.images.outputs import OutputType, check_output_type, convert
from paintback.images.picture import Picture, read_picture
from paintback.models.base import Model, Told
from paintback.models.catalogue import TRAINED
from paintback.models.network import Layout, network_model
from paintback.painting.layout import Plan, Policy, Recipe, Sizes, Speed, measure_speed
from paintback.painting.request import Request
from paintback.painting.session import Generator, Session, whole
from paintback.painting.sheet import Batch, Scale, Sheet, Way, Ways, batches, prepare
from paintback.schedules import Schedule, Time
from paintback.tasks.checks import precise, prepare_network, warn_of_method, warn_of_width
from paintback.tasks.options import Options, asked, each_of, embeddings, per_picture, settle, signature, to_settings

__all__ = ["Inpainter", "Output", "Scale"]

T = TypeVar("T")
Arrays = NDArray[np.float32] | list[NDArray[np.float32]]
Tensors = Tensor | list[Tensor]


@dataclass
class Output(Generic[T]):
    """What an `Inpainter` gives back.

    Attributes:
        images: the pictures, samples of a picture together, in the type asked for.
        evaluations: denoiser calls per sample, over all regions and scales of all pictures.
        vjps: gradients per sample, likewise.
        seconds: wall time of the call.
        peak_memory_bytes: see `resources.PeakMemory`.
        seeds: the seed that makes each of `images` alone; None where there is none, as one generator drew several.
        settings: what is needed to make the same pictures again, as plain JSON values.
        scales: the evaluations by region and scale.
        stopped: whether it was interrupted: the pictures then show the last prediction, and regions that were not
            begun what was given.
    """

    images: T
    evaluations: int | float
    vjps: int | float
    seconds: float
    peak_memory_bytes: int | None
    seeds: list[int | None]
    settings: dict[str, Any]
    scales: list[Scale] = field(default_factory=list)
    stopped: bool = False


class Inpainter:
    """Paints back the missing part of pictures with a frozen model and any method.

    Args:
        model: a loaded model; `from_pretrained` finds one by name.
        policy: how holes of any size are cut into crops and scales; None for what the model is sampled with best.
    """

    def __init__(self, model: Model, *, policy: Policy | None = None) -> None:
        self.model = model
        self.policy = policy or Policy(**{"multiple": model.multiple, **model.sampler.policy})
        self.interrupt = False
        self._progress: dict[str, Any] = {}
        self._warned: set[str] = set()

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        device: Any = None,
        torch_dtype: torch.dtype | None = None,
        offload: Literal["none", "model", "group", "sequential"] | None = None,
        variant: str | None = None,
        quantization_config: Any = None,
        step_distilled: bool | None = None,
        channels_last: bool = False,
        compile: bool = False,
        gradient_checkpointing: bool = False,
    ) -> Inpainter:
        """Loads a model by name.

        Args:
            name: an embedded model's name, the path of one's own weights, or a diffusers pipeline's folder or Hub id.
            device: a torch device; None chooses.
            torch_dtype: of the network; None for float32, and for a pipeline on CUDA half precision (bfloat16, float16
                before Ampere).
            offload: of a pipeline: which modules wait in the host's memory, "none", "model" (all but the one that
                runs), "group" or "sequential" (all but the layers that run; no gradients).
            variant: of a pipeline's files, such as "fp16".
            quantization_config: diffusers' own, handed through.
            step_distilled: of a pipeline: whether its network was trained to paint in a few steps; None to go by its
                name, scheduler and LoRA. `model.step_distilled` says what was taken.
            channels_last: memory format of the network, for convolutional ones.
            compile: the network by torch.compile, when it first runs.
            gradient_checkpointing: of a pipeline's network: methods with gradients take less memory and more time.

        Raises:
            ValueError: if there is no such model, it does not take an option, or its weights do not fit the device.
        """
        model = models.load(
            name,
            device=device,
            dtype=torch_dtype,
            offload=offload,
            variant=variant,
            quantization_config=quantization_config,
            step_distilled=step_distilled,
        )
        prepare_network(
            model, channels_last=channels_last, compile=compile, gradient_checkpointing=gradient_checkpointing
        )
        return cls(model)

    @classmethod
    def from_pipe(cls, pipe: Any, *, step_distilled: bool | None = None) -> Inpainter:
        """Takes a loaded diffusers pipeline, which is not changed: LoRA, dtype, tiling and offloading stay in force.

        Args:
            pipe: the pipeline.
            step_distilled: whether its network was trained to paint in a few steps; None to go by its name, scheduler
                and LoRA. `model.step_distilled` says what was taken.

        Raises:
            ValueError: for a pipeline of no known family.
        """
        from paintback.models.diffusers import from_pipe

        return cls(from_pipe(pipe, step_distilled=step_distilled))

    def told(self, *, step_distilled: bool) -> Inpainter:
        """The same pipeline, taken for one that was trained to paint in a few steps, or for one that was not.

        Raises:
            ValueError: where the model is no pipeline.
        """
        from paintback.models.diffusers import from_pipe

        own: Any = self.model
        pipe = getattr(own, "given", None) or getattr(own, "pipe", None)
        if pipe is None:
            raise ValueError(f"The model {own.name!r} is no pipeline of diffusers and takes no step_distilled.")
        return type(self)(from_pipe(pipe, name=own.name, step_distilled=step_distilled))

    @classmethod
    def from_single_file(
        cls,
        path: str | Path,
        *,
        config: str | Path | None = None,
        device: Any = None,
        torch_dtype: torch.dtype | None = None,
        offload: Literal["none", "model", "group", "sequential"] = "none",
    ) -> Inpainter:
        """Loads one checkpoint file of a diffusers family.

        Args:
            path: .safetensors or .ckpt.
            config: the folder or Hub id of a pipeline of the same architecture; None looks it up on the Hub.
            device: a torch device; None chooses.
            torch_dtype: as for `from_pretrained`.
            offload: likewise.

        Raises:
            ValueError: if it cannot be read.
        """
        from paintback.models.diffusers import load_single_file

        return cls(load_single_file(path, config=config, device=device, dtype=torch_dtype, offload=offload))

    @classmethod
    def from_network(
        cls,
        network: Callable[..., Tensor],
        *,
        parametrisation: str,
        schedule: Schedule,
        size: int | tuple[int, int],
        channels: int = 3,
        layout: Layout = "coarse-to-fine",
        fixed: bool = False,
        multiple: int | None = None,
        clock: Callable[[Time], float] | None = None,
        name: str = "network",
        device: Any = None,
        torch_dtype: torch.dtype | None = None,
    ) -> Inpainter:
        """Takes a network of one's own, in eval mode; it is run once here, so that mistakes are found here.

            pb.Inpainter.from_network(network, parametrisation="epsilon", schedule=pb.schedules.VP(), size=64)

        Args:
            network: (x, clock) -> a tensor of x's shape; x is (B, channels, H, W), [-1, 1] at no noise, and clock (B,).
            parametrisation: what it predicts, as papers call it: epsilon (eps, noise), v (v_prediction), velocity
                (flow, flow_prediction), sample (x0, x_start, denoised), or edm for D(x, sigma).
            schedule: `schedules.VP`, `Flow` or `EDM`, as it was trained.
            size: of the pictures that it learnt from: the side, or (height, width).
            channels: of a picture; 1 is grey, 3 RGB, and with any other number pictures are arrays (H, W, channels).
            layout: how a hole is painted. "coarse-to-fine": holes wider than `size` are begun at a smaller scale;
                "tiles": at full resolution, the network seeing overlapping tiles of `size`; "whole": the hole's crop
                at once, at `size` where that is fixed.
            fixed: whether the network takes no other size.
            multiple: the sides that it takes are multiples of this; None for 8, or 1 where the size is fixed.
            clock: its time argument, of a `Time` with t, alpha and sigma; None for DDPM's index (0 to T - 1) on a VP
                schedule, and sigma on the others.
            name: what settings call it.
            device: None for where its weights are.
            torch_dtype: None for that of its weights.

        Raises:
            ValueError: in one sentence, for whatever does not fit together or the network does not take.
        """
        return cls(
            network_model(
                network,
                parametrisation=parametrisation,
                schedule=schedule,
                size=size,
                channels=channels,
                layout=layout,
                fixed=fixed,
                multiple=multiple,
                clock=clock,
                name=name,
                device=device,
                dtype=torch_dtype,
            )
        )

    def set_progress_bar_config(self, **config: Any) -> None:
        """Keywords for tqdm, as in diffusers; `disable=True` silences the bar."""
        self._progress = config

    @overload
    def __call__(
        self,
        image: Any,
        mask_image: Any = ...,
        prompt: str | int | Sequence[str] | None = ...,
        *,
        output_type: Literal["pil"] = ...,
        **options: Unpack[Options],
    ) -> Output[list[PIL.Image.Image]]: ...
    @overload
    def __call__(
        self,
        image: Any,
        mask_image: Any = ...,
        prompt: str | int | Sequence[str] | None = ...,
        *,
        output_type: Literal["np"],
        **options: Unpack[Options],
    ) -> Output[Arrays]: ...
    @overload
    def __call__(
        self,
        image: Any,
        mask_image: Any = ...,
        prompt: str | int | Sequence[str] | None = ...,
        *,
        output_type: Literal["pt"],
        **options: Unpack[Options],
    ) -> Output[Tensors]: ...
    @overload
    def __call__(
        self,
        image: Any,
        mask_image: Any = ...,
        prompt: str | int | Sequence[str] | None = ...,
        *,
        output_type: Literal["picture"],
        **options: Unpack[Options],
    ) -> Output[list[Picture]]: ...
    @overload
    def __call__(
        self,
        image: Any,
        mask_image: Any = ...,
        prompt: str | int | Sequence[str] | None = ...,
        *,
        output_type: OutputType,
        **options: Unpack[Options],
    ) -> Output[Any]: ...

    def __call__(
        self,
        image: Any,
        mask_image: Any = None,
        prompt: str | int | Sequence[str] | None = None,
        *,
        output_type: OutputType = "pil",
        **options: Unpack[Options],
    ) -> Output[Any]:
        """Paints back what the mask hides.

        Args:
            image: a picture or a list of them: path, PIL, numpy (H, W, 3) or torch (3, H, W) in [0, 1]; a batch,
                numpy (B, H, W, 3) or torch (B, 3, H, W), is a list.
            mask_image: a mask or a list of them, of the pictures' sizes; white = repaint; "alpha" for the picture's
                transparency; None where `outpaint` says what is missing.
            prompt: text, for models that take one; a list has one for each picture; a class's number, for models of
                classes.
            output_type: "pil" (a list), "np" ((N, H, W, 3) in [0, 1]), "pt" ((N, 3, H, W) in [0, 1]), each a list
                where the pictures' sizes differ, or "picture" (a list of `images.Picture`, 16 bit and alpha kept).
            **options: everything else that can be asked; see `Options`. An unknown name is refused.

        Returns:
            The pictures, of the input's size, bit-identical outside the hole, with their cost and settings.

        Raises:
            ValueError: for input that does not fit, in one sentence.
        """
        check_output_type(output_type)
        call = self._read(image, mask_image, prompt, options)
        callback, count = options.get("callback_on_step_end"), call.request.samples
        if callback is not None and not callable(callback):
            raise ValueError(f"callback_on_step_end is called after every step; got {callback!r}, which cannot be.")
        warn_of_method(self.model, call.recipe.method, self._warned)
        self.interrupt = False

        def step(index: int, t: float, x: Tensor, x0: Tensor | None) -> bool | Tensor:
            said: Any = None if callback is None else callback(self, index, t, {"latents": x, "x0": x0})
            moved = said.get("latents", x) if isinstance(said, dict) else x
            return moved if moved is not x and not self.interrupt else self.interrupt

        label, answers = str(call.request.method), len(call.sheets) * count
        with Session(
            self.model, label, call.generator, answers, progress=self._progress, step=step, method=call.recipe.method
        ) as session:
            work = self._lay_out(call, not isinstance(session.generators, torch.Generator), options)
            session.expect(sum(batch.plan.steps for batch in work))
            warn_of_width(self.model, (batch.plan for batch in work), self._warned)
            finished: dict[int, list[Picture]] = {}
            scales: list[Scale] = []
            for batch in work:
                own: Any = session.generators
                if not isinstance(own, torch.Generator):
                    own = [one for k in batch.numbers for one in own[k * count : (k + 1) * count]]
                made = batch.paint(call.model, call.way, own, count, session, scales)
                finished |= dict(zip(batch.numbers, made, strict=True))
        pictures = [picture for k in sorted(finished) for picture in finished[k]]
        return Output(
            images=convert(pictures, output_type),
            evaluations=session.evaluations,
            vjps=session.vjps,
            seconds=session.seconds,
            peak_memory_bytes=session.peak_memory_bytes,
            seeds=session.seeds,
            settings=to_settings(self.model, call.request)
            | {name: text if isinstance(text, str | int | None) else list(text) for name, text in call.texts.items()}
            | {"policy": dataclasses.asdict(self.policy)},
            scales=scales,
            stopped=session.stopped,
        )

    __call__.__signature__ = signature(  # type: ignore[attr-defined]
        "self", "image", "mask_image=", "prompt=", output_type="pil"
    )

    def plan(
        self,
        image: Any,
        mask_image: Any = None,
        prompt: str | int | None = None,
        **options: Unpack[Options],
    ) -> Plan:
        """What a call for one picture would do: regions, scales, steps and evaluations.

        Args:
            image: as in a call.
            mask_image: likewise.
            prompt: likewise.
            **options: likewise.

        Raises:
            ValueError: for what a call would refuse.
        """
        call = self._read(image, mask_image, prompt, options)
        try:
            (batch,) = self._lay_out(call, not isinstance(call.generator, torch.Generator), options)
        finally:
            self.model.release()
        return batch.plan

    def speed(self, plan: Plan, prompt: str | None = None, reference_images: Any = None) -> Speed | None:
        """Times a few evaluations of the sizes in a plan, for `plan.seconds`; None for a model that takes the mask."""
        told = Told(prompt, embeddings={} if reference_images is None else {"reference_images": reference_images})
        if self.model.sampler.method == TRAINED:
            return None
        try:
            return measure_speed(self.model, lambda size: self.model.denoiser_at(size, told), plan)
        finally:
            self.model.release()

    def sizes(self, image: Any, mask_image: Any = None, **options: Unpack[Options]) -> Sizes:
        """How a picture is cut into crops: pictures of equal sizes can be painted in one batch.

        Args:
            image: as in a call.
            mask_image: likewise.
            **options: likewise; the network is not asked anything.

        Returns:
            The sizes of all crops; empty where this model's pictures are painted one by one.

        Raises:
            ValueError: for a picture or mask that a call would refuse.
        """
        call = self._read(image, mask_image, None, options)
        (sheet,) = call.sheets
        stages = [call.way.stages(k, region) for k, region in enumerate(call.way.regions(sheet.wide))]
        return sheet.sizes(stages, call.way)

    def _read(
        self, image: Any, mask_image: Any, prompt: str | int | Sequence[str] | None, options: Mapping[str, Any]
    ) -> _Call:
        """Reads pictures and masks, and settles what is asked."""
        texts = {"prompt": prompt, "negative_prompt": options.get("negative_prompt")}
        given = options.get("request") is not None
        plain = {name: text if given or isinstance(text, str) else None for name, text in texts.items()}
        request, method = asked({**options, **plain})
        if given:
            texts = {"prompt": request.prompt, "negative_prompt": request.negative_prompt}
        request, recipe = settle(self.model, self.policy, request, method)
        channels = self.model.channels if self.model.channels not in (1, 3) else None
        pictures = [read_picture(one, channels=channels) for one in each_of(image)]
        if not pictures:
            raise ValueError("The list of pictures is empty; give at least one.")
        masks = each_of(mask_image)
        hidden = masks if isinstance(mask_image, list | tuple) or len(masks) > 1 else masks * len(pictures)
        if len(hidden) != len(pictures):
            raise ValueError(
                f"Got {len(pictures)} pictures and {len(hidden)} masks; give one mask each, or one for all."
            )
        said = [per_picture(name, text, len(pictures)) for name, text in texts.items()]
        sheets = [
            Sheet.of(
                *prepare(picture, one, request),
                Told(words[0], words[1], request.guidance, embeddings(request)),
                request.blur,
            )
            for picture, one, words in zip(pictures, hidden, zip(*said, strict=True), strict=True)
        ]
        generator = options.get("generator", None if options.get("request") is None else request.seed)
        model = precise(self.model, recipe.method, recipe.thin)
        return _Call(request, recipe, sheets, model, model.paint(Ways(recipe)), generator, texts)

    def _lay_out(self, call: _Call, each: bool, options: Mapping[str, Any]) -> list[Batch]:
        most = whole(options.get("batch_size", 1))
        if most is None or most < 1:
            raise ValueError(f"batch_size must be a whole number of at least 1; got {options['batch_size']!r}.")
        return batches(call.model, call.way, call.sheets, count=call.request.samples, most=most, each=each)


@dataclass(frozen=True)
class _Call:
    """A call of an `Inpainter`, read and settled: what it asks for, its pictures, and how they are painted."""

    request: Request
    recipe: Recipe
    sheets: list[Sheet]
    model: Model
    way: Way
    generator: Generator
    texts: dict[str, Any]
