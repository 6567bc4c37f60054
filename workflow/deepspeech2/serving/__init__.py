"""The model as a service: how fast utterances may come at it."""
