"""What a model learns to predict from text."""
