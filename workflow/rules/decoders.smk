# What decoders are made of: language models, and options that were chosen.
TUNE = CONFIG.tune


rule language_model:
    input:
        texts=lambda wildcards: local(CONFIG.language_models[wildcards.language_model].texts),
        arpa=lambda wildcards: given(CONFIG.language_models[wildcards.language_model].arpa),
    output:
        model="results/language_models/{language_model}.arpa",
        index="results/language_models/{language_model}.json",
        known="results/language_models/{language_model}.txt",
    log:
        "results/logs/language_models/{language_model}.log",
    benchmark:
        "results/benchmarks/language_models/{language_model}.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("decode"),
    params:
        unit=lambda wildcards: CONFIG.language_models[wildcards.language_model].unit,
        order=lambda wildcards: CONFIG.language_models[wildcards.language_model].order,
        contents=lambda wildcards: contents(
            *CONFIG.language_models[wildcards.language_model].texts,
            CONFIG.language_models[wildcards.language_model].arpa,
        ),
        code=code("scoring.language_model"),
    shell:
        stage("scoring.language_model")


rule choose:
    input:
        posteriors=of_tuning(rules.eager.output.posteriors),
        posteriors_index=of_tuning(whole(rules.eager.output.index)),
        features_index=of_tuning(rules.preprocess.output.index),
        language_model_index=of_tuned(0),
        language_model=of_tuned(1),
    output:
        tuning=f"results/tuning/{TUNE.decoder}.json",
        table=f"results/tuning/{TUNE.decoder}.tsv",
    log:
        f"results/logs/tuning/{TUNE.decoder}.log",
    benchmark:
        f"results/benchmarks/tuning/{TUNE.decoder}.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 1024
    resources:
        **needs("decode"),
    params:
        decoder=lambda wildcards: CONFIG.decoder(TUNE.decoder).text(),
        dataset=TUNE.dataset or [],
        grid=json.dumps(TUNE.grid),
        code=lambda wildcards: sources.digest(
            "deepspeech2.scoring.tune", decoders.DECODERS[CONFIG.decoders[TUNE.decoder].kind]
        ),
    shell:
        stage("scoring.tune")
