"""What every model of a pipeline shares: it reads from the pipeline what it needs when it needs it, and gives it back.

The pipeline is the user's. It may be moved, cast, offloaded, compiled or given LoRA after a model was made of it, so
nothing of that is kept here.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from torch import nn

from paintback.models.base import Model

__all__ = ["OfPipe", "encoders_state"]

PLACES = 16  # numbers of every weight that its checksum is made of


@dataclass(frozen=True)
class OfPipe(Model):
    """A model of a pipeline; `network`, `device` and `dtype` are the pipeline's own at the moment.

    Attributes:
        part: the pipeline's name for its network.
        pipe: the pipeline that is called.
        given: the pipeline that the user gave, where `pipe` was rebuilt from its components; else None.
    """

    part: ClassVar[str] = "transformer"

    pipe: Any = field(kw_only=True)
    given: Any = field(default=None, kw_only=True)

    @classmethod
    def takes(cls, pipe: Any) -> bool:
        """Whether a pipeline of the right class is one for this adapter."""
        return True

    @classmethod
    def from_pipe(cls, pipe: Any, name: str) -> OfPipe:
        """The adapter of a loaded pipeline."""
        raise NotImplementedError

    @classmethod
    def of(cls, given: Any, pipe: Any, name: str) -> OfPipe:
        """The adapter of a pipeline that was rebuilt from the components of another one."""
        return replace(cls.from_pipe(pipe, name), given=given)

    @property  # type: ignore[misc]
    def network(self) -> nn.Module:
        """The network, the first where there are two."""
        found: nn.Module = getattr(self.pipe, self.part)
        return found

    @network.setter
    def network(self, value: Any) -> None:
        """The pipeline's own stays."""

    @property  # type: ignore[misc]
    def device(self) -> torch.device:
        """Where the pipeline runs, also while its modules wait elsewhere."""
        found: torch.device = self.pipe._execution_device
        return found

    @device.setter
    def device(self, value: Any) -> None:
        """The pipeline's own stays."""

    @property  # type: ignore[misc]
    def dtype(self) -> torch.dtype:
        """The network's."""
        found: torch.dtype = self.network.dtype  # type: ignore[assignment]
        return found

    @dtype.setter
    def dtype(self, value: Any) -> None:
        """The pipeline's own stays."""

    def release(self) -> None:
        """Lets the pipeline's offloading hooks take the modules back, also after an error."""
        (self.pipe if self.given is None else self.given).maybe_free_model_hooks()

    @contextlib.contextmanager
    def together(self) -> Iterator[None]:
        """Whole-model offloading leaves the network where it is while the decoder runs, and the other way round.

        For methods that decode inside a step: the gradient goes through both.
        """
        parts = [*self.networks(), *self.codec.modules()]
        hooks: list[Any] = [getattr(one, "_hf_hook", None) for one in parts]
        held = [
            (hook, hook.prev_module_hook)
            for hook in hooks
            if getattr(getattr(hook, "prev_module_hook", None), "model", None) in parts
        ]
        for hook, _ in held:
            hook.prev_module_hook = None
        try:
            yield
        finally:
            for hook, before in held:
                hook.prev_module_hook = before


def encoders_state(pipe: Any) -> tuple[Any, ...]:
    """What the embeddings of a text depend on beside the text: equal where nothing has changed, to a checksum.

    Args:
        pipe: whose text encoders are looked at: their weights, a few numbers of each, and the state of their LoRA.
    """
    found: list[Any] = [str(pipe._execution_device)]
    for name, part in sorted(pipe.components.items()):
        if isinstance(part, nn.Module) and name.startswith("text_encoder"):
            found += [name, id(part), _checksum(part), *_adapters(part)]
        elif name.startswith("tokenizer") and part is not None:
            found += [name, id(part), len(getattr(part, "tokenizer", part))]  # a processor has one
    return tuple(found)


@torch.no_grad()
def _checksum(module: nn.Module) -> tuple[Any, ...]:
    """The dtypes of a module's weights, and the sums of a few numbers of each."""
    weights = [one for one in module.parameters() if one.device.type != "meta"]
    kinds = tuple(sorted({str(one.dtype) for one in weights}))
    sums = [one.reshape(-1)[:: max(1, one.numel() // PLACES)].float().sum() for one in weights]
    numbers = tuple(torch.stack([one.cpu() for one in sums] if _apart(weights) else sums).tolist()) if sums else ()
    return (kinds, len(weights), numbers)


def _apart(weights: list[nn.Parameter]) -> bool:
    return len({one.device for one in weights}) > 1


def _adapters(module: nn.Module) -> Iterator[str]:
    """What peft's layers say of themselves: which adapters there are, how strong, and whether they are in force."""
    for name, part in module.named_modules():
        if hasattr(part, "active_adapters") and hasattr(part, "scaling"):
            told = (part.active_adapters, part.scaling, part.merged_adapters, part.disable_adapters)
            yield f"{name} {told}"
