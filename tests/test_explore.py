"""The explorer has the tables' numbers, opens without a network, and answers when it is touched."""

from __future__ import annotations

import base64
import io
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import chromium
import numpy as np
import pandas as pd
import pytest
from builders import CEILING, DIGITS, TOY, frame
from chromium import Chromium
from docutils.core import publish_parts
from jinja2 import Environment
from PIL import Image

from difftime.explore import NEEDS, WANTS, charts, data
from difftime.explore.page import LARGEST, filled, save_explorer
from difftime.study import pages
from difftime.tables import parquet

TIMES = (0.2, 0.5, 1.0, 2.0)
SEEDS = 3
Tables = dict[str, pd.DataFrame]


def quantity(name: str, mean: float, se: float | None = 0.01, unit: str = "nats", **key: Any) -> dict[str, Any]:
    known = math.isfinite(mean)
    key = {"seeds": SEEDS, "finite": SEEDS if known else 0, "parameters": 1000} | key
    return key | {
        "quantity": name,
        "unit": unit,
        "mean": mean if known else None,
        "se": se,
        "median": mean if known else None,
    }


def of_toy() -> Tables:
    """Two SDEs and two p_noises: KL falls, the gap rises, the ODE of VE breaks down at the largest T."""
    rows: dict[str, list[dict[str, Any]]] = {"summary": [], "optimum": [], "tradeoff": [], "histogram": []}
    for sde in ("vp", "ve"):
        for p_noise, far in (("standard", 1.0), ("matched", 0.1)):
            key = TOY | {"sde": sde, "p_noise": p_noise, "epsilon": 1e-5, "weighting": "likelihood", "seeds": SEEDS}
            rows["optimum"].append(
                key | {"method": "trained", "unit": "nats", "T_star": 0.6, "T_star_low": 0.5, "T_star_high": 0.7,
                "confidence": 0.95, "spacing": 0.5, "elbo_star": CEILING - 0.2 * far, "elbo_star_se": 0.01,
                "gain_over_1": 0.1}
            )  # fmt: skip
            for T in TIMES:
                kl, gap, own = far * math.exp(-3 * T), 0.05 + 0.1 * T, key | {"T": T}
                broken = sde == "ve" and T == 2.0
                log_q = -1e21 if broken else CEILING - gap
                values = {"kl": kl, "gap": gap, "elbo": CEILING - kl - gap, "log_q_ode": log_q, "log_p_data": CEILING}
                values |= {"prior": -1.4, "R": 6.9, "K": 6.3, "I": 6.3 + gap}
                rows["summary"] += [quantity(name, value, **own) for name, value in values.items()]
                rows["summary"].append(quantity("nfe", 60 + 40 * T, 1.5, "1", **own))
                rows["tradeoff"].append(
                    own | {"unit": "nats", "nfe": 60 + 40 * T, "sde_steps": 500 * T, "elbo": values["elbo"],
                    "elbo_se": 0.01, "likelihood": log_q, "likelihood_se": 0.01, "distance": 0.1 / T,
                    "distance_se": 0.01, "distance_floor": 0.03, "cheapest_ode": T == 0.5, "cheapest_sde": T == 0.5}
                )  # fmt: skip
                rows["histogram"] += [
                    own | {"seed": seed, "sampler": sampler, "left": k / 10, "right": (k + 1) / 10,
                    "density": 10 / 60 * (1 + 0.1 * math.sin(k + seed + T)), "density_p_data": 10 / 60}
                    for seed in range(SEEDS) for sampler in ("sde", "ode") for k in range(60)
                ]  # fmt: skip
    return whole(rows)


def of_digits(count: int = 3, size: int = 8, channels: int = 1) -> Tables:
    rows: dict[str, list[dict[str, Any]]] = {"summary": [], "optimum": [], "tradeoff": [], "images": []}
    key = DIGITS | {"epsilon": 1e-5, "weighting": "noise", "seeds": 1}
    bits = "bits per dimension"
    rows["optimum"].append(
        key | {"method": "trained", "unit": bits, "T_star": 0.5, "T_star_low": None, "T_star_high": None,
        "elbo_star": 1.4, "elbo_star_se": None, "spacing": 0.5}
    )  # fmt: skip
    numbers = np.random.default_rng(0)
    for T in TIMES[:2]:
        own = key | {"T": T}
        for name, value in {"elbo_bpd": 1.5 - 0.1 * T, "bpd": 1.4, "kl_low_bpd": 1e-9, "kl_high_bpd": 0.1 / T}.items():
            rows["summary"].append(quantity(name, value, unit=bits, **own))
        rows["tradeoff"].append(own | {"unit": bits, "nfe": 100 * T, "likelihood": 1.4, "likelihood_se": 0.01})
        rows["images"] += [
            own | {"seed": 0, "image": k, "channels": channels, "size": size, "not_finite": 0,
            "pixels": numbers.bytes(channels * size * size)}
            for k in range(count)
        ]  # fmt: skip
    return whole(rows)


def whole(rows: dict[str, list[dict[str, Any]]]) -> Tables:
    return {name: frame(name, rows.get(name, ())) for name in (*NEEDS, *WANTS)}


KINDS = {"toy": "mixture", "digits": "mnist5k"}


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("explorer") / "explore.html"
    save_explorer({"toy": of_toy(), "digits": of_digits()}, KINDS, path)
    return path


def known_to(page: Path) -> dict[str, Any]:
    """What the page knows."""
    text = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])


# What is in it


def test_every_mean_and_error_of_the_summary_is_in_the_page_to_six_digits(page: Path) -> None:
    for name, tables in (("toy", of_toy()), ("digits", of_digits())):
        choices = {one["id"]: one["values"] for one in known_to(page)["datasets"][name]["choices"]}
        assert sum(map(len, choices.values())) == len(tables["summary"])
        for row in tables["summary"].itertuples():
            found = choices[data.name_of(row.sde, row.net, row.p_noise, row.T)][row.quantity]
            assert found == pytest.approx([row.mean, row.se, row.finite, row.seeds], rel=1e-5)


def test_what_a_choice_costs_is_that_of_the_tradeoff(page: Path) -> None:
    choices = {one["id"]: one["cost"] for one in known_to(page)["datasets"]["toy"]["choices"]}
    for row in of_toy()["tradeoff"].itertuples():
        cost = choices[data.name_of(row.sde, row.net, row.p_noise, row.T)]
        assert cost["likelihood"] == pytest.approx(row.likelihood, rel=1e-5)
        assert (cost["nfe"], cost["cheapest_sde"]) == (row.nfe, row.cheapest_sde)


def test_the_page_is_small_and_asks_for_nothing_elsewhere(page: Path) -> None:
    assert page.stat().st_size < LARGEST
    assert not re.search(r"(src|href)=.https?:", page.read_text(encoding="utf-8"))


def test_what_is_not_finite_is_null_in_the_page(tmp_path: Path) -> None:
    tables = of_toy()
    tables["summary"].loc[tables["summary"].quantity == "gap", ["mean", "se", "median"]] = math.nan
    save_explorer({"toy": tables}, KINDS, tmp_path / "explore.html")
    (choice, *_) = known_to(tmp_path / "explore.html")["datasets"]["toy"]["choices"]
    assert choice["values"]["gap"][:2] == [None, None]


@pytest.mark.parametrize(("weighting", "known"), [(None, True), ("noise", False)])
def test_a_running_elbo_has_the_T_of_a_pretrained_network_and_of_no_other(weighting: str | None, known: bool) -> None:
    tables = of_digits()
    tables["optimum"] = tables["optimum"].assign(method="curve", trained="1", weighting=weighting)
    assert [one["T_star"] for one in data.of_dataset(tables, "mnist5k")["optima"]] == [0.5] * known
    assert ("predicted" in pages.section("digits", tables, [])) != known


def test_no_value_ends_the_script_that_it_stands_in() -> None:
    values = {"name": "</script><script>alert(1)</script>"}
    found = re.search(r'<script id="data" type="application/json">(.*?)</script>', filled(values), re.DOTALL)
    assert json.loads(found[1]) == values


@pytest.mark.parametrize("merged", data.MERGED)
def test_bins_that_are_drawn_as_one_keep_their_probability(merged: int) -> None:
    tables = of_toy()
    drawn = data._histograms(tables["histogram"], merged)
    edges = np.array([*drawn["left"], drawn["right"]])
    own = tables["histogram"].query("sde == 'vp' and p_noise == 'matched' and T == 0.5 and sampler == 'ode'")
    by_seed = (own.density * (own.right - own.left)).groupby(own.seed).sum()
    found = drawn["of"]["vp|mlp|matched|0.5"]["ode"]
    assert (np.diff(edges) * found["mean"]).sum() == pytest.approx(by_seed.mean(), rel=5e-3)  # three digits a bin
    assert len(found["se"]) == len(found["mean"]) == math.ceil(60 / merged)


@pytest.mark.parametrize("channels", [1, 3])
def test_images_have_the_bytes_of_the_table_where_there_is_room(channels: int) -> None:
    tables = of_digits(channels=channels)
    drawn = data.pictures(tables, 10**6)
    strip = Image.open(io.BytesIO(base64.b64decode(drawn["of"]["vp|unet|standard|0.2"]["uri"].split(",")[1])))
    for k, row in enumerate(tables["images"][tables["images"]["T"] == 0.2].itertuples()):
        found = np.asarray(strip.crop((10 * k, 0, 10 * k + 8, 8))).reshape(8, 8, channels)
        assert found.transpose(2, 0, 1).tobytes() == row.pixels


def test_pictures_are_as_fine_as_their_budget_allows_and_say_how_fine() -> None:
    tables = of_digits(count=12, size=64, channels=3)
    sizes = []
    for budget in (500_000, 110_000, 20_000):
        drawn = data.pictures(tables, budget)
        assert len(json.dumps(drawn)) <= budget
        sizes.append((drawn["count"], drawn["side"]))
    assert sizes == sorted(sizes, reverse=True)
    assert len({*sizes}) == 3


def test_a_mixture_in_two_dimensions_has_its_modes(tmp_path: Path) -> None:
    key = TOY | {"T": 0.2, "sampler": "sde", "share_se": 0.01, "share_p_data": 0.5}
    rows = [key | {"mode": mode, "seed": seed, "share": 0.4 + 0.1 * seed} for mode in (0, 1) for seed in (0, 1)]
    drawn = data.pictures(whole({}) | {"modes": frame("modes", rows)}, 10**6)
    first = drawn["of"]["vp|mlp|standard|0.2"][0]
    assert (first["share"], first["p_data"]) == (0.45, 0.5)
    assert first["se"] == pytest.approx(0.05)


def test_an_axis_shows_the_best_and_is_not_pressed_flat_by_what_diverged() -> None:
    summary = of_toy()["summary"]
    for view in charts.VIEWS["mixture"]:
        rows = summary[summary.quantity.isin(view.quantities)]
        low, high = view.window(rows, rows[rows.sde == "ve"])
        assert low < high < low + 20
        best = rows[rows.quantity == view.quantities[-1]]["mean"].max()
        assert low <= best <= high


def test_a_large_page_is_written_and_said_to_be_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("difftime.explore.page.LARGEST", 1000)
    with caplog.at_level("WARNING", "difftime"):
        save_explorer({"toy": of_toy()}, KINDS, tmp_path / "explore.html")
    assert "MB" in caplog.text
    assert known_to(tmp_path / "explore.html")["datasets"]


# What it does


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    if chromium.PROGRAM is None:
        pytest.skip("no chromium is installed")
    opened = Chromium(tmp_path_factory.mktemp("profile"))
    yield opened
    opened.close()


def shown(browser: Chromium) -> str:
    return browser["document.body.dataset.shown"]


def test_it_draws_without_a_network(browser: Chromium, page: Path) -> None:
    browser.open(page)
    assert browser.until("document.body.dataset.shown") == "vp|mlp|standard|0.5", "the time nearest to T*"
    assert browser["document.querySelectorAll('[data-chart] svg').length"] == 6
    assert browser["document.querySelectorAll('#curves path[aria-label][d]').length"] > 20
    assert "T* = 0.60 (95 % interval 0.50 to 0.70" in browser["document.querySelector('#optimum').textContent"]
    assert not browser.errors
    assert all(address.startswith(("file:", "data:", "about:", "blob:")) for address in browser.requests)


def test_pointing_at_a_T_shows_its_numbers_and_its_histogram(browser: Chromium, page: Path) -> None:
    browser.open(page)
    browser.until("document.body.dataset.shown")
    drawn = "document.querySelector('#picture svg').innerHTML"
    before = browser[drawn]
    browser.mouse("mouseMoved", browser.place("[data-chart=loss] svg", 0.95))
    browser.until("document.body.dataset.shown === 'vp|mlp|standard|2'")
    browser.until(f"{drawn} !== {json.dumps(before)}")
    values = browser["document.querySelector('#values').textContent"]
    assert "KL[p(x,T) ‖ p_noise]0.002 ± 0.010 nats" in values
    assert "gap G(s,T)0.250 ± 0.010 nats" in values
    assert "NFE, likelihood140.0 ± 1.5" in values


def test_another_model_is_chosen_by_the_lists_by_a_row_and_by_the_address(browser: Chromium, page: Path) -> None:
    browser.open(page)
    browser.until("document.body.dataset.shown")
    browser.choose("#p_noise", "matched")
    browser.until("document.body.dataset.shown === 'vp|mlp|matched|0.5'")
    browser.click('#table tr[data-id="ve|mlp|standard|2"] td')
    browser.until("document.body.dataset.shown === 've|mlp|standard|2'")
    assert browser["location.hash"] == "#toy/ve/mlp/standard/2"
    browser.open(page, "#digits/vp/unet/standard/0.2")
    browser.until("document.body.dataset.shown === 'vp|unet|standard|0.2'")
    assert browser["document.querySelector('#picture img').naturalWidth"] == 28
    assert "one seed: no interval" in browser["document.querySelector('#optimum').textContent"]
    browser.choose("#dataset", "toy")
    browser.until("document.body.dataset.shown.startsWith('vp|mlp|')")
    assert not browser.errors


def test_what_is_beyond_an_axis_is_an_arrow_on_its_border(browser: Chromium, page: Path) -> None:
    browser.open(page, "#toy/ve/mlp/standard/2")
    browser.until("document.body.dataset.shown")
    arrows = "[...document.querySelectorAll('[data-chart=value] svg text')].filter((t) => t.textContent === '▼').length"
    assert browser.until(arrows) == 1


def test_a_frame_around_points_keeps_their_rows_of_the_table(browser: Chromium, page: Path) -> None:
    browser.open(page)
    browser.until("document.body.dataset.shown")
    listed = (
        "[...document.querySelectorAll('#table tbody tr')].filter((row) => !row.hidden).map((row) => row.dataset.id)"
    )
    assert len(browser[listed]) == 16
    chart = "[data-chart=sde_steps-elbo] svg .background"
    left, right = browser.place(chart, 0.6, 0.02), browser.place(chart, 0.99, 0.98)
    browser.drag(left, right)
    browser.until(f"{listed}.length < 16")
    steps = {row.sde + str(row.T): row.sde_steps for row in of_toy()["tradeoff"].itertuples()}
    kept = browser[listed]
    assert kept
    assert {float(name.split("|")[3]) for name in kept} == {
        T for T in TIMES if steps[f"vp{T:g}" if T % 1 else f"vp{T}"] >= 500
    }


def test_a_click_in_a_legend_singles_a_quantity_out(browser: Chromium, page: Path) -> None:
    browser.open(page)
    browser.until("document.body.dataset.shown")
    faint = "document.querySelectorAll('[data-chart=loss] svg path[opacity=\"0.12\"]').length"
    assert browser[faint] == 0
    browser.click("[data-chart=loss] svg .role-legend-label text")
    browser.until(faint)


def test_it_fits_a_telephone(browser: Chromium, page: Path) -> None:
    browser.open(page, width=390, height=800)
    browser.until("document.body.dataset.shown")
    assert browser["document.documentElement.scrollWidth <= innerWidth"]


def test_a_tables_page_is_searched_and_sorted(browser: Chromium, tmp_path: Path) -> None:
    rows = [
        TOY | {"T": T, "seed": 0, "elbo": value} for T, value in ((0.5, -2.0), (1.0, None), (2.0, -10.0), (0.1, 3.0))
    ]
    parquet.save(frame("elbo", rows), "elbo", tmp_path / "elbo.parquet")
    browser.open(tmp_path / "elbo.html")
    rows_shown = "[...document.querySelectorAll('tbody tr')].filter((row) => !row.hidden)"
    column = rows_shown + ".map((row) => row.cells[{}].textContent)"
    k = browser["[...document.querySelectorAll('th')].findIndex((head) => head.textContent === 'elbo [nats]')"]
    head = f"th:nth-child({k + 1})"
    browser.click(head)
    assert browser[column.format(k)] == ["-10", "-2", "3", ""]
    browser.click(head)
    assert browser[column.format(k)] == ["3", "-2", "-10", ""]
    browser["(box => (box.value = 'TOY 0.5', box.oninput()))(document.querySelector('.search'))"]
    assert browser[column.format(3)] == ["0.5"]
    assert not browser.errors


def test_a_study_without_an_elbo_has_a_page_that_says_so(browser: Chromium, tmp_path: Path) -> None:
    save_explorer({}, KINDS, tmp_path / "explore.html")
    browser.open(tmp_path / "explore.html")
    assert "No ELBO was measured" in browser.until("document.querySelector('#optimum').textContent")
    assert not browser.errors


# The findings


def test_the_findings_name_the_best_curve_in_both_units() -> None:
    toy, digits = of_toy(), of_digits()
    text = pages.section("toy", toy, [b"png"])
    assert (
        "The best ELBO is -0.870 ± 0.010 nats: vp, mlp, started from the matched p_noise at T* = 0.60 [0.50, 0.70]"
        in text
    )
    assert "At T = 1 it is 0.100 worse." in text
    assert text.count("<img") == 1
    assert "edge" not in text
    assert "predicted" not in text
    alone = toy["optimum"].assign(method="curve", interior=False, trained="0.5, 1")
    assert "at the edge of the times studied. It is predicted from T = 0.5, 1." in pages.section(
        "toy", toy | {"optimum": alone}, []
    )
    better = pd.concat([digits["optimum"], digits["optimum"].assign(net="other", elbo_star=1.3)])
    assert "1.3000 bits per dimension: vp, other" in pages.section("digits", digits | {"optimum": better}, [])


def test_the_findings_say_what_the_cheapest_choice_costs_and_what_the_standard_p_noise_alone() -> None:
    row = TOY | {
        "model": "ode", "unit": "nats", "loss": 0.01, "T": 0.3, "p_noise": "matched", "value": -0.9, "value_se": 0.01,
        "cost": 56.0, "standard_T": 0.8, "standard_value": -0.95, "standard_cost": 92.75,
    }  # fmt: skip
    text = pages.section("toy", {"cheapest": frame("cheapest", [row])}, [])
    assert "T = 0.3 from the matched p_noise: 56 evaluations of the score, -0.900 ± 0.010." in text
    assert "T = 0.8: 93 evaluations, -0.950." in text
    alone = row | {"standard_T": None, "standard_value": None, "standard_cost": None}
    assert "alone" not in pages.section("toy", {"cheapest": frame("cheapest", [alone])}, [])


def test_a_picture_belongs_to_its_data_set_whatever_the_folders_above_are_called(tmp_path: Path) -> None:
    figures, output = tmp_path / "digits" / "figures", (tmp_path / "explore.html", tmp_path / "findings.html")
    for place, word in (("toy/digits/fig2.png", b"of toy"), ("digits/table1.png", b"of digits")):
        (figures / place).parent.mkdir(parents=True)
        (figures / place).write_bytes(word)
    pages.save_pages([], map(str, sorted(figures.rglob("*.png"))), KINDS, output)
    toy, digits = output[1].read_text(encoding="utf-8").split("<h2>digits</h2>")
    shown = [re.findall(r"base64,([^\"]*)", part) for part in (toy, digits)]
    assert [[base64.b64decode(png) for png in part] for part in shown] == [[b"of toy"], [b"of digits"]]


def test_names_are_no_html_in_the_findings() -> None:
    assert "<b>" not in pages.section("<b>", {}, [b"png"])


def test_the_report_opens_with_the_findings(tmp_path: Path) -> None:
    template = (Path(__file__).parents[1] / "workflow" / "report" / "workflow.rst").read_text(encoding="utf-8")
    (tmp_path / "findings.html").write_text("<p>The best ELBO is 1.</p>")
    file = SimpleNamespace(target="findings.html", path=tmp_path / "findings.html")
    config = {"results": "results/mine", "seed": 3, "study": [{"dataset": "toy", "T": [0.5]}]}
    for files, said in (([file], True), ([], False)):
        text = Environment(trim_blocks=True, lstrip_blocks=True).from_string(template)
        rst = text.render(snakemake={"config": config}, files=files)
        html = publish_parts(rst, writer="html", settings_overrides={"halt_level": 2})["html_body"]
        assert ("<p>The best ELBO is 1.</p>" in html) == said
        assert "results/mine/explore.html" in html
