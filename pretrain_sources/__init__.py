"""Pretraining sources: where an encoder's weights come from before it meets the target. A source is data, a card."""
