# From posteriors and transcripts to scores, times and the record of each row of the table.


# What a decoder takes besides the network. Alone, as `timing`.
rule decoding_time:
    input:
        **OF_DECODER,
        posteriors=timed(rules.eager.output.posteriors),
        posteriors_index=timed(rules.eager.output.index),
        features_index=rules.preprocess.output.index,
    output:
        decoding_time="results/{dataset}/{model}/eager/{decoder}/decoding_time.json",
    log:
        "results/logs/{dataset}/{model}/eager/{decoder}/decoding_time.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/eager/{decoder}/decoding_time.tsv"
    retries: 0
    conda:
        "../../envs/cpu.yaml"
    threads: 1024
    resources:
        **needs("decode"),
    params:
        decoder=decoder_of,
        contents=tuning_contents,
        code=decoder_code("scoring.decoding_time"),
    shell:
        stage("scoring.decoding_time")


rule score:
    input:
        transcripts=whole(rules.decode.output.transcripts),
        transcripts_index=whole(rules.decode.output.index),
        features_index=rules.preprocess.output.index,
        training_texts=lambda wildcards: given(MODELS[wildcards.model].training_texts),
        language_model_texts=known_texts_of,
        word_times=lambda wildcards: given(DATASETS[wildcards.dataset].word_times),
    output:
        score="results/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/score.json",
        alignments="results/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/alignments.jsonl",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/score.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/score.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("score"),
    params:
        normaliser=CONFIG.score.normaliser or [],
        contents=lambda wildcards: contents(
            MODELS[wildcards.model].training_texts, DATASETS[wildcards.dataset].word_times
        ),
        code=code("scoring.score"),
    shell:
        stage("scoring.score")


rule agreement:
    input:
        transcripts=whole(rules.decode.output.transcripts),
        transcripts_index=whole(rules.decode.output.index),
        posteriors=of_shards(rules.infer.output.posteriors),
        posteriors_index=whole(rules.infer.output.index),
        eager_transcripts=whole(rules.decode_eager.output.transcripts),
        eager_transcripts_index=whole(rules.decode_eager.output.index),
        eager_posteriors=of_shards(rules.eager.output.posteriors),
        eager_posteriors_index=whole(rules.eager.output.index),
    output:
        agreement="results/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/agreement.json",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/agreement.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/agreement.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("score"),
    params:
        code=code("scoring.agreement"),
    shell:
        stage("scoring.agreement")


# More threads than any machine has: Snakemake scales them down to --cores, so that nothing else
# runs while this measures. (`workflow.cores` would break `snakemake -n` without --cores.)
rule timing:
    input:
        features=timed(FEATURES),
        features_index=timed(FEATURES_INDEX),
        model=rules.convert.output.model,
        artefact=rules.compile.output.artefact,
        artefact_index=rules.compile.output.index,
        posteriors=timed(rules.infer.output.posteriors),
        posteriors_index=timed(rules.infer.output.index),
    output:
        timing="results/{dataset}/{model}/{engine}/bs{batch_size}/timing.json",
        times="results/{dataset}/{model}/{engine}/bs{batch_size}/times.tsv",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/timing.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/timing.tsv"
    retries: 0
    conda:
        "../../envs/cpu.yaml"
    threads: 1024
    resources:
        **needs("timing"),
    params:
        **{key: [] if value is None else value for key, value in CONFIG.timing},
        scenario="offline",
        batch_size="{batch_size}",
        engine=engine_of,
        python=python_of,
        code=engine_code("engines.timing"),
    shell:
        stage("engines.timing", "{params.python}")


# One utterance at a time, as a service gets them: how long does each wait?
use rule timing as single_stream with:
    input:
        features=timed(FEATURES),
        features_index=timed(FEATURES_INDEX),
        model=rules.convert.output.model,
        artefact="results/{dataset}/{model}/{engine}/bs1/compiled",
        artefact_index="results/{dataset}/{model}/{engine}/bs1/compiled.json",
        posteriors=timed(rules.infer.output.posteriors, batch_size=1),
        posteriors_index=timed(rules.infer.output.index, batch_size=1),
    output:
        timing="results/{dataset}/{model}/{engine}/single_stream.json",
        times="results/{dataset}/{model}/{engine}/single_stream_times.tsv",
    log:
        "results/logs/{dataset}/{model}/{engine}/single_stream.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/single_stream.tsv"
    params:
        **{key: [] if value is None else value for key, value in CONFIG.timing},
        scenario="single_stream",
        batch_size=1,
        engine=engine_of,
        python=python_of,
        code=engine_code("engines.timing"),


# What published figures of zeros compare with, for engines whose backend has it.
rule zeros:
    input:
        artefact=rules.compile.output.artefact,
        artefact_index=rules.compile.output.index,
    output:
        zeros="results/{dataset}/{model}/{engine}/bs{batch_size}/zeros.json",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/zeros.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/zeros.tsv"
    retries: 0
    conda:
        "../../envs/cpu.yaml"
    threads: 1024
    resources:
        **needs("timing"),
    params:
        batch_size="{batch_size}",
        engine=engine_of,
        python=python_of,
        code=engine_code("engines.zeros"),
    shell:
        stage("engines.zeros", "{params.python}")


# A service, to which utterances come at random: how many can it take?
rule server:
    input:
        **OF_DECODER,
        features=timed(FEATURES),
        features_index=timed(FEATURES_INDEX),
        model=rules.convert.output.model,
        artefact=timed(rules.compile.output.artefact, batch_size=SERVER.max_batch),
        artefact_index=timed(rules.compile.output.index, batch_size=SERVER.max_batch),
        posteriors=timed(rules.infer.output.posteriors, batch_size=SERVER.max_batch),
        posteriors_index=timed(rules.infer.output.index, batch_size=SERVER.max_batch),
    output:
        server="results/{dataset}/{model}/{engine}/server/{decoder}/server.json",
        times="results/{dataset}/{model}/{engine}/server/{decoder}/times.tsv",
    log:
        "results/logs/{dataset}/{model}/{engine}/server/{decoder}/server.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/server/{decoder}/server.tsv"
    retries: 0
    conda:
        "../../envs/cpu.yaml"
    threads: 1024
    resources:
        **needs("timing"),
    params:
        **dict(SERVER),
        warmup_batches=CONFIG.timing.warmup_batches,
        max_other_load=CONFIG.timing.max_other_load,
        governors=CONFIG.timing.governors or [],
        sample=CONFIG.timing.sample,
        decoder=decoder_of,
        engine=engine_of,
        python=python_of,
        contents=tuning_contents,
        code=engine_code("serving.server"),
        decoder_code=decoder_code("scoring.decode"),
    shell:
        stage("serving.server", "{params.python}")


rule record:
    input:
        score=rules.score.output.score,
        agreement=rules.agreement.output.agreement,
        timing=rules.timing.output.timing,
        posteriors_index=whole(rules.infer.output.index),
        transcripts_index=whole(rules.decode.output.index),
        decoding_time=rules.decoding_time.output.decoding_time,
        corpus_index=rules.corpus.output.index,
        features_index=rules.preprocess.output.index,
        single_stream=rules.single_stream.output.timing,
        zeros=zeros_of,
        server=server_of,
    output:
        record="results/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/record.json",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/record.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/record.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("score"),
    params:
        row="{dataset}/{model}/{engine}/bs{batch_size}/{decoder}",
        configuration=lambda wildcards: json.dumps(
            {
                "dataset": DATASETS[wildcards.dataset].model_dump(),
                "model": MODELS[wildcards.model].model_dump(),
                **CONFIG.model_dump(include={"score", "accuracy", "timing", "server"}),
            },
            sort_keys=True,
        ),
        code=code("report.record"),
    shell:
        stage("report.record")


# The guide's text files, only where they are asked for: snakemake dumpout.
rule dumpout_of:
    input:
        posteriors=of_shards(rules.infer.output.posteriors),
        posteriors_index=whole(rules.infer.output.index),
    output:
        dumpout=directory("results/{dataset}/{model}/{engine}/bs{batch_size}/dumpout"),
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/dumpout.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/dumpout.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("score"),
    params:
        code=code("scoring.dumpout"),
    shell:
        stage("scoring.dumpout")


# References and hypotheses as sclite reads them: snakemake trn.
rule trn_of:
    input:
        transcripts=whole(rules.decode.output.transcripts),
        transcripts_index=whole(rules.decode.output.index),
    output:
        references="results/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/ref.trn",
        hypotheses="results/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/hyp.trn",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/trn.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/trn.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("score"),
    params:
        code=code("scoring.trn"),
    shell:
        stage("scoring.trn")


# When each word was said, as sclite and others read it: snakemake ctm.
rule ctm_of:
    input:
        transcripts=whole(rules.decode.output.transcripts),
        transcripts_index=whole(rules.decode.output.index),
        posteriors=of_shards(rules.infer.output.posteriors),
        posteriors_index=whole(rules.infer.output.index),
        features_index=rules.preprocess.output.index,
    output:
        ctm="results/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/hyp.ctm",
        references="results/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/ref.ctm",
    log:
        "results/logs/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/ctm.log",
    benchmark:
        "results/benchmarks/{dataset}/{model}/{engine}/bs{batch_size}/{decoder}/ctm.tsv"
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("score"),
    params:
        code=code("scoring.ctm"),
    shell:
        stage("scoring.ctm")
