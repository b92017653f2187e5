"""Settings of the networks, their training and their use, with their defaults. Imports nothing heavy."""

from dataclasses import dataclass, field

from maskgen.checks import Rule, expect_fields, flag, number, one_of, pair, several, whole
from maskgen.errors import BadInput

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of RGB images in [0, 1]
IMAGENET_STD = (0.229, 0.224, 0.225)
KINDS = ("pconv", "conv")
FORMS = ("ours", "training", "naoto0804", "mmagic", "keras", "nvidia")  # of checkpoints that can be read
LOSSES = ("valid", "hole", "perceptual", "style", "tv")  # the terms of the paper
BIASES = ("ends", "all")  # layers with a bias
FILLS = ("grey", "mean")  # what the baseline sees in a hole
HEADS = ("none", "sigmoid")
DECAYS = ("constant", "cosine")
FREEZES = ("encoder", "all")  # which batch norms phase 2 freezes; the paper: those of the encoder
PRECISIONS = ("fp32", "bf16")  # bf16: autocast
POLARITIES = ("hole-white", "hole-black")  # what white means in a mask file
VGG_MIN = 8  # px, smallest image that VGG's three poolings can halve
TILE = 512  # px, side of the tiles in which larger images are done


def _fits_vgg(side):
    return whole(0).allows(side) and (side == 0 or side >= VGG_MIN)


def _are_photo_weights(pairs):
    return isinstance(pairs, tuple | list) and all(isinstance(p, str) and number(0).allows(f) for p, f in pairs)


@dataclass(frozen=True)
class NetConfig:
    """Architecture of a network, stored in its weights file. The defaults are Table 2 of the paper."""

    kind: str = "pconv"  # "pconv", or "conv": the paper's baseline of plain convolutions
    width: float = 1.0  # factor on the number of channels
    depth: int = 8  # encoder layers; each halves the resolution
    detail: int = 0  # channels of three extra convolutions at full resolution, which improve hole edges; 0: none
    bias: str = "ends"  # which layers have a bias: "ends", those without batch norm, or "all"
    eps: float = 1e-5  # of batch norm; 1e-3 in Keras
    mean: tuple[float, ...] = IMAGENET_MEAN  # of the normalisation inside the net
    std: tuple[float, ...] = IMAGENET_STD
    fill: str = "grey"  # input of the "conv" net in holes: "grey", 127.5, or "mean", the mean colour of ImageNet
    head: str = "none"  # "sigmoid": leaky ReLU, 1x1 convolution and sigmoid at the end, as in PConv-Keras
    # Not part of repr, from which `Inpainter.identity` is made: the nets that do not have them keep theirs.
    blocks: int = field(default=0, repr=False)  # residual blocks between encoder and decoder
    factor: int = field(default=1, repr=False)  # above 1: the net enlarges, by a correction of an interpolation

    def __post_init__(self):
        expect_fields(
            self,
            kind=one_of(KINDS),
            width=number(0, 16, above=True),
            depth=whole(1, 16),
            detail=whole(0, 1024),
            bias=one_of(BIASES),
            eps=number(0, 1, above=True),
            mean=several(number(0, 1), 3, 3),
            std=several(number(0, 1, above=True), 3, 3),
            fill=one_of(FILLS),
            head=one_of(HEADS),
            blocks=whole(0, 64),
            factor=whole(1, 64),
        )


@dataclass(frozen=True)
class LossConfig:
    """Weights of the loss terms. The first five are those of the paper, section 3.3; it does not have the others."""

    valid: float = 1.0  # L1 of the known pixels
    hole: float = 6.0  # L1 of the hole
    perceptual: float = 0.05  # differences of VGG16 features
    style: float = 120.0  # differences of their Gram matrices
    tv: float = 0.1  # total variation of the filled hole
    ssim: float = 0.0  # 1 - SSIM of the composite
    near: float = 0.0  # L1 in the outer 8 px of each hole
    checkerboard: float = 0.0  # periodic pattern of 8x8 px in the filled hole, which upsampling can leave
    smooth: float = 0.0  # wrong gradients in the hole where the photo is smooth
    balance: float = 0.0  # hole and SSIM terms of an image are multiplied by (0.3 / hole ratio)^balance
    balance_vgg: float = 0.0  # the same for the composite in the perceptual and style terms
    span: float = 2.0  # range of the images in the L1 and tv terms; the first author used [-1, 1]

    def __post_init__(self):
        rules = {name: number(0) for name in self.__dataclass_fields__}
        expect_fields(self, **rules | {"span": number(0, above=True)})


@dataclass(frozen=True)
class TrainConfig:
    """Schedule, optimiser and data of a training run. The defaults follow the paper, section 4.2, where it has them."""

    phase1_steps: int = 500_000  # batch norm is trained
    phase2_steps: int = 200_000  # batch norm is frozen
    first_step: int = 0  # step of the schedule at which the run starts, with weights trained until there
    freeze: str = "encoder"  # which batch norms phase 2 freezes: "encoder" as in the paper, or "all"
    lr: tuple[float, ...] = (2e-4, 5e-5)  # learning rate of each phase; one number is used for both
    decay: str = "constant"  # or "cosine": from the first to the second rate in phase 1, then to 0
    size: tuple[int, ...] = (512,)  # px, side of the crops; several values divide phase 1 into stages
    batch: tuple[int, ...] = (6,)  # images per batch and process, one value or one per size
    switch: tuple[int, ...] = ()  # steps at which the next size starts; empty: stages of equal length
    accumulate: int = 1  # batches per step, whose gradients are averaged
    vgg_window: int = 0  # px, side of the window of each crop that VGG sees; 0: the whole crop
    ema: float = 0.999  # decay of the averaged weights, which are validated and saved; 0: no average
    clip: float = 10.0  # largest norm of the gradient
    precision: str = "fp32"  # or "bf16": autocast
    factor: int = 1  # of super-resolution: above 1, one pixel in factor x factor is known and masks are not used
    ratio: tuple[float, float] = (0.01, 0.6)  # hole ratios of the training masks
    uniform: bool = False  # draw the hole ratio uniformly from that range
    mask_scale: tuple[float, float] = (1.0, 1.0)  # side of a random window of the mask / side of the mask
    scale: tuple[float, float] = (0.35, 1.0)  # side of a crop / short side of its photo
    flip: bool = True  # mirror half of the crops
    colour: float = 0.1  # largest relative change of brightness, contrast and saturation
    grey: float = 0.0  # fraction of the crops that are converted to grey
    photo_weights: tuple[tuple[str, float], ...] = ()  # (pattern, factor): how often matching photos are drawn
    hold_out: float = 0.1  # fraction of the photos used for validation; 3,000 of the 30,000 of CelebA-HQ
    validation: int = 64  # size of the validation set, in photos
    seed: int = 0

    def __post_init__(self):
        expect_fields(
            self,
            phase1_steps=whole(0),
            phase2_steps=whole(0),
            first_step=whole(0),
            freeze=one_of(FREEZES),
            lr=several(number(0), 1, 2),
            decay=one_of(DECAYS),
            size=several(whole(1, 16384)),
            batch=several(whole(1)),
            switch=several(whole(0), 0),
            accumulate=whole(1),
            vgg_window=Rule(_fits_vgg, f"0, or a whole number from {VGG_MIN} px up"),
            ema=number(0, 1),
            clip=number(0, above=True),
            precision=one_of(PRECISIONS),
            factor=whole(1),
            ratio=pair(0, 1, above=True),
            uniform=flag(),
            mask_scale=pair(0, 1, above=True),
            scale=pair(0, 1, above=True),
            flip=flag(),
            colour=number(0, 1),
            grey=number(0, 1),
            photo_weights=Rule(_are_photo_weights, 'pairs of a pattern and a factor, such as ["clothing*", 0.3]'),
            hold_out=number(0, 1),
            validation=whole(1),
            seed=whole(0),
        )
        if any(size % self.factor for size in self.size):
            sizes = ", ".join(map(str, self.size))
            raise BadInput(f"each size is a multiple of factor = {self.factor}, got {sizes}")


@dataclass(frozen=True)
class Settings:
    """All settings of a training run."""

    net: NetConfig = NetConfig()
    loss: LossConfig = LossConfig()
    train: TrainConfig = TrainConfig()
