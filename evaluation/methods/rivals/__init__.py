"""Networks of others to compare with: Iizuka et al. 2017, Yu et al. 2018; Ledig et al. 2017 for super-resolution."""
