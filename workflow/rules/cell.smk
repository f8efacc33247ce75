rule study:
    output:
        f"{RESULTS}/study.json",
    log:
        f"{RESULTS}/logs/study.log",
    conda:
        "../../environment.yml"
    params:
        **PLAN.study_parameters(),
    script:
        "../scripts/study.py"


rule cell:
    output:
        f"{CELL}/cell.json",
    log:
        f"{LOG}/cell.log",
    conda:
        "../../environment.yml"
    params:
        **PLAN.cell_parameters(),
    script:
        "../scripts/settings.py"


rule settings:
    output:
        f"{RESULTS}/settings/{{dataset}}/{{measurement}}.json",
    log:
        f"{RESULTS}/logs/settings-{{dataset}}-{{measurement}}.log",
    conda:
        "../../environment.yml"
    params:
        **PLAN.measurement_parameters(),
    script:
        "../scripts/settings.py"


rule fetch:
    output:
        f"{RESULTS}/data/{{dataset}}.json",
    log:
        f"{RESULTS}/logs/fetch-{{dataset}}.log",
    conda:
        "../../environment.yml"
    params:
        # not the code: what is written stays the same when it is edited, and every cell would be trained anew
        **PLAN.images_parameters(),
    script:
        "../scripts/fetch.py"
