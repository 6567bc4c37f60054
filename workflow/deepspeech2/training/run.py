"""The training of a network: its settings, its steps, and everything that they change.

Whatever is drawn at random depends on the seed and the number of the epoch alone, so that a run
that goes on from a saved state computes what an uninterrupted one would have.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader

from deepspeech2 import cli
from deepspeech2.cli import UserError
from deepspeech2.corpus import labels
from deepspeech2.features.spectrogram import Spectrogram
from deepspeech2.model.architecture import Architecture
from deepspeech2.model.network import SCATTERED, DeepSpeech2
from deepspeech2.scoring import alignment
from deepspeech2.scoring.decoders.greedy import Decoder as Greedy
from deepspeech2.training import epochs
from deepspeech2.training.augment import Augmentation
from deepspeech2.training.epochs import Batches, Item, Part, Plan, Recording


class Settings(NamedTuple):
    """How a network is trained; defaults are the configuration's.

    `shares` of every dataset in an epoch; `splices` share of the utterances of the datasets
    `spliced` that are put together anew, from epoch `splices_from` on, after which the words are
    aligned anew every `align_every` epochs; `dev_utterances` of each dataset, at most, to choose
    the epoch by; `clean_epochs` without noise, stretch and masks at the start; `warmup_epochs` of
    rising learning rate, then a cosine to zero at `epochs`; `patience` epochs without a better
    word error rate end the run; `average` is the decay of the weights' moving average, per batch.
    """

    architecture: dict
    shares: dict[str, float]
    augmentation: dict
    epochs: int
    frames_per_batch: int
    learning_rate: float
    warmup_epochs: float
    weight_decay: float
    clip: float
    dropout: float
    average: float
    splices: float
    spliced: Sequence[str]
    splices_from: int
    align_every: int
    clean_epochs: int
    patience: int
    dev_utterances: int
    precision: str
    seed: int


class Run:
    """A training run: its data, its state, and the steps that change it."""

    def __init__(
        self, settings: Settings, train: Sequence, dev: Sequence, alphabet, device: str, start=None
    ):
        self.settings, self.alphabet, self.device = settings, alphabet, torch.device(device)
        self.recordings: list[Recording] = list(train)
        self.dev = _at_most(settings.dev_utterances, dev, settings.seed)
        self.spectrogram = Spectrogram()
        self.decode = Greedy(alphabet)
        self.space = alphabet.index(" ") if " " in alphabet else -1
        epochs.warm_up(self.spectrogram)
        warnings.filterwarnings("ignore", SCATTERED, UserWarning)
        torch.manual_seed(settings.seed)
        architecture = Architecture(
            bins=self.spectrogram.bins, classes=len(alphabet), **settings.architecture
        )
        self.network = DeepSpeech2(architecture, "static", settings.dropout).to(self.device)
        if start is not None:  # the state of another network of this architecture, or of more
            own = self.network.state_dict()
            taken = {name: value for name, value in start.items() if name in own}
            self.network.load_state_dict({**own, **taken})
        self.average = AveragedModel(
            self.network, multi_avg_fn=_moving_average(settings.average), use_buffers=True
        )
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay
        )
        self.history: list[dict] = []
        self.cuts: dict[int, list[int]] = {}
        self.best: dict[str, torch.Tensor] = {}
        # Texts by the first epoch that had them, and where and with what epochs were computed.
        self.texts: dict[str, int] = {}
        self.environments: list[dict] = []

    def state(self) -> dict:
        """Everything that the rest of the run depends on."""
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
            "cuts": self.cuts,
            "best": self.best,
            "texts": self.texts,
            "environments": self.environments,
        }

    def restore(self, state: dict) -> None:
        """Go on from what `state` returned."""
        self.network.load_state_dict(state["network"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.history, self.cuts, self.best = state["history"], state["cuts"], state["best"]
        self.texts, self.environments = state["texts"], state["environments"]

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the word error rate has long not improved."""
        if not self.history:
            return False
        epoch = self.history[-1]["epoch"]
        return epoch >= self.settings.epochs or epoch - self.best_epoch >= self.settings.patience

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest word error rate on the development set, the first of them."""
        return min(self.history, key=lambda row: (row["dev_wer"], row["dev_cer"]))["epoch"]

    def epoch(self) -> None:
        """Train one epoch, and see what the averaged weights make of the development set."""
        s, epoch, started = self.settings, len(self.history) + 1, time.perf_counter()
        splicing = s.splices and s.spliced and epoch >= s.splices_from
        if splicing and (epoch - s.splices_from) % s.align_every == 0:
            self.align()
        augmentation = Augmentation(**s.augmentation)
        if epoch <= s.clean_epochs:
            augmentation = Augmentation(speed=augmentation.speed, gain=augmentation.gain)
        splices = dict.fromkeys(s.spliced, s.splices)
        plan = Plan(s.shares, splices, s.frames_per_batch, self.spectrogram, augmentation, s.seed)
        drawn = epochs.draw(plan, epoch, self.recordings, self.cuts)
        if not drawn:
            raise UserError(
                f"epoch {epoch}: no utterance to train on; raise the shares of the datasets, and "
                "see that their recordings are long enough for their texts"
            )
        for item in itertools.chain.from_iterable(drawn):
            self.texts.setdefault(item.text, epoch)
        batches = Batches(drawn, self.recordings, self.alphabet, self.spectrogram, augmentation)
        torch.manual_seed(int(np.random.default_rng([s.seed, epoch]).integers(1 << 62)))
        self.network.train()
        losses, bar = [], cli.progress(None, len(drawn), f"epoch {epoch}/{s.epochs}", "batch")
        with bar:
            for number, content in enumerate(_load(batches)):
                self._set_learning_rate(epoch - 1 + number / len(drawn))
                losses.append(self._step(*content))
                bar.set_postfix_str(f"loss {np.mean(losses[-50:]):.3f}{self._last()}", False)
                bar.update()
        found = self.evaluate()
        self.history.append(
            {
                "epoch": epoch,
                "utterances": sum(map(len, drawn)),
                "spliced": sum(len(item.parts) > 1 for items in drawn for item in items),
                "learning_rate": self.optimizer.param_groups[0]["lr"],
                "train_loss": float(np.mean(losses)),
                **found,
                "seconds": time.perf_counter() - started,
            }
        )
        if self.best_epoch == epoch:
            weights = self.average.module.state_dict()
            self.best = {name: value.detach().cpu().clone() for name, value in weights.items()}

    def _last(self) -> str:
        return f", dev WER {self.history[-1]['dev_wer']:.1f} %" if self.history else ""

    def _set_learning_rate(self, epochs_done: float) -> None:
        s = self.settings
        if epochs_done < s.warmup_epochs:
            share = epochs_done / s.warmup_epochs
        else:
            done = (epochs_done - s.warmup_epochs) / max(1e-9, s.epochs - s.warmup_epochs)
            share = (1 + math.cos(math.pi * done)) / 2
        for group in self.optimizer.param_groups:
            group["lr"] = s.learning_rate * share

    def _step(self, spectrograms, lengths, targets, target_lengths) -> float:
        with self._autocast():
            logits, lengths = self.network.logits(
                spectrograms.to(self.device), lengths.to(self.device)
            )
        losses = _ctc(logits, targets.to(self.device), lengths, target_lengths)
        loss = losses.sum() / target_lengths.sum()  # every character counts the same
        if not torch.isfinite(loss):
            raise UserError(
                f"epoch {len(self.history) + 1}: the loss is NaN or infinite; lower the "
                "learning rate or raise warmup_epochs"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        self.optimizer.step()
        self.average.update_parameters(self.network)
        return loss.item()

    def _autocast(self):
        if self.settings.precision == "fp32":
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, torch.bfloat16)

    def _posteriors(self, chosen: Sequence[Recording], what: str) -> Iterator[tuple]:
        """Recording number, posteriors (T', classes), targets and loss of each, unaugmented."""
        items = []
        for number, recording in enumerate(chosen):
            part = Part(number, 0, recording.samples, recording.text)
            frames = self.spectrogram.frames(recording.samples)
            items.append(Item((part,), 1.0, frames, (0, number)))
        items.sort(key=lambda item: (-item.frames, item.seed))
        drawn = epochs.batch(items, 4 * self.settings.frames_per_batch)
        batches = Batches(drawn, chosen, self.alphabet, self.spectrogram, Augmentation())
        net = self.average.module.eval()
        for items, content in zip(drawn, cli.progress(_load(batches), len(drawn), what)):
            spectrograms, lengths, targets, target_lengths = content
            with torch.inference_mode():
                logits, lengths = net.logits(spectrograms.to(self.device), lengths.to(self.device))
                losses = _ctc(logits, targets.to(self.device), lengths, target_lengths)
            posteriors = logits.softmax(-1).transpose(0, 1).cpu().numpy()
            for row, (item, target) in enumerate(
                zip(items, targets.split(target_lengths.tolist()))
            ):
                number = item.parts[0].recording
                yield (
                    number,
                    posteriors[row, : int(lengths[row])],
                    target.tolist(),
                    losses[row].item(),
                )

    def evaluate(self) -> dict[str, float]:
        """Loss per character, WER and CER of the averaged weights on the development set.

        The rates are the means of those of its datasets, so that a large one counts no more.
        """
        losses, characters = 0.0, 0
        texts: dict[str, list[tuple[str, str]]] = {}
        for number, posteriors, targets, loss in self._posteriors(self.dev, "dev"):
            losses, characters = losses + loss, characters + len(targets)
            pair = (self.dev[number].text, self.decode(posteriors).text)
            texts.setdefault(self.dev[number].dataset, []).append(pair)
        found = {"dev_loss": losses / characters}
        for name, tokens in alignment.TOKENS.items():
            rates = {
                dataset: alignment.count_errors((tokens(a), tokens(b)) for a, b in pairs).rate
                for dataset, pairs in sorted(texts.items())
            }
            found[f"dev_{name}"] = sum(rates.values()) / len(rates)
            found.update((f"dev_{name}_{dataset}", rate) for dataset, rate in rates.items())
        return found

    def align(self) -> None:
        """Find where the words of the training utterances can be cut apart."""
        self.cuts = {}
        numbers = [i for i, r in enumerate(self.recordings) if r.dataset in self.settings.spliced]
        chosen = [self.recordings[i] for i in numbers]
        for place, posteriors, targets, _ in self._posteriors(chosen, "align"):
            samples = epochs.read(chosen[place])
            with contextlib.suppress(ValueError):  # too short to be aligned
                cuts = epochs.word_cuts(posteriors, targets, self.space, samples)
                self.cuts[numbers[place]] = cuts


def _at_most(count: int, recordings: Sequence[Recording], seed: int) -> list[Recording]:
    """So many recordings of each dataset, drawn; all of a dataset that has no more."""
    chosen: list[Recording] = []
    for name in sorted({recording.dataset for recording in recordings}):
        found = [recording for recording in recordings if recording.dataset == name]
        places = np.random.default_rng(seed).permutation(len(found))[:count]
        chosen += [found[place] for place in sorted(places)]
    return chosen


def _moving_average(decay: float):
    """Update of a moving average whose decay rises with the number of updates, to `decay`.

    Else the first, untrained weights would count for a thousand updates.
    """

    def update(averages, currents, updates: Tensor) -> None:
        now = min(decay, (1 + updates.item()) / (10 + updates.item()))
        get_ema_multi_avg_fn(now)(averages, currents, updates)

    return update


def _ctc(logits: Tensor, targets: Tensor, lengths: Tensor, target_lengths: Tensor) -> Tensor:
    """The loss of each utterance (B,). Utterances with too few frames for their text count zero."""
    probabilities = logits.float().log_softmax(-1)
    return torch.nn.functional.ctc_loss(
        probabilities, targets, lengths.long(), target_lengths, labels.BLANK, "none", True
    )


class _Guarded:
    """Batches whose failures come out of the process that makes them as a line of text.

    As arrays, through a pipe: torch loses a tensor, and waits for it forever, where /dev/shm is
    full or the length of files is limited.
    """

    def __init__(self, batches: Batches):
        self.batches = batches

    def __len__(self) -> int:
        return len(self.batches)

    def __getitem__(self, number: int) -> tuple[np.ndarray, ...] | str:
        try:
            return self.batches[number]
        except (UserError, OSError) as error:
            return str(error)


def _load(batches: Batches) -> Iterator[list[Tensor]]:
    """Batches made by another process while this one computes."""
    loader = DataLoader(
        _Guarded(batches), batch_size=None, num_workers=1, prefetch_factor=4, collate_fn=_as_is
    )
    try:
        for content in loader:
            if isinstance(content, str):
                raise UserError(content)
            yield [torch.from_numpy(array) for array in content]
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise MemoryError from None  # what else would have killed it


def _as_is(content):
    return content
