"""From corpora to a checkpoint."""
