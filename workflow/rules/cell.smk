rule cells:
    output:
        f"{RESULTS}/cells.json",
    params:
        grid=STUDY.grid_json(),
    log:
        f"{RESULTS}/logs/cells.log",
    conda:
        "../../environment.yml"
    shell:
        "printf '%s\\n' {params.grid:q} > {output} 2> {log}"


rule cell:
    output:
        f"{CELL}/cell.json",
    params:
        settings=cell_settings,
    log:
        f"{LOG}/cell.log",
    conda:
        "../../environment.yml"
    shell:
        "printf '%s\\n' {params.settings:q} > {output} 2> {log}"
