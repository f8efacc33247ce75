rule elbo:
    input:
        cell=f"{CELL}/cell.json",
        weights=f"{CELL}/weights.safetensors",
    output:
        elbo=f"{CELL}/elbo.parquet",
    params:
        settings=STUDY.elbo.canonical(),
        noises=NOISES,
        code=fingerprint("verbs.elbo"),
    log:
        f"{LOG}/elbo.log",
    benchmark:
        f"{BENCHMARK}/elbo.tsv"
    threads: 1
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=0,
    conda:
        "../../environment.yml"
    shell:
        "difftime elbo {input.cell:q} {params.noises} --settings {params.settings:q}"
        " --threads {threads} > {log:q} 2>&1"


rule likelihood:
    input:
        cell=f"{CELL}/cell.json",
        weights=f"{CELL}/weights.safetensors",
    output:
        likelihood=f"{CELL}/likelihood.parquet",
    params:
        settings=STUDY.likelihood.canonical(),
        noises=NOISES,
        code=fingerprint("verbs.likelihood"),
    log:
        f"{LOG}/likelihood.log",
    benchmark:
        f"{BENCHMARK}/likelihood.tsv"
    threads: 1
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=0,
    conda:
        "../../environment.yml"
    shell:
        "difftime likelihood {input.cell:q} {params.noises} --settings {params.settings:q}"
        " --threads {threads} > {log:q} 2>&1"


rule samples:
    input:
        cell=f"{CELL}/cell.json",
        weights=f"{CELL}/weights.safetensors",
    output:
        samples=f"{CELL}/samples.parquet",
        modes=f"{CELL}/modes.parquet",
        histogram=f"{CELL}/histogram.parquet",
        cost=f"{CELL}/cost.parquet",
    params:
        settings=STUDY.samples.canonical(),
        noises=NOISES,
        code=fingerprint("verbs.samples"),
    log:
        f"{LOG}/samples.log",
    benchmark:
        f"{BENCHMARK}/samples.tsv"
    threads: 1
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=0,
    conda:
        "../../environment.yml"
    shell:
        "difftime samples {input.cell:q} {params.noises} --settings {params.settings:q}"
        " --threads {threads} > {log:q} 2>&1"
