# From a manifest to features in ModelZoo's layout.


rule preprocess:
    input:
        manifest=manifest_of,
        corpus=rules.corpus.output.corpus,
        labels=rules.corpus.output.labels_copy,
        model=rules.convert.output.model,
    output:
        features=directory("results/{dataset}/{model}/features"),
        index="results/{dataset}/{model}/features.json",
    log:
        "results/logs/{dataset}/{model}/features.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/features.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    params:
        unknown_characters=of_dataset("unknown_characters"),
        empty_references=of_dataset("empty_references"),
        code=code("features.preprocess"),
    shell:
        stage("features.preprocess")
