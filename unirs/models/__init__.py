"""The model, its components, and how they are built, saved, loaded and imported."""
