"""What ours is measured against: deepspeech.pytorch's way to transcribe, and the guide's.

Nothing of the package's network, batches or decoder is used, so that no change there moves the
yardstick. Both are as fast as their way allows: all cores, sets sorted by length, one warm-up.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from deepspeech2.features.batches import FeatureSet
from deepspeech2.model.architecture import Architecture
from torch import Tensor, nn

BATCH_SIZE = 20  # deepspeech.pytorch's default
GUIDE_BATCH_SIZES = (1, 16)
BLANK = 0


class MaskedConvolutions(nn.Module):
    """Two convolutions, each with normalisation and clipping; (B, 1, bins, T) to (B, 32, 41, T').

    After every layer the frames past each utterance's end are overwritten with zeros, utterance by
    utterance.
    """

    def __init__(self):
        super().__init__()
        self.seq_module = nn.Sequential(
            nn.Conv2d(1, 32, (41, 11), (2, 2), (20, 5)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20, inplace=True),
            nn.Conv2d(32, 32, (21, 11), (2, 1), (10, 5)),
            nn.BatchNorm2d(32),
            nn.Hardtanh(0, 20, inplace=True),
        )

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        for module in self.seq_module:
            x = module(x)
            past = torch.zeros(x.shape, dtype=torch.bool, device=x.device)
            for row, length in enumerate(lengths):
                past[row, :, :, length.item() :] = True
            x = x.masked_fill(past, 0)
        return x


class OverSteps(nn.Module):
    """A module of (rows, features), applied to (T', B, features)."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, x: Tensor) -> Tensor:
        return self.module(x.reshape(-1, x.size(2))).view(x.size(0), x.size(1), -1)


class PackedLayer(nn.Module):
    """A bidirectional recurrent layer on packed sequences; the directions are summed."""

    def __init__(self, kind: type[nn.RNNBase], inputs: int, size: int, normalise: bool):
        super().__init__()
        if normalise:
            self.batch_norm = OverSteps(nn.BatchNorm1d(inputs))
        self.rnn = kind(inputs, size, bidirectional=True)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        if hasattr(self, "batch_norm"):
            x = self.batch_norm(x)
        packed, _ = self.rnn(nn.utils.rnn.pack_padded_sequence(x, lengths))
        x, _ = nn.utils.rnn.pad_packed_sequence(packed)
        return x.view(x.size(0), x.size(1), 2, -1).sum(2)


class Network(nn.Module):
    """The bidirectional network; parameters have the checkpoint's names.

    (B, 1, bins, T) float32 and (B,) int32 frames, longest first, to probabilities (B, T', classes)
    and output frames (B,), on the host.
    """

    def __init__(self, architecture: Architecture):
        super().__init__()
        a = architecture
        kind = {"lstm": nn.LSTM, "gru": nn.GRU, "rnn": nn.RNN}[a.rnn_type]
        sizes = [a.rnn_input] + [a.hidden_size] * (a.hidden_layers - 1)
        self.conv = MaskedConvolutions()
        self.rnns = nn.Sequential(
            *(PackedLayer(kind, n, a.hidden_size, i > 0) for i, n in enumerate(sizes))
        )
        head = nn.BatchNorm1d(a.hidden_size), nn.Linear(a.hidden_size, a.classes, bias=False)
        self.fc = nn.Sequential(OverSteps(nn.Sequential(*head)))

    def forward(self, spectrograms: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        lengths = (lengths.cpu() - 1) // 2 + 1
        x = self.conv(spectrograms, lengths)
        x = x.flatten(1, 2).permute(2, 0, 1).contiguous()  # (T', B, 1312)
        for layer in self.rnns:
            x = layer(x, lengths)
        x = self.fc(x).transpose(0, 1)
        return nn.functional.softmax(x, dim=-1), lengths


def load(weights: str | Path, architecture: Architecture, device: str = "cpu") -> Network:
    """The network with a model's weights (safetensors), ready for inference."""
    network = Network(architecture)
    state = safetensors.torch.load_file(str(weights))
    found = network.load_state_dict(state, strict=False)
    missing = [name for name in found.missing_keys if not name.endswith("num_batches_tracked")]
    if missing or found.unexpected_keys:
        raise ValueError(f"{weights}: {missing + found.unexpected_keys} do not fit the network")
    return network.eval().to(device)


def collate(spectrograms: list[np.ndarray], frames: int) -> tuple[Tensor, Tensor]:
    """A batch of spectrograms (bins, frames of each), longest first, with zeros up to `frames`."""
    batch = torch.zeros(len(spectrograms), 1, spectrograms[0].shape[0], frames)
    for row, one in enumerate(spectrograms):
        batch[row, 0, :, : one.shape[1]] = torch.from_numpy(one)
    return batch, torch.tensor([one.shape[1] for one in spectrograms], dtype=torch.int32)


def greedy(probabilities: Tensor, lengths: Tensor, labels: list[str]) -> list[str]:
    """Texts, put together frame by frame: no blanks, no label that the frame before has, too."""
    best = probabilities.argmax(2).cpu()
    texts = []
    for row, length in enumerate(lengths):
        text = ""
        for frame in range(int(length)):
            label = best[row, frame].item()
            if label != BLANK and not (frame and label == best[row, frame - 1].item()):
                text += labels[label]
        texts.append(text)
    return texts


def transcribe(module, features: FeatureSet, labels, batch_size: int, width=None, device="cpu"):
    """Texts of all utterances, in the set's order, batch after batch.

    Batches are padded to `width` frames; None: to their own longest.
    """
    texts = []
    for start in range(0, len(features), batch_size):
        positions = range(start, min(start + batch_size, len(features)))
        frames = [features.utterances[position]["frames"] for position in positions]
        spectrograms = [features.load(p)[:, :n] for p, n in zip(positions, frames)]
        batch, lengths = collate(spectrograms, width or max(frames))
        with torch.inference_mode():
            probabilities, lengths = module(batch.to(device), lengths)
        texts += greedy(probabilities, lengths, labels)
    return texts


def guide(torchscript: str | Path) -> torch.jit.ScriptModule:
    """The guide's module: the packed form's trace, frozen. Give it batches of one fixed width."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.* is deprecated", DeprecationWarning)
        return torch.jit.freeze(torch.jit.load(str(torchscript)).eval())
