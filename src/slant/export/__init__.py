"""Export: Hugging Face folders, the model card, and the proof that they are what was trained."""
