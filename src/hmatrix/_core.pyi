from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

_Floats = npt.NDArray[np.floating[Any]]
_Tables = tuple[npt.NDArray[np.int64], npt.NDArray[np.int32], npt.NDArray[np.int32]]

class PlanFloat32:
    def __init__(
        self,
        instruction_set: str,
        shape: tuple[int, int],
        intermediate: int,
        data: _Floats,
        far: _Tables,
        near: _Tables,
        segments: npt.NDArray[np.int32] | None,
        row_permutation: npt.NDArray[np.int32] | None,
        column_permutation: npt.NDArray[np.int32] | None,
    ) -> None: ...
    def multiply_at(self, x: int, y: int, batch: int, bias: int) -> None: ...
    def rows_at(self, indices: int, y: int, count: int) -> None: ...
    def multiply(self, x: _Floats, y: _Floats) -> None: ...
    def multiply_batch(self, x: _Floats, y: _Floats) -> None: ...
    def multiply_transposed(self, x: _Floats, y: _Floats) -> None: ...
    def multiply_transposed_batch(self, x: _Floats, y: _Floats) -> None: ...

class PlanFloat64(PlanFloat32): ...

class TensorProductFloat32:
    def __init__(
        self,
        plan: PlanFloat32 | PlanFloat64,
        exchange: object,
        types: Sequence[type],
        recording: Callable[[], bool],
        forward: ModuleType,
        obstacles: Sequence[Callable[[], object]],
        words: int,
        others: Sequence[tuple[str, Any, int]],
    ) -> None: ...
    def multiply(self, x: Any, bias: Any, buffers: dict[str, Any]) -> Any: ...

class TensorProductFloat64(TensorProductFloat32): ...

class ProgressiveHead:
    def __init__(
        self,
        instruction_set: str,
        arrays: dict[str, npt.NDArray[Any]],
        matrix: PlanFloat32 | None,
    ) -> None: ...
    def multiply_at(self, x: int, y: int, batch: int) -> None: ...
    def multiply(self, x: _Floats, y: _Floats) -> None: ...
    def multiply_batch(self, x: _Floats, y: _Floats) -> None: ...
    def largest_one(self, x: _Floats, values: _Floats, indices: npt.NDArray[np.int64]) -> None: ...
    def largest(
        self,
        x: _Floats,
        values: _Floats,
        indices: npt.NDArray[np.int64],
        counts: npt.NDArray[np.int64] | None,
    ) -> None: ...

def instruction_sets() -> list[str]: ...
def read(instruction_set: str, words: npt.NDArray[np.uint32]) -> int: ...
def encode_words(
    instruction_set: str,
    precision: int,
    target: _Floats,
    owed: _Floats | None,
    root: _Floats | None,
    present: npt.NDArray[np.uint8],
    tries: int,
    windows: npt.NDArray[np.uint8],
) -> None: ...
def round_columns(
    target: _Floats, owed: _Floats, root: _Floats, lowest: float, highest: float, zero: float, values: _Floats
) -> None: ...
def codebook(precision: int) -> list[int]: ...
def get_num_threads() -> int: ...
def set_num_threads(threads: int) -> None: ...
