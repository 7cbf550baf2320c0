"""Training on packs, on transformers' own Trainer: batches, ranks, references, checkpoints."""
