# From corpora to a checkpoint. The rest of the workflow takes it like any other.
TRAIN = CONFIG.train
TRAINING = f"results/training/{TRAIN.name}"
LEARNT = list(dict.fromkeys([*TRAIN.datasets, *TRAIN.dev]))
START = MODELS[TRAIN.start] if TRAIN.start else None


# What a stopped run goes on from lies beside the weights in state/, which is no output: Snakemake
# would delete it.
rule learn:
    input:
        train_manifests=manifests_of(TRAIN.datasets, "train"),
        dev_manifests=manifests_of(TRAIN.dev, "val"),
        corpora=expand(rules.corpus.output.corpus, dataset=LEARNT),
        labels=expand(rules.corpus.output.labels_copy, dataset=LEARNT),
        start_weights=start_file(rules.convert.output.weights),
        start_model=start_file(rules.convert.output.model),
        start_texts=given(START and START.training_texts),
    output:
        weights=f"{TRAINING}/model.safetensors",
        training=f"{TRAINING}/training.json",
        curves=f"{TRAINING}/curves.csv",
        texts=f"{TRAINING}/training_texts.txt",
    log:
        f"results/logs/training/{TRAIN.name}.log",
    benchmark:
        f"results/benchmarks/training/{TRAIN.name}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1024
    resources:
        **needs("learn"),
    params:
        train=lambda wildcards, input: list(
            map("=".join, zip(TRAIN.datasets, input.train_manifests))
        ),
        dev=lambda wildcards, input: list(map("=".join, zip(TRAIN.dev, input.dev_manifests))),
        datasets=[TRAIN.datasets, TRAIN.dev],
        settings=training_settings(),
        device=TRAIN.device,
        drop_unknown=[n for n in LEARNT if DATASETS[n].unknown_characters == "drop"],
        code=code("training.learn"),
    shell:
        stage("training.learn")


rule curves:
    input:
        curves=rules.learn.output.curves,
    output:
        figure=report(
            f"{TRAINING}/curves.svg",
            caption="../report/curves.rst",
            category="Training",
        ),
    log:
        f"results/logs/training/{TRAIN.name}_curves.log",
    benchmark:
        f"results/benchmarks/training/{TRAIN.name}_curves.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("report"),
    params:
        code=code("training.curves"),
    shell:
        stage("training.curves")
