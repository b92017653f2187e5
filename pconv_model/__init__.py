"""The network of Liu et al. 2018: partial convolution, U-Net, losses, training and inference."""

import maskgen  # noqa: F401 - settles how OpenCV is imported, before anything here does so
