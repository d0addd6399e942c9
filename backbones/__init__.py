"""Backbones: segmentation networks of an encoder, which a source transfers, and a decoder, which always starts at random."""
