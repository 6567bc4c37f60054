# From features and exports to posteriors and transcripts, per engine and batch size.
FEATURES = "results/{dataset}/{model}{part}/features"
FEATURES_INDEX = f"{FEATURES}.json"
BEFORE_MORE_FEATURES = 1  # so that those of few shards are there at a time


rule compile:
    input:
        source=export_file(0),
        source_index=export_file(1),
        features_index=rules.preprocess.output.index,
    output:
        artefact=directory("results/{dataset}/{model}/{engine}/bs{batch_size}/compiled"),
        index="results/{dataset}/{model}/{engine}/bs{batch_size}/compiled.json",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/compile.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/compile.tsv"
    priority: BEFORE_MORE_FEATURES
    conda:
        "../../envs/cpu.yaml"
    threads: alone(1)
    resources:
        **needs("compile"),
    params:
        batch_size="{batch_size}",
        engine=engine_of,
        python=python_of,
        shards=lambda wildcards: DATASETS[wildcards.dataset].shards,
        sample=CONFIG.timing.sample,
        code=engine_code("engines.compile"),
    shell:
        stage("engines.compile", "{params.python}")


rule eager:
    input:
        features=FEATURES,
        features_index=FEATURES_INDEX,
        weights=rules.convert.output.weights,
        model=rules.convert.output.model,
    output:
        posteriors="results/{dataset}/{model}{part}/eager/posteriors.bin",
        index="results/{dataset}/{model}{part}/eager/posteriors.json",
    log:
        "results/logs/{dataset}/{model}{part}/eager/posteriors.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}{part}/eager/posteriors.tsv"
    priority: BEFORE_MORE_FEATURES
    group:
        group_of
    conda:
        "../../envs/cpu.yaml"
    threads: CONFIG.accuracy.threads
    resources:
        **needs("eager"),
    params:
        threads=CONFIG.accuracy.threads,
        code=code("model.eager"),
    shell:
        stage("model.eager")


rule infer:
    input:
        features=FEATURES,
        features_index=FEATURES_INDEX,
        artefact=rules.compile.output.artefact,
        artefact_index=rules.compile.output.index,
    output:
        posteriors="results/{dataset}/{model}{part}/{engine}/bs{batch_size}/posteriors.bin",
        index="results/{dataset}/{model}{part}/{engine}/bs{batch_size}/posteriors.json",
    log:
        "results/logs/{dataset}/{model}{part}/{engine}/bs{batch_size}/infer.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}{part}/{engine}/bs{batch_size}/infer.tsv"
    priority: BEFORE_MORE_FEATURES
    group:
        group_of
    conda:
        "../../envs/cpu.yaml"
    threads: alone(CONFIG.accuracy.threads)
    resources:
        **needs("infer"),
    params:
        batch_size="{batch_size}",
        engine=engine_of,
        python=python_of,
        threads=CONFIG.accuracy.threads,
        code=engine_code("engines.infer"),
    shell:
        stage("engines.infer", "{params.python}")


rule decode:
    input:
        **OF_DECODER,
        posteriors=rules.infer.output.posteriors,
        posteriors_index=rules.infer.output.index,
        features_index=FEATURES_INDEX,
    output:
        transcripts="results/{dataset}/{model}{part}/{engine}/bs{batch_size}/{decoder}/transcripts.jsonl",
        index="results/{dataset}/{model}{part}/{engine}/bs{batch_size}/{decoder}/transcripts.json",
    log:
        "results/logs/{dataset}/{model}{part}/{engine}/bs{batch_size}/{decoder}/decode.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}{part}/{engine}/bs{batch_size}/{decoder}/decode.tsv"
    priority: BEFORE_MORE_FEATURES
    group:
        group_of
    conda:
        "../../envs/cpu.yaml"
    threads: CONFIG.accuracy.threads
    resources:
        **needs("decode"),
    params:
        decoder=decoder_of,
        contents=tuning_contents,
        code=decoder_code("scoring.decode"),
    shell:
        stage("scoring.decode")


use rule decode as decode_eager with:
    input:
        **OF_DECODER,
        posteriors=rules.eager.output.posteriors,
        posteriors_index=rules.eager.output.index,
        features_index=FEATURES_INDEX,
    output:
        transcripts="results/{dataset}/{model}{part}/eager/{decoder}/transcripts.jsonl",
        index="results/{dataset}/{model}{part}/eager/{decoder}/transcripts.json",
    log:
        "results/logs/{dataset}/{model}{part}/eager/{decoder}/decode.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}{part}/eager/{decoder}/decode.tsv"


# A dataset's posteriors are those of its shards, one after another, and its transcripts theirs.
rule join:
    input:
        parts_indexes=of_shards(rules.infer.output.index),
        features_index=rules.preprocess.output.index,
    output:
        index=whole(rules.infer.output.index),
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/join.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/join.tsv"
    wildcard_constraints:
        dataset=one_of(SHARDED),
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("score"),
    params:
        code=code("model.join"),
    shell:
        stage("model.join")


use rule join as join_eager with:
    input:
        parts_indexes=of_shards(rules.eager.output.index),
        features_index=rules.preprocess.output.index,
    output:
        index=whole(rules.eager.output.index),
    log:
        "results/logs/{dataset}/{model}/eager/join.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/eager/join.tsv"


rule gather:
    input:
        parts=of_shards(rules.decode.output.transcripts),
        parts_indexes=of_shards(rules.decode.output.index),
        features_index=rules.preprocess.output.index,
    output:
        transcripts=whole(rules.decode.output.transcripts),
        index=whole(rules.decode.output.index),
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/gather.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/gather.tsv"
    wildcard_constraints:
        dataset=one_of(SHARDED),
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("score"),
    params:
        code=code("scoring.gather"),
    shell:
        stage("scoring.gather")


use rule gather as gather_eager with:
    input:
        parts=of_shards(rules.decode_eager.output.transcripts),
        parts_indexes=of_shards(rules.decode_eager.output.index),
        features_index=rules.preprocess.output.index,
    output:
        transcripts=whole(rules.decode_eager.output.transcripts),
        index=whole(rules.decode_eager.output.index),
    log:
        "results/logs/{dataset}/{model}/eager/{decoder}/gather.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/eager/{decoder}/gather.tsv"


ruleorder: join > infer
ruleorder: join_eager > eager
ruleorder: gather > decode
ruleorder: gather_eager > decode_eager
