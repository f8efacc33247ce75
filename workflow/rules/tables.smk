def cell_tables(wildcards):
    """The tables of single cells that a study's table is collected from."""
    return [f"{RESULTS}/cells/{part}" for part in GRID.files(wildcards.table)]


def derived_from(wildcards):
    """The tables, by their names, that a derived table is made from, and the cells' values of each image."""
    entry, planned = DERIVED[wildcards.table], GRID.tables()
    tables = [name for name in (*entry.needs, *entry.wants) if name in planned]
    units = {
        name: [f"{RESULTS}/cells/{part}" for part in GRID.files(name)]
        for name in entry.units
    }
    return {name: f"{RESULTS}/tables/{name}.parquet" for name in tables} | units


def figure_table(wildcards):
    return f"{RESULTS}/tables/{FIGURES[wildcards.figure].table}.parquet"


def made_by(wildcards):
    """The code of a derived table."""
    return fingerprint(DERIVED[wildcards.table].module)


def figure_style(wildcards):
    return STUDY.style(wildcards.place.partition("/")[0])


def figure_caption(wildcards):
    return caption(wildcards.figure)


def drawn_by(wildcards):
    return fingerprint(f"figures.{wildcards.figure}")


def in_report(table):
    """A table's HTML page, which Snakemake's report shows."""
    return report(
        f"{RESULTS}/tables/{table}.html",
        caption="../report/table.rst",
        category="Tables",
        labels={"table": table},
    )


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


rule figures:
    input:
        [
            f"{RESULTS}/figures/{dataset}/{f'{net}/' if net else ''}{figure}.pdf"
            for figure, dataset, net in GRID.figures()
        ],
