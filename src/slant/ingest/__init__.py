"""Input files to documents, narratives and examples in splits."""

from slant.ingest.stage import ingest_recipe, run_ingest

__all__ = ["ingest_recipe", "run_ingest"]
