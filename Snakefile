# Diffusion times: one score per dataset × SDE × network × T, the ELBO taken apart, tables, figures.


configfile: f"{workflow.basedir}/config.yaml"


report: "workflow/report/workflow.rst"


include: "workflow/rules/common.smk"
include: "workflow/rules/cell.smk"
include: "workflow/rules/train.smk"
include: "workflow/rules/measure.smk"
include: "workflow/rules/tables.smk"


# --resources gpu=N counts the GPUs of one machine, and is no limit on a cluster
resource_scopes:
    gpu="local",


# seconds of work each, and no GPU: less than a submission costs
localrules:
    all,
    tables,
    figures,
    study,
    settings,
    cell,
    fetch,
    model,
    collect,
    table,
    figure,


rule all:
    default_target: True
    input:
        rules.tables.input,
        rules.figures.input,


onstart:
    # To keep to a limit of jobs per second, Snakemake sets a timer whenever a job starts or ends, and each of these sets
    # the next when it goes off: hundreds go off a second after hundreds of jobs. Its default limits nothing here.
    limit = workflow.scheduling_settings.max_jobs_per_timespan
    if limit and limit.max_jobs >= 100 * limit.timespan:
        workflow.scheduler.job_rate_limiter = None
    hold_alone(RESULTS)


onerror:
    # with --keep-going a study may lack the tables of a cell: what can be made of the others is made
    if workflow.execution_settings.keep_going:
        shell("difftime partial {RESULTS:q} || true")
