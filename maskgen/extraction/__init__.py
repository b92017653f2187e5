"""Raw masks from video."""
