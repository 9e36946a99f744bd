"""An embedding whose rows are those of an H-matrix."""

from typing import Self

import torch
from torch import Tensor, nn

from hmatrix.errors import ArgumentError, NetworkError
from hmatrix.matrix import HMatrix, TransposedHMatrix
from hmatrix.nn.layers.weight import HWeight


class HEmbedding(nn.Module):
    """`torch.nn.Embedding` with an H-matrix ``(embeddings, dimension)``.

    Only the rows that are asked for are decoded: those of dense leaves, and of the factors U of low-rank leaves, with
    V.

    Parameters
    ----------
    weight
        An H-matrix, or the weight of another layer, which is then shared with it: ``HLinear(embedding.weight)``
        is the output layer of a network with tied weights.
    padding_idx
        Index of a row that gets no gradient, where there is one; negative numbers count from the end.
    zero_padding
        Whether that row is zero, whatever the matrix holds there.

    Raises
    ------
    ArgumentError
        If there is no such row.

    Examples
    --------
    >>> embedding = torch.nn.Embedding(100, 16)
    >>> layer = hnn.HEmbedding.from_embedding(embedding, hm.quantize(embedding.weight.detach().numpy(), "int8"))
    >>> layer(torch.tensor([3, 7])).shape
    torch.Size([2, 16])
    >>> hnn.HLinear(layer.weight)(torch.randn(2, 16)).shape
    torch.Size([2, 100])
    """

    weight: HWeight
    _type: Tensor

    def __init__(
        self,
        weight: HMatrix | TransposedHMatrix | HWeight,
        padding_idx: int | None = None,
        *,
        zero_padding: bool = False,
    ) -> None:
        super().__init__()
        self.weight = weight if isinstance(weight, HWeight) else HWeight(weight)
        self.num_embeddings, self.embedding_dim = self.weight.shape
        if padding_idx is not None and not -self.num_embeddings <= padding_idx < self.num_embeddings:
            raise ArgumentError("padding_idx", f"got {padding_idx}", f"stay within the {self.num_embeddings} rows")
        self.padding_idx = None if padding_idx is None else padding_idx % self.num_embeddings
        self.zero_padding = zero_padding
        # Tells the type of the results, which changes with that of the network.
        self.register_buffer("_type", torch.empty(0, dtype=self.weight.dtype), persistent=False)

    @classmethod
    def from_embedding(cls, embedding: nn.Embedding, matrix: HMatrix | TransposedHMatrix) -> Self:
        """Make a layer that takes the place of `embedding`; a row of padding that is zero stays so.

        Raises
        ------
        ArgumentError
            If the shapes differ.
        NetworkError
            If the embedding has a `max_norm`, or gradients scaled by frequency.
        """
        if matrix.shape != tuple(embedding.weight.shape):
            raise ArgumentError(
                "matrix", f"has the shape {matrix.shape}", f"give {tuple(embedding.weight.shape)}, as the layer has"
            )
        if embedding.max_norm is not None:
            raise NetworkError("embedding", f"has max_norm={embedding.max_norm}", "choose one without max_norm")
        if embedding.scale_grad_by_freq:
            raise NetworkError("embedding", "has scale_grad_by_freq", "choose one without scale_grad_by_freq")
        padding = embedding.padding_idx
        is_zero = padding is not None and not embedding.weight[padding].any()
        return cls(matrix, padding, zero_padding=is_zero).train(embedding.training)

    @property
    def matrix(self) -> HMatrix:
        """The weight ``(embeddings, dimension)``."""
        return self.weight.matrix

    def forward(self, indices: Tensor) -> Tensor:
        """Return the rows ``(..., dimension)`` with indices ``(...)``.

        Raises
        ------
        ArgumentError
            If indices are no int32 or int64, or out of range.
        """
        if indices.dtype not in (torch.int32, torch.int64):
            raise ArgumentError("indices", f"have the type {indices.dtype}", "give torch.int64 or torch.int32")
        rows = self.weight.rows(indices)
        if self.padding_idx is not None and (self.zero_padding or rows.requires_grad):
            padding = (indices == self.padding_idx)[..., None]
            rows = torch.where(padding, 0 if self.zero_padding else rows.detach(), rows)
        return rows.to(self._type.dtype)

    def extra_repr(self) -> str:
        """Describe the layer in the printed network."""
        padding = "" if self.padding_idx is None else f", padding_idx={self.padding_idx}"
        return f"{self.num_embeddings}, {self.embedding_dim}{padding}"
