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
        **{
            key: f"{name} = {value}"
            for key, (name, value) in enumerated(flat(plain_study(STUDY))).items()
        },
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
        **parameters(
            of_cell,
            (cell_settings(**keys) for keys, _ in STUDY.grid()),
        ),
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
        **parameters(
            of_measurement,
            (
                measurement_settings(dataset, measurement)
                for dataset in GRID.datasets()
                for measurement in MEASURED
            ),
        ),
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
        **parameters(
            of_images,
            (
                images_settings(dataset)
                for dataset in GRID.datasets()
                if not is_mixture(dataset)
            ),
        ),
    script:
        "../scripts/fetch.py"
