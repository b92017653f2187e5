# The public names of the package. lazy_loader reads this file and imports each name on first use.
from .device import best_device as best_device
from .features import VGG16Features as VGG16Features
from .inpaint import Inpainter as Inpainter
from .layer import PartialConv2d as PartialConv2d
from .objective import total_loss as total_loss
from .settings import LossConfig as LossConfig
from .settings import NetConfig as NetConfig
from .settings import TrainConfig as TrainConfig
from .unet import ConvUNet as ConvUNet
from .unet import PConvUNet as PConvUNet
from .unet import UNet as UNet
