# The public names of the package. lazy_loader reads this file and imports each name on first use.
from .drawn_holes import box as box
from .drawn_holes import free_form as free_form
from .metrics import l1_hole as l1_hole
from .metrics import l1_image as l1_image
from .metrics import lpips as lpips
from .metrics import ms_ssim as ms_ssim
from .metrics import psnr as psnr
from .metrics import ssim as ssim
from .settings import BenchmarkConfig as BenchmarkConfig
