"""Files, hashing and text tables."""
