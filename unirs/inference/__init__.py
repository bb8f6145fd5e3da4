"""Inference: generation, choice scoring, the Python API, and Hugging Face models."""
