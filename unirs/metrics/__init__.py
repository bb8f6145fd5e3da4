"""Metrics: plain Python on numpy; `unirs.metrics.gather` makes them torchmetrics that are correct when sharded."""
