"""Backbones: segmentation networks made of an encoder, which is what a source transfers, and a decoder, which is always fresh."""
