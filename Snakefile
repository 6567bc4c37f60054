# The entry for people who start Snakemake here. workflow/Snakefile is the table of contents.
include: "workflow/Snakefile"


# The table and the report: an included file has no say in what is made by default.
rule default:
    default_target: True
    input:
        rules.all.input,
