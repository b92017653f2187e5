"""Tables in the form of LaMa's and MMagic's evaluators."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from small_run import folders

from evaluation import evaluate, metrics
from evaluation.report import forms
from maskgen.errors import BadInput

SCORES = pd.DataFrame(
    {
        "method": ["b", "b", "b", "a", "a", "a"],
        "pair": ["0", "1", "2"] * 2,
        "hole_ratio": [0.05, 0.15, 0.1] * 2,
        "lpips_vgg": [0.1, 0.2, 0.4, 0.0, 0.0, 0.0],
        "ssim_padded": [0.9, 0.8, 0.6, 1.0, 1.0, 1.0],
        "l1_hole": [1.0, 2.0, 6.0, 0.0, 0.0, 0.0],
        "psnr": [30.0, 20.0, 10.0, np.inf, 40.0, 40.0],
        "error": ["", "", "", "", "", "it crashed"],
    }
)


def set_scores(groups):
    """FID is 50 everywhere, and KID 7."""
    rows = [{"metric": "fid", "mean": 50.0}, {"metric": "kid", "mean": 7.0}]
    return pd.DataFrame(
        [{**row, "method": method, "category": group} for row in rows for method in "ab" for group in groups.values()]
    )


@pytest.mark.parametrize(
    ("ratio", "label"), [(0, "0-10%"), (0.0999, "0-10%"), (0.1, "10-20%"), (0.55, "50-60%"), (1, "90-100%")]
)
def test_lamas_bins_have_their_lower_edge(ratio, label):
    assert forms.bin_of(ratio) == label


def test_lamas_table_has_means_and_deviations_of_each_bin_and_of_all_pairs():
    table = forms.rows("lama", SCORES, set_scores)
    assert table.columns.tolist() == [
        *("method", "masks", "fid", "lpips", "lpips std", "lpips_fid100_f1", "ssim", "ssim std")
    ]
    assert table["method"].tolist() == ["b", "b", "b", "a", "a", "a"]
    assert table["masks"].tolist() == ["0-10%", "10-20%", "total"] * 2
    assert (table["fid"] == 50).all()
    assert table["lpips"][:3].tolist() == pytest.approx([0.1, 0.3, 0.7 / 3])
    assert table["lpips std"][1] == pytest.approx(0.1)  # of 0.2 and 0.4, divided by n
    assert table["ssim"][:3].tolist() == pytest.approx([0.9, 0.7, 2.3 / 3])


def test_lamas_f1_is_the_harmonic_mean_of_what_lpips_and_fid_leave():
    table = forms.rows("lama", SCORES, set_scores)
    assert np.isnan(table["lpips_fid100_f1"][0])
    assert table["lpips_fid100_f1"][5] == pytest.approx(2 * 1 * 0.5 / (1 + 0.5 + 0.001))
    assert forms.f1(0.2, 150) == 0


def test_columns_that_were_not_computed_are_left_out():
    table = forms.rows("lama", SCORES.drop(columns="lpips_vgg"), set_scores)
    assert table.columns.tolist() == ["method", "masks", "fid", "ssim", "ssim std"]


def test_mmagics_table_has_one_row_a_method_and_keeps_infinity():
    table = forms.rows("mmagic", SCORES, set_scores)
    assert table.columns.tolist() == ["method", "l1 error", "PSNR"]
    assert table.to_numpy().tolist() == [["b", 3, 20], ["a", 0, np.inf]]
    lines = forms.text("mmagic", table, "composited images").splitlines()
    assert lines[0].startswith("as MMagic prints") and lines[0].endswith("composited images")
    assert lines[2].split() == ["b", "3.000", "20.000"]


def test_metrics_that_the_form_does_not_show_are_refused():
    forms.check("lama", ("psnr", "ssim_padded"))
    with pytest.raises(BadInput, match=r"^--like mmagic shows l1_hole, psnr, ssim: leave --metric out, or"):
        forms.check("mmagic", ("lpips",))
    with pytest.raises(BadInput, match=r"^no form 'lame': expected lama or mmagic$"):
        evaluate(["telea"], like="lame")


def test_like_chooses_the_metrics_and_writes_the_table(tmp_path):
    images, masks = folders(tmp_path)
    result = evaluate({"grey": "grey"}, images, masks, size=64, like="mmagic", out=tmp_path / "out", workers=1)
    table = pd.read_csv(tmp_path / "out" / "like-mmagic.csv")
    means = result.scores[["l1_hole", "psnr", "ssim"]].mean()
    assert table.loc[0, ["l1 error", "PSNR", "SSIM"]].tolist() == pytest.approx(means.tolist())
    assert f"{means['psnr']:.3f}" in str(result)


def test_fid_is_computed_for_lamas_bins(tmp_path, monkeypatch):
    monkeypatch.setitem(metrics.VECTORS, "inception", lambda image: np.array([image.mean()]))
    bare = replace(metrics.SETS["fid"], function=lambda results, truths: len(results), needs=(), weights=None)
    for registry in (metrics.SETS, metrics.ALL):
        monkeypatch.setitem(registry, "fid", bare)
    images, masks = folders(tmp_path, ratios=(0.02, 0.06, 0.15))
    result = evaluate(
        {"same": "grey"}, images, masks, size=64, like="lama", metrics=["fid"], out=tmp_path / "out", workers=1
    )
    table = pd.read_csv(tmp_path / "out" / "like-lama.csv")
    assert table["masks"].tolist() == ["0-10%", "10-20%", "total"]
    assert table["fid"].tolist() == [4, 2, 6]  # pairs
    assert result.table["mean"].tolist() == [4, 2]  # of the two classes, as in any run
