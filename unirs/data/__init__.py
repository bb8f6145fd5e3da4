"""From samples to batches: prompts, token trees, collation, mixtures, caches and the datamodule."""
