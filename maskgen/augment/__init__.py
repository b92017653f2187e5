"""New masks from raw ones: placement, dilation, and their composition. A raw mask is dilated first and placed then.

That is the order of NVIDIA's page, so a square brush turns with the mask.
"""

from maskgen.augment.dilation import dilate
from maskgen.augment.random_mask import augment

__all__ = ["augment", "dilate"]
