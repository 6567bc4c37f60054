# The selection's rows beside those of another run, and a gate that fails where ours are worse.


# Without a baseline there is nothing to wait for: the stage says at once what to add.
rule compare:
    input:
        records=of_rows(rules.record.output.record) if CONFIG.baseline else [],
        transcripts=of_rows(whole(rules.decode.output.transcripts)) if CONFIG.baseline else [],
        theirs=list(map(local, baseline_files())),
    output:
        tsv="results/comparison.tsv",
        md="results/comparison.md",
        json="results/comparison.json",
    log:
        "results/logs/compare.log",
    benchmark:
        "results/benchmarks/compare.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("report"),
    params:
        **dict(CONFIG.compare),
        baseline=CONFIG.baseline or [],
        contents=contents(*baseline_files()),
        code=code("report.compare"),
    shell:
        stage("report.compare")


# A rule of its own, because Snakemake deletes what a failing job wrote. It has no output and no
# benchmark, so that it runs whenever it is asked for.
rule gate:
    input:
        comparison=rules.compare.output.json,
    log:
        "results/logs/gate.log",
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("report"),
    shell:
        stage("report.gate")
