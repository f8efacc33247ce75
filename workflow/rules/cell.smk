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
