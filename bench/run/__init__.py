"""Running units: in this process, in workers, or as jobs of a cluster."""
