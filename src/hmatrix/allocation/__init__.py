"""The best H-matrix for a budget: rank and precision of every block, chosen for the least error of the output."""

from hmatrix.allocation.allocator import Allocator, allocate
from hmatrix.allocation.result import Allocation
from hmatrix.allocation.search.budget import Budget

__all__ = ["Allocation", "Allocator", "Budget", "allocate"]
