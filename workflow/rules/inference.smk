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
    threads: alone(1)
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
    threads: alone(config["accuracy"]["threads"])
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
        features_index="results/{dataset}/{model}/features.json",
        training_texts=lambda wildcards: MODELS[wildcards.model]["training_texts"] or [],
        code=stage_sources("score"),
    output:
        score="results/{dataset}/{model}/{engine}/bs{batch_size}/score.json",
        alignments="results/{dataset}/{model}/{engine}/bs{batch_size}/alignments.jsonl",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/score.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/score.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        training_texts=lambda wildcards: option(
            "--training-texts", MODELS[wildcards.model]["training_texts"]
        ),
    shell:
        "python -m deepspeech2.score --log {log:q} --transcripts {input.transcripts:q} "
        "--features-index {input.features_index:q} {params.training_texts} "
        "--score {output.score:q} --alignments {output.alignments:q}"


rule agreement:
    input:
        transcripts="results/{dataset}/{model}/{engine}/bs{batch_size}/transcripts.jsonl",
        posteriors="results/{dataset}/{model}/{engine}/bs{batch_size}/posteriors.bin",
        index="results/{dataset}/{model}/{engine}/bs{batch_size}/posteriors.json",
        eager_transcripts="results/{dataset}/{model}/eager/transcripts.jsonl",
        eager_posteriors="results/{dataset}/{model}/eager/posteriors.bin",
        eager_index="results/{dataset}/{model}/eager/posteriors.json",
        code=stage_sources("agreement"),
    output:
        "results/{dataset}/{model}/{engine}/bs{batch_size}/agreement.json",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/agreement.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/agreement.tsv"
    conda:
        "../../envs/cpu.yaml"
    shell:
        "python -m deepspeech2.agreement --log {log:q} --transcripts {input.transcripts:q} "
        "--posteriors {input.posteriors:q} --posteriors-index {input.index:q} "
        "--eager-transcripts {input.eager_transcripts:q} "
        "--eager-posteriors {input.eager_posteriors:q} "
        "--eager-posteriors-index {input.eager_index:q} --agreement {output:q}"


# The guide's text files, only where they are asked for: snakemake dumpout.
rule dumpout_of:
    input:
        posteriors="results/{dataset}/{model}/{engine}/bs{batch_size}/posteriors.bin",
        index="results/{dataset}/{model}/{engine}/bs{batch_size}/posteriors.json",
        code=stage_sources("dumpout"),
    output:
        directory("results/{dataset}/{model}/{engine}/bs{batch_size}/dumpout"),
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/dumpout.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/dumpout.tsv"
    conda:
        "../../envs/cpu.yaml"
    shell:
        "python -m deepspeech2.dumpout --log {log:q} --posteriors {input.posteriors:q} "
        "--posteriors-index {input.index:q} --dumpout {output:q}"


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
        timing=timing_options(),
    shell:
        "{params.python:q} -m deepspeech2.timing --log {log:q} --features {input.features:q} "
        "--features-index {input.features_index:q} --model {input.model:q} "
        "--artefact {input.artefact:q} --artefact-index {input.artefact_index:q} "
        "--batch-size {wildcards.batch_size} --threads {threads} {params.timing} "
        "{params.engine} --timing {output:q}"


# One utterance at a time, as a service gets them: how long does each wait?
rule single_stream:
    input:
        features="results/{dataset}/{model}/features",
        features_index="results/{dataset}/{model}/features.json",
        model="results/models/{model}/model.json",
        artefact="results/{dataset}/{model}/{engine}/bs1/compiled",
        artefact_index="results/{dataset}/{model}/{engine}/bs1/compiled.json",
        code=backend_sources("timing"),
    output:
        "results/{dataset}/{model}/{engine}/single_stream.json",
    log:
        "results/logs/{dataset}/{model}/{engine}/single_stream.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/single_stream.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1024
    params:
        python=python_of,
        engine=engine_options,
        timing=timing_options(),
    shell:
        "{params.python:q} -m deepspeech2.timing --log {log:q} --features {input.features:q} "
        "--features-index {input.features_index:q} --model {input.model:q} "
        "--artefact {input.artefact:q} --artefact-index {input.artefact_index:q} "
        "--batch-size 1 --scenario single_stream --threads {threads} {params.timing} "
        "{params.engine} --timing {output:q}"


rule record:
    input:
        score="results/{row}/score.json",
        agreement="results/{row}/agreement.json",
        timing="results/{row}/timing.json",
        posteriors_index="results/{row}/posteriors.json",
        single_stream=lambda wildcards: (
            f"results/{wildcards.row.rpartition('/')[0]}/single_stream.json"
        ),
        code=stage_sources("record"),
    output:
        "results/{row}/record.json",
    log:
        "results/logs/{row}/record.log",
    benchmark:
        "results/benchmarks/{row}/record.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        configuration=configuration_of,
        folder=lambda wildcards: f"results/{wildcards.row}",
    shell:
        "python -m deepspeech2.record --log {log:q} --row {wildcards.row:q} "
        "--folder {params.folder:q} --single-stream {input.single_stream:q} "
        "--configuration {params.configuration:q} --record {output:q}"
