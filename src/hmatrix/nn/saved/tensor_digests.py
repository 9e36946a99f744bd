"""Digests of tensors, the same as those of arrays of their bytes."""

import torch
from torch import Tensor

from hmatrix._support.digests import digest_of


def digest_of_tensor(name: str, tensor: Tensor) -> str:
    """Return the digest of a tensor, by its name, type, shape and bytes."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    kind = str(tensor.dtype).removeprefix("torch.")
    return digest_of(name, kind, tensor.shape, [flat.view(torch.uint8).numpy()] if flat.numel() else [])
