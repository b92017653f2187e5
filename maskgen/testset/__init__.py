"""The test set: twelve classes by hole ratio and border distance, made from raw masks."""

from maskgen.testset.run import make_testset

__all__ = ["make_testset"]
