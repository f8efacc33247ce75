rule elbo:
    input:
        PLAN.images,
        cell=f"{CELL}/cell.json",
        settings=f"{RESULTS}/settings/{{dataset}}/elbo.json",
        weights=PLAN.weights,
        noises=PLAN.fitted,
    output:
        **left_by("elbo"),
        run=f"{CELL}/run_elbo.parquet",
    log:
        f"{LOG}/elbo.log",
    benchmark:
        f"{BENCHMARK}/elbo.tsv"
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
        code=fingerprint("study.commands.elbo"),
    shell:
        "difftime elbo {input.cell:q} --settings {input.settings:q} --planned {params.code}"
        " --data-dir {resources.data_dir:q} --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"


rule likelihood:
    input:
        PLAN.images,
        cell=f"{CELL}/cell.json",
        settings=f"{RESULTS}/settings/{{dataset}}/likelihood.json",
        weights=PLAN.weights,
        noises=PLAN.fitted,
    output:
        **left_by("likelihood"),
        run=f"{CELL}/run_likelihood.parquet",
    log:
        f"{LOG}/likelihood.log",
    benchmark:
        f"{BENCHMARK}/likelihood.tsv"
    # of images, what takes longest
    priority: 2
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
        code=fingerprint("study.commands.likelihood"),
    shell:
        "difftime likelihood {input.cell:q} --settings {input.settings:q} --planned {params.code}"
        " --data-dir {resources.data_dir:q} --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"


rule samples:
    input:
        PLAN.images,
        cell=f"{CELL}/cell.json",
        settings=f"{RESULTS}/settings/{{dataset}}/samples.json",
        weights=PLAN.weights,
        noises=PLAN.fitted,
    output:
        **left_by("samples"),
        run=f"{CELL}/run_samples.parquet",
    log:
        f"{LOG}/samples.log",
    benchmark:
        f"{BENCHMARK}/samples.tsv"
    group:
        PLAN.group
    conda:
        "../../environment.yml"
    threads: PLAN.cpus
    resources:
        **TEXTS,
        mem_mb=PLAN.memory,
        runtime=PLAN.minutes,
        gpu=PLAN.one_gpu,
    params:
        code=fingerprint("study.commands.samples"),
    shell:
        "difftime samples {input.cell:q} --settings {input.settings:q} --planned {params.code}"
        " --data-dir {resources.data_dir:q} --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
