"""Training: batches, the training loop, tuning, pretraining, and the stages of units."""
