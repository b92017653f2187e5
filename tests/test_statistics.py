import numpy as np
import pandas as pd
import pytest
from scipy import stats

from evaluation.report import statistics
from evaluation.settings import ReportConfig

CONFIG = ReportConfig()


def scores(**methods):
    """One class, one pair for each image; the PSNR of each method."""
    rows = [
        {"method": name, "pair": f"{i}", "category": "free_0.1-0.2", "image": f"{i}.png", "psnr": value, "error": ""}
        for name, values in methods.items()
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def marked(table):
    """{method: (best, tied)} of one class."""
    found = statistics.mark_best(statistics.summary(table, CONFIG, 0), statistics.comparisons(table), CONFIG.alpha)
    return {row["method"]: (row["best"], row["tied"]) for row in found.to_dict("records")}


# Intervals


def test_equal_values_have_an_interval_without_width():
    assert statistics.interval([3.0] * 5, list("abcde"), CONFIG, 0) == (3, 3, 3)


def test_the_interval_is_about_two_standard_errors_wide():
    values = np.random.default_rng(0).normal(10, 2, 400)
    mean, low, high = statistics.interval(values, range(400), CONFIG, 0)
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * 2 / np.sqrt(400), rel=0.1)


@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_the_interval_is_that_of_scipys_percentile_bootstrap(confidence):
    values = np.random.default_rng(1).exponential(4, 30)
    _, low, high = statistics.interval(values, range(30), ReportConfig(resamples=20000, confidence=confidence), 0)
    options = {"method": "percentile", "n_resamples": 20000, "confidence_level": confidence}
    scipys = stats.bootstrap((values,), np.mean, rng=np.random.default_rng(2), **options).confidence_interval
    assert (low, high) == pytest.approx(tuple(scipys), abs=0.03 * (scipys.high - scipys.low))


def test_an_image_with_three_pairs_counts_three_times_in_a_sample():
    # Samples of the images a (0) and b (1, 1, 1): aa has mean 0, ab and ba have 3/4, bb has 1. Each has chance 1/4.
    config = ReportConfig(confidence=0.4)
    assert statistics.interval([0, 1, 1, 1], list("abbb"), config, 0) == pytest.approx((0.75, 0.75, 0.75))
    assert statistics.interval([0, 1, 1, 1], list("abbb"), CONFIG, 0) == pytest.approx((0.75, 0, 1))


def test_pairs_of_one_image_are_not_independent():
    values = np.random.default_rng(0).normal(10, 2, 100)
    once = statistics.interval(values, range(100), CONFIG, 0)
    often = statistics.interval(values.repeat(9), np.arange(100).repeat(9), CONFIG, 0)
    assert often == pytest.approx(once)


def test_one_image_has_no_interval():
    mean, low, high = statistics.interval([1.0, 2.0], ["a", "a"], CONFIG, 0)
    assert mean == 1.5 and np.isnan([low, high]).all()


def test_the_seed_and_the_class_draw_the_samples():
    values = np.random.default_rng(0).normal(10, 2, 20)
    table = scores(a=values, b=values)
    other = table.assign(category="free_0.2-0.3")
    first = statistics.summary(pd.concat([table, other]), CONFIG, 0).groupby("category")["low"].unique()
    assert [len(lows) for lows in first] == [1, 1] and first.iloc[0] != first.iloc[1]
    assert statistics.summary(table, CONFIG, 1)["low"].iloc[0] != first["free_0.1-0.2"][0]


# Summaries


def test_an_identical_result_does_not_poison_the_mean():
    row = statistics.summary(scores(copy=[20.0, np.inf, 30.0]), CONFIG, 0).iloc[0]
    assert (row["mean"], row["n"], row["identical"], row["failed"]) == (25, 2, 1, 0)


def test_failed_pairs_are_counted_and_in_no_mean():
    table = scores(odd=[20.0, np.nan])
    table.loc[1, "error"] = "no result within 5 s"
    row = statistics.summary(table, CONFIG, 0).iloc[0]
    assert (row["mean"], row["n"], row["identical"], row["failed"]) == (20, 1, 0, 1)


# Tests


@pytest.mark.parametrize(
    ("p", "corrected"),
    [
        ([0.01, 0.04, 0.03, np.nan], [0.03, 0.06, 0.06, np.nan]),  # 3 x 0.01, max(2 x 0.03, 1 x 0.04)
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),  # 4 x 0.005, 3 x 0.01, 2 x 0.03, 1 x 0.04
        ([0.9, 0.4], [0.9, 0.8]),
        ([0.7, 0.6], [1, 1]),
        ([np.nan], [np.nan]),
    ],
)
def test_holm_multiplies_sorted_p_values_by_the_number_of_those_left(p, corrected):
    assert statistics.holm(pd.Series(p)).tolist() == pytest.approx(corrected, nan_ok=True)


def test_six_images_that_agree_have_p_one_in_thirty_two():
    row = statistics.comparisons(scores(a=[2, 3, 4, 5, 6, 7.5], b=[1, 1, 1, 1, 1, 1])).iloc[0]
    assert row["p"] == pytest.approx(2 / 2**6)  # of the 64 signs, all plus or all minus
    assert (row["n"], row["difference"]) == (6, pytest.approx(np.mean([1, 2, 3, 4, 5, 6.5])))


def test_p_is_that_of_wilcoxons_test_on_the_means_of_images():
    rng = np.random.default_rng(0)
    once = scores(a=rng.normal(1, 1, 12), b=rng.normal(0, 1, 12))
    twice = once.assign(pair=once["pair"] + "x", psnr=once["psnr"] + rng.normal(0, 1, 24))
    table = pd.concat([once, twice])
    row = statistics.comparisons(table).iloc[0]
    means = table.groupby(["method", "image"])["psnr"].mean()
    assert (row["method"], row["other"], row["n"]) == ("a", "b", 12)
    assert row["p"] == pytest.approx(stats.wilcoxon(means["a"], means["b"]).pvalue)
    assert row["difference"] == pytest.approx(means["a"].mean() - means["b"].mean())


def test_images_that_only_one_method_scored_are_not_compared():
    table = scores(a=[2, 3, 4, 5, 6, 7.5, np.inf, 9], b=[1, 1, 1, 1, 1, 1, 1, np.nan])
    row = statistics.comparisons(table).iloc[0]
    assert (row["n"], row["difference"]) == (6, pytest.approx(np.mean([1, 2, 3, 4, 5, 6.5])))


def test_each_metric_is_corrected_for_its_own_comparisons():
    table = scores(a=[2, 3, 4, 5, 6, 7.5], b=[1, 1, 1, 1, 1, 1], c=[1, 2, 1, 0, 1, 1])
    table = table.assign(l1_image=-table["psnr"])
    found = statistics.comparisons(table).set_index(["metric", "method", "other"])
    for metric in ("psnr", "l1_image"):
        assert found.loc[(metric, "a", "b"), "p_holm"] == pytest.approx(3 * 2 / 2**6)
    assert len(found) == 6


def test_equal_methods_do_not_differ_and_five_images_are_too_few():
    assert statistics.comparisons(scores(a=[1.0] * 6, b=[1.0] * 6)).iloc[0]["p"] == 1
    assert np.isnan(statistics.comparisons(scores(a=[1.0] * 5, b=[2.0] * 5)).iloc[0]["p"])


# Marks


def test_the_best_is_marked_and_what_does_not_differ_significantly():
    rng = np.random.default_rng(0)
    base = rng.normal(25, 3, 40)
    noise = rng.normal(0, 1, 40)
    table = scores(far=base - 2 + rng.normal(0, 0.1, 40), best=base, near=base - 0.02 + noise - noise.mean())
    assert marked(table) == {"far": (False, False), "best": (True, False), "near": (False, True)}


def test_a_difference_is_significant_below_alpha_only():
    summary = pd.DataFrame({"metric": "psnr", "method": ["a", "b"], "category": "x", "mean": [2.0, 1.0]})
    for p, tied in ((0.05, True), (0.0499, False), (np.nan, True)):
        tests = pd.DataFrame([{"metric": "psnr", "category": "x", "method": "b", "other": "a", "p": 0.01}])
        tests["p_holm"] = p
        assert statistics.mark_best(summary, tests, 0.05)["tied"].tolist() == [False, tied]


def test_a_test_counts_for_its_own_class_and_metric():
    rows = [(m, c, method, 2.0 - i) for m in ("psnr", "ssim") for c in "xy" for i, method in enumerate("ab")]
    summary = pd.DataFrame(rows, columns=["metric", "category", "method", "mean"])
    tests = pd.DataFrame([{"metric": "psnr", "category": "y", "method": "a", "other": "b", "p_holm": 0.01}])
    found = statistics.mark_best(summary, tests, 0.05)
    assert found.loc[~found["best"], "tied"].tolist() == [True, False, True, True]


def test_means_that_print_alike_are_all_best():
    assert marked(scores(a=[20.001] * 12, b=[20.002] * 12, c=[19.0] * 12)) == {
        "a": (True, False),
        "b": (True, False),
        "c": (False, False),
    }
    assert marked(scores(a=[20.001] * 6, b=[20.012] * 6))["a"] == (False, False)  # 20.00 and 20.01


@pytest.mark.parametrize("order", ["abc", "bac", "cba"])
def test_a_method_is_tied_if_it_does_not_differ_from_one_of_two_winners(order):
    means = {"a": 20.0, "b": 20.001, "c": 19.9}
    rows = [("psnr", "x", method, means[method]) for method in order]
    summary = pd.DataFrame(rows, columns=["metric", "category", "method", "mean"])
    tests = pd.DataFrame([{"metric": "psnr", "category": "x", "method": "c", "other": "a", "p_holm": 0.01}])
    found = statistics.mark_best(summary, tests, 0.05).set_index("method")
    assert found["best"].to_dict() == {"a": True, "b": True, "c": False} and found.loc["c", "tied"]
    both = pd.concat([tests, tests.assign(other="b")])
    assert not statistics.mark_best(summary, both, 0.05)["tied"].any()


def test_a_class_without_means_has_no_best():
    summary = pd.DataFrame({"metric": "psnr", "method": ["a", "b"], "category": "x", "mean": [np.nan, np.nan]})
    found = statistics.mark_best(summary, statistics.comparisons(scores(a=[1.0])), 0.05)
    assert not found[["best", "tied"]].any(axis=None)
    half = statistics.mark_best(summary.assign(mean=[np.nan, 3]), statistics.comparisons(scores(a=[1.0])), 0.05)
    assert half[["best", "tied"]].to_numpy().tolist() == [[False, False], [True, False]]


def test_lower_is_better_where_the_metric_says_so():
    table = scores(a=[1.0] * 6, b=[2.0] * 6).rename(columns={"psnr": "l1_image"})
    assert marked(table) == {"a": (True, False), "b": (False, False)}


def test_a_cell_of_the_table_does_not_depend_on_the_other_cells():
    rng = np.random.default_rng(0)
    rows = [
        {"method": method, "pair": f"{category}{i}", "category": category, "image": f"{i % 7}.jpg", "error": ""}
        for method in "ab"
        for category, number in (("free_0.1-0.2", 9), ("free_0.2-0.3", 12))
        for i in range(number)
    ]
    scores = pd.DataFrame(rows).assign(l1_image=rng.random(len(rows)), psnr=rng.random(len(rows)))
    table = statistics.summary(scores, ReportConfig(), 3)
    assert len(table) == 8
    for cell in table.itertuples():
        alone = scores[(scores["method"] == cell.method) & (scores["category"] == cell.category)]
        own = statistics.summary(alone[["method", "category", "image", "error", cell.metric]], ReportConfig(), 3)
        assert own.to_dict("records") == [table.loc[cell.Index].to_dict()]
