"""What a matrix asks for: its cells, their units, and what of them a store has. Loads no torch."""
