# From a manifest to features in ModelZoo's layout: of a whole dataset, or of its shards.


rule preprocess:
    input:
        manifest=manifest_of,
        corpus=rules.corpus.output.corpus,
        labels=rules.corpus.output.labels_copy,
        model=rules.convert.output.model,
        plan=[],
    output:
        features=directory("results/{dataset}/{model}/features"),
        index="results/{dataset}/{model}/features.json",
    log:
        "results/logs/{dataset}/{model}/features.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/features.tsv"
    wildcard_constraints:
        dataset=one_of(name for name in DATASETS if name not in SHARDED),
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    resources:
        **needs("features"),
    params:
        part=[],
        sample=[],
        unknown_characters=of_dataset("unknown_characters"),
        empty_references=of_dataset("empty_references"),
        code=code("features.preprocess"),
    shell:
        stage("features.preprocess")


# What is known of a sharded dataset as a whole. Its parts lie beside it, in parts/.
rule plan:
    input:
        manifest=manifest_of,
        corpus=rules.corpus.output.corpus,
        labels=rules.corpus.output.labels_copy,
        model=rules.convert.output.model,
    output:
        index=rules.preprocess.output.index,
    log:
        "results/logs/{dataset}/{model}/plan.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/plan.tsv"
    wildcard_constraints:
        dataset=one_of(SHARDED),
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    resources:
        **needs("features"),
    params:
        shards=lambda wildcards: DATASETS[wildcards.dataset].shards,
        unknown_characters=of_dataset("unknown_characters"),
        empty_references=of_dataset("empty_references"),
        code=code("features.plan"),
    shell:
        stage("features.plan")


use rule preprocess as preprocess_part with:
    input:
        manifest=manifest_of,
        corpus=rules.corpus.output.corpus,
        labels=rules.corpus.output.labels_copy,
        model=rules.convert.output.model,
        plan=rules.plan.output.index,
    output:
        features=temp(directory("results/{dataset}/{model}/parts/{name}/features")),
        index="results/{dataset}/{model}/parts/{name}/features.json",
    log:
        "results/logs/{dataset}/{model}/parts/{name}/features.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/parts/{name}/features.tsv"
    wildcard_constraints:
        dataset=one_of(SHARDED),
    group:
        lambda wildcards: f"{wildcards.dataset}_{wildcards.model}_{wildcards.name}"
    # As the rest of its shard, whose job would keep a second core idle: shards share the cores.
    threads: 1
    params:
        part="{name}",
        sample=lambda wildcards: CONFIG.timing.sample if wildcards.name == SAMPLE else [],
        unknown_characters=of_dataset("unknown_characters"),
        empty_references=of_dataset("empty_references"),
        code=code("features.preprocess"),
