"""From manifests to spectrograms in ModelZoo's layout, and batches of them."""
