"""What is given: shapes, hidden values, operators against matrices."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image

from paintback.denoiser import NetworkDenoiser
from paintback.methods import get
from paintback.observation import AveragePool, Bicubic, Downsampling, LinearOperator, Observation, Separable
from paintback.schedules import VP


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_hidden_values_are_dropped() -> None:
    known = torch.tensor([True, False, True, False])
    y = torch.tensor([1.0, math.nan, 2.0, math.inf])
    observation = Observation(y, known)
    assert observation.y.tolist() == [1.0, 0.0, 2.0, 0.0]
    assert torch.isnan(y[1])  # the caller's tensor is left alone
    batched = Observation(y.expand(3, 4), known)
    assert batched.y.tolist() == [[1.0, 0.0, 2.0, 0.0]] * 3


def test_known_of_one_channel_hides_all() -> None:
    known = torch.tensor([[[True, False]]])
    assert Observation(torch.ones(2, 3, 1, 2), known).y[..., 1].abs().max() == 0
    assert Observation(torch.ones(2, 3, 1, 2), known).y[..., 0].min() == 1


def test_dtypes() -> None:
    assert Observation(torch.tensor([1, 2])).y.dtype == torch.float32
    assert Observation(normal(2)).y.dtype == torch.float64


def test_errors() -> None:
    y = torch.zeros(2, 3)
    with pytest.raises(ValueError, match="y must be a torch tensor; got list"):
        Observation([1.0])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="either known or operator, not both"):
        Observation(y, torch.ones(2, 3, dtype=torch.bool), operator=AveragePool(1))
    with pytest.raises(ValueError, match=r"known must be boolean \(True = given\); got torch.float32"):
        Observation(y, torch.ones(2, 3))
    for sigma in (-0.1, math.nan, math.inf):
        with pytest.raises(ValueError, match=f"at least 0; got {sigma}"):
            Observation(y, sigma=sigma)
    with pytest.raises(ValueError, match=r"known of shape \(2,\) does not fit y of shape \(2, 3\)"):
        Observation(y, torch.ones(2, dtype=torch.bool))
    with pytest.raises(ValueError, match="not finite where it is known"):
        Observation(torch.tensor([math.nan, 0.0]), torch.tensor([True, False]))
    with pytest.raises(ValueError, match="not finite"):
        Observation(torch.tensor([math.inf]))


def test_is_batched() -> None:
    assert Observation(torch.zeros(3, 4, 4)).is_batched((3, 4, 4)) is False
    assert Observation(torch.zeros(2, 3, 4, 4)).is_batched((3, 4, 4)) is True
    assert Observation(torch.zeros(4)).is_batched((4,)) is False
    assert Observation(torch.zeros(4, 4)).is_batched((4,)) is True
    with pytest.raises(
        ValueError, match=r"y of shape \(3, 5, 4\) does not fit the model's pictures of shape \(3, 4, 4\)"
    ):
        Observation(torch.zeros(3, 5, 4)).is_batched((3, 4, 4))


def test_is_batched_without_the_models_shape() -> None:
    known = torch.ones(3, 4, 4, dtype=torch.bool)
    assert Observation(torch.zeros(2, 3, 4, 4), known).is_batched(None) is True
    assert Observation(torch.zeros(3, 4, 4), known).is_batched(None) is False
    assert Observation(torch.zeros(2, 3, 4, 4)).is_batched(None) is True
    assert Observation(torch.zeros(3, 4, 4)).is_batched(None) is False


def test_is_batched_of_measurements() -> None:
    assert Observation(torch.zeros(3, 2, 2), operator=AveragePool(2)).is_batched((3, 4, 4)) is False
    assert Observation(torch.zeros(5, 3, 2, 2), operator=AveragePool(2)).is_batched((3, 4, 4)) is True


# --------------------------------------------------------------------------------------------------- operators


def matrix_of(operator: LinearOperator, height: int, width: int) -> torch.Tensor:
    columns = operator(torch.eye(height * width, dtype=torch.float64).reshape(-1, 1, height, width))
    return columns.reshape(height * width, -1).T


@pytest.mark.parametrize(
    ("operator", "height", "width"),
    [(AveragePool(2), 4, 6), (AveragePool(4), 8, 4), (Bicubic(2, 8, 6), 8, 6), (Bicubic(4, 16, 8), 16, 8)],
)
def test_transpose_and_pseudo_inverse_are_those_of_the_matrix(
    operator: LinearOperator, height: int, width: int
) -> None:
    matrix = matrix_of(operator, height, width)
    x, y = normal(3, 1, height, width), normal(3, 1, *operator(normal(1, 1, height, width)).shape[2:], seed=1)
    torch.testing.assert_close(operator(x).flatten(1), x.flatten(1) @ matrix.T)
    torch.testing.assert_close(operator.transpose(y).flatten(1), y.flatten(1) @ matrix)
    torch.testing.assert_close(operator.pseudo_inverse(y).flatten(1), y.flatten(1) @ torch.linalg.pinv(matrix).T)
    torch.testing.assert_close(operator(operator.pseudo_inverse(y)), y)


def test_average_pool_takes_means() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert AveragePool(2)(x).tolist() == [[[[2.5, 4.5], [10.5, 12.5]]]]
    assert AveragePool(2)(normal(2, 3, 4, 8)).shape == (2, 3, 2, 4)


@pytest.mark.parametrize("factor", [2, 4])
def test_bicubic_is_pillows(factor: int) -> None:
    """Pillow's float mode, borders included, for a picture that is not square."""
    picture = normal(1, 1, 24, 16)
    image = Image.fromarray(picture[0, 0].numpy().astype(np.float32), mode="F")
    expected = np.asarray(image.resize((16 // factor, 24 // factor), Image.Resampling.BICUBIC))
    found = Bicubic(factor, 24, 16)(picture)[0, 0].numpy()
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_bicubic_keeps_constants_and_dtype() -> None:
    for dtype in (torch.float32, torch.float64):
        down = Bicubic(4, 16, 8)(torch.full((1, 2, 16, 8), 0.7, dtype=dtype))
        assert down.dtype == dtype
        assert down.shape == (1, 2, 4, 2)
        torch.testing.assert_close(down, torch.full_like(down, 0.7))


def test_operator_errors() -> None:
    with pytest.raises(ValueError, match="A 6 x 4 picture cannot be pooled by 4; pad it first"):
        AveragePool(4)(torch.zeros(1, 1, 4, 6))
    with pytest.raises(ValueError, match="takes 8 x 16 pictures; got 16 x 8"):
        Bicubic(2, 16, 8)(torch.zeros(1, 1, 8, 16))
    with pytest.raises(ValueError, match="A side of 9 cannot be divided by 2"):
        Bicubic(2, 9, 8)(torch.zeros(1, 1, 9, 8))


@pytest.mark.parametrize("extra", range(1, 6))
def test_a_mask_of_fewer_axes_makes_no_batch_of_a_picture(extra: int) -> None:
    """(C, H, W) with (H, W) is one picture, whatever its sides; more axes of y than three are a batch."""
    height, width = extra + 1, 7 - extra
    mask = torch.ones(height, width, dtype=torch.bool)
    for channels in (1, 3, 4):
        y = torch.zeros(channels, height, width)
        assert Observation(y, mask).is_batched(None) is False
        assert Observation(y[None], mask).is_batched(None) is True
        assert Observation(y[None], mask.expand(channels, height, width)).is_batched(None) is True
    assert Observation(torch.zeros(5, height), mask[:, 0]).is_batched(None) is True
    denoiser = NetworkDenoiser(lambda x, clock: 0.5 * x, VP(), "x0")  # as a network that takes any size
    mask[0, 0] = False
    y = torch.rand(3, height, width, generator=torch.Generator().manual_seed(0))
    x = get("ddnm").sample(denoiser, Observation(y, mask), 3).x
    assert x.shape == (1, 3, height, width)
    assert torch.equal(x[0, :, mask], y[:, mask])


def test_a_separable_operator_makes_its_factors_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = 0
    own = torch.linalg.pinv

    def counted(*args: object, **more: object) -> torch.Tensor:
        nonlocal made
        made += 1
        return own(*args, **more)  # type: ignore[arg-type, no-any-return]

    monkeypatch.setattr(torch.linalg, "pinv", counted)
    for operator in (
        Separable(normal(3, 8), normal(2, 6, seed=1)),
        Bicubic(2, 8, 6),
        Downsampling("area", 2, (3, 2), (8, 6)),
    ):
        made, x = 0, normal(2, 3, 8, 6)
        expected = operator.rows @ x @ operator.columns.T
        assert torch.equal(operator(x), expected)
        for _ in range(3):
            assert torch.allclose(operator(operator.pseudo_inverse(expected)), expected)
        assert made == 2
        narrow = operator(x.float())
        assert narrow.dtype == torch.float32
        assert torch.allclose(narrow.double(), expected, atol=1e-5)
        assert all(a is b for a, b in zip(operator._factors(x), operator._factors(x), strict=True))
