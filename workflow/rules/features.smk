# From a manifest to features in ModelZoo's layout.


rule preprocess:
    input:
        manifest=manifest_of,
        corpus="results/datasets/{dataset}/corpus",
        labels="results/datasets/{dataset}/labels.json",
        model="results/models/{model}/model.json",
        code=stage_sources("preprocess"),
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
    shell:
        "python -m deepspeech2.preprocess --log {log:q} --manifest {input.manifest:q} "
        "--model {input.model:q} --labels {input.labels:q} "
        "--unknown-characters {params.unknown_characters} --processes {threads} "
        "--features {output.features:q} --index {output.index:q}"
