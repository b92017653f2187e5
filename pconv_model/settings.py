"""Every setting of the network and its training and its default, in one place that imports nothing heavy."""

from dataclasses import dataclass

from maskgen.checks import expect_fields, number, one_of, several, whole

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of images in [0, 1], red green blue
IMAGENET_STD = (0.229, 0.224, 0.225)
KINDS = ("pconv", "conv")
FORMS = ("ours", "training", "naoto0804", "mmagic", "keras", "nvidia")  # of checkpoints that can be read
LOSSES = ("valid", "hole", "perceptual", "style", "tv")
BIASES = ("ends", "all")  # layers with a bias
FILLS = ("grey", "mean")  # what the baseline sees in a hole
HEADS = ("none", "sigmoid")
DECAYS = ("constant", "cosine")
FREEZES = ("encoder", "all")  # whose batch norm phase 2 leaves as it is; the paper: the encoder's
PRECISIONS = ("fp32", "bf16")  # bf16: autocast
POLARITIES = ("hole-white", "hole-black")  # what white means in a mask file
TILE = 512  # px, side of the tiles in which larger images are done


@dataclass(frozen=True)
class NetConfig:
    """What a network is made of; a checkpoint carries it. The defaults are Table 2 of the paper."""

    kind: str = "pconv"  # "pconv", or "conv" for the paper's baseline of plain convolutions
    width: float = 1.0  # times the paper's channels
    depth: int = 8  # encoder layers, each of which halves the image
    detail: int = 0  # channels of convolutions at full size that mend the result's seams; 0: none, as in the paper
    bias: str = "ends"  # layers with a bias: "ends", those without batch norm, or "all"
    eps: float = 1e-5  # of batch norm; Keras has 1e-3
    mean: tuple[float, ...] = IMAGENET_MEAN  # taken from the image inside the net, given back to the result
    std: tuple[float, ...] = IMAGENET_STD
    fill: str = "grey"  # what the baseline sees in a hole: "grey", 127.5, or "mean", ImageNet's
    head: str = "none"  # "sigmoid": a leaky ReLU, a 1x1 convolution and a sigmoid at the end, as PConv-Keras

    def __post_init__(self):
        expect_fields(
            self,
            kind=one_of(KINDS),
            width=number(0, 16, above=True),
            depth=whole(1, 16),
            bias=one_of(BIASES),
            fill=one_of(FILLS),
            head=one_of(HEADS),
        )


@dataclass(frozen=True)
class LossConfig:
    """Weights of the terms, section 3.3 of the paper."""

    valid: float = 1.0
    hole: float = 6.0
    perceptual: float = 0.05
    style: float = 120.0
    tv: float = 0.1
    ssim: float = 0.0  # of 1 - SSIM of the composite: not the paper's, it raises SSIM beside the L1 terms
    near: float = 0.0  # of L1 in the hole's outer rings, where it can be right: not the paper's
    checkerboard: float = 0.0  # of a pattern of 8x8 pixels in the filled hole: not the paper's
    smooth: float = 0.0  # of wrong steps between the hole's pixels where the photo is smooth: not the paper's
    balance: float = 0.0  # hole and SSIM terms of an image are multiplied by (0.3 / hole ratio)^balance; 0: the paper
    balance_vgg: float = 0.0  # the same exponent for the composite in the perceptual and style terms
    span: float = 2.0  # images in [0, 1] are stretched to this length for L1 and tv; the first author used [-1, 1]


@dataclass(frozen=True)
class TrainConfig:
    """How a run goes. The paper's numbers where it has them, section 4.2."""

    phase1_steps: int = 500_000  # batch norm on
    phase2_steps: int = 200_000  # batch norm frozen
    freeze: str = "encoder"  # whose batch norm that is; or "all", the decoder's too
    lr: tuple[float, ...] = (2e-4, 5e-5)  # of the two phases; one number is for both
    decay: str = "constant"  # or "cosine": from the first rate down to the second, then down to zero
    size: tuple[int, ...] = (512,)  # px, side of the training crops; several are stages of phase 1
    batch: tuple[int, ...] = (6,)  # images in a step of one process, one number or one per size
    switch: tuple[int, ...] = ()  # steps at which the next size begins; empty cuts phase 1 into equal stages
    accumulate: int = 1  # batches whose gradients are summed into a step
    vgg_from: int = 0  # step from which the perceptual and style terms are added
    vgg_window: int = 0  # px, side of the square of a crop that those two terms see; 0: all of it
    ema: float = 0.999  # decay of the averaged weights, which are those that count; 0 keeps none
    clip: float = 10.0  # largest norm of a gradient; a step whose gradient is not finite is left out
    precision: str = "fp32"  # or "bf16": autocast, half the memory and faster where the processor has it
    factor: int = 1  # K of super-resolution: above 1 all is hole but one pixel in K x K, which is their mean
    ratio: tuple[float, float] = (0.01, 0.6)  # hole / all pixels of the training masks
    uniform: bool = False  # draw the ratio uniformly from that range, else as brush and raw mask make it
    mask_scale: tuple[float, float] = (1.0, 1.0)  # side of a window in a mask / side of the mask; 1: all of it
    scale: tuple[float, float] = (0.35, 1.0)  # side of a crop / short side of its photo
    flip: bool = True  # half of the crops are mirrored; not for writing, or whatever else has a left and a right
    colour: float = 0.1  # brightness, contrast and saturation change by up to this share
    grey: float = 0.0  # share of the crops that lose their colour
    hold_out: float = 0.1  # share of the photos kept for validation: 3,000 of CelebA-HQ's 30,000
    validation: int = 64  # photos of the fixed validation set
    seed: int = 0

    def __post_init__(self):
        expect_fields(
            self,
            freeze=one_of(FREEZES),
            lr=several(number(0), 1, 2),
            decay=one_of(DECAYS),
            size=several(whole(1, 16384)),
            batch=several(whole(1)),
            precision=one_of(PRECISIONS),
            colour=number(0, 1),
            seed=whole(0),
        )
