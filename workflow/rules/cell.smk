# Settings as files, and images: seconds of work each, and no GPU, which is less than a submission costs.


rule study:
    output:
        f"{RESULTS}/study.json",
    log:
        f"{RESULTS}/logs/study.log",
    localrule: True
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
    localrule: True
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
    localrule: True
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
    localrule: True
    conda:
        "../../environment.yml"
    params:
        # not the code: what is written stays the same when it is edited, and every cell would be trained anew
        **PLAN.images_parameters(),
    script:
        "../scripts/fetch.py"
