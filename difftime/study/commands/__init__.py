"""What the pipeline does to one cell: verb = rule = module. Each reads a cell's folder and writes files into it.

Editing a verb, or a module it uses, re-runs its rule and what follows from it (see `workflow/rules/common.smk`).
"""
