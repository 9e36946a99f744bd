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

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> weight, inputs = rng.standard_normal((100, 32)), rng.standard_normal((200, 32))
    >>> head = hm.progressive(weight, calibration=inputs, agreement=0.9, rule=hm.Margin(), ranks=[8])
    >>> head(inputs).shape
    (200, 100)
    """


@dataclass(frozen=True)
class FixedRows:
    """Refine the same number of rows for every sample.

    Parameters
    ----------
    count
        Rows, at least 1.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> weight, inputs = rng.standard_normal((100, 32)), rng.standard_normal((200, 32))
    >>> head = hm.progressive(weight, calibration=inputs, agreement=0.5, rule=hm.FixedRows(20), ranks=[8])
    >>> int(head.refined(inputs[0]))
    20
    """

    count: int

    def __post_init__(self) -> None:
        check_integer("count", self.count, at_least=1)


@dataclass(frozen=True)
class Rigorous:
    """Refine all rows that can be among the largest, by Cauchy-Schwarz and bounds of all errors of the coarse part.

    Examples
    --------
    >>> weight = np.random.default_rng(0).standard_normal((100, 32)).astype(np.float32)
    >>> head = hm.progressive(weight, rule=hm.Rigorous(), ranks=[8], precisions=["float32"])
    >>> x = np.ones(32, np.float32)
    >>> int(head.topk(x, 1)[1][0]) == int(np.argmax(weight @ x))
    True
    """


Rule: TypeAlias = Margin | FixedRows | Rigorous
