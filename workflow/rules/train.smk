rule train:
    input:
        cell=f"{CELL}/cell.json",
    output:
        weights=f"{CELL}/weights.safetensors",
        history=f"{CELL}/history.parquet",
    log:
        f"{LOG}/train.log",
    benchmark:
        f"{BENCHMARK}/train.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=0,
        # a resource and not a parameter: it changes no result, so its change re-runs nothing
        checkpoint_minutes=STUDY.checkpoint_minutes,
    params:
        code=fingerprint("verbs.train"),
    shell:
        "difftime train {input.cell:q} --checkpoint-minutes {resources.checkpoint_minutes}"
        " --threads {threads} > {log:q} 2>&1"
