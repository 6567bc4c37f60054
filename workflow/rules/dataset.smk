# From an archive or own recordings to a checked corpus and its manifests.


rule fetch_corpus:
    input:
        code=stage_sources("fetch"),
    output:
        "results/datasets/{dataset}/archive",
    log:
        "results/logs/datasets/{dataset}/fetch.log",
    benchmark:
        "results/benchmarks/datasets/{dataset}/fetch.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        urls=of_dataset("urls"),
    shell:
        "python -m deepspeech2.fetch --log {log:q} --urls {params.urls:q} --output {output:q}"


rule corpus:
    input:
        source=corpus_inputs,
        labels=of_dataset("labels"),
        pcm_sha256=lambda wildcards: DATASETS[wildcards.dataset]["pcm_sha256"] or [],
        code=stage_sources("corpus"),
    output:
        corpus=directory("results/datasets/{dataset}/corpus"),
        index="results/datasets/{dataset}/corpus.json",
        labels="results/datasets/{dataset}/labels.json",
    log:
        "results/logs/datasets/{dataset}/corpus.log",
    benchmark:
        "results/benchmarks/datasets/{dataset}/corpus.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        layout=of_dataset("layout"),
        source=corpus_source,
        files=corpus_hashes,
        text_case=of_dataset("text_case"),
        hashes=lambda wildcards: option("--pcm-sha256", DATASETS[wildcards.dataset]["pcm_sha256"]),
    shell:
        "python -m deepspeech2.corpus --log {log:q} --layout {params.layout} "
        "--source={params.source:q} {params.hashes} --text-case {params.text_case} "
        "--labels {input.labels:q} --corpus {output.corpus:q} --index {output.index:q} "
        "--labels-out {output.labels:q}"


rule manifest:
    input:
        corpus="results/datasets/{dataset}/corpus",
        index="results/datasets/{dataset}/corpus.json",
        code=stage_sources("manifest"),
    output:
        "results/datasets/{dataset}/{dataset}_{split}_manifest.json",
    log:
        "results/logs/datasets/{dataset}/manifest_{split}.log",
    benchmark:
        "results/benchmarks/datasets/{dataset}/manifest_{split}.tsv"
    conda:
        "../../envs/cpu.yaml"
    shell:
        "python -m deepspeech2.manifest --log {log:q} --index {input.index:q} "
        "--corpus {input.corpus:q} --split {wildcards.split} --manifest {output:q}"
