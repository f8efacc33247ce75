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
        "printf '%s\\n' {params.grid:q} > {output:q} 2> {log:q}"


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
        "printf '%s\\n' {params.settings:q} > {output:q} 2> {log:q}"


rule fetch:
    output:
        f"{RESULTS}/data/{{dataset}}.json",
    log:
        f"{RESULTS}/logs/fetch-{{dataset}}.log",
    conda:
        "../../environment.yml"
    resources:
        data_dir=STUDY.data_dir,
    params:
        settings=image_settings,
        needs=image_needs,
        files=image_files,
        code=fingerprint("verbs.fetch"),
    shell:
        "difftime fetch --settings {params.settings:q} --needs {params.needs:q}"
        " --data-dir {resources.data_dir:q} --output {output:q} > {log:q} 2>&1"
