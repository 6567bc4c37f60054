# From features and exports to posteriors, transcripts, scores and times, per engine and batch size.


rule compile:
    input:
        unpack(exported_model),
        features="results/{dataset}/{model}/features.json",
        code=backend_sources("compile"),
    output:
        artefact=directory("results/{dataset}/{model}/{engine}/bs{batch_size}/compiled"),
        index="results/{dataset}/{model}/{engine}/bs{batch_size}/compiled.json",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/compile.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/compile.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        python=python_of,
        engine=engine_options,
    shell:
        "{params.python:q} -m deepspeech2.compile --log {log:q} --source {input.source:q} "
        "--source-index {input.source_index:q} --features {input.features:q} "
        "--batch-size {wildcards.batch_size} {params.engine} --artefact {output.artefact:q} "
        "--index {output.index:q}"


rule eager:
    input:
        features="results/{dataset}/{model}/features",
        features_index="results/{dataset}/{model}/features.json",
        weights="results/models/{model}/model.safetensors",
        model="results/models/{model}/model.json",
        code=stage_sources("eager"),
    output:
        posteriors="results/{dataset}/{model}/eager/posteriors.bin",
        index="results/{dataset}/{model}/eager/posteriors.json",
    log:
        "results/logs/{dataset}/{model}/eager/posteriors.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/eager/posteriors.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: config["accuracy"]["threads"]
    params:
        threads=config["accuracy"]["threads"],
    shell:
        "python -m deepspeech2.eager --log {log:q} --features {input.features:q} "
        "--features-index {input.features_index:q} --weights {input.weights:q} "
        "--model {input.model:q} --threads {params.threads} --posteriors {output.posteriors:q} "
        "--index {output.index:q}"


rule posteriors:
    input:
        features="results/{dataset}/{model}/features",
        features_index="results/{dataset}/{model}/features.json",
        artefact="results/{dataset}/{model}/{engine}/bs{batch_size}/compiled",
        artefact_index="results/{dataset}/{model}/{engine}/bs{batch_size}/compiled.json",
        code=backend_sources("posteriors"),
    output:
        posteriors="results/{dataset}/{model}/{engine}/bs{batch_size}/posteriors.bin",
        index="results/{dataset}/{model}/{engine}/bs{batch_size}/posteriors.json",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/posteriors.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/posteriors.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: config["accuracy"]["threads"]
    params:
        python=python_of,
        engine=engine_options,
        threads=config["accuracy"]["threads"],
    shell:
        "{params.python:q} -m deepspeech2.posteriors --log {log:q} "
        "--features {input.features:q} --features-index {input.features_index:q} "
        "--artefact {input.artefact:q} --artefact-index {input.artefact_index:q} "
        "--batch-size {wildcards.batch_size} --threads {params.threads} {params.engine} "
        "--posteriors {output.posteriors:q} --index {output.index:q}"


rule decode:
    input:
        posteriors="results/{dataset}/{model}/{run}/posteriors.bin",
        posteriors_index="results/{dataset}/{model}/{run}/posteriors.json",
        features_index="results/{dataset}/{model}/features.json",
        code=stage_sources("decode"),
    output:
        "results/{dataset}/{model}/{run}/transcripts.jsonl",
    log:
        "results/logs/{dataset}/{model}/{run}/decode.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{run}/decode.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        decoder=config["decoder"]["name"],
    shell:
        "python -m deepspeech2.decode --log {log:q} --posteriors {input.posteriors:q} "
        "--posteriors-index {input.posteriors_index:q} "
        "--features-index {input.features_index:q} --decoder {params.decoder} "
        "--transcripts {output:q}"


rule score:
    input:
        transcripts="results/{dataset}/{model}/{engine}/bs{batch_size}/transcripts.jsonl",
        eager="results/{dataset}/{model}/eager/transcripts.jsonl",
        code=stage_sources("score"),
    output:
        "results/{dataset}/{model}/{engine}/bs{batch_size}/score.json",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/score.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/score.tsv"
    conda:
        "../../envs/cpu.yaml"
    shell:
        "python -m deepspeech2.score --log {log:q} --transcripts {input.transcripts:q} "
        "--eager {input.eager:q} --score {output:q}"


# More threads than any machine has: Snakemake scales them down to --cores, so that nothing else
# runs while this measures. (`workflow.cores` would break `snakemake -n` without --cores.)
rule timing:
    input:
        features="results/{dataset}/{model}/features",
        features_index="results/{dataset}/{model}/features.json",
        model="results/models/{model}/model.json",
        artefact="results/{dataset}/{model}/{engine}/bs{batch_size}/compiled",
        artefact_index="results/{dataset}/{model}/{engine}/bs{batch_size}/compiled.json",
        code=backend_sources("timing"),
    output:
        "results/{dataset}/{model}/{engine}/bs{batch_size}/timing.json",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/timing.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/timing.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1024
    params:
        python=python_of,
        engine=engine_options,
        timing=" ".join(
            option(f"--{key.replace('_', '-')}", value) for key, value in config["timing"].items()
        ),
    shell:
        "{params.python:q} -m deepspeech2.timing --log {log:q} --features {input.features:q} "
        "--features-index {input.features_index:q} --model {input.model:q} "
        "--artefact {input.artefact:q} --artefact-index {input.artefact_index:q} "
        "--batch-size {wildcards.batch_size} --threads {threads} {params.timing} "
        "{params.engine} --timing {output:q}"
