"""Image-text pairs into a grounded data set: the GRIT pipeline."""
