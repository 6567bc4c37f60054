# Where rules find what they read: functions of wildcards, and lists of a selection's files.


def archive_of(wildcards):
    """What `fetch_corpus` makes, where the corpus has no local source."""
    path = DATASETS[wildcards.dataset].path
    return [] if path else expand(rules.fetch_corpus.output, dataset=wildcards.dataset)


def rules_of(dataset):
    """What a dataset's user allows its layout."""
    entry = DATASETS[dataset]
    empty = entry.empty_references == "score"
    return layouts.Rules(entry.skip, entry.allow_outside, entry.columns, empty)


@functools.cache
def corpus_contents(dataset):
    """A hash of the files that a corpus is made from, of local ones."""
    entry = DATASETS[dataset]
    if not entry.path:
        return ""
    files = layouts.watched(entry.layout, entry.path, rules_of(dataset))
    return FINGERPRINTS.of(files, Path(entry.path))


def checkpoint_of(wildcards):
    """A model's checkpoint: a local file, or what `fetch_checkpoint` or `random_weights` makes."""
    path = MODELS[wildcards.model].checkpoint
    if path and not is_address(path):
        return local(path)
    made = rules.fetch_checkpoint if path else rules.random_weights
    return expand(made.output, model=wildcards.model)


def checkpoint_contents(wildcards):
    """A hash of a local checkpoint and of the file of its labels."""
    model = MODELS[wildcards.model]
    paths = [p for p in (model.checkpoint, model.labels) if p and not is_address(p)]
    return contents(*paths) if paths else ""


def random_setting(key):
    """A setting of the wildcard's random weights."""
    return lambda wildcards: MODELS[wildcards.model].random.model_dump()[key]


def manifest_of(wildcards):
    """The manifest of the split that a dataset runs on."""
    split = DATASETS[wildcards.dataset].split
    return expand(rules.manifest.output, dataset=wildcards.dataset, split=split)


def export_of(name):
    """The export that an engine starts from, and its index, as outputs with wildcards."""
    export = engine(name).export
    if export.source == "weights":
        return rules.convert.output.weights, rules.convert.output.model
    if export.source == "onnx":
        made = rules.onnx_of_batch_size if export.fixed else rules.onnx
        return made.output.onnx, made.output.index
    made = rules.torchscript if ENGINES[name].python is None else rules.torchscript_of_engine
    return made.output.torchscript, made.output.index


def exports(names, models, batch_sizes):
    """What engines start from: files and indexes, in turn."""
    return [
        path
        for name in names
        for paths in zip(
            *(
                expand(
                    output,
                    model=models,
                    engine=name,
                    form=engine(name).export.form,
                    opset=engine(name).export.opset,
                    batch_size=batch_sizes,
                )
                for output in export_of(name)
            )
        )
        for path in paths
    ]


def export_file(number):
    """The export that the wildcard's engine starts from (0), or its index (1)."""
    return lambda wildcards: exports(
        [wildcards.engine], wildcards.model, getattr(wildcards, "batch_size", 1)
    )[number]


def of_rows(*outputs):
    """Files of every row of the selection, each once; those of parts for every part."""
    return list(
        dict.fromkeys(
            path
            for output in outputs
            for name in RUN.datasets
            for path in expand(output, **{**ROWS, "dataset": name}, part=computed(name))
        )
    )


# Datasets that are computed in shards.
SHARDED = [name for name in DATASETS if DATASETS[name].shards > 1]


def one_of(names):
    """A regular expression for names; for none it is one that matches nothing."""
    return "|".join(map(re.escape, names)) or "(?!)"


def path_of(part):
    """What a part's name is in paths, as the wildcard `part`."""
    return f"{os.sep}parts{os.sep}{part}"


def shards_of(dataset):
    """The parts that a dataset's accuracy is computed in, as in paths: itself, or its shards."""
    count = DATASETS[dataset].shards
    return list(map(path_of, shard_names(count))) if count > 1 else [""]


def timed_of(dataset):
    """The part that is timed: a sharded dataset's sample is made for it alone."""
    return path_of(SAMPLE) if DATASETS[dataset].shards > 1 else ""


def computed(dataset):
    """All of these."""
    return list(dict.fromkeys([*shards_of(dataset), timed_of(dataset)]))


def of_whole_datasets(*outputs):
    """Files of the selection's datasets that are not sharded."""
    names = [name for name in RUN.datasets if name not in SHARDED]
    return expand(outputs, **{**SELECTION, "dataset": names}) if names else []


def features_of_selection():
    """All features, which a sharded dataset does not keep."""
    for name in set(RUN.datasets) & set(SHARDED):
        raise WorkflowError(f"datasets.{name}: shards keep no features; set shards: 1")
    return of_whole_datasets(*rules.preprocess.output)


def whole(output):
    """A file of a dataset as a whole, as an output with wildcards."""
    (found,) = expand(output, part="", allow_missing=True)  # keeps what a module's prefix notes
    return found


def of_shards(output):
    """A file of each shard of the wildcard's dataset, in order; of itself, where it has none."""
    return lambda wildcards: [
        path
        for part in shards_of(wildcards.dataset)
        for path in expand(output, part=part, **wildcards)
    ]


def timed(output, **more):
    """A file of the part of the wildcard's dataset that is timed."""
    return lambda wildcards: expand(
        output, **{"part": timed_of(wildcards.dataset), **wildcards, **more}
    )


def group_of(wildcards):
    """A shard's jobs are one, where jobs are sent to a cluster; others are by themselves.

    So are those of engines with a device: nothing else of a shard keeps one from others.
    """
    part, name = Path(wildcards.part).name, wildcards.get("engine")
    if not part or (name and device_kind(name) != "cpu"):
        return None
    return f"{wildcards.dataset}_{wildcards.model}_{part}"


def decoder_of(wildcards):
    """Kind and options of the wildcard's decoder, as its stages take them (JSON)."""
    return CONFIG.decoder(wildcards.decoder).text()


def decoder_code(name):
    """A hash of the code of a stage and of the decoder that it runs."""
    return lambda wildcards: sources.digest(
        f"deepspeech2.{name}", decoders.DECODERS[CONFIG.decoders[wildcards.decoder].kind]
    )


def language_model_of(wildcards):
    """The index of the decoder's language model, and its file; nothing where it has none."""
    name = CONFIG.decoders[wildcards.decoder].language_model
    return expand(rules.language_model.output, language_model=name)[:2][::-1] if name else []


def known_texts_of(wildcards):
    """The texts that the decoder's language model was made of, where that is known."""
    return known_texts(wildcards.decoder)


def known_texts(decoder):
    """The same by the decoder's name."""
    name = CONFIG.decoders[decoder].language_model
    if name is None or not CONFIG.language_models[name].texts:
        return []
    return expand(rules.language_model.output.known, language_model=name)


def of_tuning(output):
    """Files of what a decoder is tuned on; nothing where none is to be tuned."""
    name = CONFIG.tune.dataset
    if CONFIG.tune.decoder is None:
        return []
    found = expand(output, dataset=name, model=CONFIG.tune.model, part=shards_of(name))
    return list(dict.fromkeys(found))


def of_tuned(number):
    """The index of the language model of the decoder that is tuned (0), or its file (1)."""
    if CONFIG.tune.decoder is None:
        return []
    name = CONFIG.decoders[CONFIG.tune.decoder].language_model
    return expand(rules.language_model.output, language_model=name)[1 - number] if name else []


def tuning_contents(wildcards):
    """A hash of the file that has what was chosen for the decoder."""
    return contents(CONFIG.decoders[wildcards.decoder].tuning)


# What decoders read besides posteriors. The first of each is what a stage is told.
OF_DECODER = {
    "language_model_index": lambda wildcards: language_model_of(wildcards)[:1],
    "language_model": lambda wildcards: language_model_of(wildcards)[1:],
    "tuning": lambda wildcards: given(CONFIG.decoders[wildcards.decoder].tuning),
}


def zeros_of(wildcards):
    """The row's figures of zeros, where its engine has such."""
    has = engines.create(engine(wildcards.engine)).times_zeros
    return expand(rules.zeros.output, **wildcards) if has else []


# Rates of arrivals are measured where they are configured; the rule is there anyway.
SERVER = CONFIG.server or Server(latency_ms=1)


def server_of(wildcards):
    """The row's figures as a service, where they are wanted."""
    return expand(rules.server.output.server, **wildcards) if CONFIG.server else []


def samples_of_selection():
    """Indexes of the samples that are timed of sharded datasets."""
    names = [name for name in RUN.datasets if name in SHARDED]
    chosen = {"dataset": names, "model": RUN.models, "name": SAMPLE}
    return expand(rules.preprocess_part.output.index, **chosen) if names else []


def zeros_of_selection():
    """The figures of zeros of all rows whose engine has such."""
    names = [name for name in RUN.engines if engines.create(engine(name)).times_zeros]
    return expand(rules.zeros.output, **{**ROWS, "engine": names}) if names else []


def given_texts():
    """What was given to the scoring of the selection: texts of trainings, and times of words."""
    texts = [MODELS[name].training_texts for name in RUN.models]
    return list(filter(None, [*texts, *(DATASETS[name].word_times for name in RUN.datasets)]))


def texts_of_selection():
    """The same as inputs, with the texts that the decoders' language models were made of."""
    known = [path for name in RUN.decoders for path in known_texts(name)]
    return list(dict.fromkeys([*map(local, given_texts()), *known]))


def boards_of(wildcards):
    """The submissions to show side by side."""
    if not CONFIG.boards:
        raise WorkflowError("config: boards: name submissions, as [ours.zip, theirs.zip]")
    return list(map(local, CONFIG.boards))


def baseline_files():
    """The baseline's records and transcripts of the selection's datasets, models and engines."""
    if CONFIG.baseline is None:
        return []
    return [
        str(path)
        for folder in expand("{dataset}/{model}/{engine}", **SELECTION)
        for decoder in RUN.decoders
        for name in ("record.json", "transcripts.jsonl")
        for path in sorted(Path(CONFIG.baseline, folder).glob(f"bs*/{decoder}/{name}"))
        if re.fullmatch("bs[1-9][0-9]*", path.parts[-3])
    ]


def baseline_records():
    """The records of these."""
    return [path for path in baseline_files() if path.endswith("record.json")]


def baseline_transcripts():
    """And their transcripts."""
    return [path for path in baseline_files() if not path.endswith("record.json")]


def training_settings():
    """How to train, as the stage takes it (JSON)."""
    settings = TRAIN.model_dump(exclude={"name", "datasets", "dev", "device", "start"})
    settings["shares"] = {name: TRAIN.shares.get(name, 1.0) for name in TRAIN.datasets}
    settings["architecture"] = TRAIN.architecture.fields()
    return json.dumps(settings, sort_keys=True)


def manifests_of(datasets, split):
    """The manifests of a part of some datasets."""
    return [
        path
        for name in datasets
        for path in expand(rules.manifest.output, dataset=name, split=split)
    ]


def start_file(output):
    """A file of the model that the training starts from, if there is one."""
    return expand(output, model=TRAIN.start) if START else []


def splits(dataset):
    """The splits of a dataset that get a manifest: its own parts, and the one that it runs on."""
    entry = DATASETS[dataset]
    return list(dict.fromkeys([*layouts.parts(entry.layout), entry.split]))
