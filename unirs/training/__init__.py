"""Training: the LightningModule, optimizers and callbacks."""
