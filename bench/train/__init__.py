"""Training: batches, the one loop, tuning, pretraining, and what each unit does."""
