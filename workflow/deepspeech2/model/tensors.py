"""Names of the network's inputs and outputs in files for other programs, with their axes."""

INPUTS = {"spectrograms": ("batch", "channel", "bins", "frames"), "lengths": ("batch",)}
OUTPUTS = {"probabilities": ("batch", "output_frames", "classes"), "output_lengths": ("batch",)}
