rule collect:
    input:
        cells=f"{RESULTS}/cells.json",
        parts=cell_tables,
    output:
        parquet=f"{RESULTS}/tables/{{table}}.parquet",
        markdown=f"{RESULTS}/tables/{{table}}.md",
        html=in_report("{table}"),
    log:
        f"{RESULTS}/logs/collect-{{table}}.log",
    wildcard_constraints:
        table="|".join([*MEASURED_BY, "runs"]),
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        code=fingerprint("tables.derived"),
    shell:
        "difftime collect {wildcards.table} --cells {input.cells:q} --output {output.parquet:q} > {log:q} 2>&1"


rule optimum:
    input:
        elbo=f"{RESULTS}/tables/elbo.parquet",
    output:
        parquet=f"{RESULTS}/tables/optimum.parquet",
        markdown=f"{RESULTS}/tables/optimum.md",
        html=in_report("optimum"),
    log:
        f"{RESULTS}/logs/optimum.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        settings=STUDY.optimum.canonical(),
        seed=STUDY.seed,
        code=fingerprint("tables.derived"),
    shell:
        "difftime optimum --elbo {input.elbo:q} --output {output.parquet:q} --seed {params.seed}"
        " --settings {params.settings:q} > {log:q} 2>&1"


rule scout:
    input:
        unpack(refined_table),
        running=f"{RESULTS}/tables/running.parquet",
        elbo=f"{RESULTS}/tables/elbo.parquet",
        optimum=f"{RESULTS}/tables/optimum.parquet",
        runs=f"{RESULTS}/tables/runs.parquet",
    output:
        parquet=f"{RESULTS}/tables/scout.parquet",
        markdown=f"{RESULTS}/tables/scout.md",
        html=in_report("scout"),
        curves=f"{RESULTS}/tables/scout_curves.parquet",
        curves_markdown=f"{RESULTS}/tables/scout_curves.md",
        curves_html=f"{RESULTS}/tables/scout_curves.html",
    log:
        f"{RESULTS}/logs/scout.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        refined=refined_option,
        settings=STUDY.optimum.canonical(),
        seed=STUDY.seed,
        code=fingerprint("optimum.scouting"),
    shell:
        "difftime scout --running {input.running:q} --elbo {input.elbo:q} --optimum {input.optimum:q}"
        " --runs {input.runs:q} {params.refined} --output {output.parquet:q} --curves {output.curves:q} --seed {params.seed}"
        " --settings {params.settings:q} > {log:q} 2>&1"


checkpoint refine:
    input:
        running=running_before,
    output:
        decision=ROUND,
    log:
        f"{RESULTS}/logs/{round_name(LINE, '{round}')}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        settings=refine_settings,
        p_noise=refine_noise,
        optimum=STUDY.optimum.canonical(),
        seed=STUDY.seed,
        code=fingerprint("optimum.scouting"),
    shell:
        "difftime refine {input.running:q} --p-noise {params.p_noise} --settings {params.settings:q}"
        " --optimum {params.optimum:q} --seed {params.seed} --output {output.decision:q} 2>&1 | tee {log:q}"


rule refined:
    input:
        cells=f"{RESULTS}/cells.json",
        decisions=rounds,
        begun=rounds_begun,
        runs=f"{RESULTS}/tables/runs.parquet",
        optimum=f"{RESULTS}/tables/optimum.parquet",
    output:
        parquet=f"{RESULTS}/tables/refined.parquet",
        markdown=f"{RESULTS}/tables/refined.md",
        html=in_report("refined"),
    log:
        f"{RESULTS}/logs/refined.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        code=fingerprint("optimum.scouting"),
    shell:
        "difftime refined --cells {input.cells:q} --runs {input.runs:q} --optimum {input.optimum:q}"
        " --output {output.parquet:q} > {log:q} 2>&1"


rule bounds:
    input:
        elbo=f"{RESULTS}/tables/elbo.parquet",
        likelihood=f"{RESULTS}/tables/likelihood.parquet",
    output:
        parquet=f"{RESULTS}/tables/bounds.parquet",
        markdown=f"{RESULTS}/tables/bounds.md",
        html=in_report("bounds"),
    log:
        f"{RESULTS}/logs/bounds.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        code=fingerprint("tables.derived"),
    shell:
        "difftime bounds --elbo {input.elbo:q} --likelihood {input.likelihood:q}"
        " --output {output.parquet:q} 2>&1 | tee {log:q}"


rule summarise:
    input:
        unpack(summarised),
        elbo=f"{RESULTS}/tables/elbo.parquet",
        optimum=f"{RESULTS}/tables/optimum.parquet",
    output:
        parquet=f"{RESULTS}/tables/summary.parquet",
        markdown=f"{RESULTS}/tables/summary.md",
        html=in_report("summary"),
    log:
        f"{RESULTS}/logs/summarise.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        options=summary_options,
        code=fingerprint("tables.derived"),
    shell:
        "difftime summarise --elbo {input.elbo:q} --optimum {input.optimum:q} {params.options}"
        " --output {output.parquet:q} > {log:q} 2>&1"


rule table1:
    input:
        bpd=f"{RESULTS}/tables/bpd.parquet",
        image_elbo=f"{RESULTS}/tables/image_elbo.parquet",
        training=f"{RESULTS}/tables/training.parquet",
    output:
        parquet=f"{RESULTS}/tables/table1.parquet",
        markdown=f"{RESULTS}/tables/table1.md",
        tex=f"{RESULTS}/tables/table1.tex",
        html=in_report("table1"),
    log:
        f"{RESULTS}/logs/table1.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        code=fingerprint("tables.derived"),
    shell:
        "difftime table1 --bpd {input.bpd:q} --image-elbo {input.image_elbo:q} --training {input.training:q}"
        " --output {output.parquet:q} > {log:q} 2>&1"


rule table2:
    input:
        table1=f"{RESULTS}/tables/table1.parquet",
    output:
        parquet=f"{RESULTS}/tables/table2.parquet",
        markdown=f"{RESULTS}/tables/table2.md",
        tex=f"{RESULTS}/tables/table2.tex",
        html=in_report("table2"),
    log:
        f"{RESULTS}/logs/table2.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        code=fingerprint("tables.derived"),
    shell:
        "difftime table2 --table1 {input.table1:q} --output {output.parquet:q} > {log:q} 2>&1"


rule tradeoff:
    input:
        unpack(traded),
        cells=f"{RESULTS}/cells.json",
    output:
        parquet=f"{RESULTS}/tables/tradeoff.parquet",
        markdown=f"{RESULTS}/tables/tradeoff.md",
        html=in_report("tradeoff"),
    log:
        f"{RESULTS}/logs/tradeoff.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        options=tradeoff_options,
        code=fingerprint("optimum.tradeoff"),
    shell:
        "difftime tradeoff --cells {input.cells:q} {params.options} --output {output.parquet:q} > {log:q} 2>&1"


rule figure:
    input:
        table=figure_table,
    output:
        pdf=f"{RESULTS}/figures/{{figure}}.pdf",
        png=report(
            f"{RESULTS}/figures/{{figure}}.png",
            caption="../report/figure.rst",
            category="Figures",
            labels={"figure": "{figure}"},
        ),
    log:
        f"{RESULTS}/logs/{{figure}}.log",
    conda:
        "../../environment.yml"
    resources:
        mem_mb=memory,
        runtime=minutes,
    params:
        settings=figure_settings,
        code=figure_code,
    shell:
        "difftime figure {wildcards.figure} --table {input.table:q} --output {output.pdf:q}"
        " --settings {params.settings:q} > {log:q} 2>&1"


rule tables:
    input:
        expand(f"{RESULTS}/tables/{{table}}.parquet", table=TABLES),


rule figures:
    input:
        expand(f"{RESULTS}/figures/{{figure}}.pdf", figure=STUDY.figures.draw),
