"""A language model behind an OpenAI-compatible endpoint, asked as a baseline."""
