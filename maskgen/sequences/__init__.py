"""Masks that move, for video inpainting: sequences of masks from raw masks and from video. See docs/sequences.md."""
