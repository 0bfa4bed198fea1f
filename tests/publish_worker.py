"""Publishes to a store; to S3 in parts of a size.

python publish_worker.py BUNDLE TO PART_BYTES [ALIAS…]
"""

from __future__ import annotations

import sys

from slant.progress import SilentProgress
from slant.publish.object_store import publish_to_store
from slant.publish.release import Release
from slant.publish.s3_store import S3Store

if __name__ == "__main__":
    bundle, to, part_bytes, *aliases = sys.argv[1:]
    publish_to_store(
        Release.of(bundle),
        to,
        dry_run=False,
        aliases=aliases,
        progress=SilentProgress(),
        store=S3Store(to, part_bytes=int(part_bytes)) if to.startswith("s3://") else None,
    )
