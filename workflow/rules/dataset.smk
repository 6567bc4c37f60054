# From an archive or own recordings to a checked corpus and its manifests.


rule fetch_corpus:
    output:
        output="results/datasets/{dataset}/archive",
    log:
        "results/logs/datasets/{dataset}/fetch.log",
    benchmark:
        "results/benchmarks/datasets/{dataset}/fetch.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("fetch"),
    params:
        urls=of_dataset("urls"),
        kind="archive",
        expected=of_dataset("sha256"),
        megabytes=of_dataset("megabytes"),
        code=code("corpus.fetch"),
    shell:
        stage("corpus.fetch")


rule corpus:
    input:
        archive=archive_of,
        labels=lambda wildcards: given(DATASETS[wildcards.dataset].labels),
        pcm_sha256=lambda wildcards: given(DATASETS[wildcards.dataset].pcm_sha256),
    output:
        corpus=directory("results/datasets/{dataset}/corpus"),
        index="results/datasets/{dataset}/corpus.json",
        labels_copy="results/datasets/{dataset}/labels.json",
    log:
        "results/logs/datasets/{dataset}/corpus.log",
    benchmark:
        "results/benchmarks/datasets/{dataset}/corpus.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("corpus"),
    params:
        layout=of_dataset("layout"),
        source=lambda wildcards, input: input.archive or DATASETS[wildcards.dataset].path,
        within=of_dataset("within"),
        rules=lambda wildcards: json.dumps(rules_of(wildcards.dataset)._asdict()),
        text_case=of_dataset("text_case"),
        digits=of_dataset("digits"),
        perturb=lambda wildcards: (
            DATASETS[wildcards.dataset].perturb.model_dump_json()
            if DATASETS[wildcards.dataset].perturb
            else []
        ),
        contents=lambda wildcards: (
            corpus_contents(wildcards.dataset)
            + contents(DATASETS[wildcards.dataset].labels, DATASETS[wildcards.dataset].pcm_sha256)
        ),
        code=lambda wildcards: sources.digest(
            "deepspeech2.corpus.corpus", layouts.module_of(DATASETS[wildcards.dataset].layout)
        ),
    shell:
        stage("corpus.corpus")


rule manifest:
    input:
        corpus=rules.corpus.output.corpus,
        index=rules.corpus.output.index,
    output:
        manifest="results/datasets/{dataset}/{dataset}_{split}_manifest.json",
    log:
        "results/logs/datasets/{dataset}/manifest_{split}.log",
    benchmark:
        "results/benchmarks/datasets/{dataset}/manifest_{split}.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("manifest"),
    params:
        split="{split}",
        code=code("corpus.manifest"),
    shell:
        stage("corpus.manifest")
