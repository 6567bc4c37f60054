# From the rows of the selection to the table.


rule table:
    input:
        scores=expand("results/{row}/score.json", row=rows()),
        timings=expand("results/{row}/timing.json", row=rows()),
        published=list(published().values()),
        code=stage_sources("table"),
    output:
        multiext("results/table", tsv=".tsv", md=".md", html=".html"),
    log:
        "results/logs/table.log",
    benchmark:
        "results/benchmarks/table.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        rows=rows(),
        published=[f"{name}={path}" for name, path in published().items()],
    shell:
        "python -m deepspeech2.table --log {log:q} --results results --rows {params.rows:q} "
        "--published {params.published:q} --tsv {output.tsv:q} --md {output.md:q} "
        "--html {output.html:q}"
