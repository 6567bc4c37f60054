"""What a person would say of a row, in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from deepspeech2.report.rows import device_name, is_greedy, is_scored, node_kind, of_one_kind

QUALITY = {
    "VALID": "measured by the rules for",
    "QUICK": "measured briefly, for",
    "INVALID": "measured under conditions that do not count, for",
    "FAKE": "computed by a stand-in for a device, for",
}


def of_rows(records: Sequence[dict]) -> list[str]:
    """A sentence for each row. The first engine of its dataset, model and batch size is what it is
    compared with.
    """
    firsts: dict[tuple, dict] = {}
    found = []
    for record in records:
        key = tuple(record[name] for name in ("dataset", "model", "batch_size", "decoder"))
        found.append(sentence(record, firsts.setdefault(key, record)))
    return found


def sentence(record: dict, first: dict) -> str:
    """A row beside another, which may be itself."""
    by = "" if is_greedy(record) else f" with the decoder {record['decoder']}"
    timed = record["offline"]
    parts = [f"{timed['utterances_per_s']:.4g} utterances/s"]
    other = record["engine"] != first["engine"]
    kinds = [[of(row) for row in (record, first)] for of in (node_kind, device_name)]
    if other and of_one_kind(*kinds):
        ratio = timed["utterances_per_s"] / first["offline"]["utterances_per_s"]
        parts[0] = f"{ratio:.2g} times as fast as {first['engine']} ({parts[0]})"
    parts += [_accuracy(record, first if other else None)] if is_scored(record) else []
    agreed = record["agreement"]
    parts.append(
        f"{agreed['identical_transcripts']} of {agreed['utterances']} transcripts as the plain "
        "network's"
    )
    parts += [_server(record["server"])] if "server" in record else []
    quality = QUALITY.get(timed["verdict"], f"{timed['verdict']}, for")
    return (
        f"{record['engine']}{by} on {record['dataset']} with {record['model']} at batch size "
        f"{record['batch_size']}: {', '.join(parts)}; {quality} "
        f"{timed['seconds']:.1f} s."
    )


def _server(served: dict) -> str:
    rule = served["rule"]
    within = f"within {rule['latency_ms']:g} ms"
    rate = served["utterances_per_s"]
    if rate is None:
        return f"no rate of arrivals of which it answers {rule['percentile']:g} % {within}"
    people = rate * served["audio_seconds"]
    share = f"{rule['percentile']:g} % of {rate:.4g} utterances/s"
    return f"as a server it answers {share} {within}, {people:.3g} people who speak without a pause"


def _accuracy(record: dict, first: dict | None) -> str:
    wer = record["accuracy"]["wer"]
    if wer["percent"] is None:
        return "no word to score"
    text = f"{wer['percent']:.1f} %"
    if wer["low"] is not None:
        text += f", {wer['low']:.1f} to {wer['high']:.1f}"
    before = first and first["accuracy"]["wer"]["percent"]
    if before is None:
        return f"a WER of {text}"
    if before == wer["percent"]:
        return f"at the same WER ({text})"
    return f"at a WER of {text}, where that has {before:.1f} %"
