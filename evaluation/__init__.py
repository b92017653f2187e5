"""The benchmark: inpainting methods, metrics, and the tables that compare them."""
