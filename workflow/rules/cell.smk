rule cells:
    output:
        f"{RESULTS}/cells.json",
    log:
        f"{RESULTS}/logs/cells.log",
    conda:
        "../../environment.yml"
    params:
        grid=STUDY.cells().canonical(),
    shell:
        "printf '%s\\n' {params.grid:q} > {output:q}.partial 2> {log:q}"
        " && mv {output:q}.partial {output:q}"


rule cell:
    output:
        f"{CELL}/cell.json",
    log:
        f"{LOG}/cell.log",
    conda:
        "../../environment.yml"
    params:
        settings=cell_settings,
    shell:
        "printf '%s\\n' {params.settings:q} > {output:q}.partial 2> {log:q}"
        " && mv {output:q}.partial {output:q}"


rule fetch:
    output:
        f"{RESULTS}/data/{{dataset}}.json",
    log:
        f"{RESULTS}/logs/fetch-{{dataset}}.log",
    conda:
        "../../environment.yml"
    resources:
        data_dir=STUDY.data_dir,
        needs=image_needs,
    params:
        settings=image_settings,
        # not the code: what is written stays the same when it is edited, and every cell would be trained anew
        files=image_files,
    shell:
        "difftime fetch --settings {params.settings:q} --needs {resources.needs:q}"
        " --data-dir {resources.data_dir:q} --output {output:q} > {log:q} 2>&1"
