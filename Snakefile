# DeepSpeech2: accuracy and throughput per batch size, from a speech archive and a checkpoint.
#
# This file is the table of contents. Settings are in config.yaml, which explains them; rules in
# workflow/rules, one file a stage; what the stages do is in workflow/deepspeech2.
from snakemake.utils import min_version

min_version("9.27")


configfile: "config.yaml"


include: "workflow/rules/common.smk"
include: "workflow/rules/dataset.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/model.smk"
include: "workflow/rules/features.smk"
include: "workflow/rules/inference.smk"
include: "workflow/rules/report.smk"
include: "workflow/rules/compare.smk"
include: "workflow/rules/bench.smk"


# The table and the report, and every cached file behind them, so that one that was deleted is
# made again.
rule all:
    default_target: True
    input:
        multiext("results/table", ".tsv", ".md", ".html"),
        "results/report.html",
        rules.figures.output,
        rules.tables.output,
        intermediates(),


# The corpora with their manifests, ready for other tools.
rule datasets:
    input:
        manifests(),


# The posteriors as text files, as the guide's dumpout has them.
rule dumpout:
    input:
        expand("results/{row}/dumpout", row=rows()),


# Features in ModelZoo's layout.
rule features:
    input:
        features(),


# A checkpoint of one's own, as config.yaml's `train` says (config/train.yaml: the embedded model).
rule train:
    input:
        rules.training.output,
        rules.curves.output,
        rules.v3_checkpoint.output if config["train"]["v3_checkpoint"] else [],
