import numpy as np
import pandas as pd
import pytest

from evaluation.report import statistics
from evaluation.settings import ReportConfig

CONFIG = ReportConfig()


def scores(**methods):
    """One class, one pair for an image; the PSNR of each method."""
    rows = [
        {"method": name, "pair": f"{i}", "category": "free_0.1-0.2", "image": f"{i}.png", "psnr": value, "error": ""}
        for name, values in methods.items()
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_equal_values_have_an_interval_without_width():
    assert statistics.interval([3.0] * 5, list("abcde"), CONFIG, 0) == (3, 3, 3)


def test_the_interval_is_about_two_standard_errors_wide():
    values = np.random.default_rng(0).normal(10, 2, 400)
    mean, low, high = statistics.interval(values, range(400), CONFIG, 0)
    assert mean == pytest.approx(values.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * 2 / np.sqrt(400), rel=0.1)


def test_pairs_of_one_image_are_not_independent():
    values = np.random.default_rng(0).normal(10, 2, 100)
    once = statistics.interval(values, range(100), CONFIG, 0)
    often = statistics.interval(values.repeat(9), np.arange(100).repeat(9), CONFIG, 0)
    assert often == pytest.approx(once)


def test_one_image_has_no_interval():
    mean, low, high = statistics.interval([1.0, 2.0], ["a", "a"], CONFIG, 0)
    assert mean == 1.5 and np.isnan([low, high]).all()


def test_an_identical_result_does_not_poison_the_mean():
    row = statistics.summary(scores(copy=[20.0, np.inf, 30.0]), CONFIG, 0).iloc[0]
    assert (row["mean"], row["n"], row["identical"], row["failed"]) == (25, 2, 1, 0)


def test_failed_pairs_are_counted_and_in_no_mean():
    table = scores(odd=[20.0, np.nan])
    table.loc[1, "error"] = "no result within 5 s"
    row = statistics.summary(table, CONFIG, 0).iloc[0]
    assert (row["mean"], row["n"], row["identical"], row["failed"]) == (20, 1, 0, 1)


def test_holm_multiplies_the_smallest_p_by_the_number_of_tests():
    corrected = statistics.holm(pd.Series([0.01, 0.04, 0.03, np.nan]))
    assert corrected[:3].tolist() == pytest.approx([0.03, 0.06, 0.06])  # 3 x 0.01, max(2 x 0.03, 1 x 0.04)
    assert np.isnan(corrected[3])


def test_six_images_that_agree_have_p_one_in_thirty_two():
    row = statistics.comparisons(scores(a=[2, 3, 4, 5, 6, 7.5], b=[1, 1, 1, 1, 1, 1])).iloc[0]
    assert row["p"] == pytest.approx(2 / 2**6)  # of the 64 signs, all plus or all minus
    assert (row["n"], row["difference"]) == (6, pytest.approx(np.mean([1, 2, 3, 4, 5, 6.5])))


def test_equal_methods_do_not_differ_and_few_images_tell_nothing():
    assert statistics.comparisons(scores(a=[1.0] * 6, b=[1.0] * 6)).iloc[0]["p"] == 1
    assert np.isnan(statistics.comparisons(scores(a=[1.0] * 5, b=[2.0] * 5)).iloc[0]["p"])


def test_the_best_is_marked_and_what_cannot_be_told_from_it():
    rng = np.random.default_rng(0)
    base = rng.normal(25, 3, 40)
    noise = rng.normal(0, 1, 40)
    table = scores(best=base, near=base - 0.02 + noise - noise.mean(), far=base - 2 + rng.normal(0, 0.1, 40))
    marked = statistics.best(statistics.summary(table, CONFIG, 0), statistics.comparisons(table), 0.05)
    marked = marked.set_index("method")
    assert marked["best"].tolist() == [True, False, False]
    assert marked["tied"].to_dict() == {"best": False, "near": True, "far": False}


def test_means_that_print_alike_are_both_best():
    table = scores(a=[20.001] * 6, b=[20.002] * 6)
    marked = statistics.best(statistics.summary(table, CONFIG, 0), statistics.comparisons(table), 0.05)
    assert marked["best"].all()


def test_lower_is_better_where_the_metric_says_so():
    table = scores(a=[1.0] * 6, b=[2.0] * 6).rename(columns={"psnr": "l1_image"})
    marked = statistics.best(statistics.summary(table, CONFIG, 0), statistics.comparisons(table), 0.05)
    assert marked.set_index("method")["best"].to_dict() == {"a": True, "b": False}
