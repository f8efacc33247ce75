rule train:
    input:
        PLAN.images,
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
        PLAN.group
    conda:
        "../../environment.yml"
    threads: PLAN.cpus
    resources:
        **TEXTS,
        mem_mb=PLAN.memory,
        runtime=PLAN.minutes,
        gpu=PLAN.gpus,
    params:
        code=fingerprint("study.commands.train"),
    shell:
        "difftime train {input.cell:q} --planned {params.code} --data-dir {resources.data_dir:q}"
        " --checkpoint-minutes {resources.checkpoint_minutes} --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"


rule fit_noise:
    input:
        PLAN.images,
        cell=f"{CELL}/cell.json",
        settings=f"{RESULTS}/settings/{{dataset}}/noise_{{noise}}.json",
    output:
        noise=f"{CELL}/noise_{{noise}}.safetensors",
        run=f"{CELL}/run_noise_{{noise}}.parquet",
    log:
        f"{LOG}/noise_{{noise}}.log",
    benchmark:
        f"{BENCHMARK}/noise_{{noise}}.tsv"
    priority: 1
    group:
        PLAN.group
    conda:
        "../../environment.yml"
    threads: PLAN.cpus
    resources:
        **TEXTS,
        mem_mb=PLAN.memory,
        runtime=PLAN.minutes,
        gpu=0,
    params:
        code=fingerprint("study.commands.fit_noise"),
    shell:
        "difftime fit-noise {input.cell:q} --p-noise {wildcards.noise} --settings {input.settings:q}"
        " --planned {params.code} --data-dir {resources.data_dir:q} --threads {threads} > {log:q} 2>&1"
