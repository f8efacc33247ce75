rule fit_noise:
    input:
        images_of,
        cell=f"{CELL}/cell.json",
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
        settings=noise_settings,
        code=fingerprint("study.commands.fit_noise"),
    shell:
        "difftime fit-noise {input.cell:q} --p-noise {wildcards.noise} --settings {params.settings:q}"
        " --data-dir {resources.data_dir:q} --threads {threads} > {log:q} 2>&1"


rule elbo:
    input:
        cell=f"{CELL}/cell.json",
        weights=f"{CELL}/weights.safetensors",
        noises=fitted,
    output:
        elbo=f"{CELL}/elbo.parquet",
        run=f"{CELL}/run_elbo.parquet",
    log:
        f"{LOG}/elbo.log",
    benchmark:
        f"{BENCHMARK}/elbo.tsv"
    group:
        "cell"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        **TEXTS,
        mem_mb=memory,
        runtime=minutes,
        gpu=0,
    params:
        settings=STUDY.elbo.canonical(),
        noises=noises,
        code=fingerprint("study.commands.elbo"),
    shell:
        "difftime elbo {input.cell:q} {params.noises} --settings {params.settings:q}"
        " --threads {threads} > {log:q} 2>&1"


rule running:
    input:
        cell=f"{CELL}/cell.json",
        weights=f"{CELL}/weights.safetensors",
    output:
        running=f"{CELL}/running.parquet",
        run=f"{CELL}/run_running.parquet",
    log:
        f"{LOG}/running.log",
    benchmark:
        f"{BENCHMARK}/running.tsv"
    group:
        "cell"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        **TEXTS,
        mem_mb=memory,
        runtime=minutes,
        gpu=0,
    params:
        settings=RUNNING,
        noises=known_noises,
        code=fingerprint("study.commands.running"),
    shell:
        "difftime running {input.cell:q} {params.noises} --settings {params.settings:q}"
        " --threads {threads} > {log:q} 2>&1"


rule likelihood:
    input:
        cell=f"{CELL}/cell.json",
        weights=f"{CELL}/weights.safetensors",
        noises=fitted,
    output:
        likelihood=f"{CELL}/likelihood.parquet",
        run=f"{CELL}/run_likelihood.parquet",
    log:
        f"{LOG}/likelihood.log",
    benchmark:
        f"{BENCHMARK}/likelihood.tsv"
    group:
        "cell"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        **TEXTS,
        mem_mb=memory,
        runtime=minutes,
        gpu=0,
    params:
        settings=STUDY.likelihood.canonical(),
        noises=noises,
        code=fingerprint("study.commands.likelihood"),
    shell:
        "difftime likelihood {input.cell:q} {params.noises} --settings {params.settings:q}"
        " --threads {threads} > {log:q} 2>&1"


rule samples:
    input:
        cell=f"{CELL}/cell.json",
        weights=f"{CELL}/weights.safetensors",
        noises=fitted,
    output:
        samples=f"{CELL}/samples.parquet",
        modes=f"{CELL}/modes.parquet",
        histogram=f"{CELL}/histogram.parquet",
        cost=f"{CELL}/cost.parquet",
        run=f"{CELL}/run_samples.parquet",
    log:
        f"{LOG}/samples.log",
    benchmark:
        f"{BENCHMARK}/samples.tsv"
    group:
        "cell"
    conda:
        "../../environment.yml"
    threads: 1
    resources:
        **TEXTS,
        mem_mb=memory,
        runtime=minutes,
        gpu=0,
    params:
        settings=STUDY.samples.canonical(),
        noises=noises,
        code=fingerprint("study.commands.samples"),
    shell:
        "difftime samples {input.cell:q} {params.noises} --settings {params.settings:q}"
        " --threads {threads} > {log:q} 2>&1"


rule bpd:
    input:
        images_of,
        cell=f"{CELL}/cell.json",
        weights=f"{CELL}/weights.safetensors",
        noises=fitted,
    output:
        bpd=f"{CELL}/bpd.parquet",
        bpd_images=f"{CELL}/bpd_images.parquet",
        run=f"{CELL}/run_bpd.parquet",
    log:
        f"{LOG}/bpd.log",
    benchmark:
        f"{BENCHMARK}/bpd.tsv"
    priority: 2
    conda:
        "../../environment.yml"
    threads: cpus
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=gpus,
        data_dir=STUDY.data_dir,
    params:
        settings=STUDY.bpd.canonical(),
        noises=noises,
        code=fingerprint("study.commands.bpd"),
    shell:
        "difftime bpd {input.cell:q} {params.noises} --settings {params.settings:q}"
        " --data-dir {resources.data_dir:q} --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"


rule image_elbo:
    input:
        images_of,
        cell=f"{CELL}/cell.json",
        weights=f"{CELL}/weights.safetensors",
        noises=fitted,
    output:
        image_elbo=f"{CELL}/image_elbo.parquet",
        image_elbo_images=f"{CELL}/image_elbo_images.parquet",
        run=f"{CELL}/run_image_elbo.parquet",
    log:
        f"{LOG}/image_elbo.log",
    benchmark:
        f"{BENCHMARK}/image_elbo.tsv"
    conda:
        "../../environment.yml"
    threads: cpus
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=gpus,
        data_dir=STUDY.data_dir,
    params:
        settings=STUDY.image_elbo.canonical(),
        noises=noises,
        code=fingerprint("study.commands.image_elbo"),
    shell:
        "difftime image-elbo {input.cell:q} {params.noises} --settings {params.settings:q}"
        " --data-dir {resources.data_dir:q} --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"


rule image_samples:
    input:
        images_of,
        cell=f"{CELL}/cell.json",
        weights=f"{CELL}/weights.safetensors",
        noises=fitted,
    output:
        image_samples=f"{CELL}/image_samples.parquet",
        image_quality=f"{CELL}/image_quality.parquet",
        run=f"{CELL}/run_image_samples.parquet",
    log:
        f"{LOG}/image_samples.log",
    benchmark:
        f"{BENCHMARK}/image_samples.tsv"
    conda:
        "../../environment.yml"
    threads: cpus
    resources:
        mem_mb=memory,
        runtime=minutes,
        gpu=one_gpu,
        data_dir=STUDY.data_dir,
    params:
        settings=STUDY.image_samples.canonical(),
        noises=noises,
        code=fingerprint("study.commands.image_samples"),
    shell:
        "difftime image-samples {input.cell:q} {params.noises} --settings {params.settings:q}"
        " --data-dir {resources.data_dir:q} --threads {threads} --gpus {resources.gpu} > {log:q} 2>&1"
