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
    group:
        mixtures("cell")
    conda:
        "../../environment.yml"
    threads: cpus
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=gpus,
        # resources and not parameters: they change no result, so their change re-runs nothing
        # a resource that is a number must be a whole one
        checkpoint_minutes=str(STUDY.checkpoint_minutes),
        data_dir=STUDY.data_dir,
    params:
        code=fingerprint("verbs.train"),
    shell:
        "difftime train {input.cell:q} --checkpoint-minutes {resources.checkpoint_minutes}"
        " --data-dir {resources.data_dir:q} --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
