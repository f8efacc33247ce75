"use strict";

const DATA = JSON.parse(document.getElementById("data").textContent);
const KEYS = ["sde", "net", "p_noise"];
const OPTIONS = { actions: false, renderer: "svg", logLevel: 1, tooltip: { theme: "light" } };
const OVER_TIME = ["value", "loss", "terms"], AGAINST_COST = ["nfe-likelihood", "sde_steps-elbo", "sde_steps-distance"];
const state = {}; // data set, SDE, network, p_noise and T that are shown
const views = {}; // charts by their place
let listed = () => {}; // the search of the table

const at = (id) => document.getElementById(id);
const own = () => DATA.datasets[state.dataset];
const curve = () => own().choices.filter((c) => KEYS.every((key) => c[key] === state[key])).sort((a, b) => a.T - b.T);
const chosen = () => curve().find((c) => c.T === state.T);
const best = () => own().optima.find((o) => KEYS.every((key) => o[key] === state[key]));
const nearest = (times, T) => times.reduce((a, b) => (Math.abs(b - T) < Math.abs(a - T) ? b : a));
const there = (names) => names.filter((name) => views[name]);
const clamp = (x, [low, high]) => Math.min(Math.max(x, low), high);

function element(tag, text = "", attributes = {}) {
  return Object.assign(document.createElement(tag), { textContent: text }, attributes);
}

// numbers: as many digits as the standard error deserves

function fixed(value, digits) {
  return Math.abs(value) >= 1e6 ? value.toPrecision(4) : value.toFixed(Math.min(Math.max(digits, 0), 10));
}

function said(mean, se) {
  if (mean === null || mean === undefined) return "";
  const digits = 1 - Math.floor(Math.log10(se));
  const text = se ? `${fixed(mean, digits)} ± ${fixed(se, digits)}` : String(Number(mean.toPrecision(4)));
  return text.replace(/^-/, "−");
}

// what is chosen

function settle(wanted) {
  Object.assign(state, wanted);
  let left = own().choices;
  for (const key of KEYS) {
    const options = [...new Set(left.map((c) => c[key]))];
    if (!options.includes(state[key])) state[key] = options[0];
    at(key).replaceChildren(...options.map((name) => element("option", name)));
    at(key).value = state[key];
    left = left.filter((c) => c[key] === state[key]);
  }
  const times = curve().map((c) => c.T);
  state.T = nearest(times, state.T ?? best()?.T_star ?? times[0]);
  at("dataset").value = state.dataset;
  Object.assign(at("time"), { max: times.length - 1, value: times.indexOf(state.T) });
  at("T").textContent = state.T;
  const place = [state.dataset, ...KEYS.map((key) => state[key]), state.T];
  history.replaceState(null, "", `#${place.map(encodeURIComponent).join("/")}`);
}

async function enter(wanted) {
  const { dataset, sde } = state;
  settle(wanted);
  if (dataset !== state.dataset) await build();
  if (dataset !== state.dataset || sde !== state.sde) await fill(OVER_TIME, own().charts.over_time[state.sde]);
  draw();
  document.body.dataset.shown = chosen().id;
}

let busy = Promise.resolve();
const choose = (wanted) => (busy = busy.then(() => enter(wanted))); // one after the other, as charts take a while

function address() {
  const [dataset, sde, net, p_noise, T] = location.hash.slice(1).split("/").map(decodeURIComponent);
  if (!Object.hasOwn(DATA.datasets, dataset)) return { dataset: Object.keys(DATA.datasets)[0] };
  return { dataset, sde, net, p_noise, T: T ? Number(T) : null };
}

// what is shown

const chart = async (place, spec) => (await vegaEmbed(place, spec, OPTIONS)).view;

async function fill(names, charts) {
  for (const name of names) {
    const figure = document.querySelector(`[data-chart="${name}"]`);
    views[name]?.finalize();
    delete views[name];
    figure.hidden = !charts[name];
    if (charts[name]) views[name] = await chart(figure, charts[name]);
  }
}

async function build() {
  await fill(AGAINST_COST, own().charts.against_cost);
  at("costs").hidden = !there(AGAINST_COST).length;
  for (const name of there(AGAINST_COST)) {
    views[name].addSignalListener("brush", list);
    views[name].addEventListener("click", (_, item) => {
      const clicked = own().choices.find((c) => c.id === item?.datum?.id);
      if (clicked) choose(clicked);
    });
  }
  views.picture?.finalize();
  delete views.picture;
  const spec = DATA.pictures[own().pictures.kind], place = element(spec ? "div" : "img");
  at("picture").replaceChildren(place);
  if (spec) views.picture = await chart(place, spec);
  tabulate();
}

function draw() {
  const terms = curve().flatMap((c) =>
    Object.entries(c.values).map(([quantity, [mean, se, finite, seeds]]) => (
      { T: c.T, quantity, mean, se, finite, seeds, said: said(mean, se) })));
  const optimum = best() ? [best()] : [];
  for (const name of there(OVER_TIME)) {
    views[name].data("terms", terms).data("optimum", optimum).data("now", [{ T: state.T }]).runAsync();
  }
  for (const name of there(AGAINST_COST)) {
    const [cost, quality] = name.split("-"), model = cost === "nfe" ? "ode" : "sde";
    const points = own().choices.filter((c) => c.cost[cost] != null && c.cost[quality] != null).map((c) => ({
      ...c, cost: c.cost[cost], mean: c.cost[quality], se: c.cost[`${quality}_se`], cheapest: c.cost[`cheapest_${model}`],
      said: said(c.cost[quality], c.cost[`${quality}_se`]), chosen: KEYS.every((key) => c[key] === state[key]),
      now: c.id === chosen().id,
    }));
    views[name].data("costs", points).runAsync();
  }
  at("optimum").textContent = best() ? optimal(best())
    : "No T* from trained models: too few T at which every seed is finite. difftime show has the T* of the running ELBO.";
  here();
  for (const row of document.querySelectorAll("#table tbody tr")) row.setAttribute("aria-current", row.dataset.id === chosen().id);
}

function optimal(o) {
  const interval = o.T_star_low === null ? "one seed: no interval" :
    `${100 * o.confidence} % interval ${o.T_star_low.toFixed(2)} to ${o.T_star_high.toFixed(2)}`;
  const place = o.interior ? `${o.T_star.toFixed(2)} (${interval}; times are ${said(o.spacing)} apart there)` :
    `${o.T_star.toFixed(2)}, at the edge of the times studied`;
  return `T* = ${place}. ELBO there: ${said(o.elbo_star, o.elbo_star_se)} ${o.unit}.`;
}

function here() {
  const choice = chosen(), shown = own().pictures, drawn = shown.of[choice.id], quantities = own().quantities;
  at("title").textContent = `At T = ${choice.T}`;
  at("picture").hidden = !drawn;
  at("picture-note").textContent = drawn ? PICTURES[shown.kind](drawn, shown) : "No samples of this choice were drawn.";
  at("values").replaceChildren(...Object.entries(choice.values).flatMap(([name, [mean, se, finite, seeds]]) => {
    const unit = quantities[name].unit === "1" ? "" : ` ${quantities[name].unit}`;
    const rest = finite < seeds ? ` (${finite} of ${seeds} seeds finite)` : "";
    return [element("dt", DATA.labels[name] ?? name, { title: quantities[name].is }), element("dd", said(mean, se) + (mean === null ? "" : unit) + rest)];
  }));
  const o = best(), made = o ? ` · ${o.seeds} seed${o.seeds > 1 ? "s" : ""}${o.weighting ? ` · weighting ${o.weighting}` : ""} · epsilon ${o.epsilon}` : "";
  at("settings").textContent = `${state.dataset} (${own().kind}) · ${state.sde} · ${state.net}, ${choice.parameters ?? "unknown"} parameters · ` +
    `${state.p_noise} p_noise${made} · difftime ${DATA.version}`;
}

const PICTURES = {
  images(strip, shown) {
    Object.assign(document.querySelector("#picture img"), {
      src: strip.uri, alt: `${strip.count} samples of the reverse SDE at T = ${state.T}` });
    const less = shown.side < shown.size ? `, drawn at ${shown.side} of ${shown.size} pixels` : "";
    return `The first ${strip.count} samples of the reverse SDE, as they were drawn${less}.`;
  },
  histogram(drawn, shown) {
    const ends = [...shown.left.slice(1), shown.right], middle = (k) => (shown.left[k] + ends[k]) / 2;
    const rows = (of, mean, se) => mean.map((m, k) => ({ of, x: middle(k), mean: m, se: se[k] ?? 0 }));
    const bins = Object.entries(drawn).flatMap(([of, { mean, se }]) => rows(of, mean, se));
    bins.push(...rows("p_data", shown.p_data, shown.p_data.map(() => 0)));
    views.picture.signal("top", 2.5 * Math.max(...shown.p_data)).data("bins", bins).runAsync();
    const share = (mean) => 1 - mean.reduce((sum, m, k) => sum + m * (ends[k] - shown.left[k]), 0);
    const lost = Object.entries(drawn).map(([of, { mean }]) => [of, 100 * share(mean)]).filter(([, lack]) => lack > 0.05);
    const outside = lost.map(([of, lack]) => ` ${lack.toPrecision(2)} % of the samples of the ${of.toUpperCase()} lie outside or are not finite.`);
    const coarse = shown.merged > 1 ? ` ${shown.merged} bins are drawn as one.` : "";
    return `Mean over seeds with a band of ± one standard error.${coarse}${outside.join("")}`;
  },
  modes(drawn) {
    views.picture.data("modes", drawn).runAsync();
    return "Share of samples in each mode with its standard error; the line is the share under p_data.";
  },
};

// the table

function columns() {
  const unit = own().unit, cost = (name, digits) => (c) => said(c.cost[name], c.cost[digits]);
  const value = (name) => (c) => said(...(c.values[name] ?? [null]));
  const terms = ["kl", "gap", "kl_low_bpd", "kl_high_bpd"].filter((name) => name in own().quantities);
  const ending = (c) => ["ode", "sde"].filter((model) => c.cost[`cheapest_${model}`]).join(", ");
  return [
    ["SDE", (c) => c.sde], ["network", (c) => c.net], ["p_noise", (c) => c.p_noise], ["T", (c) => c.T],
    ...terms.map((name) => [`${DATA.labels[name]} [${own().quantities[name].unit}]`, value(name)]),
    [`ELBO [${unit}]`, cost("elbo", "elbo_se")],
    [`${unit === "nats" ? "log q" : "BPD"}, ODE [${unit}]`, cost("likelihood", "likelihood_se")],
    ["NFE, ODE", cost("nfe")], ["steps, SDE", cost("sde_steps")],
    ["Wasserstein-1, SDE", cost("distance", "distance_se")], ["cheapest", ending],
  ];
}

function tabulate() {
  const table = element("table"), shown = columns();
  table.createTHead().insertRow().append(...shown.map(([name]) => element("th", name)));
  const body = table.createTBody();
  for (const choice of own().choices) {
    const row = body.insertRow();
    row.dataset.id = choice.id;
    row.append(...shown.map(([, text]) => element("td", text(choice))));
    row.onclick = () => choose(choice);
  }
  const scroll = element("div", "", { className: "scroll" });
  scroll.append(table);
  at("table").replaceChildren(scroll);
  listed = searchable(table);
}

function list() {
  const brushed = there(AGAINST_COST).filter((name) => views[name].signal("brush")?.cost);
  const within = (x, ends) => x != null && x >= Math.min(...ends) && x <= Math.max(...ends);
  const kept = (choice) => brushed.every((name) => {
    const [cost, quality] = name.split("-"), { cost: along, shown } = views[name].signal("brush");
    const value = choice.cost[quality];
    return value != null && within(choice.cost[cost], along) && within(clamp(value, views[name].scale("y").domain()), shown);
  });
  const out = new Set(own().choices.filter((c) => !kept(c)).map((c) => c.id));
  for (const row of document.querySelectorAll("#table tbody tr")) row.dataset.out = out.has(row.dataset.id) ? "1" : "";
  listed();
}

// what people do

at("dataset").append(...Object.keys(DATA.datasets).map((name) => element("option", name)));
at("dataset").onchange = () => choose({ dataset: at("dataset").value, T: null });
for (const key of KEYS) at(key).onchange = () => choose({ [key]: at(key).value });
at("time").oninput = () => choose({ T: curve()[at("time").value].T });
for (const name of OVER_TIME) {
  const figure = document.querySelector(`[data-chart="${name}"]`);
  figure.onpointermove = figure.onpointerdown = (event) => {
    if (!views[name]) return;
    const left = figure.querySelector("svg").getBoundingClientRect().left;
    const T = nearest(curve().map((c) => c.T), views[name].scale("x").invert(event.clientX - left - views[name].origin()[0]));
    if (T !== state.T) choose({ T });
  };
}
window.onhashchange = () => choose(address());
if (Object.keys(DATA.datasets).length) choose(address());
else at("optimum").textContent = "No ELBO was measured on enough times: there is nothing to explore.";
