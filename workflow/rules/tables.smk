# Tables and figures: seconds of work each, and no GPU, which is less than a submission costs.


rule collect:
    input:
        parts=cell_tables,
    output:
        parquet=f"{RESULTS}/tables/{{table}}.parquet",
        markdown=f"{RESULTS}/tables/{{table}}.md",
        html=in_report("{table}"),
    log:
        f"{RESULTS}/logs/collect-{{table}}.log",
    wildcard_constraints:
        table="|".join(COLLECTED),
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        code=fingerprint("tables.parquet"),
    script:
        "../scripts/collect.py"


rule table:
    input:
        unpack(derived_from),
    output:
        parquet=f"{RESULTS}/tables/{{table}}.parquet",
        markdown=f"{RESULTS}/tables/{{table}}.md",
        tex=f"{RESULTS}/tables/{{table}}.tex",
        html=in_report("{table}"),
    log:
        f"{RESULTS}/logs/{{table}}.log",
    wildcard_constraints:
        table="|".join(DERIVED),
    localrule: True
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        settings=STUDY.plain(),
        code=made_by,
    script:
        "../scripts/table.py"


rule figure:
    input:
        table=figure_table,
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
        mem_mb=memory,
        runtime=minutes,
    params:
        settings=figure_style,
        caption=figure_caption,
        code=drawn_by,
    script:
        "../scripts/figure.py"


rule tables:
    input:
        f"{RESULTS}/study.json",
        expand(f"{RESULTS}/tables/{{table}}.parquet", table=GRID.tables()),
    localrule: True


rule figures:
    input:
        [
            f"{RESULTS}/figures/{dataset}/{f'{net}/' if net else ''}{figure}.pdf"
            for figure, dataset, net in GRID.figures()
        ],
    localrule: True
