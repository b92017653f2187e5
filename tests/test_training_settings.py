import math
import re
import tomllib
from dataclasses import asdict, fields, replace
from pathlib import Path

import pytest

from maskgen.errors import BadInput
from pconv_model.config import find_config, read_config, recipe_names
from pconv_model.schedule import Stage, learning_rate, stages
from pconv_model.settings import LossConfig, NetConfig, Settings, TrainConfig

SHORT = TrainConfig(phase1_steps=6, phase2_steps=3, size=(16, 32), batch=(4, 2))
WRONG = [
    (NetConfig, "kind", "gated", "one of pconv, conv"),
    (NetConfig, "width", 0, "a number, above 0 and 16 at most"),
    (NetConfig, "depth", 17, "a whole number, 1 to 16"),
    (NetConfig, "detail", -1, "a whole number, 0 to 1024"),
    (NetConfig, "bias", "none", "one of ends, all"),
    (NetConfig, "eps", 0, "a number, above 0"),
    (NetConfig, "mean", (0.5,), "3 to 3 values"),
    (NetConfig, "std", (0.2, 0.2, 0), "3 to 3 values, each a number, above 0"),
    (NetConfig, "fill", "black", "one of grey, mean"),
    (NetConfig, "head", "tanh", "one of none, sigmoid"),
    *((LossConfig, field.name, -1, "a number, ") for field in fields(LossConfig)),
    (LossConfig, "span", 0, "a number, above 0"),
    (LossConfig, "style", math.nan, "a number, 0 or more"),
    (TrainConfig, "phase1_steps", -1, "a whole number, 0 or more"),
    (TrainConfig, "phase2_steps", 0.5, "a whole number, 0 or more"),
    (TrainConfig, "first_step", -1, "a whole number, 0 or more"),
    (TrainConfig, "freeze", "decoder", "one of encoder, all"),
    (TrainConfig, "lr", (), "1 to 2 values"),
    (TrainConfig, "lr", (1, 2, 3), "1 to 2 values"),
    (TrainConfig, "lr", (-1e-3,), "each a number, 0 or more"),
    (TrainConfig, "decay", "linear", "one of constant, cosine"),
    (TrainConfig, "size", (), "1 or more values"),
    (TrainConfig, "size", 256, "1 or more values, each a whole number, 1 to 16384"),
    (TrainConfig, "batch", (0,), "each a whole number, 1 or more"),
    (TrainConfig, "switch", (-1,), "0 or more values, each a whole number, 0 or more"),
    (TrainConfig, "accumulate", 0, "a whole number, 1 or more"),
    (TrainConfig, "vgg_window", 7, "0, or a whole number from 8 px up"),
    (TrainConfig, "vgg_window", -8, "0, or a whole number from 8 px up"),
    (TrainConfig, "ema", 1.5, "a number, 0 to 1"),
    (TrainConfig, "clip", 0, "a number, above 0"),
    (TrainConfig, "precision", "fp16", "one of fp32, bf16"),
    (TrainConfig, "factor", 0, "a whole number, 1 or more"),
    (TrainConfig, "ratio", (0.6, 0.01), "two numbers, the smaller one first"),
    (TrainConfig, "uniform", 1, "True or False"),
    *(
        (TrainConfig, name, pair, "two numbers, the smaller one first, above 0 and 1 at most")
        for name in ("scale", "mask_scale")
        for pair in ((0.5, 1.5), (0.8, 0.4), (0.0, 1.0), (0.5,), (0.2, 0.3, 0.4))
    ),
    (NetConfig, "blocks", -1, "a whole number, 0 to 64"),
    (NetConfig, "factor", 0, "a whole number, 1 to 64"),
    (TrainConfig, "flip", "no", "True or False"),
    (TrainConfig, "colour", -0.5, "a number, 0 to 1"),
    (TrainConfig, "grey", 1.5, "a number, 0 to 1"),
    (TrainConfig, "photo_weights", (("cats*",),), "pairs of a pattern and a factor"),
    (TrainConfig, "photo_weights", (("cats*", -1),), "pairs of a pattern and a factor"),
    (TrainConfig, "photo_weights", "cats*", "pairs of a pattern and a factor"),
    (TrainConfig, "hold_out", 1.5, "a number, 0 to 1"),
    (TrainConfig, "validation", 0, "a whole number, 1 or more"),
    (TrainConfig, "seed", -1, "a whole number, 0 or more"),
]


@pytest.mark.parametrize(("kind", "name", "value", "allowed"), WRONG)
def test_a_setting_that_makes_no_sense_is_refused_by_name(kind, name, value, allowed):
    with pytest.raises(BadInput, match=f"^{name} is .*{re.escape(allowed)}.*, got {re.escape(repr(value))}$"):
        replace(kind(), **{name: value})


@pytest.mark.parametrize("kind", [NetConfig, LossConfig, TrainConfig])
def test_every_setting_has_a_rule(kind):
    assert {name for checked, name, *_ in WRONG if checked is kind} == {field.name for field in fields(kind)}


def test_sizes_that_the_factor_does_not_divide_are_refused():
    with pytest.raises(BadInput, match="each size is a multiple of factor = 4, got 16, 30"):
        TrainConfig(factor=4, size=(16, 30))


def test_the_defaults_are_the_settings_of_the_paper():
    # Section 3.3: Ltotal = Lvalid + 6 Lhole + 0.05 Lperceptual + 120 (Lstyle_out + Lstyle_comp) + 0.1 Ltv.
    loss = LossConfig()
    assert (loss.valid, loss.hole, loss.perceptual, loss.style, loss.tv) == (1, 6, 0.05, 120, 0.1)
    # Section 4.2: learning rate 0.0002, then 0.00005 with batch norm of the encoder frozen; batch size 6; 512x512.
    config = TrainConfig()
    assert (config.lr, config.freeze, config.batch, config.size) == ((0.0002, 0.00005), "encoder", (6,), (512,))
    # Everything that is not in the paper is off.
    ours = (loss.ssim, loss.near, loss.checkerboard, loss.smooth, loss.balance, loss.balance_vgg, NetConfig().detail)
    assert not any(ours) and config.mask_scale == (1, 1) and not config.vgg_window


def write(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    return path


def test_a_settings_file_replaces_the_defaults_that_it_names(tmp_path):
    text = """
    [net]
    width = 1        # a whole number is taken for a float
    [loss]
    near = 10
    [train]
    size = [128, 256]
    lr = [1, 5e-5]
    uniform = true
    photo_weights = [["clothing*", 0.3], ["sky*", 2]]
    """
    settings = read_config(write(tmp_path, text))
    assert settings.net == NetConfig() and isinstance(settings.net.width, float)
    assert settings.loss == LossConfig(near=10.0)
    weights = (("clothing*", 0.3), ("sky*", 2))
    assert settings.train == TrainConfig(size=(128, 256), lr=(1.0, 5e-5), uniform=True, photo_weights=weights)
    assert isinstance(settings.train.lr[0], float)


def test_an_empty_settings_file_means_the_defaults(tmp_path):
    assert read_config(write(tmp_path, "")) == Settings()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[train]\nsise = [16]",
            r"\[train\] has no key 'sise' \(did you mean size\?\); expected one of phase1_steps, ",
        ),
        ("[train]\nnear = 1", r"\[train\] has no key 'near' \(it belongs in \[loss\]\); expected one of "),
        ("[loss]\nxyz = 1", r"\[loss\] has no key 'xyz'; expected one of valid, hole, .* balance_vgg, span$"),
        (
            "[trian]\nseed = 1",
            r"unknown table or key 'trian' \(did you mean train\?\); .* \[net\], \[loss\], \[train\]$",
        ),
        ("seed = 1", r"unknown table or key 'seed' \(it belongs in \[train\]\); expected the tables \[net\]"),
        ("net = 1", r"net is a table of settings, got 1; write \[net\] above its keys$"),
        ("[train]\nsize = 256", r"\[train\] size is 1 or more values, each a whole number, 1 to 16384, got 256$"),
        ("[train]\nfreeze = 'al'", r"\[train\] freeze is one of encoder, all, got 'al'$"),
        ("[loss]\nnear = true", r"\[loss\] near is a number, 0 or more, got True$"),
        ("[loss]\nnear = 'ten'", r"\[loss\] near is a number, 0 or more, got 'ten'$"),
        ("[loss]\nnear = nan", r"\[loss\] near is a number, 0 or more, got nan$"),
        ("[train", r"is not a TOML file that can be read: "),
    ],
)
def test_a_mistake_in_a_settings_file_is_one_line_that_names_file_and_key(tmp_path, text, message):
    with pytest.raises(BadInput, match=rf"^{re.escape(str(tmp_path / 'mine.toml'))}:? ?{message}") as refused:
        read_config(write(tmp_path, text))
    assert "\n" not in str(refused.value)


def test_a_settings_file_that_is_not_text_is_refused(tmp_path):
    (tmp_path / "mine.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadInput, match=r"mine\.toml is not a TOML file"):
        read_config(tmp_path / "mine.toml")


def test_a_settings_file_is_found_by_its_path_and_a_recipe_by_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, "")
    assert find_config(str(path)) == path and find_config("mine.toml").samefile(path)
    assert find_config("leg07").name == "leg07.toml"
    with pytest.raises(
        BadInput, match=r"no settings file 'leg7' \(did you mean leg07\?\); .* one of leg01, .*, leg12, x4$"
    ):
        find_config("leg7")


def test_the_recipes_that_ship_are_those_of_the_twelve_legs():
    names = [f"leg{number:02d}" for number in range(1, 13)]
    assert recipe_names() == [*names, "x4"]
    legs = [read_config(find_config(name)) for name in names]
    steps = [leg.train.phase1_steps + leg.train.phase2_steps - leg.train.first_step for leg in legs]
    # The steps of the card; leg 2 counts from the beginning of leg 1.
    assert steps == [4699, 8287 - 4699, 2200, 2911, 800, 2800, 8200, 3000, 5400, 500, 5300, 1800]
    assert all(leg.net.width == 0.5 for leg in legs) and [leg.net.detail for leg in legs] == [0] * 3 + [12] * 9
    assert all(stages(leg.train) for leg in legs)


def test_leg_2_has_the_settings_of_the_card():
    leg = read_config(find_config("leg02"))
    assert leg.net == NetConfig(width=0.5)
    assert leg.loss == LossConfig(perceptual=0, style=0, ssim=0.5, balance=0.5)
    assert leg.train == TrainConfig(
        phase1_steps=8287,
        phase2_steps=0,
        first_step=4699,
        lr=(1e-3, 6e-5),
        decay="cosine",
        size=(128, 256, 512),
        batch=(16, 8, 2),
        switch=(3000, 7600),
        uniform=True,
        mask_scale=(0.35, 1),
        scale=(0.25, 1),
        grey=0.1,
        photo_weights=(("clothing*", 0.3),),
        validation=30,
    )


def test_leg_12_has_the_settings_of_the_card():
    leg = read_config(find_config("leg12"))
    assert leg.net == NetConfig(width=0.5, detail=12)
    assert leg.loss == LossConfig(
        perceptual=0.15, style=20, ssim=10, near=10, checkerboard=5, smooth=6, balance=0.8, balance_vgg=0.6
    )
    assert leg.train == TrainConfig(
        phase1_steps=0,
        phase2_steps=1800,
        freeze="all",
        lr=(3e-4, 3e-4),
        decay="cosine",
        batch=(1,),
        vgg_window=128,
        uniform=True,
        mask_scale=(0.15, 1),
        scale=(0.2, 1),
        grey=0.25,
        photo_weights=(("clothing*", 0.3), ("gradient*", 0.6)),
        validation=30,
        seed=15,
    )


def test_stages_divide_phase_1_into_equal_parts():
    assert stages(SHORT) == [Stage(0, 3, 16, 4, 1), Stage(3, 6, 32, 2, 1), Stage(6, 9, 32, 2, 2)]


def test_switches_say_where_stages_start_and_one_batch_is_used_for_all_sizes():
    config = TrainConfig(phase1_steps=10, phase2_steps=0, size=(8, 16, 32), batch=(5,), switch=(4, 4))
    assert stages(config) == [Stage(0, 4, 8, 5, 1), Stage(4, 10, 32, 5, 1)]  # the middle stage is empty


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"batch": (1, 2, 3)}, r"2 sizes need 2 batches \(or one for all\) and 1 switches, got 3 and 1"),
        ({"switch": (1, 2)}, "got 2 and 2"),
        ({"switch": (7,)}, "switches rise from 0 to the 6 steps of phase 1, got 7"),
        ({"phase1_steps": 0, "phase2_steps": 0}, "at least one step"),
    ],
)
def test_a_schedule_that_does_not_fit_together_is_refused(wrong, message):
    with pytest.raises(BadInput, match=message):
        stages(replace(SHORT, **wrong))


def test_switches_that_fall_are_refused():
    with pytest.raises(BadInput, match="switches rise from 0 to the 6 steps of phase 1, got 4, 2"):
        stages(replace(SHORT, size=(8, 16, 32), batch=(1,), switch=(4, 2)))


def test_a_constant_learning_rate_changes_with_the_phase():
    assert [learning_rate(SHORT, step) for step in (0, 5, 6, 8)] == [2e-4, 2e-4, 5e-5, 5e-5]
    assert [learning_rate(replace(SHORT, lr=(0.5,)), step) for step in (0, 5, 6, 8)] == [0.5] * 4


def test_a_cosine_falls_from_the_first_rate_to_the_second_and_then_to_zero():
    config = replace(SHORT, decay="cosine", lr=(4e-4, 2e-4), phase1_steps=6, phase2_steps=3)
    # cos(pi / 3) = 1/2, so after a third of a phase a quarter of the way is done, after two thirds three quarters.
    assert [learning_rate(config, step) for step in (0, 2, 3, 4)] == pytest.approx([4e-4, 3.5e-4, 3e-4, 2.5e-4])
    assert [learning_rate(config, step) for step in (6, 7, 8)] == pytest.approx([2e-4, 1.5e-4, 0.5e-4])


def test_the_example_in_the_docs_is_complete_and_shows_the_defaults(tmp_path):
    page = (Path(__file__).parents[1] / "docs" / "pconv.md").read_text()
    example = page.split("```toml\n")[1].split("```")[0]
    assert read_config(write(tmp_path, example)) == Settings()
    keys = {name: list(table) for name, table in tomllib.loads(example).items()}
    assert keys == {name: list(group) for name, group in asdict(Settings()).items()}


def test_the_smallest_window_of_vgg_is_allowed():
    assert [TrainConfig(vgg_window=side).vgg_window for side in (0, 8)] == [0, 8]
