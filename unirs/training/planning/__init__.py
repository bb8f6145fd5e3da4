"""Time, memory and disk of a training or benchmark, estimated from a few measured batches."""
