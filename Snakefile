# Diffusion times: one score per dataset × SDE × network × T, the ELBO taken apart, tables, figures.
# The rules are in workflow/, where Snakemake's workflow catalog and other workflows look for them.


include: "workflow/Snakefile"


# what is included sets no default target
rule default:
    input:
        rules.all.input,
    localrule: True
