def cell_tables(wildcards):
    """The tables of single cells that a study's table is collected from."""
    return [f"{RESULTS}/cells/{part}" for part in STUDY.grid().parts(wildcards.table)]


def derived_from(wildcards):
    """The tables, by their names, that a derived table is made from, and the cells' values of each image."""
    entry, grid = DERIVED[wildcards.table], STUDY.grid()
    tables = [
        name for name in (*entry.needs, *entry.wants) if name in grid.tables()
    ]
    units = {
        name: [f"{RESULTS}/cells/{part}" for part in grid.parts(name)]
        for name in entry.units
    }
    return {name: f"{RESULTS}/tables/{name}.parquet" for name in tables} | units


def figure_table(wildcards):
    return f"{RESULTS}/tables/{FIGURES[wildcards.figure].table}.parquet"


def made_by(wildcards):
    """The code of a derived table."""
    return fingerprint(DERIVED[wildcards.table].module)


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
        study=f"{RESULTS}/study.json",
        parts=cell_tables,
    output:
        parquet=f"{RESULTS}/tables/{{table}}.parquet",
        markdown=f"{RESULTS}/tables/{{table}}.md",
        html=in_report("{table}"),
    log:
        f"{RESULTS}/logs/collect-{{table}}.log",
    wildcard_constraints:
        table="|".join(STUDY.grid().collected()),
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
        settings=STUDY.plain_figures(),
        code=drawn_by,
    script:
        "../scripts/figure.py"


rule tables:
    input:
        expand(f"{RESULTS}/tables/{{table}}.parquet", table=STUDY.grid().tables()),


rule figures:
    input:
        [f"{RESULTS}/figures/{path}.pdf" for path in STUDY.grid().figures()],
