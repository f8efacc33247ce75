# Tables and figures: seconds of work each, and no GPU, which is less than a submission costs.


rule collect:
    input:
        parts=PLAN.parts,
    output:
        parquet=f"{TABLES}/{{table}}.parquet",
        markdown=f"{TABLES}/{{table}}.md",
        html=in_report("{table}"),
    log:
        f"{RESULTS}/logs/tables/{{dataset}}/{{table}}.log",
    wildcard_constraints:
        table="|".join(COLLECTED),
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=PLAN.memory,
        runtime=PLAN.minutes,
    params:
        caption=PLAN.said,
        code=fingerprint("tables.parquet"),
    script:
        "../scripts/collect.py"


rule table:
    input:
        unpack(PLAN.sources),
    output:
        parquet=f"{TABLES}/{{table}}.parquet",
        markdown=f"{TABLES}/{{table}}.md",
        tex=f"{TABLES}/{{table}}.tex",
        html=in_report("{table}"),
    log:
        f"{RESULTS}/logs/tables/{{dataset}}/{{table}}.log",
    wildcard_constraints:
        table="|".join(DERIVED),
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=PLAN.memory,
        runtime=PLAN.minutes,
    params:
        settings=PLAN.plain,
        caption=PLAN.said,
        code=PLAN.made_by,
    script:
        "../scripts/table.py"


rule figure:
    input:
        table=PLAN.shown,
    output:
        pdf=f"{RESULTS}/figures/{{place}}/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{place}}/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            subcategory="{place}",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{RESULTS}/logs/figures/{{place}}/{{figure}}.log",
    wildcard_constraints:
        figure="|".join(FIGURES),
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=PLAN.memory,
        runtime=PLAN.minutes,
    params:
        settings=PLAN.style,
        caption=PLAN.caption,
        code=PLAN.drawn_by,
    script:
        "../scripts/figure.py"


rule pages:
    input:
        tables=PLAN.told(),
        pictures=PLAN.opening(),
    output:
        explorer=f"{RESULTS}/explore.html",
        findings=report(f"{RESULTS}/findings.html", category="Findings"),
    log:
        f"{RESULTS}/logs/pages.log",
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=PLAN.memory,
        runtime=PLAN.minutes,
    params:
        kinds=PLAN.cells.kinds,
        code=fingerprint("study.pages"),
    script:
        "../scripts/pages.py"


rule tables:
    input:
        f"{RESULTS}/study.json",
        PLAN.tables(),
    localrule: True


rule figures:
    input:
        PLAN.figures(),
    localrule: True
