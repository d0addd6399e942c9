"""Pretraining sources: where an encoder's weights come from before finetuning. A source is described by a card."""
