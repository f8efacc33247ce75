rule elbo:
    input:
        cell=f"{CELL}/cell.json",
        weights=f"{CELL}/weights.safetensors",
    output:
        elbo=f"{CELL}/elbo.parquet",
    log:
        f"{LOG}/elbo.log",
    benchmark:
        f"{BENCHMARK}/elbo.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=0,
    params:
        settings=STUDY.elbo.canonical(),
        noises=NOISES,
        code=fingerprint("verbs.elbo"),
    shell:
        "difftime elbo {input.cell:q} {params.noises} --settings {params.settings:q}"
        " --threads {threads} > {log:q} 2>&1"


rule likelihood:
    input:
        cell=f"{CELL}/cell.json",
        weights=f"{CELL}/weights.safetensors",
    output:
        likelihood=f"{CELL}/likelihood.parquet",
    log:
        f"{LOG}/likelihood.log",
    benchmark:
        f"{BENCHMARK}/likelihood.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=0,
    params:
        settings=STUDY.likelihood.canonical(),
        noises=NOISES,
        code=fingerprint("verbs.likelihood"),
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
    log:
        f"{LOG}/samples.log",
    benchmark:
        f"{BENCHMARK}/samples.tsv"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=0,
    params:
        settings=STUDY.samples.canonical(),
        noises=NOISES,
        code=fingerprint("verbs.samples"),
    shell:
        "difftime samples {input.cell:q} {params.noises} --settings {params.settings:q}"
        " --threads {threads} > {log:q} 2>&1"
