"""How sam-tiny is trained: its pictures, its loss, and `python -m bench.sam_tiny`, which goes on where it was stopped."""
