"""Training: a recipe in, a model folder out; stopped at any step, it goes on as if it had not."""
