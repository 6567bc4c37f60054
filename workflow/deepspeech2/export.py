"""Export a model as TorchScript, traced, in the static or the packed form.

The trace is exact at any batch size, length and width, not only at those that it was traced with.
"""

from __future__ import annotations

import warnings

import torch

from deepspeech2 import network, stage
from deepspeech2.files import replacing, sha256, write_json
from deepspeech2.stage import log

TRACE_LENGTHS = (129, 96)  # frames; two utterances, so that neither axis is traced as a one


def trace(net: network.DeepSpeech2, device: str = "cpu") -> torch.jit.ScriptModule:
    """The network as TorchScript: (B, 1, bins, T) float32 and (B,) int32 as the network itself.

    `device` is where the network is; the trace runs only there.
    """
    generator = torch.Generator().manual_seed(0)
    lengths = torch.tensor(TRACE_LENGTHS, dtype=torch.int32)
    shape = (len(TRACE_LENGTHS), 1, net.architecture.bins, max(TRACE_LENGTHS))
    example = torch.randn(shape, generator=generator)
    with warnings.catch_warnings(), torch.no_grad():
        # TorchScript is what the reference exports and what torch_aie compiles, deprecated or not.
        warnings.filterwarnings("ignore", ".*torch.jit.* is deprecated", DeprecationWarning)
        # Packing checks its lengths in Python; the check is not needed in the trace.
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        inputs = example.to(device), lengths.to(device)
        return torch.jit.trace(net, inputs, check_trace=False)


def main(argv=None) -> None:
    """Command line: see `--help`."""
    parser = stage.parser(__doc__)
    parser.add_argument("--weights", required=True, help="the model's safetensors")
    parser.add_argument("--model", required=True, help="the model's description (JSON)")
    parser.add_argument("--form", choices=network.FORMS, default="static")
    parser.add_argument("--torchscript", required=True, help="TorchScript file to write")
    parser.add_argument("--index", required=True, help="its SHA-256 and versions, to write (JSON)")
    args = stage.parse(parser, argv)

    net = network.load(args.weights, args.model, args.form)
    with replacing(args.torchscript) as temporary:
        torch.jit.save(trace(net), str(temporary))
    write_json(
        args.index,
        {"form": args.form, "sha256": sha256(args.torchscript), "torch": torch.__version__},
    )
    log.info("traced the %s form with torch %s", args.form, torch.__version__)


if __name__ == "__main__":
    stage.run(main)
