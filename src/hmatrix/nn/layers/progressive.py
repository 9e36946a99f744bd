"""A classification head that computes only its largest outputs exactly."""

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.heads.head import ProgressiveHead
from hmatrix.heads.packed_head import ARRAYS, PREFIX, WORDS, PackedHead


class ProgressiveLinear(nn.Module):
    """A progressive head as a layer, for inference on the CPU in float32; it has no gradients.

    The state dict holds the packed form, so that loading one replaces coarse part, precision and rule.

    Parameters
    ----------
    head
        A head with a weight ``(out, in)``.

    Examples
    --------
    >>> weight = np.random.default_rng(0).standard_normal((100, 32))
    >>> layer = hnn.ProgressiveLinear(hm.progressive(weight, rule=hm.Rigorous(), ranks=[8], precisions=["int8"]))
    >>> layer(torch.randn(2, 32)).shape
    torch.Size([2, 100])
    >>> values, rows = layer.topk(torch.randn(2, 32), 5)
    >>> rows.shape
    torch.Size([2, 5])
    """

    def __init__(self, head: ProgressiveHead) -> None:
        super().__init__()
        self.out_features, self.in_features = head.shape
        self._set(head)

    @classmethod
    def skeleton(cls, shape: tuple[int, int]) -> Self:
        """Return a layer that waits for a state dict."""
        layer = cls.__new__(cls)
        nn.Module.__init__(layer)
        layer.out_features, layer.in_features = shape
        layer._head = None
        return layer

    @property
    def head(self) -> ProgressiveHead:
        """The progressive head.

        Raises
        ------
        NetworkError
            If its state dict was not loaded yet.
        """
        if self._head is None:
            raise NetworkError("ProgressiveLinear", "has no head yet", "load its state dict")
        return self._head

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the weight."""
        return self.out_features, self.in_features

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(..., in)`` to ``(..., out)``, as `ProgressiveHead` does.

        Raises
        ------
        ArgumentError
            If x has another shape.
        NetworkError
            If the network is being traced.
        """
        if torch.jit.is_tracing():  # type: ignore[attr-defined, no-untyped-call]
            raise NetworkError("ProgressiveLinear", "cannot be traced", "trace the network before its head is replaced")
        multiply_at = self.head.multiply_at
        shape = x.shape
        if multiply_at is None or len(shape) != 2 or shape[1] != self.in_features or not _is_plain(x):
            outputs = self.head(self._rows(x))
            return torch.from_numpy(outputs).reshape(*shape[:-1], self.out_features)
        # The shortest way, which most calls take.
        y = x.new_empty(shape[0], self.out_features)
        multiply_at(x.data_ptr(), y.data_ptr(), shape[0])
        return y

    def topk(self, x: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
        """Return the k largest fine outputs of ``(..., in)`` and their rows, ``(..., k)`` each.

        Raises
        ------
        ArgumentError
            If x has another shape, or k is out of range.
        """
        values, indices = self.head.topk(self._rows(x), k)
        shape = (*x.shape[:-1], k)
        return torch.from_numpy(values).reshape(shape), torch.from_numpy(indices).reshape(shape)

    def extra_repr(self) -> str:
        """Describe the layer in the printed network."""
        head = self.head
        matrix = head.coarse
        coarse = f"rank={head.rank}" if matrix is None else f"coarse={matrix.storage().ratio:.1%}"
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, {coarse}, "
            f"precision={head.precision.name.lower()}, storage={head.storage().ratio:.1%}"
        )

    def _rows(self, x: Tensor) -> Any:
        if x.dim() < 1 or x.shape[-1] != self.in_features:
            raise ArgumentError("x", f"has the shape {tuple(x.shape)}", f"give (..., {self.in_features})")
        rows = x.detach().float().resolve_neg()
        return (rows if x.dim() == 1 else rows.reshape(-1, self.in_features)).numpy()

    def _set(self, head: ProgressiveHead) -> None:
        self._head: ProgressiveHead | None = head
        arrays = head.pack().arrays()
        for name in self._buffers.keys() - arrays.keys():
            del self._buffers[name]
        for name, array in arrays.items():
            # int32, since not everything in torch knows unsigned words. The kernel trusts its own indices: copies.
            shared = array.view(np.int32) if name in WORDS else array.copy() if array.dtype == np.int32 else array
            self.register_buffer(name, torch.from_numpy(shared))

    def _apply(self, fn: Any, recurse: bool = True) -> Self:  # noqa: ARG002
        """Refuse changes of type and device: the packed form has its own precisions."""
        moved = fn(torch.empty(0))
        if moved.device.type != "cpu" or moved.dtype != torch.float32:
            came = f"cannot be moved to {moved.device}, {moved.dtype}"
            raise NetworkError("ProgressiveLinear", came, "keep it on the CPU in float32")
        return self

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],  # noqa: ARG002
        strict: bool,  # noqa: ARG002
        missing_keys: list[str],
        unexpected_keys: list[str],  # noqa: ARG002
        error_msgs: list[str],
    ) -> None:
        of_matrix = [name.removeprefix(prefix) for name in state_dict if name.startswith(prefix + PREFIX)]
        names = [*ARRAYS, *of_matrix]
        missing = [prefix + name for name in names if prefix + name not in state_dict]
        if missing:
            # The parts of a head mean nothing without each other: none is taken.
            missing_keys += missing
            return
        try:
            arrays = {name: state_dict[prefix + name].detach().cpu().numpy().copy() for name in names}
            arrays |= {name: arrays[name].view(np.uint32) for name in WORDS if name in arrays}
            head = ProgressiveHead(PackedHead.of_arrays(arrays))
            if head.shape != (self.out_features, self.in_features):
                mend = f"give ({self.out_features}, {self.in_features})"
                raise ArgumentError("sizes", f"are of the shape {head.shape}", mend)
        except (ArgumentError, AttributeError, TypeError, ValueError) as error:
            error_msgs.append(f"{prefix.rstrip('.') or 'ProgressiveLinear'}: {error}")
            return
        self._set(head)


def _is_plain(x: Tensor) -> bool:
    """Whether the kernel takes a tensor as it is."""
    return type(x) is Tensor and x.dtype is torch.float32 and x.is_contiguous() and x.is_cpu and not x.is_neg()
