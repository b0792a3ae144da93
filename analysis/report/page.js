"use strict";
(function () {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const narrow = matchMedia("(max-width: 700px)");
  const read = (id) => JSON.parse(document.getElementById(id).textContent);
  const darkened = read("dark-colours");
  const holders = [...document.querySelectorAll(".chart")];
  let library = null;

  // plotly.js, which is in the page, compressed
  function plotly() {
    library = library || (async () => {
      const packed = Uint8Array.from(atob(document.getElementById("plotly").textContent.trim()), (c) => c.charCodeAt(0));
      const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
      const script = document.createElement("script");
      script.textContent = await new Response(stream).text();
      document.head.append(script);
      return window.Plotly;
    })();
    return library;
  }

  function element(tag, attributes, ...children) {
    const made = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
    made.append(...children);
    return made;
  }

  const coloured = (value) =>
    JSON.parse(JSON.stringify(value).replace(/#[0-9a-f]{6}/gi, (colour) => (dark.matches && darkened[colour]) || colour));

  // a title in lines of so many letters
  function wrapped(text, letters) {
    const lines = [""];
    for (const word of text.split(" ")) {
      if ((lines.at(-1) + " " + word).length > letters && lines.at(-1)) lines.push("");
      lines[lines.length - 1] += (lines.at(-1) ? " " : "") + word;
    }
    return lines.map((line) => line.replace(/&/g, "&amp;").replace(/</g, "&lt;")).join("<br>");
  }

  const SHAPES = { square: "\u25a0", "triangle-up": "\u25b2", diamond: "\u25c6", "triangle-down": "\u25bc", cross: "\u271a", x: "\u2716",
    "triangle-left": "\u25c0", "triangle-right": "\u25b6", pentagon: "\u2b1f", hexagon: "\u2b22", star: "\u2605", circle: "\u25cf" };
  const GAPS = { solid: "", dash: "5 3", dot: "1.5 2.5", dashdot: "6 2 1.5 2", longdashdot: "8 2 2 2", longdash: "9 3" };

  // how a series is drawn, beside its name
  function sample(one) {
    const line = one.dash in GAPS
      ? "<line x1='0' y1='7' x2='26' y2='7' stroke='currentColor' stroke-width='2' stroke-dasharray='" + GAPS[one.dash] + "'/>" : "";
    const shape = element("span", { class: "sample", "aria-hidden": "true" });
    const mark = SHAPES[one.symbol.replace("-open", "")] || SHAPES.circle;
    shape.innerHTML = "<svg width='26' height='14'>" + line + "<text x='13' y='11.5' font-size='12' text-anchor='middle' fill='currentColor'>"
      + mark + "</text></svg>";
    shape.style.color = coloured(one).colour;
    return shape;
  }

  class Figure {
    constructor(holder) {
      this.holder = holder;
      this.chart = read("data-" + holder.id);
      this.hidden = new Set();
      this.seeds = this.chart.seeds === "shown";
      this.log = { x: null, y: null }; // as the axes begin
      this.at = null;
      this.view = 0;
    }

    async show() {
      const library = await plotly();
      this.draw = () => library.react(this.plot, this.traces(), this.layout(), { displayModeBar: false, displaylogo: false, doubleClick: "reset" });
      this.library = library;
      this.plot = element("div", { class: "plot", tabindex: "0", role: "group", "aria-label": this.holder.dataset.caption
        + " Arrow keys go from point to point." });
      this.told = element("p", { class: "told", role: "status" });
      this.holder.replaceChildren(this.legend(), this.tools(), this.plot, this.told);
      if (this.chart.note) this.holder.append(element("p", { class: "note" }, this.chart.note));
      await this.draw();
      this.plot.on("plotly_hover", (event) => this.hovered(event));
      this.plot.on("plotly_unhover", () => this.lit(null));
      this.plot.on("plotly_click", (event) => this.tell(event.points[0]));
      this.plot.addEventListener("keydown", (event) => this.pressed(event));
      new ResizeObserver(() => { if (this.plot.clientWidth !== this.width && this.plot.clientWidth) this.draw(); }).observe(this.plot);
    }

    button(text, title, action, pressed) {
      const made = element("button", { type: "button", title: title }, text);
      if (pressed !== undefined) made.setAttribute("aria-pressed", pressed);
      made.addEventListener("click", () => {
        const on = action();
        if (pressed !== undefined) made.setAttribute("aria-pressed", on);
        this.draw();
      });
      return made;
    }

    legend() {
      const buttons = this.chart.series.map((one, place) => {
        const made = this.button("", "Hide or show", () => {
          this.hidden.has(place) ? this.hidden.delete(place) : this.hidden.add(place);
          return !this.hidden.has(place);
        }, true);
        made.append(sample(one), one.label);
        return made;
      });
      this.samples = buttons;
      return element("div", { class: "series", role: "group", "aria-label": "Hide and show" }, ...buttons);
    }

    tools() {
      const made = element("div", { class: "tools", role: "group", "aria-label": "Tools" });
      if (this.chart.seeds !== "none") made.append(this.button("seeds", "Every seed by itself", () => (this.seeds = !this.seeds), this.seeds));
      for (const way of ["x", "y"]) {
        if (this.chart.panels.some((panel) => panel[way].may_be_log)) {
          const words = this.chart.rows ? "logarithmic" : "log " + way;
          const isOn = () => this.chart.panels.some((panel) => this.isLog(panel[way], way));
          made.append(this.button(words, "Logarithmic or linear", () => { this.view += 1; this.log[way] = !isOn(); return isOn(); }, isOn()));
        }
      }
      const sign = (text) => element("span", { "aria-hidden": "true" }, text);
      if (!this.chart.columns) for (const [text, name, factor] of [["+", "Zoom in", 0.6], ["\u2212", "Zoom out", 1 / 0.6]]) {
        const one = this.button(sign(text), name, () => this.zoom(factor));
        one.setAttribute("aria-label", name);
        made.append(one);
      }
      if (!this.chart.columns) made.append(this.button("reset", "The whole figure", () => { this.view += 1; }));
      return made;
    }

    isLog(axis, way) { return axis.may_be_log && (this.log[way] === null ? axis.is_log : this.log[way]); }

    traces() {
      return coloured(this.chart.traces).map((trace) => {
        const panel = this.chart.panels[(parseInt(trace.xaxis.slice(1)) || 1) - 1];
        if (panel.x.zero !== null && this.isLog(panel.x, "x")) trace.x = trace.x.map((value) => (value === 0 ? panel.x.zero : value));
        if (this.chart.columns && narrow.matches) [trace.x, trace.y] = [trace.y, trace.x];
        const isShown = !this.hidden.has(Number(trace.legendgroup)) && (trace.meta.role !== "seed" || this.seeds);
        return { ...trace, showlegend: false, visible: isShown, ...(trace.mode === "markers" ? { cliponaxis: false } : {}) };
      });
    }

    axis(axis, way, ink, faint, quiet) {
      const isLog = this.isLog(axis, way);
      const ends = isLog ? [axis.log_low, axis.log_high].map(Math.log10) : [axis.low, axis.high];
      const made = { range: ends, type: isLog ? "log" : "linear", gridcolor: faint, linecolor: quiet, tickcolor: quiet, zeroline: false,
        showline: true, ticks: "outside", automargin: true, uirevision: this.view, exponentformat: "power", tickfont: { color: ink } };
      if (axis.is_share) Object.assign(made, { maxallowed: isLog ? 0 : 1, minallowed: isLog ? undefined : 0 });
      if (isLog && axis.ticks) Object.assign(made, { tickvals: axis.ticks.map((tick) => tick[0]), ticktext: axis.ticks.map((tick) => tick[1]) });
      else if (isLog) Object.assign(made, { dtick: way === "x" ? undefined : "D2", tickformat: way === "x" ? undefined : ".3~g" });
      if (axis.is_integer && !isLog && axis.high - axis.low < 8) made.dtick = 1;
      return made;
    }

    // parallel coordinates: the axes side by side, or one below the other on a phone
    columns(font, quiet, paper) {
      const columns = this.chart.columns, isNarrow = narrow.matches, panel = this.chart.panels[0];
      const height = isNarrow ? 92 * columns.length : 380, letters = isNarrow ? 46 : Math.floor((this.width / columns.length) / 7.6);
      const blank = { visible: false, fixedrange: true };
      const across = { ...blank, range: isNarrow ? [columns.length - 0.8, -0.5] : [panel.x.low, panel.x.high] }, along = { ...blank, range: [panel.y.low, panel.y.high] };
      const made = { width: this.width, height: height + 56, margin: { l: 30, r: 44, t: 46, b: 10 }, font: font, paper_bgcolor: paper, plot_bgcolor: paper, hovermode: "closest",
        dragmode: false, xaxis: isNarrow ? along : across, yaxis: isNarrow ? across : along, annotations: [], shapes: [],
        hoverlabel: { bgcolor: paper, bordercolor: quiet, font: font, align: "left" } };
      const at = (place, value) => (isNarrow ? { x: value, y: place } : { x: place, y: value });
      columns.forEach((column, place) => {
        const ends = [at(place, 0), at(place, 1)];
        made.shapes.push({ type: "line", x0: ends[0].x, y0: ends[0].y, x1: ends[1].x, y1: ends[1].y, line: { color: quiet, width: 1 } });
        made.annotations.push({ ...at(place, isNarrow ? panel.y.low : 1), text: wrapped(column.title, letters), showarrow: false, font: font, bgcolor: paper,
          xanchor: isNarrow ? "left" : "center", yanchor: "bottom", yshift: isNarrow ? 6 : 10 });
        for (const [value, text] of column.ticks) made.annotations.push({ ...at(place, value), text: text, showarrow: false, font: { ...font, size: 11.5 }, bgcolor: paper,
          opacity: 0.85, xanchor: isNarrow ? "center" : "right", xshift: isNarrow ? 0 : -4, yanchor: isNarrow ? "top" : "middle", yshift: isNarrow ? -4 : 0 });
      });
      return made;
    }

    layout() {
      this.width = this.plot.clientWidth;
      const chart = this.chart, rows = chart.rows, count = chart.panels.length;
      const [ink, quiet, faint, paper] = coloured(["#222222", "#6b6b6b", "#e3e3e3", "#ffffff"]);
      const font = { family: getComputedStyle(document.body).fontFamily, size: 13, color: ink };
      const own = chart.panels.some((panel) => panel.own_y);
      if (chart.columns) return this.columns(font, quiet, paper);
      const columns = Math.min(count, own ? 3 : 4, Math.max(1, Math.floor(this.width / (own ? 320 : 250))));
      const lines = Math.ceil(count / columns);
      const margin = { l: rows ? 10 : 46, r: 14, t: rows ? 4 : 34, b: 46 };
      const labels = (rows || []).map((row) => wrapped(row[0] + (row[1] ? ": " + row[1] : ""), Math.floor(this.width / 7.4)));
      const label = 17 * Math.max(1, ...labels.map((text) => text.split("<br>").length)), step = label + 26; // pixels of a row
      const gap = { x: own ? 64 : 30, y: own ? 70 : 84 }, size = { x: this.width - margin.l - margin.r };
      const height = rows ? step * rows.length + 6 : lines * (own ? 170 : narrow.matches ? 230 : count > 1 ? 280 : 360) + (lines - 1) * gap.y;
      const made = { width: this.width, height: height + margin.t + margin.b, margin: margin, font: font, paper_bgcolor: paper, plot_bgcolor: paper,
        hovermode: "closest", hoverdistance: 25, dragmode: matchMedia("(pointer: coarse)").matches ? false : "zoom", annotations: [], shapes: [],
        bargap: 0.3, hoverlabel: { bgcolor: paper, bordercolor: quiet, font: { ...font, size: 13 }, align: "left" } };
      const across = (size.x - (columns - 1) * gap.x) / columns / size.x;
      const down = (height - (lines - 1) * gap.y) / lines / height;
      chart.panels.forEach((panel, place) => {
        const end = place ? place + 1 : "", column = place % columns, line = Math.floor(place / columns);
        const left = column * (across + gap.x / size.x), top = 1 - line * (down + gap.y / height);
        const letters = Math.floor((across * size.x) / 7);
        made["xaxis" + end] = { ...this.axis(panel.x, "x", ink, faint, quiet), domain: [left, left + across], anchor: "y" + end,
          title: { text: wrapped(panel.x.title, letters), standoff: 8, font: font } };
        made["yaxis" + end] = { ...this.axis(panel.y, "y", ink, faint, quiet), domain: [Math.max(0, top - down), top], anchor: "x" + end,
          showticklabels: !rows && (own || column === 0), showgrid: !rows, showline: !rows, ticks: rows || (column && !own) ? "" : "outside" };
        if (place && !own) made["yaxis" + end].matches = "y";
        if (rows) Object.assign(made["yaxis" + end], { fixedrange: true, range: [rows.length - 1 + 13 / step, -(label + 13) / step - 6 / step] });
        if (!rows && (own || column === 0)) made.annotations.push({ text: wrapped(panel.y.title, Math.floor((own ? across : 1) * this.width / 7.5)), showarrow: false, xref: "paper",
          yref: "paper", x: left, xanchor: "left", xshift: 4 - margin.l, y: top, yanchor: "bottom", yshift: 8, align: "left", font: font });
      });
      labels.forEach((text, place) => {
        made.annotations.push({ text: text, showarrow: false, xref: "paper", x: 0, xanchor: "left", y: place, yanchor: "bottom", yshift: 9,
          align: "left", font: { ...font, size: 12.5 }, bgcolor: paper, borderpad: 1 });
      });
      for (const mark of chart.marks) {
        const base = { layer: "below", xref: "x", yref: "paper", y0: 0, y1: 1 };
        if (mark.across !== undefined) made.shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: mark.across, y1: mark.across, line: { color: coloured(mark).colour, width: 1 } });
        else if (mark.low === mark.high) made.shapes.push({ ...base, type: "line", x0: mark.low, x1: mark.low, line: { color: coloured(mark).colour, width: 1 } });
        else made.shapes.push({ ...base, type: "rect", x0: mark.low, x1: mark.high, fillcolor: coloured(mark).colour, line: { width: 0 } });
      }
      return made;
    }

    zoom(factor) {
      const full = this.plot._fullLayout, changes = {};
      const names = Object.keys(full).filter((name) => /^[xy]axis\d*$/.test(name) && !full[name].fixedrange);
      for (const name of names) {
        const [low, high] = full[name].range.map(Number), half = ((high - low) / 2) * factor, middle = (low + high) / 2;
        changes[name + ".range[0]"] = middle - half;
        changes[name + ".range[1]"] = middle + half;
      }
      this.library.relayout(this.plot, changes);
    }

    // the points that can be pointed at, as curve and point
    points() {
      return this.plot.data.flatMap((trace, curve) => (trace.visible === false || trace.hoverinfo === "skip" ? []
        : trace.x.map((value, point) => ({ curveNumber: curve, pointNumber: point })).filter((one) =>
          trace.x[one.pointNumber] !== null && trace.y[one.pointNumber] !== null)));
    }

    pressed(event) {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key], jump = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (event.key === "+" || event.key === "-") this.zoom(event.key === "+" ? 0.6 : 1 / 0.6);
      else if (event.key === "0" || event.key === "Escape") { this.view += 1; this.draw(); }
      if (!step && !jump) return;
      event.preventDefault();
      const all = this.points();
      if (!all.length) return;
      let place = this.at === null ? -1 : all.findIndex((one) => one.curveNumber === this.at.curveNumber && one.pointNumber === this.at.pointNumber);
      if (place < 0) place = 0;
      else if (step) place = (place + step + all.length) % all.length;
      else {
        const curves = [...new Set(all.map((one) => one.curveNumber))];
        const curve = curves[(curves.indexOf(all[place].curveNumber) + jump + curves.length) % curves.length];
        const own = all.filter((one) => one.curveNumber === curve);
        place = all.indexOf(own[Math.min(all[place].pointNumber, own.length - 1)]);
      }
      this.at = all[place];
      const trace = this.plot.data[this.at.curveNumber];
      this.isKey = true;
      this.library.Fx.hover(this.plot, [this.at], [trace.xaxis + trace.yaxis]);
      this.tell(this.at);
    }

    // says the value of a point below the figure, as text
    tell(point) {
      const trace = this.plot.data[point.curveNumber], at = point.pointNumber;
      const text = Array.isArray(trace.text) ? trace.text[at] : "";
      const words = trace.hovertemplate.replace("%{text}", text).replace(/%\{x[^}]*\}/, trace.x[at]).replace(/%\{y[^}]*\}/, () => trace.y[at].toFixed(4))
        .replace("<extra></extra>", "").replace(/<br>/g, ", ");
      this.told.textContent = new DOMParser().parseFromString(words, "text/html").body.textContent;
    }

    // the line of parallel coordinates that is pointed at
    lit(curve) {
      if (!this.chart.columns || curve === this.bright) return;
      const restyle = (place, bright) => this.library.restyle(this.plot,
        { opacity: bright ? 1 : this.chart.traces[place].opacity, "line.width": bright ? 4 : 1.5 }, [place]);
      if (this.bright !== null && this.bright !== undefined) restyle(this.bright, false);
      this.bright = curve;
      if (curve !== null) restyle(curve, true);
    }

    // the trial that is pointed at, in all panels
    hovered(event) {
      if (this.chart.columns) this.lit(event.points[0].curveNumber);
      const trial = event.points[0].customdata;
      if (this.chart.panels.length < 2 || trial === undefined || this.linking) return;
      const all = [], plots = [];
      this.plot.data.forEach((trace, curve) => {
        const point = (trace.customdata || []).indexOf(trial);
        if (point >= 0 && trace.visible !== false) { all.push({ curveNumber: curve, pointNumber: point }); plots.push(trace.xaxis + trace.yaxis); }
      });
      this.linking = true;
      this.library.Fx.hover(this.plot, all, plots);
      this.linking = false;
    }
  }

  const figures = new Map();
  function show(holder) {
    if (figures.has(holder)) return;
    const figure = new Figure(holder);
    figures.set(holder, figure);
    figure.ready = figure.show().catch((error) => { holder.textContent = "This figure cannot be shown here: " + error.message; });
  }
  const watch = new IntersectionObserver((entries) => entries.filter((one) => one.isIntersecting).forEach((one) => show(one.target)), { rootMargin: "600px" });
  holders.forEach((holder) => watch.observe(holder));

  function redraw() {
    for (const figure of figures.values()) {
      if (!figure.draw) continue;
      figure.draw();
      figure.samples.forEach((button, place) => { button.querySelector(".sample").style.color = coloured(figure.chart.series[place]).colour; });
    }
  }
  dark.addEventListener("change", redraw);

  // a link to a folded part unfolds it
  function unfold() {
    const goal = location.hash.length > 1 && document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (!goal) return;
    for (const part of [...goal.querySelectorAll(":scope > details")]) part.open = true;
    for (let part = goal; part; part = part.parentElement) if (part.tagName === "DETAILS") part.open = true;
    goal.scrollIntoView();
  }
  addEventListener("hashchange", unfold);
  document.querySelectorAll("nav a").forEach((link) => link.addEventListener("click", () => setTimeout(unfold)));
  document.getElementById("unfold").addEventListener("click", (event) => {
    const folded = [...document.querySelectorAll("section > details")], open = folded.some((part) => !part.open);
    folded.forEach((part) => { part.open = open; });
    event.target.textContent = open ? "Close all" : "Open all";
  });
  addEventListener("beforeprint", () => {
    document.querySelectorAll("details").forEach((part) => { part.open = true; });
    holders.forEach(show);
  });
  unfold();
})();
