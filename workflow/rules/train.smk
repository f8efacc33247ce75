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
    wildcard_constraints:
        net=PLAN.trained(),
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


# in place of training, for a model that somebody else trained
rule model:
    input:
        PLAN.images,
        cell=f"{CELL}/cell.json",
    output:
        model=f"{CELL}/model.json",
        training=f"{CELL}/training.parquet",
    log:
        f"{LOG}/model.log",
    wildcard_constraints:
        net=PLAN.pretrained(),
    # what cannot be measured is refused before hours are spent on the rest
    priority: 3
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        **TEXTS,
        mem_mb=PLAN.memory,
        runtime=PLAN.minutes,
    params:
        files=PLAN.files_of_model,
        code=fingerprint("study.commands.model"),
    script:
        "../scripts/model.py"


rule fit_noise:
    input:
        PLAN.images,
        PLAN.model,
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
