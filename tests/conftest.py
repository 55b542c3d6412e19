"""What holds for all tests: no Hub, one torch thread, no progress bars."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # before any test imports huggingface_hub
os.environ.setdefault("TQDM_DISABLE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for NumPy and what tests start, as `_one_thread` is for torch

import pytest
import torch


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> None:
    """Results do not depend on the machine's cores, and parallel runs do not fight over them."""
    torch.set_num_threads(1)
