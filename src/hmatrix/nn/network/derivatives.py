"""Derivatives of a network's output by the weights of its layers, which decide which errors of a weight matter.

An error E of a weight changes the output of a layer at every position of a sample, and the network sums up the effects.
To first order that is the inner product of E with the derivative G ``(m, n)`` of the output by the weight, a sum over
positions. Its square is on average about in proportion to ``tr(B E A E^T)``, A being the mean of ``G^T G`` and B that
of ``G G^T``: errors that positions have in common add up, errors that a rectifier cuts off are left out, and joint
errors of rows count. The second moment of the inputs treats all positions as independent, and as equally important.

The output is projected at random, sample by sample, and so are the rows of each G, or its columns, if there are many:
their squares are right on average, and not one G is ever formed. The same step back through the network tells how much
the layer as a whole counts (`hmatrix.nn.network.sensitivity`).

References
----------
J. Martens and R. Grosse, *Optimizing neural networks with Kronecker-factored approximate curvature*, ICML 2015,
arXiv:1503.05671; R. Eschenhagen et al., *Kronecker-factored approximate curvature for modern neural network
architectures*, NeurIPS 2023, arXiv:2311.00636 (sums over positions come first); M. Hutchinson, "A stochastic estimator
of the trace of the influence matrix", Communications in Statistics 19 (1990), doi:10.1080/03610919008812866.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hmatrix._support.typing import FloatArray
from hmatrix.allocation.error.scaling import exponent_of
from hmatrix.errors import NetworkError
from hmatrix.nn.network.kinds import Kind
from hmatrix.nn.network.present import Present
from hmatrix.nn.network.sensitivity import Sensitivities
from hmatrix.nn.network.targets import Target

PARTS = 5
"""Parts that samples are dealt to; each can be left out to judge by."""

_PROJECTIONS = 64
"""Random projections of the rows of G, and of its columns."""

_MOST_ROWS = 4096
"""Rows of larger weights count as independent: their second moment would be as large as the weight, or larger."""


class Factors(NamedTuple):
    """Second moments of derivatives by a weight ``(m, n)``, as rows of each part of the samples.

    Parameters
    ----------
    columns
        ``(PARTS, rows, n)``: A, for inputs about their mean.
    rows
        ``(PARTS, rows, m)``: B; ``None`` for more than 4096 rows.
    """

    columns: FloatArray
    rows: FloatArray | None


class Derivatives:
    """Derivatives by the weights of layers, batch after batch.

    Parameters
    ----------
    targets
        The weights. Those whose rows are selected have sensitivities only.
    rows
        Columns of a weight up to which samples are kept apart; wider weights have their samples of each part added up
        with random signs.
    present
        Positions that are no padding.
    seed
        Seed of all signs.
    """

    def __init__(self, targets: list[Target], *, rows: int, present: Present, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._present = present
        shapes = [target.shape for target in targets]
        self._sums = [_Sums(n + 1, m, rows + 1, self._generator) for m, n in shapes]
        self._row_sums = [_Sums(m, n, rows, self._generator) if m <= _MOST_ROWS else None for m, n in shapes]
        self._sensitivities = Sensitivities(len(targets))
        self._units: dict[int, float] = {}
        self._calls: list[_Call] = []
        self._hooks = [
            module.register_forward_hook(self._hook(index, target.kinds[name]), with_kwargs=True)
            for index, target in enumerate(targets)
            for name, module in target.modules.items()
        ]

    def add(self, output: Tensor) -> None:
        """Go back from the network's output for a batch.

        Raises
        ------
        NetworkError
            If it cannot be differentiated.
        """
        calls, self._calls = self._calls, []
        if not calls:
            return
        if not output.requires_grad:
            came = "its output cannot be differentiated, or depends on none of the chosen layers"
            raise NetworkError("network", came, "give `forward` without torch.no_grad, or choose other layers")
        self._sensitivities.see(output)
        signs = _signs(output.shape, self._generator).to(output)
        gradients = torch.autograd.grad(output, [call.error for call in calls], signs, allow_unused=True)
        given: dict[int, list[tuple[Tensor, Tensor]]] = {}
        for call, gradient in zip(calls, gradients, strict=True):
            if gradient is None:
                continue
            by_position, vectors = call.by_position(gradient), call.vectors()
            if call.lone is None:
                self._sensitivities.add(call.index, by_position, call.variance, call.exponent)
            else:
                self._sensitivities.add_lone(call.index, by_position, call.lone)
            if vectors is not None:
                given.setdefault(call.index, []).append((vectors, by_position))
        samples = len(output) if output.dim() else 1
        for index, pairs in sorted(given.items()):
            unit = self._units.setdefault(index, 2.0 ** max(exponent_of(vectors.numpy()) for vectors, _ in pairs))
            self._sums[index].add([(_with_unit(vectors, unit), by_position) for vectors, by_position in pairs], samples)
            if (row_sums := self._row_sums[index]) is not None:
                row_sums.add([(by_position, vectors - vectors.mean(dim=0)) for vectors, by_position in pairs], samples)

    def remove_hooks(self) -> None:
        """Remove the hooks, which leaves the network as it was."""
        for hook in self._hooks:
            hook.remove()

    def sensitivities(self) -> list[float]:
        """Return, for each weight, the mean square change of the output per square of the layer's relative error.

        Raises
        ------
        NetworkError
            If the output was not finite.
        """
        return self._sensitivities.values()

    def of(self, index: int, mean: FloatArray) -> Factors | None:
        """Return the second moments of each part, for inputs about their mean ``(n,)``.

        ``None`` where there are too few samples, or the output does not depend on the layer.

        Raises
        ------
        NetworkError
            If derivatives are not finite.
        """
        shift = torch.cat([torch.eye(len(mean)), -torch.from_numpy(mean)[:, None] / self._units.get(index, 1.0)], dim=1)
        columns, row_sums = self._sums[index].rows(shift), self._row_sums[index]
        return None if columns is None else Factors(columns, None if row_sums is None else row_sums.rows())

    def _hook(self, index: int, kind: Kind) -> Any:
        def add(module: nn.Module, arguments: tuple[Any, ...], keywords: Mapping[str, Any], output: Tensor) -> Any:
            x = arguments[0] if arguments else next(iter(keywords.values()))
            call = _Call(index, kind, module, x.detach(), output.detach(), self._present)
            self._calls.append(call)
            return output + call.error

        return add


class _Call:
    """The input of a layer's call, and an error, zero, of its output."""

    def __init__(self, index: int, kind: Kind, module: nn.Module, x: Tensor, output: Tensor, present: Present) -> None:
        self.index = index
        self.error = torch.zeros_like(output, requires_grad=True)
        by_channel = output.movedim(kind.channels, -1)
        given = by_channel.reshape(-1, by_channel.shape[-1]).to("cpu", torch.float32)
        self.lone = given if len(given) == 1 else None
        self.exponent = exponent_of(given.numpy())
        self.variance = (given * 2.0**-self.exponent).var(dim=0, correction=0)
        self._kind = kind
        self._module = module
        self._x = x
        self._present = present

    def vectors(self) -> Tensor | None:
        """Return the vectors that the weight multiplied, ``(positions, n)``."""
        vectors = self._kind.vectors(self._module, self._x, lambda count: torch.arange(count, device=self._x.device))
        return None if vectors is None else vectors.to("cpu", torch.float32)

    def by_position(self, gradient: Tensor) -> Tensor:
        """Return the derivative by the weight's output, ``(positions, m)``, zero where there is padding."""
        moved = gradient.movedim(self._kind.channels, -1)
        is_present = self._present.mask_of(self._x)
        if is_present is not None:
            moved = moved * is_present[..., None]
        return moved.reshape(-1, moved.shape[-1]).to("cpu", torch.float32)


class _Sums:
    """The second moment of each part's derivatives G ``(height, width)`` over their columns, the mean of ``G^T G``.

    Parameters
    ----------
    width, height
        Sizes of G, or of its transpose for the second moment over its rows.
    most
        Largest number of rows; a wider G has its rows added up with random signs to so many.
    generator
        Generator of the signs.
    """

    def __init__(self, width: int, height: int, most: int, generator: torch.Generator) -> None:
        self._height = height
        self._generator = generator
        self._is_sketched = width > most
        self._sums = [torch.zeros(most // PARTS if self._is_sketched else width, width) for _ in range(PARTS)]
        self._samples = [0] * PARTS
        self._powers: tuple[float, float] | None = None

    def add(self, given: list[tuple[Tensor, Tensor]], samples: int) -> None:
        """Add the two factors ``(positions, width)`` and ``(positions, height)`` of G, of all calls for a batch."""
        if self._powers is None:
            # Only proportions count: what is very large or very small is brought near 1, by the first batch.
            across, down = (max(exponent_of(pair[side].numpy()) for pair in given) for side in (0, 1))
            self._powers = 2.0**-across, 2.0**-down
        of_across, of_down = self._powers
        given = [(across * of_across, down * of_down) for across, down in given]
        if any(len(across) % samples for across, _ in given):
            samples = 1
        rows = self._projected(given, samples)
        first = sum(self._samples)
        for part in range(PARTS):
            chosen = rows[(part - first) % PARTS :: PARTS]
            self._samples[part] += len(chosen)
            self._accumulate(self._sums[part], chosen.flatten(0, 1))

    def rows(self, turn: Tensor | None = None) -> FloatArray | None:
        """Return rows ``(PARTS, rows, n)`` with the second moment of each part; see `Derivatives.of`.

        Parameters
        ----------
        turn
            Matrix that rows are multiplied by, ``(n, width)``; none by default.
        """
        if not all(self._samples):
            return None
        if not all(bool(total.isfinite().all()) for total in self._sums):
            came = "derivatives of its output hold NaN or infinity"
            raise NetworkError("network", came, "use intact weights and inputs")
        parts = zip(self._sums, self._samples, strict=True)
        found: FloatArray = torch.stack(
            [self._rooted(total, turn) / math.sqrt(samples) for total, samples in parts]
        ).numpy()
        return found if found.any() else None

    def _projected(self, given: list[tuple[Tensor, Tensor]], samples: int) -> Tensor:
        """Return rows ``(samples, k, width)`` with the second moment of each sample's G, on average."""
        across, down = given[0]
        if len(given) == 1 and len(across) == samples:
            # G of a single position has rank one.
            return down.square().sum(dim=1, keepdim=True).sqrt().mul(across)[:, None]
        projection = self._projection()
        rows = [
            (projection @ torch.unflatten(down, 0, (samples, -1)).mT) @ torch.unflatten(across, 0, (samples, -1))
            for across, down in given
        ]
        return torch.stack(rows).sum(dim=0)

    def _projection(self) -> Tensor:
        """Return a random factor of the rows of G, ``(k, height)``, whose square is the identity on average."""
        if self._height <= _PROJECTIONS:
            return torch.eye(self._height)
        return _signs((_PROJECTIONS, self._height), self._generator) / math.sqrt(_PROJECTIONS)

    def _accumulate(self, total: Tensor, rows: Tensor) -> None:
        if self._is_sketched:
            total += _signs((len(total), len(rows)), self._generator) @ rows
        else:
            total += rows.mT @ rows

    def _rooted(self, total: Tensor, turn: Tensor | None) -> Tensor:
        """Return rows ``(rows, n)`` with the second moment that was summed up."""
        if self._is_sketched:
            return total if turn is None else total @ turn.mT
        moment = total.double()
        if turn is not None:
            moment = turn.double() @ moment @ turn.double().mT
        values, vectors = torch.linalg.eigh(moment)
        rooted: Tensor = vectors * values.clamp(min=0).sqrt()
        return rooted.mT.float()


def _with_unit(vectors: Tensor, unit: float) -> Tensor:
    """Return vectors ``(positions, n)`` with a number behind each, about as large, which stands for the bias."""
    return nn.functional.pad(vectors, (0, 1), value=unit)


def _signs(shape: Any, generator: torch.Generator) -> Tensor:
    return torch.randint(0, 2, tuple(shape), generator=generator).float() * 2 - 1
