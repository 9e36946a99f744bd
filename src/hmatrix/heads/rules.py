"""Rules that say which rows a progressive head refines."""

from dataclasses import dataclass
from typing import TypeAlias

from hmatrix._support.checks import check_integer


@dataclass(frozen=True)
class Margin:
    """Refine the rows whose coarse output is within a margin of the best: the less an input says, the more rows.

    The margin is the norm of the row's remainder times a constant, and where that refines fewer rows, times the norm of
    x outside the coarse subspace. Clusters are looked into if their output is within a margin of the best: the norm of
    x times the cluster's radius times a constant. The constants are calibrated, each for its share of the disagreement
    that is allowed.
    """


@dataclass(frozen=True)
class FixedRows:
    """Refine the same number of rows for every sample.

    Parameters
    ----------
    count
        Rows, at least 1.
    """

    count: int

    def __post_init__(self) -> None:
        check_integer("count", self.count, at_least=1)


@dataclass(frozen=True)
class Rigorous:
    """Refine all rows that can be among the largest, by Cauchy-Schwarz and bounds of all errors of the coarse part."""


Rule: TypeAlias = Margin | FixedRows | Rigorous
