"use strict";
// All texts of nodes are set as text or as attributes, never as HTML.
const data = JSON.parse(document.getElementById("data").textContent);
const get = (id) => document.getElementById(id);
const int = (s) => (s ? parseInt(s, 36) : 0);
const width = 1200; // of the charts, in units of their view box
const margin = 52; // of the overview, at the left

function element(parent, name, text, properties) {
  const e = document.createElement(name);
  if (text !== undefined) e.textContent = text;
  Object.assign(e, properties);
  parent.append(e);
  return e;
}

function shape(parent, name, attributes, text) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", name);
  for (const k in attributes) e.setAttribute(k, attributes[k]);
  if (text !== undefined) e.textContent = text;
  parent.append(e);
  return e;
}

function chart(parent, height, label) {
  parent.replaceChildren();
  return shape(parent, "svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label });
}

function duration(ms) {
  if (ms < 999.5) return Math.round(ms) + "ms";
  if (ms < 9995) return (ms / 1000).toFixed(2) + "s";
  if (ms < 59950) return (ms / 1000).toFixed(1) + "s";
  const two = (n) => String(n).padStart(2, "0");
  const s = Math.round(ms / 1000);
  if (s < 3600) return Math.trunc(s / 60) + "m" + two(s % 60) + "s";
  const m = Math.round(s / 60);
  return Math.trunc(m / 60) + "h" + two(m % 60) + "m";
}

// decode returns a phase of a node: see encoder.phase in page.go.
function decode(name, text) {
  const [head, ...list] = text.split(",");
  const [start, total] = head.split(".").map(int);
  const node = { name, start, total, sums: new Map(), failed: false, detailed: true, list };
  for (const item of list) {
    const f = item.split(".");
    const k = int(f[0]);
    if (f[1] === "" && f[2] === "" && f[6]) node.detailed = false;
    node.sums.set(k, (node.sums.get(k) || 0) + (int(f[6]) || int(f[2])));
    if (int(f[5]) % 2) node.failed = true;
  }
  return node;
}

function stepsOf(node) {
  return node.list.map((item) => {
    const [key, start, length, path, tries, failure, sum] = item.split(".").map(int);
    return { key, start, length, path: data.paths[path - 1], tries: tries + 1, failed: failure % 2 === 1, error: data.errors[(failure >> 1) - 1], sum: sum || length };
  });
}

const hues = { api: 262, hook: 172, activate: 212, wait: 38, mount: 128, retry: null };

// colours returns a colour for each key: the hue is the kind, the lightness differs within a kind.
function colours() {
  const seen = {};
  return data.keys.map((k) => {
    const id = k.phase + k.kind;
    const n = (seen[id] = (seen[id] ?? -1) + 1);
    const hue = k.kind in hues ? hues[k.kind] : 320;
    const shift = [0, 12, -12, -20, 6, -6, 16, -16][n % 8];
    return hue === null ? "hsl(215 10% 62%)" : `hsl(${hue} var(--sat) calc(var(--light) + ${shift}%))`;
  });
}
const colour = colours();

let phase = 0, sort = 0, offset = 0, nodes = [];
const phaseKeys = () => data.keys.map((k, i) => i).filter((i) => data.keys[i].phase === phase);
const isTotal = (k) => data.keys[k].name === "";
const valueOf = (node, k) => (isTotal(k) ? node.total : node.sums.get(k) || 0);
const label = (k) => (isTotal(k) ? "whole phase" : data.keys[k].name);
const count = (n) => `${n.toLocaleString("en")} ${n === 1 ? "node" : "nodes"}`;

function showTip(event, lines) {
  const tip = get("tip");
  tip.replaceChildren();
  for (const l of lines) element(tip, "div", l);
  tip.hidden = false;
  const x = event.clientX + 14, y = event.clientY + 16;
  tip.style.left = Math.max(4, Math.min(x, innerWidth - tip.offsetWidth - 8)) + "px";
  tip.style.top = (y + tip.offsetHeight > innerHeight - 8 ? event.clientY - tip.offsetHeight - 10 : y) + "px";
}
const hideTip = () => { get("tip").hidden = true; };

// axis returns positions of a scale: at most most steps of 1, 2 or 5 times a power of 10, or minutes.
function ticks(max, most) {
  const steps = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 15e3, 3e4, 6e4, 12e4, 3e5, 6e5, 18e5, 36e5, 72e5, 216e5, 864e5];
  const step = steps.find((s) => max / s <= most) || max;
  const list = [];
  for (let v = 0; v <= max; v += step) list.push(v);
  return list;
}

function axisLabel(ms) {
  if (ms === 0) return "0";
  if (ms < 1000) return ms + "ms";
  if (ms < 60000) return ms / 1000 + "s";
  return duration(ms).replace(/00[ms]$/, "");
}

function select(newPhase) {
  phase = newPhase;
  sort = phaseKeys()[0] ?? 0;
  offset = 0;
  nodes = [];
  data.names.forEach((name, i) => {
    const text = data.nodes[i * data.phases.length + phase];
    if (text) nodes.push(decode(name, text));
  });
  for (const b of get("phases").children) b.setAttribute("aria-pressed", b.value === String(phase));
  drawSteps();
  order();
}

function order() {
  nodes.sort((a, b) => valueOf(b, sort) - valueOf(a, sort) || (a.name < b.name ? -1 : 1));
  drawOverview();
  drawLanes();
}

function drawSteps() {
  const table = get("steps"), keys = phaseKeys();
  table.replaceChildren();
  const head = element(element(table, "thead"), "tr");
  for (const h of ["step (click to sort the nodes by it)", "kind", "p50", "p95", "max", "nodes", "failed"]) element(head, "th", h);
  element(head, "th", "p50 to p95, and max", { className: "range" });
  const body = element(table, "tbody");
  const most = Math.max(1, ...keys.map((k) => data.keys[k].max));
  for (const k of keys) {
    const key = data.keys[k], row = element(body, "tr");
    if (k === sort) row.className = "sorted";
    const first = element(row, "td");
    const swatch = element(first, "span", "", { className: "swatch" });
    swatch.style.background = isTotal(k) ? "none" : colour[k];
    const button = element(first, "button", label(k), { type: "button" });
    button.setAttribute("aria-pressed", k === sort);
    button.addEventListener("click", () => { sort = k; offset = 0; drawSteps(); order(); });
    element(row, "td", key.kind);
    for (const v of [key.p50, key.p95, key.max]) element(row, "td", duration(v));
    element(row, "td", key.nodes.toLocaleString("en"));
    element(row, "td", key.failed ? String(key.failed) : "", { className: "failed" });
    const svg = shape(element(row, "td", undefined, { className: "range" }), "svg", { viewBox: "0 0 400 14", preserveAspectRatio: "none", "aria-hidden": true });
    const x = (v) => (v / most) * 398 + 1;
    shape(svg, "line", { x1: x(key.p95), x2: x(key.max), y1: 7, y2: 7, class: "whisker" });
    const box = shape(svg, "rect", { x: x(key.p50), width: Math.max(2, x(key.p95) - x(key.p50)), y: 3, height: 8 });
    box.style.fill = isTotal(k) ? "var(--muted)" : colour[k];
    shape(svg, "line", { x1: x(key.max), x2: x(key.max), y1: 3, y2: 11, class: "whisker" });
  }
}

// drawOverview draws a column for each node, or for several that follow each other: the first of them.
function drawOverview() {
  const height = 190, left = margin, bottom = 18, top = 8, plot = height - top - bottom;
  const keys = phaseKeys().filter((k) => !isTotal(k)).sort((a, b) => (b === sort) - (a === sort) || a - b);
  const columns = Math.min(nodes.length, Math.trunc((width - left) / 2)), per = nodes.length / Math.max(columns, 1), w = (width - left) / Math.max(columns, 1);
  const stack = (n) => keys.reduce((sum, k) => sum + (n.sums.get(k) || 0), 0);
  const shown = Array.from({ length: columns }, (_, c) => nodes[Math.trunc(c * per)]);
  const most = Math.max(1, ...shown.map(stack));
  const svg = chart(get("overview"), height, `Times of ${count(nodes.length)}`);
  for (const t of ticks(most, 5)) {
    const y = top + plot - (t / most) * plot;
    shape(svg, "line", { x1: left, x2: width, y1: y, y2: y });
    shape(svg, "text", { x: left - 6, y: y + 4, class: "end" }, axisLabel(t));
  }
  const base = shown.map(() => 0), gap = w > 4 ? 0.12 * w : 0;
  for (const k of keys) {
    let path = "";
    shown.forEach((n, c) => {
      const v = n.sums.get(k) || 0;
      if (v === 0) return;
      const y = top + plot - ((base[c] + v) / most) * plot;
      path += `M${(left + c * w).toFixed(1)} ${y.toFixed(1)}h${(w - gap).toFixed(2)}v${((v / most) * plot).toFixed(1)}h${(gap - w).toFixed(2)}z`;
      base[c] += v;
    });
    if (path) shape(svg, "path", { d: path }).style.fill = colour[k];
  }
  shape(svg, "text", { x: left, y: height - 4 }, "slowest");
  shape(svg, "text", { x: width, y: height - 4, class: "end" }, "fastest");
  shape(svg, "rect", { class: "window", y: top - 4, height: plot + 8, id: "window", rx: 3 });
  const at = (event) => {
    const box = svg.getBoundingClientRect();
    const c = Math.trunc((((event.clientX - box.left) / box.width) * width - left) / w);
    return c < 0 || c >= columns ? -1 : Math.trunc(c * per);
  };
  svg.addEventListener("mousemove", (event) => {
    const i = at(event);
    if (i < 0) return hideTip();
    const n = nodes[i];
    showTip(event, [n.name, `rank ${i + 1} of ${nodes.length}, total ${duration(n.total)}`,
      ...keys.filter((k) => n.sums.get(k)).sort((a, b) => n.sums.get(b) - n.sums.get(a)).slice(0, 6).map((k) => `${label(k)}: ${duration(n.sums.get(k))}`)]);
  });
  svg.addEventListener("mouseleave", hideTip);
  svg.addEventListener("click", (event) => {
    const i = at(event);
    if (i >= 0) { offset = Math.max(0, Math.min(i - Math.trunc(data.lanes / 2), nodes.length - data.lanes)); get("find").value = ""; drawLanes(); }
  });
  get("overview-note").textContent = `Sorted by ${label(sort)}, the slowest at the left. Each column is the sum of the steps of ${per > 1 ? "one of about " + Math.round(per) + " nodes" : "a node"}. Click to show the nodes there.`;
}

function drawLanes() {
  const wanted = get("find").value.trim().toLowerCase(), own = get("align").checked;
  const matching = wanted ? nodes.filter((n) => n.name.toLowerCase().includes(wanted)) : nodes;
  const first = wanted ? 0 : offset, list = matching.slice(first, first + data.lanes);
  const left = 160, right = 62, row = 19, top = 22, plot = width - left - right, height = top + row * Math.max(list.length, 1) + 6;
  const from = (n) => (own ? 0 : n.start);
  const earliest = list.length ? Math.min(...list.map(from)) : 0;
  const most = Math.max(1, ...list.map((n) => from(n) - earliest + n.total));
  const x = (ms) => left + (ms / most) * plot;
  const svg = chart(get("lanes"), height, `Steps of ${count(list.length)}`);
  for (const t of ticks(most, 10)) {
    shape(svg, "line", { x1: x(t), x2: x(t), y1: top - 4, y2: height });
    shape(svg, "text", { x: x(t), y: 12, class: "middle" }, axisLabel(t));
  }
  list.forEach((n, i) => {
    const y = top + i * row;
    shape(svg, "rect", { class: "lane", x: 0, width, y, height: row });
    const name = n.name.length > 22 ? n.name.slice(0, 21) + "…" : n.name;
    shape(svg, "text", { class: "name end", x: left - 8, y: y + 13 }, name);
    shape(svg, "text", { class: "end", x: width - 4, y: y + 13 }, duration(valueOf(n, sort)));
    if (!n.detailed) {
      const bar = shape(svg, "rect", { x: x(from(n) - earliest), width: Math.max(1, (n.total / most) * plot), y: y + 6, height: row - 12 });
      bar.style.fill = "var(--line)";
      bar.addEventListener("mousemove", (event) => showTip(event, [n.name, `total ${duration(n.total)}`, "The single steps of this node are not in the page."]));
      bar.addEventListener("mouseleave", hideTip);
      return;
    }
    // Steps that overlap share the height of the lane.
    const steps = stepsOf(n), ends = [];
    for (const s of steps) {
      s.level = ends.findIndex((end) => s.start >= end);
      if (s.level < 0) s.level = ends.length;
      ends[s.level] = s.start + s.length;
    }
    const h = (row - 5) / Math.max(ends.length, 1);
    for (const s of steps) {
      const r = shape(svg, "rect", { x: x(from(n) - earliest + s.start).toFixed(2), width: Math.max(1, (s.length / most) * plot - 0.6).toFixed(2), y: (y + 2.5 + s.level * h).toFixed(2), height: Math.max(1, h - (ends.length > 1 ? 0.6 : 0)).toFixed(2), rx: 1.5 });
      r.style.fill = colour[s.key];
      if (s.failed) r.setAttribute("class", "failed");
      r.addEventListener("mousemove", (event) => showTip(event, [`${label(s.key)}: ${duration(s.sum)}`, `${data.keys[s.key].kind} on ${n.name}`, s.path || "for the ClientMount",
        `from ${duration(s.start)} until ${duration(s.start + s.length)}` + (s.tries > 1 ? `, ${s.tries} tries` : "") + (s.failed ? ", failed" : ""), ...(s.error ? [s.error] : [])]));
      r.addEventListener("mouseleave", hideTip);
    }
  });
  const found = wanted ? `${count(matching.length)} with “${wanted}” in the name` : count(nodes.length);
  get("lanes-note").textContent = list.length
    ? `${list.length === 1 ? "Node" : "Nodes"} ${first + 1} to ${first + list.length} of ${found}, sorted by ${label(sort)} (at the right). ` +
      (own ? "Each node starts at 0." : `0 is ${new Date(Date.parse(data.starts[phase]) + earliest).toISOString()}; clocks of nodes may differ.`) + " A red border: the last try failed."
    : `No node: ${found}.`;
  get("previous").disabled = Boolean(wanted) || offset === 0;
  get("next").disabled = Boolean(wanted) || offset + data.lanes >= nodes.length;
  const mark = document.getElementById("window"), span = (width - margin) / Math.max(nodes.length, 1);
  mark.setAttribute("x", margin + first * span);
  mark.setAttribute("width", wanted ? 0 : Math.max(3, list.length * span));
}

function move(by) {
  offset = Math.max(0, Math.min(offset + by, nodes.length - 1));
  drawLanes();
}

document.title = `Timeline of workflow ${data.workflow}`;
get("workflow").textContent = data.workflow;
get("about").textContent = `${count(data.names.length)} with a timeline, collected ${data.time.replace("T", " ").replace("Z", " UTC")}.`;
data.phases.forEach((name, i) => {
  const some = data.keys.some((k) => k.phase === i);
  element(get("phases"), "button", name, { type: "button", value: String(i), disabled: !some }).addEventListener("click", () => select(i));
});
get("find").addEventListener("input", drawLanes);
get("align").addEventListener("change", drawLanes);
get("previous").addEventListener("click", () => move(-data.lanes));
get("next").addEventListener("click", () => move(data.lanes));
if (data.missing.length) {
  get("missing-section").hidden = false;
  const head = element(element(get("missing"), "thead"), "tr");
  element(head, "th", "nodes");
  element(head, "th", "reason");
  const body = element(get("missing"), "tbody");
  for (const m of data.missing) {
    const row = element(body, "tr");
    element(row, "td", m.nodes);
    element(row, "td", m.reason);
  }
}
select(Math.max(0, data.phases.findIndex((_, i) => data.keys.some((k) => k.phase === i))));
document.documentElement.dataset.drawn = Math.ceil(performance.now()); // for tests: milliseconds
