"""The network: from a checkpoint to weights, exports, and the eager reference."""
