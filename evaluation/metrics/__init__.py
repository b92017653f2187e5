"""Metrics: one module a family (`pixel`, `perceptual`, `classifier`, `inception`), and the `table` that lists them."""

from evaluation.metrics.table import (
    ALL,
    METRICS,
    SETS,
    VECTORS,
    check,
    identity,
    libraries,
    score,
    use_one_thread,
    vector,
    vectors,
)

__all__ = [
    "ALL",
    "METRICS",
    "SETS",
    "VECTORS",
    "check",
    "identity",
    "libraries",
    "score",
    "use_one_thread",
    "vector",
    "vectors",
]
