# The selection's rows beside those of another run, and a gate that fails where ours are worse.


# Without a baseline there is nothing to wait for: the stage says at once what to add.
rule compare:
    input:
        records=expand("results/{row}/record.json", row=rows()) if config["baseline"] else [],
        transcripts=(
            expand("results/{row}/transcripts.jsonl", row=rows()) if config["baseline"] else []
        ),
        baseline=baseline_files(),
        code=stage_sources("compare"),
    output:
        multiext("results/comparison", tsv=".tsv", md=".md", json=".json"),
    log:
        "results/logs/compare.log",
    benchmark:
        "results/benchmarks/compare.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        baseline=[f"--baseline={config['baseline']}"] if config["baseline"] else [],
        rows=rows(),
        limits=[f"--{key.replace('_', '-')}={value}" for key, value in config["compare"].items()],
    shell:
        "python -m deepspeech2.compare --log {log:q} {params.baseline:q} --results results "
        "--rows {params.rows:q} {params.limits:q} --tsv {output.tsv:q} --md {output.md:q} "
        "--json {output.json:q}"


# A rule of its own, because Snakemake deletes what a failing job wrote. It has no output and no
# benchmark, so that it runs whenever it is asked for.
rule gate:
    input:
        comparison="results/comparison.json",
        code=stage_sources("gate"),
    log:
        "results/logs/gate.log",
    conda:
        "../../envs/cpu.yaml"
    shell:
        "python -m deepspeech2.gate --log {log:q} --comparison {input.comparison:q}"
