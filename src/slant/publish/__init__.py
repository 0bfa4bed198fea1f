"""Publishing: a proven bundle goes to an object store, the Hugging Face Hub or an MLflow registry,
and comes back as it went."""
