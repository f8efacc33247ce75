rule train:
    input:
        cell=f"{CELL}/cell.json",
    output:
        weights=f"{CELL}/weights.safetensors",
        history=f"{CELL}/history.parquet",
    params:
        code=fingerprint("verbs.train"),
    log:
        f"{LOG}/train.log",
    benchmark:
        f"{BENCHMARK}/train.tsv"
    threads: 1
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=0,
    conda:
        "../../environment.yml"
    shell:
        "difftime train {input.cell:q} --checkpoint-minutes {STUDY.checkpoint_minutes}"
        " --threads {threads} > {log:q} 2>&1"
