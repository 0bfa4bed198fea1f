"""Base models, adapters and the label head."""
