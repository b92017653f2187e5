"""Networks of other authors: Iizuka et al. 2017 and Yu et al. 2018, and Ledig et al. 2017 for super-resolution."""
