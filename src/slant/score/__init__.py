"""Scoring: label logits, probabilities, predictions."""
