"""Video inpainting: pairs of video and mask sequence, scores of frames, temporal consistency. See docs/video.md."""
