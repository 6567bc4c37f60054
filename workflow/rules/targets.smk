# What to ask for by name, besides `all` of workflow/Snakefile.


# The corpora with their manifests, ready for other tools.
rule datasets:
    input:
        [expand(rules.manifest.output, dataset=name, split=splits(name)) for name in RUN.datasets],


# Features in ModelZoo's layout.
rule features:
    input:
        lambda wildcards: features_of_selection(),


# What sclite takes.
rule trn:
    input:
        of_rows(rules.trn_of.output.references, rules.trn_of.output.hypotheses),


# When each word was said, in the form that sclite takes.
rule ctm:
    input:
        of_rows(*rules.ctm_of.output),


# What the guide's postprocess takes: dumpout as --out_path, features as --info_path.
rule dumpout:
    input:
        of_rows(rules.dumpout_of.output.dumpout),
        lambda wildcards: features_of_selection(),


# The models for other programs: TorchScript, ONNX, safetensors, and how to feed them.
rule export:
    input:
        expand(rules.package.output, **SELECTION),


# Engines side by side: config/engines.yaml has all that there are.
rule engines:
    input:
        rules.table.output,
        rules.figures.output,
        rules.page.output,


# A checkpoint of one's own, as config.yaml's `train` says (config/train.yaml: the embedded model).
rule train:
    input:
        rules.learn.output,
        rules.curves.output,


# A decoder's options, chosen on a validation part as config.yaml's `tune` says (config/tune.yaml).
rule tune:
    input:
        rules.choose.output,


# What benchmarks/bench.py starts from: features, exports and the eager network's transcripts.
rule bench:
    input:
        lambda wildcards: features_of_selection(),
        expand(rules.convert.output, **SELECTION),
        expand(rules.torchscript.output, **SELECTION, form=["static", "packed"]),
        expand(
            rules.onnx.output if engines.is_installed("onnx") else [],
            **SELECTION,
            form="static",
            opset=17,
        ),
        expand(rules.decode_eager.output, **SELECTION, part="", decoder="greedy"),
