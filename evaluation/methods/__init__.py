"""Inpainting methods: `registry` lists and loads them, each family has a module, `process` runs one of them."""

from evaluation.methods.classical import METHODS
from evaluation.methods.errors import Failed
from evaluation.methods.registry import Method, load, parse, parse_all

__all__ = ["METHODS", "Failed", "Method", "load", "parse", "parse_all"]
