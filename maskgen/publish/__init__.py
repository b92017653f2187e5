"""Publish a mask set, or mask sequences, as a dataset: a folder for Hugging Face, archives, documents and checksums."""

from maskgen.publish.run import publish, publish_nvidia

__all__ = ["publish", "publish_nvidia"]
