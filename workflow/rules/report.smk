# From the rows of the selection to the table, the figures, and the report.
FIGURES = "throughput rtfx wer invariance pareto latency single phases padding reliability".split()
WORSE = [DATASETS[name].perturb for name in RUN.datasets if DATASETS[name].perturb]
if any(worse.snr is not None for worse in WORSE):
    FIGURES.insert(FIGURES.index("latency"), "noise")
if CONFIG.server:
    FIGURES.insert(FIGURES.index("phases"), "server")
TABLES = "errors parts confusions agreement batch_sizes engines decoders".split()
# Published figures are of a corpus's test part, where it has one.
PUBLISHED = {
    name: DATASETS[name].published
    for name in RUN.datasets
    if DATASETS[name].published
    and (DATASETS[name].split == "test" or "test" not in layouts.parts(DATASETS[name].layout))
}
PUBLISHED_PAIRS = [f"{name}={path}" for name, path in PUBLISHED.items()]
TEMPLATE = [
    shipped(f"workflow/report/{name}")
    for name in ("report.html.j2", "report.css", "report.js", "tables.js", "pairs.js")
]
BOARD = [
    shipped(f"workflow/report/{name}") for name in ("board.html.j2", "report.css", "tables.js")
]


report: "../report/workflow.rst"


rule table:
    input:
        records=of_rows(rules.record.output.record),
        published=list(map(local, PUBLISHED.values())),
    output:
        tsv="results/table.tsv",
        md=report("results/table.md", caption="../report/table.rst", category="Results"),
    log:
        "results/logs/table.log",
    benchmark:
        "results/benchmarks/table.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("report"),
    params:
        published=PUBLISHED_PAIRS,
        contents=contents(*PUBLISHED.values()),
        code=code("report.table"),
    shell:
        stage("report.table")


rule figures:
    input:
        records=of_rows(rules.record.output.record),
        published=list(map(local, PUBLISHED.values())),
    output:
        figures=[
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
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("report"),
    params:
        published=PUBLISHED_PAIRS,
        contents=contents(*PUBLISHED.values()),
        code=code("report.figures"),
    shell:
        stage("report.figures")


rule errors:
    input:
        records=of_rows(rules.record.output.record),
        transcripts=of_rows(whole(rules.decode.output.transcripts), rules.score.output.alignments),
        features=expand(rules.preprocess.output.index, **SELECTION),
    output:
        tables=[
            report(
                f"results/tables/{name}.tsv",
                caption=f"../report/{name}.rst",
                category="Tables",
                labels={"table": name},
            )
            for name in TABLES
        ],
    log:
        "results/logs/errors.log",
    benchmark:
        "results/benchmarks/errors.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("report"),
    params:
        code=code("report.errors"),
    shell:
        stage("report.errors")


rule page:
    input:
        records=of_rows(rules.record.output.record),
        transcripts=of_rows(whole(rules.decode.output.transcripts), rules.score.output.alignments),
        posteriors=of_rows(rules.infer.output.posteriors, whole(rules.infer.output.index)),
        features=expand(rules.preprocess.output.index, **SELECTION),
        manifests=[
            path
            for name in RUN.datasets
            for path in expand(rules.manifest.output, dataset=name, split=DATASETS[name].split)
        ],
        corpora=expand(rules.corpus.output.corpus, **SELECTION),
        figures=rules.figures.output.figures,
        published=list(map(local, PUBLISHED.values())),
        baseline=list(map(local, baseline_records())),
        baseline_transcripts=list(map(local, baseline_transcripts())),
        template=local(TEMPLATE[0]),
    output:
        report=report("results/report.html", caption="../report/page.rst", category="Results"),
    log:
        "results/logs/page.log",
    benchmark:
        "results/benchmarks/page.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    threads: 2
    resources:
        **needs("report"),
    params:
        published=PUBLISHED_PAIRS,
        manifests=lambda wildcards, input: list(map("=".join, zip(RUN.datasets, input.manifests))),
        contents=contents(*PUBLISHED.values(), *TEMPLATE, *baseline_files()),
        code=code("report.page"),
    shell:
        stage("report.page")


# The rows with everything that their figures can be computed from again, for others to check:
# python -m deepspeech2.check results/submission.zip
rule submission:
    input:
        records=of_rows(rules.record.output.record),
        files=[
            *rules.table.output,
            *of_rows(
                *rules.score.output,
                *rules.agreement.output,
                *map(whole, rules.decode.output),
                *map(whole, rules.decode_eager.output),
                whole(rules.infer.output.index),
                *rules.timing.output,
                *rules.single_stream.output,
                *rules.decoding_time.output,
                *(rules.server.output if CONFIG.server else ()),
                *rules.trn_of.output,
                *rules.ctm_of.output,
            ),
            *expand(rules.corpus.output.index, **SELECTION),
            *expand(rules.preprocess.output.index, **SELECTION),
            *samples_of_selection(),
            *zeros_of_selection(),
        ],
        texts=texts_of_selection(),
        published=list(map(local, PUBLISHED.values())),
    output:
        archive="results/submission.zip",
    log:
        "results/logs/submission.log",
    benchmark:
        "results/benchmarks/submission.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("report"),
    params:
        published=PUBLISHED_PAIRS,
        contents=contents(*PUBLISHED.values(), *given_texts()),
        code=code("report.submission"),
    shell:
        stage("report.submission")


# Submissions of several machines side by side: snakemake board --config 'boards=[a.zip, b.zip]'
rule board:
    input:
        boards=boards_of,
        template=local(BOARD[0]),
    output:
        tsv="results/board.tsv",
        md="results/board.md",
        page="results/board.html",
    log:
        "results/logs/board.log",
    benchmark:
        "results/benchmarks/board.tsv"
    localrule: True
    conda:
        "../../envs/cpu.yaml"
    resources:
        **needs("report"),
    params:
        contents=contents(*BOARD, *CONFIG.boards),
        code=code("report.board"),
    shell:
        stage("report.board")
