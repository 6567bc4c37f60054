# From a checkpoint to weights with a description, and to the exports that engines start from.


rule fetch_checkpoint:
    output:
        output="results/models/{model}/checkpoint",
    log:
        "results/logs/models/{model}/fetch.log",
    benchmark:
        "results/benchmarks/models/{model}/fetch.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("fetch"),
    params:
        urls=lambda wildcards: [MODELS[wildcards.model].checkpoint],
        kind="checkpoint",
        expected=[],
        megabytes=lambda wildcards: MODELS[wildcards.model].megabytes,
        code=code("corpus.fetch"),
    shell:
        stage("corpus.fetch")


rule random_weights:
    input:
        labels=lambda wildcards: given(MODELS[wildcards.model].random.labels),
    output:
        checkpoint="results/models/{model}/random.safetensors",
    log:
        "results/logs/models/{model}/random_weights.log",
    benchmark:
        "results/benchmarks/models/{model}/random_weights.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("export"),
    params:
        rnn_type=random_setting("rnn_type"),
        hidden_size=random_setting("hidden_size"),
        hidden_layers=random_setting("hidden_layers"),
        lookahead_context=lambda wildcards: (
            MODELS[wildcards.model].random.fields().get("lookahead_context", 0)
        ),
        seed=random_setting("seed"),
        contents=lambda wildcards: contents(MODELS[wildcards.model].random.labels),
        code=code("model.random_weights"),
    shell:
        stage("model.random_weights")


rule convert:
    input:
        checkpoint=checkpoint_of,
        labels=lambda wildcards: given(MODELS[wildcards.model].labels),
    output:
        weights="results/models/{model}/model.safetensors",
        model="results/models/{model}/model.json",
    log:
        "results/logs/models/{model}/convert.log",
    benchmark:
        "results/benchmarks/models/{model}/convert.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("convert"),
    params:
        sha256=lambda wildcards: MODELS[wildcards.model].sha256 or [],
        spectrogram=lambda wildcards: json.dumps(MODELS[wildcards.model].spectrogram),
        contents=checkpoint_contents,
        code=code("model.convert"),
    shell:
        stage("model.convert")


rule torchscript:
    input:
        weights=rules.convert.output.weights,
        model=rules.convert.output.model,
    output:
        torchscript="results/models/{model}/torchscript_{form}.pt",
        index="results/models/{model}/torchscript_{form}.json",
    log:
        "results/logs/models/{model}/torchscript_{form}.log",
    benchmark:
        "results/benchmarks/models/{model}/torchscript_{form}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("export"),
    params:
        form="{form}",
        code=code("model.torchscript"),
        python=OWN_PYTHON,
    shell:
        stage("model.torchscript", "{params.python}")


rule onnx:
    input:
        weights=rules.convert.output.weights,
        model=rules.convert.output.model,
    output:
        onnx="results/models/{model}/onnx_{form}_opset{opset}.onnx",
        index="results/models/{model}/onnx_{form}_opset{opset}.json",
    log:
        "results/logs/models/{model}/onnx_{form}_opset{opset}.log",
    benchmark:
        "results/benchmarks/models/{model}/onnx_{form}_opset{opset}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("export"),
    params:
        form="{form}",
        opset="{opset}",
        batch_size=[],
        code=code("model.onnx"),
    shell:
        stage("model.onnx")


use rule onnx as onnx_of_batch_size with:
    output:
        onnx="results/models/{model}/onnx_{form}_opset{opset}_bs{batch_size}.onnx",
        index="results/models/{model}/onnx_{form}_opset{opset}_bs{batch_size}.json",
    log:
        "results/logs/models/{model}/onnx_{form}_opset{opset}_bs{batch_size}.log",
    benchmark:
        "results/benchmarks/models/{model}/onnx_{form}_opset{opset}_bs{batch_size}.tsv"
    params:
        form="{form}",
        opset="{opset}",
        batch_size="{batch_size}",
        code=code("model.onnx"),


# For engines with an interpreter of their own: a trace that another torch wrote may not load there.
use rule torchscript as torchscript_of_engine with:
    output:
        torchscript="results/models/{model}/{engine}/torchscript_{form}.pt",
        index="results/models/{model}/{engine}/torchscript_{form}.json",
    log:
        "results/logs/models/{model}/{engine}/torchscript_{form}.log",
    benchmark:
        "results/benchmarks/models/{model}/{engine}/torchscript_{form}.tsv"
    params:
        form="{form}",
        code=code("model.torchscript"),
        python=python_of,


# For other programs, only where it is asked for: snakemake export.
rule package:
    input:
        weights=rules.convert.output.weights,
        model=rules.convert.output.model,
        torchscript=expand(rules.torchscript.output.torchscript, form="static", allow_missing=True),
        torchscript_index=expand(rules.torchscript.output.index, form="static", allow_missing=True),
        onnx=expand(rules.onnx.output.onnx, form="static", opset=17, allow_missing=True),
        onnx_index=expand(rules.onnx.output.index, form="static", opset=17, allow_missing=True),
    output:
        package=directory("results/export/{model}"),
    log:
        "results/logs/export/{model}.log",
    benchmark:
        "results/benchmarks/export/{model}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("export"),
    params:
        code=code("model.package"),
    shell:
        stage("model.package")
