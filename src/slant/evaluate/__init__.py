"""Evaluation: metrics, baselines, calibration, latency, the report."""
