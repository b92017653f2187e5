# The public names of the package. lazy_loader reads this file and imports each name on first use.
from .api import Evaluation as Evaluation
from .api import evaluate as evaluate
from .drawn_holes import box as box
from .drawn_holes import free_form as free_form
from .matching import match_folders as match_folders
from .metrics.perceptual import lpips as lpips
from .metrics.perceptual import lpips_hole as lpips_hole
from .metrics.pixel import l1_hole as l1_hole
from .metrics.pixel import l1_image as l1_image
from .metrics.pixel import ms_ssim as ms_ssim
from .metrics.pixel import psnr as psnr
from .metrics.pixel import psnr_hole as psnr_hole
from .metrics.pixel import ssim as ssim
from .metrics.pixel import ssim_hole as ssim_hole
from .protocols import read_protocol as read_protocol
from .video.api import VideoEvaluation as VideoEvaluation
from .video.api import evaluate_video as evaluate_video
