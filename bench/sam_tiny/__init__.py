"""Training of sam-tiny: its images, its loss, and the resumable command `python -m bench.sam_tiny`."""
