// Charts by uPlot from the JSON that chart_data.py makes. Colours come from the style sheet.

const { uPlot } = globalThis;

const DASH = { solid: [], dashed: [7, 4], dashdot: [8, 3, 2, 3], dotted: [2, 3] };
const WIDTH = { limit: 2.5, expected: 1.5, draw: 1.5, price: 2, carbon: 2, held: 4, changed: 2 };
const ALTERNATIVES = ["held", "changed", "free", "static", "comes", "threshold", "cleaner"];
const AXIS_PX = 62;
const shown = new Map(); // element -> { data, plots }

export function drawCharts(root) {
  for (const element of root.querySelectorAll("[data-chart]")) {
    if (shown.has(element)) continue;
    shown.set(element, { data: null, plots: [] });
    fetchChart(element);
    new ResizeObserver(() => resize(element)).observe(element);
  }
}

export function refreshCharts() {
  for (const element of shown.keys()) {
    if (element.isConnected) fetchChart(element);
    else shown.delete(element);
  }
}

export function redrawCharts() {
  for (const element of shown.keys()) draw(element);
}

async function fetchChart(element) {
  const inline = element.querySelector("script[type='application/json']");
  if (inline) {
    shown.get(element).data ??= JSON.parse(inline.textContent);
    draw(element);
    return;
  }
  try {
    const answer = await fetch(element.dataset.chart, { headers: { accept: "application/json" } });
    if (!answer.ok) throw new Error(`HTTP ${answer.status}`);
    shown.get(element).data = await answer.json();
    draw(element);
  } catch (error) {
    // The last good picture stays; without one, say why there is none.
    if (!shown.get(element)?.data) note(element, `The chart could not be loaded: ${error.message}.`);
  }
}

function note(element, text) {
  const line = element.querySelector(".chart-note");
  line.textContent = text;
  line.hidden = !text;
}

function colour(name) {
  const probe = document.createElement("i");
  probe.hidden = true;
  probe.style.color = `var(--${name})`;
  document.body.append(probe);
  const value = getComputedStyle(probe).color;
  probe.remove();
  return value;
}

function palette() {
  const names = ["limit", "expected", "draw", "price", "carbon", ...ALTERNATIVES, "text", "muted", "line", "band", "surface", "past"];
  return Object.fromEntries(names.map((name) => [name, colour(`c-${name}`)]));
}

function draw(element) {
  const held = shown.get(element);
  if (!held.data) return;
  const cursor = held.plots[0]?.cursor.left ?? -1;
  for (const plot of held.plots) plot.destroy();
  const panels = held.data.panels.filter((panel) => panel.some(isDrawn));
  element.classList.toggle("blank", panels.length === 0);
  note(element, panels.length ? "" : "Nothing to draw yet: the chart fills as values come in.");
  const colours = palette();
  held.plots = panels.map((panel, i) =>
    plotPanel(element, held.data, panel, colours, height(element, i, i === panels.length - 1), i === panels.length - 1),
  );
  const chosen = held.data.choose ? held.data.panels.flat() : panels.flat();
  legend(element, chosen.filter((series) => series.x.length), held.data);
  if (cursor >= 0 && held.plots.length) held.plots[0].setCursor({ left: cursor, top: 10 });
  else readout(element, held.data, null);
}

function isDrawn(series) {
  return series.x.length > 0 && !series.hidden;
}

const TIME_AXIS_PX = 38;

function height(element, index, isLast) {
  const plot = element.classList.contains("small") ? 130 : index === 0 ? 180 : 104;
  return plot + (isLast ? TIME_AXIS_PX : 8);
}

function plotPanel(element, data, panel, colours, tall, isLast) {
  const holder = element.querySelector(".panels");
  const drawn = panel.filter(isDrawn);
  const scales = [...new Set(drawn.map((series) => series.scale))];
  const joined = uPlot.join(drawn.map((series) => [series.x, series.y]));
  const narrow = holder.clientWidth < 560;
  const options = {
    width: holder.clientWidth,
    height: tall,
    padding: [10, 24, 0, 0],
    legend: { show: false },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1e3), data.zone),
    cursor: { sync: { key: element.dataset.chart, setSeries: false }, y: false, points: { show: false }, drag: { x: false, y: false } },
    scales: {
      x: { range: () => [data.from, data.to] },
      ...Object.fromEntries(scales.map((scale) => [scale, { range: (u, low, high) => bounds(scale, low, high) }])),
    },
    series: [
      {},
      ...drawn.map((series) => ({
        label: series.label,
        scale: series.scale,
        stroke: colours[series.key],
        width: series.dash === "dotted" ? 1.5 : (WIDTH[series.key] ?? 1.5),
        dash: DASH[series.dash],
        paths: series.shape === "step" ? uPlot.paths.stepped({ align: 1 }) : undefined,
        points: { show: false },
      })),
    ],
    axes: [timeAxis(data, colours, isLast), ...scales.map((scale) => valueAxis(scale, drawn, colours, narrow))],
    hooks: {
      drawClear: [(u) => drawBackground(u, data, colours)],
      draw: [(u) => drawNow(u, data, colours, isLast)],
      setCursor: [(u) => readout(element, data, u.cursor.left >= 0 ? u.posToVal(u.cursor.left, "x") : null)],
    },
  };
  return new uPlot(options, joined, holder);
}

function bounds(scale, low, high) {
  if (low == null) return [0, 1];
  const floor = scale === "price" ? Math.min(0, low) : 0;
  const top = Math.max(high, floor + 1e-9);
  const room = (top - floor) * 0.08;
  return [floor < 0 ? floor - room : floor, top + room];
}

function timeAxis(data, colours, isLast) {
  const clock = new Intl.DateTimeFormat("en-GB", { timeZone: data.zone, hour: "2-digit", minute: "2-digit" });
  const day = new Intl.DateTimeFormat("en-GB", { timeZone: data.zone, day: "numeric", month: "short" });
  return {
    stroke: colours.muted,
    grid: { stroke: colours.line, width: 1 },
    ticks: { stroke: colours.line, width: 1, size: isLast ? 5 : 0 },
    font: "12px system-ui, sans-serif",
    size: isLast ? TIME_AXIS_PX : 8,
    space: 64,
    values: (u, splits) =>
      splits.map((at) => {
        if (!isLast) return "";
        const text = clock.format(at * 1e3);
        return text === "00:00" ? `${text}\n${day.format(at * 1e3)}` : text;
      }),
  };
}

function valueAxis(scale, drawn, colours, narrow) {
  const first = drawn.find((series) => series.scale === scale);
  return {
    scale,
    stroke: colours.muted,
    label: narrow ? undefined : first.unit,
    labelSize: 18,
    labelFont: "12px system-ui, sans-serif",
    font: "12px system-ui, sans-serif",
    size: narrow ? 44 : AXIS_PX - 18, // the label takes the rest
    space: 34,
    grid: { stroke: colours.line, width: 1 },
    ticks: { show: false },
  };
}

function drawBackground(u, data, colours) {
  const { ctx } = u;
  const { left, top, width, height: tall } = u.bbox;
  const clamp = (seconds) => Math.min(Math.max(u.valToPos(seconds, "x", true), left), left + width);
  ctx.save();
  if (data.now > data.from) {
    ctx.fillStyle = colours.past;
    ctx.fillRect(left, top, clamp(data.now) - left, tall);
  }
  for (const band of data.bands) {
    const from = clamp(band.from);
    ctx.fillStyle = colours.band;
    ctx.fillRect(from, top, clamp(band.to) - from, tall);
  }
  ctx.restore();
}

function drawNow(u, data, colours, isLast) {
  const { ctx } = u;
  const ratio = devicePixelRatio || 1;
  const { left, top, width, height: tall } = u.bbox;
  ctx.save();
  ctx.font = `${12 * ratio}px system-ui, sans-serif`;
  ctx.textBaseline = "top";
  ctx.textAlign = "left";
  ctx.setLineDash([]);
  const topmost = u.root === u.root.parentElement.firstElementChild;
  if (data.now > data.from && data.now < data.to) {
    const x = Math.round(u.valToPos(data.now, "x", true));
    ctx.strokeStyle = colours.text;
    ctx.lineWidth = ratio;
    ctx.beginPath();
    ctx.moveTo(x, top);
    ctx.lineTo(x, top + tall);
    ctx.stroke();
    if (topmost) tag(ctx, "now", x, top, ratio, colours);
  }
  if (topmost && width > 560 * ratio) {
    let taken = [-Infinity, -Infinity]; // where the last tag of each of two lines ends
    for (const band of data.bands) {
      const text = band.label.length > 24 ? `${band.label.slice(0, 23)}…` : band.label;
      const wide = ctx.measureText(text).width + 10 * ratio;
      const start = Math.max(u.valToPos(band.from, "x", true), left);
      if (start >= left + width) continue;
      const x = Math.min(start, left + width - wide);
      const line = x < taken[0] ? 1 : 0;
      taken = taken.map((end, i) => (i === line ? x + wide : end));
      tag(ctx, text, x, top + 18 * (line + 1) * ratio, ratio, colours);
    }
  }
  ctx.restore();
}

function tag(ctx, text, x, y, ratio, colours) {
  const wide = ctx.measureText(text).width + 8 * ratio;
  ctx.fillStyle = colours.surface;
  ctx.fillRect(x, y, wide, 16 * ratio);
  ctx.strokeStyle = colours.muted;
  ctx.lineWidth = ratio;
  ctx.strokeRect(x, y, wide, 16 * ratio);
  ctx.fillStyle = colours.text;
  ctx.fillText(text, x + 4 * ratio, y + 2 * ratio);
}

function valueAt(series, seconds) {
  // The last point at or before the instant: that is how a stair is read.
  let low = 0;
  let high = series.x.length;
  while (low < high) {
    const middle = (low + high) >> 1;
    if (series.x[middle] <= seconds) low = middle + 1;
    else high = middle;
  }
  if (low === 0 || (low === series.x.length && seconds > series.x[low - 1] + 120)) return null;
  return series.y[low - 1];
}

function readout(element, data, seconds) {
  const line = element.querySelector(".readout");
  line.replaceChildren();
  const drawn = data.panels.some((panel) => panel.some((series) => series.x.length));
  const at = !drawn ? null : seconds ?? (data.now >= data.from && data.now <= data.to ? data.now : null);
  if (at == null && drawn && data.choose) add(line, "span", "Point at the chart to read its figures.");
  if (at == null) return;
  const format = new Intl.DateTimeFormat("en-GB", { timeZone: data.zone, weekday: "short", hour: "2-digit", minute: "2-digit" });
  add(line, "b", seconds == null ? `Now, ${format.format(at * 1e3)}` : format.format(at * 1e3));
  for (const series of data.panels.flat().filter(isDrawn)) {
    const value = valueAt(series, at);
    if (value == null) continue;
    const item = add(line, "span", `${series.label} `);
    add(item, "strong", `${value.toFixed(series.decimals)}\u202f${series.unit}`);
  }
  for (const band of data.bands) {
    if (band.from <= at && at < band.to) add(line, "span", "Event ").append(add(line, "strong", band.label));
  }
  const reason = data.reasons.find((span) => span.from <= at && at < span.to);
  if (reason) add(line, "span", `${reason.when}: ${reason.reason}. ${reason.explanation}`).className = "reason";
}

function add(parent, tagName, text) {
  const child = document.createElement(tagName);
  child.textContent = text;
  parent.append(child);
  return child;
}

function legend(element, drawn, data) {
  const list = element.querySelector(".legend");
  const focused = [...list.querySelectorAll("button")].indexOf(document.activeElement);
  list.replaceChildren();
  for (const series of drawn) {
    const item = document.createElement("li");
    const held = data.choose ? item.appendChild(chooser(element, series)) : item;
    held.append(swatch(series.key, DASH[series.dash]));
    held.append(series.label);
    list.append(item);
  }
  list.querySelectorAll("button")[focused]?.focus();
  if (data.bands.length > 0) {
    const item = document.createElement("li");
    item.append(Object.assign(document.createElement("span"), { className: "swatch-band" }));
    item.append("Event");
    list.append(item);
  }
}

function chooser(element, series) {
  // A press shows or hides the series.
  const button = document.createElement("button");
  button.type = "button";
  button.setAttribute("aria-pressed", String(!series.hidden));
  button.addEventListener("click", () => {
    series.hidden = !series.hidden;
    draw(element);
  });
  return button;
}

function swatch(key, dash) {
  const namespace = "http://www.w3.org/2000/svg";
  const svg = document.createElementNS(namespace, "svg");
  svg.setAttribute("viewBox", "0 0 24 8");
  svg.setAttribute("class", `swatch ${key}`);
  svg.setAttribute("aria-hidden", "true");
  const line = document.createElementNS(namespace, "path");
  line.setAttribute("d", "M0 4h24");
  line.setAttribute("stroke-dasharray", dash.join(" "));
  svg.append(line);
  return svg;
}

function resize(element) {
  const held = shown.get(element);
  const holder = element.querySelector(".panels");
  if (!held?.plots.length || held.plots[0].width === holder.clientWidth) return;
  draw(element);
}
