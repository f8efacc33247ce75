rule train:
    input:
        images_of,
        cell=f"{CELL}/cell.json",
    output:
        weights=f"{CELL}/weights.safetensors",
        history=f"{CELL}/history.parquet",
        training=f"{CELL}/training.parquet",
        run=f"{CELL}/run_train.parquet",
    log:
        f"{LOG}/train.log",
    benchmark:
        f"{BENCHMARK}/train.tsv"
    # what takes long begins first, so that no core is idle at the end
    priority: 1
    group:
        small
    conda:
        "../../environment.yml"
    threads: cpus
    resources:
        **TEXTS,
        mem_mb=memory,
        runtime=minutes,
        gpu=gpus,
    params:
        code=fingerprint("study.commands.train"),
    shell:
        "difftime train {input.cell:q} --checkpoint-minutes {resources.checkpoint_minutes}"
        " --data-dir {resources.data_dir:q} --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
