import re
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from maskgen.errors import BadInput
from pconv_model import features, foreign
from pconv_model.layer import PartialConv2d
from pconv_model.settings import IMAGENET_MEAN, IMAGENET_STD, NetConfig, TrainConfig
from pconv_model.unet import ConvUNet, PConvUNet, build

TABLE2 = """
PConv1   7  64  /2 -  ReLU
PConv2   5 128  /2 BN ReLU
PConv3   5 256  /2 BN ReLU
PConv4   3 512  /2 BN ReLU
PConv5   3 512  /2 BN ReLU
PConv6   3 512  /2 BN ReLU
PConv7   3 512  /2 BN ReLU
PConv8   3 512  /2 BN ReLU
PConv9   3 512  x2 concat 512+512 BN LeakyReLU(0.2)
PConv10  3 512  x2 concat 512+512 BN LeakyReLU(0.2)
PConv11  3 512  x2 concat 512+512 BN LeakyReLU(0.2)
PConv12  3 512  x2 concat 512+512 BN LeakyReLU(0.2)
PConv13  3 256  x2 concat 512+256 BN LeakyReLU(0.2)
PConv14  3 128  x2 concat 256+128 BN LeakyReLU(0.2)
PConv15  3  64  x2 concat 128+64 BN LeakyReLU(0.2)
PConv16  3   3  x2 concat 64+3 -  -
"""


def table(net):
    """Table 2 of the paper, read off the modules."""
    rows = []
    for i, block in enumerate([*net.encoder, *net.decoder], 1):
        conv = block.conv
        assert conv.padding == tuple(k // 2 for k in conv.kernel_size) and conv.dilation == (1, 1)
        way = f"/{conv.stride[0]}" if i <= 8 else "x2 concat {}+{}".format(*conv.branches)
        act = {0.0: "ReLU", None: "-"}.get(block.slope, f"LeakyReLU({block.slope})")
        norm = "BN" if block.norm else "- "
        rows.append(f"{f'PConv{i}':8} {conv.kernel_size[0]} {conv.out_channels:3}  {way} {norm} {act}")
    return rows


def test_the_default_net_is_table_2_row_by_row():
    assert table(PConvUNet()) == TABLE2.strip().split("\n")


def test_a_narrower_and_shallower_net_keeps_the_pattern():
    net = PConvUNet(0.25, 3)
    assert [b.conv.out_channels for b in (*net.encoder, *net.decoder)] == [16, 32, 64, 32, 16, 3]
    assert [b.conv.kernel_size[0] for b in net.encoder] == [7, 5, 5] and net.stride == 8


def test_a_block_is_convolution_batch_norm_and_relu_zero_in_the_holes():
    torch.manual_seed(0)
    net = PConvUNet(0.05, 2).eval()
    block, x, valid = net.encoder[1], torch.rand(1, 3, 16, 16), torch.zeros(1, 1, 16, 16)
    valid[..., :3, :5] = 1
    block.norm.bias.data.fill_(0.5)
    y, reached = block(x * valid, valid)
    raw, plane = block.conv(x, valid)
    torch.testing.assert_close(y, F.relu(block.norm(raw)) * plane)
    assert reached.equal(plane) and 0 < plane.mean() < 1


def test_weights_start_from_he_initialisation():
    torch.manual_seed(0)
    net = PConvUNet()
    for block, gain in ((net.encoder[3], 2.0), (net.decoder[2], 2 / (1 + 0.2**2))):
        weight = block.conv.weight
        assert weight.std().item() == pytest.approx((gain / weight[0].numel()) ** 0.5, rel=0.01)


def with_random_detail(net, depth=4):
    """A network whose refinement head is not zero, as after training."""
    net = net(0.1, depth, detail=5)
    for parameter in net.detail.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return net


@pytest.mark.parametrize("net", [PConvUNet, ConvUNet])
def test_the_refinement_head_starts_at_zero_and_adds_the_result_of_its_three_layers(net):
    torch.manual_seed(0)
    image, valid = torch.rand(2, 3, 32, 48), (torch.rand(2, 1, 32, 48) < 0.6).float()
    plain, detailed = net(0.1, 3).eval(), net(0.1, 3, detail=5).eval()
    assert detailed.load_state_dict(plain.state_dict(), strict=False).unexpected_keys == []
    torch.testing.assert_close(detailed(image, valid), plain(image, valid))

    detailed.detail = layers = with_random_detail(net, 3).detail
    seen = []
    layers.register_forward_hook(lambda module, args, out: seen.append(args))
    added = (detailed(image, valid) - plain(image, valid)) / detailed.std
    result, shown, mask = seen[0]
    torch.testing.assert_close(result * plain.std + plain.mean, plain(image, valid))
    known = valid.expand(-1, 3, -1, -1) > 0
    assert mask.equal(valid) and (shown * plain.std + plain.mean)[known].allclose(image[known], atol=1e-6)
    x = torch.cat([shown * valid + result * (1 - valid), result, valid], 1)
    for conv in (layers.first, layers.second):
        x = F.leaky_relu(F.conv2d(x, conv.weight, conv.bias, padding=1), 0.2)
    wanted = F.conv2d(x, layers.last.weight, layers.last.bias, padding=1)
    torch.testing.assert_close(added, wanted, atol=1e-5, rtol=1e-4)


def test_the_result_never_depends_on_what_is_stored_in_the_hole():
    torch.manual_seed(0)
    image, valid = torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    valid[..., 8:20, 4:30] = 0
    for net in (PConvUNet(0.1, 4), ConvUNet(0.1, 4), with_random_detail(PConvUNet), with_random_detail(ConvUNet)):
        net.eval()
        assert net(image, valid).equal(net(torch.where(valid > 0, image, torch.nan), valid))


def test_the_result_is_the_mean_colour_where_output_valid_is_0():
    valid = torch.zeros(1, 1, 64, 64)
    valid[..., 0, 0] = 1
    for net in (PConvUNet(0.1, 2), with_random_detail(PConvUNet, 2)):
        reached = net.eval().output_valid(valid)
        out = (net(torch.rand(1, 3, 64, 64), valid) - net.mean) / net.std
        assert 0 < reached.mean() < 1 and out[(reached == 0).expand(-1, 3, -1, -1)].abs().max() < 1e-6
    assert PConvUNet(0.05, 8).output_valid(valid).min() == 1  # deep enough: one valid pixel fills every mask


def test_images_are_normalised_inside_the_network():
    net = PConvUNet(0.1, 1).eval()
    last = net.decoder[-1].conv
    last.weight.data.zero_()
    last.weight.data[range(3), range(-3, 0), 1, 1] = 1  # copies the skip, where the window has no hole
    image = torch.rand(1, 3, 8, 8)
    out = net(image, torch.ones(1, 1, 8, 8))
    torch.testing.assert_close(out[..., 1:-1, 1:-1], image[..., 1:-1, 1:-1], atol=1e-5, rtol=0)


def test_the_baseline_fills_holes_with_grey_or_the_mean_colour():
    image, valid = torch.rand(1, 3, 16, 16), torch.ones(1, 1, 16, 16)
    valid[..., 4:9, 4:9] = 0
    for fill, colour in (("grey", (127.5 / 255,) * 3), ("mean", IMAGENET_MEAN)):
        net, seen = ConvUNet(0.1, 2, fill=fill).eval(), []
        net.encoder[0].register_forward_hook(lambda block, args, out, seen=seen: seen.append(args[0]))
        net(image, valid)
        wanted = (torch.tensor(colour) - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
        torch.testing.assert_close(seen[0][0, :, 5, 5], wanted)


@pytest.mark.parametrize(("part", "still"), [("encoder", [True, False]), ("all", [True, True])])
def test_frozen_batch_norms_do_not_change_in_training_and_convolutions_do(part, still):
    net = PConvUNet(0.1, 3)
    net.freeze(part)
    net.train()
    kernels = net.encoder[1].conv.weight.clone()
    before = [{k: v.clone() for k, v in b.norm.state_dict().items()} for b in (net.encoder[1], net.decoder[0])]
    optimiser = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], 0.1)
    net(torch.rand(2, 3, 16, 16), torch.ones(2, 1, 16, 16)).square().mean().backward()
    optimiser.step()
    same = [
        all(v.equal(old[k]) for k, v in b.norm.state_dict().items())
        for b, old in zip((net.encoder[1], net.decoder[0]), before, strict=True)
    ]
    assert same == still and not net.encoder[1].conv.weight.equal(kernels)


def test_freeze_refuses_other_parts():
    with pytest.raises(BadInput, match="one of encoder, all, got 'decoder'"):
        PConvUNet(0.05, 2).freeze("decoder")


def test_images_with_odd_sides_keep_their_size():
    for net in (PConvUNet(0.05, 5), with_random_detail(PConvUNet)):
        assert net.eval()(torch.rand(1, 3, 37, 51), torch.ones(1, 1, 37, 51)).shape == (1, 3, 37, 51)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_autocast_gives_finite_results(dtype):
    net, valid = PConvUNet(0.25, 5, detail=4).eval(), (torch.rand(1, 1, 64, 64) < 0.3).float()
    torch.nn.init.normal_(net.detail.last.weight, std=0.1)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad(), torch.autocast("cpu", dtype):
        out = net(image, valid)
    assert out.isfinite().all() and (out - net(image, valid)).abs().mean() < 0.05


def test_a_net_is_built_from_its_config():
    config = NetConfig(kind="conv", width=0.1, depth=2, fill="mean")
    net = build(config)
    assert isinstance(net, ConvUNet) and net.config == config
    with pytest.raises(ValueError, match="detail is a whole number, 0 to 1024, got -1"):
        build(NetConfig(detail=-1))


NAMED = {
    "kind": lambda name: NetConfig(kind=name),
    "bias": lambda name: NetConfig(bias=name),
    "fill": lambda name: NetConfig(fill=name),
    "head": lambda name: NetConfig(head=name),
    "precision": lambda name: TrainConfig(precision=name),
    "decay": lambda name: TrainConfig(decay=name),
    "freeze": lambda name: TrainConfig(freeze=name),
    "scaling": lambda name: PartialConv2d(3, 3, 3, scaling=name),
    "form": lambda name: foreign.read(Path("x.pth"), name),
    "name": features.lpips_convolutions,
}


@pytest.mark.parametrize("setting", NAMED)
@pytest.mark.parametrize("wrong", ["nonsense", "Pconv", None, 3, ["all"]])
def test_an_unknown_name_for_a_setting_is_refused(setting, wrong):
    if setting == "form" and wrong is None:
        return  # None: detected from the file
    with pytest.raises(BadInput, match=rf"{setting} is one of .*, got {re.escape(repr(wrong))}"):
        NAMED[setting](wrong)


@pytest.mark.parametrize("net", [PConvUNet, ConvUNet])
def test_the_last_layer_adds_its_bias(net):
    net = net(0.1, 2).eval()
    last = net.decoder[-1].conv
    last.weight.data.zero_()
    last.bias.data = torch.tensor([0.1, 0.2, 0.3])
    result = net(torch.rand(1, 3, 8, 8), torch.ones(1, 1, 8, 8))[0, :, 4, 4]
    wanted = torch.tensor(IMAGENET_MEAN) + torch.tensor([0.1, 0.2, 0.3]) * torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(result, wanted)
