"""The task contract: prompt, label words, token ids. Knows text and ids, no tensors."""
