# From the rows of the selection to the table, the figures, and the report.
FIGURES = ("throughput", "rtfx", "wer", "latency", "phases", "padding")
TABLES = ("errors", "parts", "confusions", "agreement", "engines")


report: "../report/workflow.rst"


rule table:
    input:
        records=expand("results/{row}/record.json", row=rows()),
        published=list(published().values()),
        code=stage_sources("table"),
    output:
        tsv="results/table.tsv",
        md="results/table.md",
        html=report("results/table.html", caption="../report/table.rst", category="Results"),
    log:
        "results/logs/table.log",
    benchmark:
        "results/benchmarks/table.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        rows=rows(),
        published=published_options(),
    shell:
        "python -m deepspeech2.table --log {log:q} --results results --rows {params.rows:q} "
        "--published {params.published:q} --tsv {output.tsv:q} --md {output.md:q} "
        "--html {output.html:q}"


rule figures:
    input:
        records=expand("results/{row}/record.json", row=rows()),
        published=list(published().values()),
        code=stage_sources("figures"),
    output:
        [
            report(
                f"results/figures/{name}.svg",
                caption=f"../report/{name}.rst",
                category="Figures",
                labels={"figure": name},
            )
            for name in FIGURES
        ],
    log:
        "results/logs/figures.log",
    benchmark:
        "results/benchmarks/figures.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        rows=rows(),
        published=published_options(),
    shell:
        "python -m deepspeech2.figures --log {log:q} --results results --rows {params.rows:q} "
        "--published {params.published:q} --figures results/figures"


rule tables:
    input:
        records=expand("results/{row}/record.json", row=rows()),
        transcripts=expand("results/{row}/transcripts.jsonl", row=rows()),
        alignments=expand("results/{row}/alignments.jsonl", row=rows()),
        features=[path for path in features() if path.endswith(".json")],
        code=stage_sources("listing"),
    output:
        [
            report(
                f"results/tables/{name}.tsv",
                caption=f"../report/{name}.rst",
                category="Tables",
                labels={"table": name},
            )
            for name in TABLES
        ],
    log:
        "results/logs/tables.log",
    benchmark:
        "results/benchmarks/tables.tsv"
    conda:
        "../../envs/cpu.yaml"
    params:
        rows=rows(),
    shell:
        "python -m deepspeech2.listing --log {log:q} --results results --rows {params.rows:q} "
        "--tables results/tables"


rule report_page:
    input:
        records=expand("results/{row}/record.json", row=rows()),
        transcripts=expand("results/{row}/transcripts.jsonl", row=rows()),
        alignments=expand("results/{row}/alignments.jsonl", row=rows()),
        posteriors=expand("results/{row}/posteriors.{suffix}", row=rows(), suffix=["bin", "json"]),
        features=features(),
        manifests=list(run_manifests().values()),
        corpora=expand("results/datasets/{dataset}/corpus", dataset=RUN["datasets"]),
        figures=[f"results/figures/{name}.svg" for name in FIGURES],
        published=list(published().values()),
        template=[
            os.path.relpath(Path(workflow.basedir) / "workflow" / "report" / f"report.{suffix}")
            for suffix in ("html.j2", "css", "js")
        ],
        code=stage_sources("report"),
    output:
        report("results/report.html", caption="../report/page.rst", category="Results"),
    log:
        "results/logs/report.log",
    benchmark:
        "results/benchmarks/report.tsv"
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    params:
        rows=rows(),
        published=published_options(),
        manifests=[f"{name}={path}" for name, path in run_manifests().items()],
    shell:
        "python -m deepspeech2.report --log {log:q} --results results --rows {params.rows:q} "
        "--published {params.published:q} --manifests {params.manifests:q} "
        "--figures results/figures --template {input.template[0]:q} --processes {threads} "
        "--report {output:q}"
