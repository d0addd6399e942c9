"""Running units: here, in worker processes, or as jobs of a cluster."""
