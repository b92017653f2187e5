"""The network of Liu et al. 2018: partial convolution, U-Net, losses, training and inference."""
