"""DeepSpeech2: accuracy and speed per batch size, from a speech archive and a checkpoint."""

import os

# torch imports every plugin for a device that is installed, and cannot be imported itself where one
# of them is broken, not even for the CPU. Here an engine imports the plugin that it needs.
os.environ["TORCH_DEVICE_BACKEND_AUTOLOAD"] = "0"
