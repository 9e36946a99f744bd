"""A model of time in the place of this machine's own, which others may disturb."""

from hmatrix.allocation.search.timecost import TimeCost

COST = TimeCost(1e-6, 1e-8, 1e-8, (4e-11, 4e-11, 3e-11, 3e-11, 4e-11, 6e-11, 5e-11, 4e-11, 5e-11, 7e-11, 6e-11, 6e-11))


def dense_seconds(shape, *_):
    return 1e-6 + 4e-11 * shape[0] * shape[1]


def time_of(matrix):
    """Return the time of an H-matrix, as a fraction of the dense matrix's."""
    packed = matrix.pack()
    return COST.of_matrix(packed.leaves, packed.schedule) / dense_seconds(matrix.shape)
