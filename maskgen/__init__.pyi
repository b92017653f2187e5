# The public names of the package. lazy_loader reads this file and imports each name on first use.
from .augment import dilate as dilate
from .categories import border_distance as border_distance
from .categories import category as category
from .categories import measure as measure
from .dataset import MaskDataset as MaskDataset
from .errors import BadInput as BadInput
from .errors import InputWarning as InputWarning
from .extraction.occlusion import motion_boundaries as motion_boundaries
from .extraction.occlusion import occlusion as occlusion
from .extraction.run import extract as extract
from .maskset import Masks as Masks
from .maskset import read_hole as read_hole
from .maskset import read_index as read_index
from .maskset import read_recipe as read_recipe
from .maskset import write_index as write_index
from .pil_mask import random_mask as random_mask
from .plots import draw_figures as draw_figures
from .sampler import MaskSampler as MaskSampler
from .sequences.reader import Sequences as Sequences
from .sequences.run import make_sequences as make_sequences
from .sequences.sampler import SequenceSampler as SequenceSampler
from .sequences.settings import SequenceConfig as SequenceConfig
from .settings import AugmentConfig as AugmentConfig
from .settings import ExtractConfig as ExtractConfig
from .settings import FillConfig as FillConfig
from .sort import measure_masks as measure_masks
from .testset import make_testset as make_testset
from .training_set import augment_folder as augment_folder
from .unpack import get_masks as get_masks
from .verify import find_faults as find_faults

__version__: str
