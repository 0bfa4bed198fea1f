"""Rows of JSONL, CSV, TSV and Parquet files, in and out."""
