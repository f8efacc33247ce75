rule study:
    output:
        f"{RESULTS}/study.json",
    log:
        f"{RESULTS}/logs/study.log",
    conda:
        "../../environment.yml"
    params:
        study=STUDY.grid().canonical(),
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
        **{
            key: parameter(of_cell, name)
            for key, name in each(
                cell_settings(**keys) for keys in STUDY.cells()
            ).items()
        },
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
        **{
            key: parameter(of_measurement, name)
            for key, name in each(
                measurement_settings(dataset, measurement)
                for dataset in STUDY.used_datasets()
                for measurement in STUDY.measurements(dataset)
            ).items()
        },
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
        **{
            key: parameter(of_images, name)
            for key, name in each(
                images_settings(dataset)
                for dataset in STUDY.used_datasets()
                if not STUDY.is_mixture(dataset)
            ).items()
        },
    script:
        "../scripts/fetch.py"
