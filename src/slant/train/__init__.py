"""Shards, domain adaptation and tuning: the stages that lead to a tuned checkpoint."""
