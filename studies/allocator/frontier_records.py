"""One row per method and budget of a frontier, with its evidence."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Self

from hmatrix.study.measure.records import AccuracyEvidence
from studies.allocator.competitors import Contender


@dataclass(frozen=True)
class FrontierRecord:
    """One method at one budget.

    Parameters
    ----------
    network, layer, rows, columns
        The weight: its network, its layer, its rows and columns.
    budget
        Bytes that were allowed.
    contender
        The method.
    nbytes
        Bytes that it took.
    form
        The method's free choices: ranks, or the precisions of the leaves with their share of the entries.
    weight_error
        ``||A - B||_F / ||A||_F``.
    output_error
        Relative, on the images that evaluate, each row less its mean over the classes; ``None`` without images.
    accuracy
        On the images that evaluate; ``None`` without images.
    predicted_error, measured_error, damping
        Errors and damping of the allocator; ``None`` for others.
    arrangement
        Order of the allocator, (rows, columns); ``None`` for others.
    seconds
        Time of the choice, without what several budgets share.
    environment
        Versions, CPU, threads, kernel.
    """

    network: str
    layer: str
    rows: int
    columns: int
    budget: int
    contender: Contender
    nbytes: int
    form: str
    weight_error: float
    output_error: float | None
    accuracy: AccuracyEvidence | None
    predicted_error: float | None
    measured_error: float | None
    damping: tuple[float, float, float] | None
    arrangement: tuple[str, str] | None
    seconds: float
    environment: dict[str, Any]

    @property
    def dense_bytes(self) -> int:
        """Bytes of the matrix in float32."""
        return 4 * self.rows * self.columns

    def to_json(self) -> str:
        """Return the record as one line of JSON."""
        return json.dumps({**asdict(self), "contender": self.contender.value}, allow_nan=False)

    @classmethod
    def from_json(cls, line: str) -> Self:
        """Return the record that `to_json` wrote."""
        row = json.loads(line)
        row["contender"] = Contender(row["contender"])
        for name in ("damping", "arrangement"):
            row[name] = None if row[name] is None else tuple(row[name])
        row["accuracy"] = None if row["accuracy"] is None else AccuracyEvidence(**row["accuracy"])
        return cls(**row)
