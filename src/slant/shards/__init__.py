"""MDS shards: bytes, files, order and packing."""
