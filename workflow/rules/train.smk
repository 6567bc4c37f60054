# From corpora to a checkpoint. The rest of the workflow takes it like any other.
TRAINING = f"results/training/{config['train']['name']}"
TRAINING_DATASETS = list(dict.fromkeys([*config["train"]["datasets"], *config["train"]["dev"]]))


# What a stopped run goes on from is in {params.state}, which is no output: Snakemake would delete it.
rule training:
    input:
        manifests=[
            m.split("=", 1)[1] for part in ("train", "val") for m in training_manifests(part)
        ],
        corpora=expand("results/datasets/{dataset}/corpus", dataset=TRAINING_DATASETS),
        labels=expand("results/datasets/{dataset}/labels.json", dataset=TRAINING_DATASETS),
        start=training_start(),
        code=stage_sources("train"),
    output:
        weights=f"{TRAINING}/model.safetensors",
        training=f"{TRAINING}/training.json",
        curves=f"{TRAINING}/curves.csv",
        texts=f"{TRAINING}/training_texts.txt",
    log:
        f"results/logs/training/{config['train']['name']}.log",
    benchmark:
        f"results/benchmarks/training/{config['train']['name']}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1024
    params:
        train=training_manifests("train"),
        dev=training_manifests("val"),
        settings=training_settings(),
        start=start_options(),
        device=config["train"]["device"],
        state=f"{TRAINING}/state",
        drop=[
            f"--drop-unknown={name}"
            for name in TRAINING_DATASETS
            if DATASETS[name]["unknown_characters"] == "drop"
        ],
    shell:
        "python -m deepspeech2.train --log {log:q} --train {params.train:q} --dev {params.dev:q} "
        "--labels {input.labels:q} {params.drop:q} --settings {params.settings:q} {params.start} "
        "--device {params.device} --threads {threads} --state {params.state:q} "
        "--curves {output.curves:q} --weights {output.weights:q} --training {output.training:q} "
        "--texts {output.texts:q}"


rule curves:
    input:
        curves=f"{TRAINING}/curves.csv",
        code=stage_sources("curves"),
    output:
        report(
            f"{TRAINING}/curves.svg",
            caption="../report/curves.rst",
            category="Training",
        ),
    log:
        f"results/logs/training/{config['train']['name']}_curves.log",
    benchmark:
        f"results/benchmarks/training/{config['train']['name']}_curves.tsv"
    conda:
        "../../envs/cpu.yaml"
    shell:
        "python -m deepspeech2.curves --log {log:q} --curves {input.curves:q} --figure {output:q}"


rule v3_checkpoint:
    input:
        weights=f"{TRAINING}/model.safetensors",
        code=stage_sources("v3"),
    output:
        f"{TRAINING}/model.ckpt",
    log:
        f"results/logs/training/{config['train']['name']}_v3.log",
    benchmark:
        f"results/benchmarks/training/{config['train']['name']}_v3.tsv"
    conda:
        "../../envs/cpu.yaml"
    shell:
        "python -m deepspeech2.v3 --log {log:q} --checkpoint {input.weights:q} --output {output:q}"
