"""DeepSpeech2 inference, measured. Every stage is a program: `python -m deepspeech2.<stage>`."""
