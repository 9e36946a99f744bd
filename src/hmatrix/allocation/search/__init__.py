"""The search for the split, the ranks and the precisions that leave the least error."""
