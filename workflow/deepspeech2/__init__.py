"""DeepSpeech2: accuracy and speed per batch size, from a speech archive and a checkpoint."""
