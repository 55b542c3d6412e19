"""bfloat16 where it is quicker: the choice, what it is made of, and who is kept out of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import paintback as pb
from paintback.models import embedded, precision
from paintback.models.embedded import load_embedded
from paintback.models.unet import UNet, UNetConfig
from paintback.painting.request import LayersRequest, Request, SuperresRequest
from paintback.tasks.inpaint import Inpainter
from tests.recorded.runs import TINY

NETWORK = UNet(UNetConfig(widths=(8, 8, 8))).eval()


@pytest.fixture
def fast_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU on which bfloat16 takes half the time."""
    monkeypatch.setattr(precision, "_found", {})
    monkeypatch.setattr(embedded, "native", lambda: True)
    times = {torch.bfloat16: 1.0, torch.float32: 2.0}
    monkeypatch.setattr(embedded, "quicker", lambda network: precision.quicker(network, lambda _, dtype: times[dtype]))


@pytest.mark.parametrize(
    ("has", "wanted"),
    [
        ({"amx_bf16": True}, True),
        ({"avx512_bf16": True}, True),
        ({"avx2": True, "avx512_bf16": False}, False),
        ({}, False),
    ],
)
def test_only_cpus_that_compute_in_bfloat16_are_measured(has: dict[str, object], wanted: bool) -> None:
    assert precision.native(lambda: has) is wanted


def test_it_is_measured_once_and_taken_only_where_it_gains(monkeypatch: pytest.MonkeyPatch) -> None:
    for half, taken in ((0.5, True), (0.95, False), (3.0, False)):
        monkeypatch.setattr(precision, "_found", {})
        asked: list[torch.dtype] = []

        def seconds(network: UNet, dtype: torch.dtype, half: float = half, asked: list[torch.dtype] = asked) -> float:
            assert next(network.parameters()).dtype == dtype
            asked.append(dtype)
            return half if dtype == torch.bfloat16 else 1.0

        for _ in range(2):
            made = precision.quicker(NETWORK, seconds)
            assert (made is not None) is taken
            assert made is None or made.inlet.weight.dtype == torch.bfloat16
        assert len(asked) == 2
    assert NETWORK.inlet.weight.dtype == torch.float32
    assert precision.seconds_of(NETWORK, torch.float32) > 0


@pytest.mark.usefixtures("fast_half")
def test_methods_that_take_differences_run_in_float32_and_the_settings_say_what_ran() -> None:
    model = load_embedded(TINY)
    assert (model.dtype, model.exact().dtype) == (torch.bfloat16, torch.float32)
    assert load_embedded(TINY, dtype=torch.float32).dtype == torch.float32
    asked_for = load_embedded(TINY, dtype=torch.bfloat16)
    assert asked_for.exact() is asked_for
    inpainter = Inpainter(model, policy=pb.Policy(widest=64, context=8))
    inpainter.set_progress_bar_config(disable=True)
    image, mask = np.random.default_rng(0).random((32, 32, 3)).astype(np.float32), np.zeros((32, 32), bool)
    mask[10:24, 8:24] = True
    exact = Inpainter(load_embedded(TINY, dtype=torch.float32), policy=inpainter.policy)
    half = Inpainter(asked_for, policy=inpainter.policy)
    for method, same in (("fcs", exact), ("fmm", exact), ("ding", half)):
        call = {"method": method, "num_inference_steps": 3, "generator": 0, "output_type": "np"}
        assert np.array_equal(inpainter(image, mask, **call).images, same(image, mask, **call).images)
    assert model.dtype == torch.bfloat16  # and stays so


@pytest.mark.usefixtures("fast_half")
def test_the_dtype_is_in_the_settings() -> None:
    from paintback.batch.job import completed

    inpainter = Inpainter(load_embedded(TINY))
    for request, dtype in (
        (Request(), "bfloat16"),
        (Request(method="fcs"), "float32"),
        (Request(method="ding", thin_method="fmm:iterations=1"), "float32"),
        (Request(dtype="float32"), "float32"),
        (SuperresRequest(), "float32"),
        (SuperresRequest(method="ddnm"), "bfloat16"),
        (LayersRequest(), "float32"),
    ):
        assert completed(request, inpainter, {}).dtype == dtype
