rule collect:
    input:
        parts=cell_tables,
    output:
        parquet=f"{TABLES}/{{table}}.parquet",
        markdown=f"{TABLES}/{{table}}.md",
        html=in_report("{table}"),
    log:
        f"{RESULTS}/logs/tables/{{dataset}}/{{table}}.log",
    wildcard_constraints:
        table="|".join(COLLECTED),
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
        parquet=f"{TABLES}/{{table}}.parquet",
        markdown=f"{TABLES}/{{table}}.md",
        tex=f"{TABLES}/{{table}}.tex",
        html=in_report("{table}"),
    log:
        f"{RESULTS}/logs/tables/{{dataset}}/{{table}}.log",
    wildcard_constraints:
        table="|".join(DERIVED),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        settings=plain_of,
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
        [
            f"{RESULTS}/tables/{dataset}/{table}.parquet"
            for dataset in GRID.datasets()
            for table in GRID.tables(dataset)
        ],


rule figures:
    input:
        [
            f"{RESULTS}/figures/{dataset}/{f'{net}/' if net else ''}{figure}.pdf"
            for figure, dataset, net in GRID.figures()
        ],
