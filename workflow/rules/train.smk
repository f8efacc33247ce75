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
        "difftime train {input.cell:q} --planned {params.code} --data-dir {resources.data_dir:q}"
        " --checkpoint-minutes {resources.checkpoint_minutes} --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"


# in place of training, for a model that somebody else trained
rule model:
    input:
        images_of,
        cell=f"{CELL}/cell.json",
    output:
        model=f"{CELL}/model.json",
        training=f"{CELL}/training.parquet",
    log:
        f"{LOG}/model.log",
    wildcard_constraints:
        net="|".join(map(re.escape, STUDY.pretrained())) or NOTHING,
    # what cannot be measured is refused before hours are spent on the rest
    priority: 3
    conda:
        "../../environment.yml"
    resources:
        **TEXTS,
        mem_mb=memory,
        runtime=minutes,
    params:
        files=files_of_model,
        code=fingerprint("study.commands.model"),
    script:
        "../scripts/model.py"


ruleorder: model > train


rule fit_noise:
    input:
        images_of,
        model_of,
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
        small
    conda:
        "../../environment.yml"
    threads: cpus
    resources:
        **TEXTS,
        mem_mb=memory,
        runtime=minutes,
        gpu=0,
    params:
        code=fingerprint("study.commands.fit_noise"),
    shell:
        "difftime fit-noise {input.cell:q} --p-noise {wildcards.noise} --settings {input.settings:q}"
        " --planned {params.code} --data-dir {resources.data_dir:q} --threads {threads} > {log:q} 2>&1"
