"""A mask set as others expect a data set: a folder that loads as it stands, archives, papers, checksums."""

from maskgen.publish.run import publish, publish_nvidia

__all__ = ["publish", "publish_nvidia"]
