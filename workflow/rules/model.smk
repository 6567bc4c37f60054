# From a checkpoint to weights with a description, and to the exports that engines start from.


rule fetch_checkpoint:
    input:
        code=stage_sources("fetch"),
    output:
        "results/models/{model}/checkpoint",
    log:
        "results/logs/models/{model}/fetch.log",
    benchmark:
        "results/benchmarks/models/{model}/fetch.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        url=lambda wildcards: MODELS[wildcards.model]["checkpoint"],
        trust="results/models/{model}/trusted.sha256",
    shell:
        "python -m deepspeech2.fetch --log {log:q} --urls {params.url:q} --kind checkpoint "
        "--trust {params.trust:q} --output {output:q}"


rule random_weights:
    input:
        labels=lambda wildcards: MODELS[wildcards.model]["random"]["labels"],
        code=stage_sources("random_weights"),
    output:
        "results/models/{model}/random.safetensors",
    log:
        "results/logs/models/{model}/random_weights.log",
    benchmark:
        "results/benchmarks/models/{model}/random_weights.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        options=random_options,
    shell:
        "python -m deepspeech2.random_weights --log {log:q} --labels {input.labels:q} "
        "{params.options} --checkpoint {output:q}"


rule checkpoint:
    input:
        checkpoint=checkpoint_source,
        code=stage_sources("checkpoint"),
    output:
        weights="results/models/{model}/model.safetensors",
        model="results/models/{model}/model.json",
    log:
        "results/logs/models/{model}/checkpoint.log",
    benchmark:
        "results/benchmarks/models/{model}/checkpoint.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        sha256=lambda wildcards: option("--sha256", MODELS[wildcards.model]["sha256"]),
    shell:
        "python -m deepspeech2.checkpoint --log {log:q} --checkpoint={input.checkpoint:q} "
        "{params.sha256} --weights {output.weights:q} --model {output.model:q}"


# Both rules: the second for engines with an interpreter of their own, which has its own torch.
rule export_torchscript:
    input:
        weights="results/models/{model}/model.safetensors",
        model="results/models/{model}/model.json",
        code=stage_sources("export"),
    output:
        torchscript="results/models/{model}/torchscript_{form}.pt",
        index="results/models/{model}/torchscript_{form}.json",
    log:
        "results/logs/models/{model}/torchscript_{form}.log",
    benchmark:
        "results/benchmarks/models/{model}/torchscript_{form}.tsv"
    conda:
        "../../envs/cpu.yaml"
    shell:
        "python -m deepspeech2.export --log {log:q} --weights {input.weights:q} "
        "--model {input.model:q} --form {wildcards.form} --torchscript {output.torchscript:q} "
        "--index {output.index:q}"


rule export_torchscript_of_engine:
    input:
        weights="results/models/{model}/model.safetensors",
        model="results/models/{model}/model.json",
        code=stage_sources("export"),
    output:
        torchscript="results/models/{model}/{engine}/{form}.pt",
        index="results/models/{model}/{engine}/{form}.json",
    log:
        "results/logs/models/{model}/{engine}/{form}.log",
    benchmark:
        "results/benchmarks/models/{model}/{engine}/{form}.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        python=python_of,
    shell:
        "{params.python:q} -m deepspeech2.export --log {log:q} --weights {input.weights:q} "
        "--model {input.model:q} --form {wildcards.form} --torchscript {output.torchscript:q} "
        "--index {output.index:q}"
