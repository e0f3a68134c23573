"""Frozen backbones: created by name or from a file, pretrained on drawn images, and probed."""
