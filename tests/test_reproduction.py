"""A finished study in the documentation: which tables are brought there, and what its page says of them."""

import json
from pathlib import Path

import pytest
from builders import frame

from difftime.study.settings import plain_study, read_study
from difftime.tables import parquet
from difftime.tables.published import FLOWS
from workflow.reproduction import main, paper, parts, standing

PARTS = ("paper", "table1", "cheapest", "optimum", "parts", "standing", "time")
STUDY = "study: [{dataset: mnist5k, sde: vp, net: unet-16, T: [1.0, 0.4]}]"


@pytest.fixture
def results(tmp_path: Path) -> Path:
    place = tmp_path / "results"
    (tmp_path / "mine.yaml").write_text(STUDY)
    (place / "tables" / "mnist5k").mkdir(parents=True)
    (place / "study.json").write_text(json.dumps(plain_study(read_study([tmp_path / "mine.yaml"]))))
    curve = {"dataset": "mnist5k", "sde": "vp", "net": "unet-16", "p_noise": "full"}
    star = {"unit": "bits per dimension", "T_star": 0.51, "T_star_low": 0.4, "T_star_high": 0.6, "spacing": 0.6}
    rows = {
        "table1": [curve | {"T": T, "bpd": bpd, "bpd_se": 0.01, "elbo_bpd": bpd + 0.05, "elbo_bpd_se": 0.02}
                   for T, bpd in ((1.0, 1.055), (0.4, 1.02))]
                  + [curve | {"p_noise": "standard", "T": T, "bpd": bpd, "bpd_se": 0.03, "elbo_bpd": 1.3, "nfe": 123,
                              "delta_bpd": bpd - 1.1, "delta_bpd_se": 0.004} for T, bpd in ((1.0, 1.1), (0.4, 1.21))],
        "optimum": [curve | star | {"method": "trained", "interior": True},
                    curve | star | {"method": "curve", "T_star": 0.9, "interior": False}],
        "cheapest": [curve | {"model": "ode", "loss": 0.01}],
        # the second was cut: its last piece took 5 of its 30 seconds
        "runs": [curve | {"T": 1.0, "command": "train", "seconds": last, "work_seconds": own, "settings": "/home/me"}
                 for last, own in ((10.0, 9.0), (5.0, 30.0))],
    }  # fmt: skip
    for name, of_table in rows.items():
        parquet.save(frame(name, of_table), name, place / "tables" / "mnist5k" / f"{name}.parquet")
    of_images = {1.0: {1.0: (1.1, 1.3), 0.4: (1.15, 1.36)}, 0.4: {0.4: (1.14, 1.32)}}
    for T, at in of_images.items():
        cell, key = place / "cells" / f"T={T:g}", curve | {"T": T}
        own = [key | {"unit": unit, "elbo_bpd": bpd} for unit, bpd in enumerate(at[T])]
        every = [
            key | {"t": t, "unit": unit, "elbo_bpd": bpd} for t, bits in at.items() for unit, bpd in enumerate(bits)
        ]
        parquet.save(frame("elbo_units", own), "elbo_units", cell / "elbo_units.parquet")
        parquet.save(frame("curve_units", every), "curve_units", cell / "curve_units.parquet")
    (place / "figures" / "mnist5k" / "unet-16").mkdir(parents=True)
    (place / "figures" / "mnist5k" / "unet-16" / "images.png").write_bytes(b"a picture")
    return place


def test_tables_and_figures_are_copied_and_what_was_there_goes(results: Path, tmp_path: Path) -> None:
    """But for the runs, whose settings name folders of the machine."""
    folder = tmp_path / "docs" / "mnist"
    (folder / "figures").mkdir(parents=True)
    (folder / "figures" / "old.png").write_bytes(b"")
    folder.with_suffix(".md").write_text("".join(f"<!-- {part} begins -->\n<!-- {part} ends -->\n" for part in PARTS))
    main(results, folder, "mnist")
    there = sorted(path.name for path in folder.rglob("*.*"))
    assert there == ["cheapest.parquet", "images.png", "optimum.parquet", "table1.parquet"]
    page = folder.with_suffix(".md").read_text()
    assert "trained cells | 0.51 [0.40, 0.60] |" in page
    assert "all cells, at every time | 0.90 [0.40, 0.60] (edge) |" in page
    assert "| train | 2 | 20 | 40 |" in page
    assert "/home" not in page


def test_the_study_stands_among_the_flows_by_its_best_bits(results: Path) -> None:
    lines = [line.split("|")[1:3] for line in standing(results, "mnist").splitlines()[2:]]
    values = [float(value.split("±")[0]) for _, value in lines]
    assert values == sorted([1.02, 1.07, *(flow.bpd for flow in FLOWS["mnist"])])
    assert lines[values.index(1.02)][0].strip() == "**this study**, ODE, T = 0.4, full"


def test_the_change_of_a_bound_has_two_parts_that_are_paired_over_images(results: Path) -> None:
    """Of the images' 1.1 and 1.3 bits the earlier start makes 1.15 and 1.36, and the other network 1.14 and 1.32."""
    line = "| full | 0.4 | 0.0550 ± 0.0050 | -0.0250 ± 0.0150 | 0.0300 ± 0.0100 |"
    assert parts(results).splitlines()[2:] == [line]


def test_a_times_cost_stands_beside_the_papers(results: Path) -> None:
    """1.25 and 3.09 bits at T = 0.4 are 0.09 and 0.00 above those of T = 1."""
    assert "| 0.4 | 1.210 ± 0.030 | 0.110 ± 0.004 | 123 | 1.25 | 0.09 | 235 |" in paper(results, "mnist")
    assert "| 0.4 | 1.210 ± 0.030 | 0.110 ± 0.004 | 123 | 3.09 | 0.00 | 187 |" in paper(results, "cifar10")


def test_a_page_without_a_part_and_two_figures_of_one_name_are_refused(results: Path, tmp_path: Path) -> None:
    folder = tmp_path / "docs" / "mnist"
    folder.parent.mkdir()
    folder.with_suffix(".md").write_text(
        "".join(f"<!-- {part} begins -->\n<!-- {part} ends -->\n" for part in PARTS if part != "table1")
    )
    with pytest.raises(ValueError, match="no markers of table1"):
        main(results, folder, "mnist")
    (results / "figures" / "mnist5k" / "other").mkdir()
    (results / "figures" / "mnist5k" / "other" / "images.png").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"two of images\.png"):
        main(results, folder, "mnist")
