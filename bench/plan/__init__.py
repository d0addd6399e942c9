"""Planning: the cells of a matrix, their units, and which of them the store already has. Does not import torch."""
