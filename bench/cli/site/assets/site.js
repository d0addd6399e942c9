// Tables that sort, filter and choose their columns, and figures. The state is in the address after #, so that a link shows the same:
// #cells.find=imagenet&cells.sort=-miou&cells.columns=rank,source,miou
"use strict";
(() => {
  const FEW = 4; // a table with at most so many rows has no tools

  const state = () => new URLSearchParams(location.hash.slice(1));

  function keep(name, value) {
    const all = state();
    for (const [key, old] of [...all]) if (!old) all.delete(key); // an anchor
    if (value) all.set(name, value); else all.delete(name);
    const text = all.toString();
    history.replaceState(null, "", text ? "#" + text : location.pathname + location.search);
  }

  function made(kind, fields, ...inside) {
    const one = Object.assign(document.createElement(kind), fields);
    one.append(...inside);
    return one;
  }

  function value(row, place, isNumber) {
    const cell = row.cells[place];
    if (isNumber) return cell.dataset.v === "" ? null : Number(cell.dataset.v);
    const text = cell.textContent.trim();
    return text === "-" || text === "" ? null : text;
  }

  function sorted(rows, place, isNumber, down) {
    const pairs = rows.map((row) => [value(row, place, isNumber), row]);
    const compare = isNumber ? (a, b) => a - b : (a, b) => a.localeCompare(b, "en", { numeric: true });
    pairs.sort(([a], [b]) => (a === null || b === null ? (a === null) - (b === null) : (down ? -1 : 1) * compare(a, b)));
    return pairs.map(([, row]) => row); // missing ones are last either way
  }

  function enliven(table) {
    const name = table.dataset.name, body = table.tBodies[0], rows = [...body.rows];
    const heads = [...table.tHead.rows[0].cells], keys = heads.map((head) => head.dataset.key);
    const texts = rows.map((row) => row.textContent.toLowerCase());
    const usual = keys.filter((_, place) => !("hidden" in heads[place].dataset));
    const find = made("input", { type: "search", placeholder: "filter", ariaLabel: "Filter the rows of this table" });
    const count = made("output", {});
    const boxes = keys.map((key) => made("input", { type: "checkbox", value: key }));
    const choice = boxes.map((box, place) => made("label", {}, box, " " + heads[place].textContent));
    const columns = made("details", {}, made("summary", { textContent: "columns" }), made("div", {}, ...choice));
    const wrapped = made("div", { className: "scroll" });
    table.before(wrapped);
    wrapped.append(table);
    if (rows.length > FEW) wrapped.before(made("div", { className: "tools" }, find, columns, count));

    function show() {
      const all = state(), sort = all.get(name + ".sort") || "", down = sort.startsWith("-");
      const place = keys.indexOf(sort.replace(/^-/, "")), isNumber = place >= 0 && "number" in heads[place].dataset;
      body.append(...(place < 0 ? rows : sorted(rows, place, isNumber, down)));
      heads.forEach((head, i) => {
        if (i === place) head.ariaSort = down ? "descending" : "ascending"; else head.removeAttribute("aria-sort");
      });
      const asked = all.get(name + ".find") || "", words = asked.toLowerCase().split(/\s+/).filter(Boolean);
      if (find.value !== asked) find.value = asked;
      rows.forEach((row, i) => { row.hidden = !words.every((word) => texts[i].includes(word)); });
      count.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length}`;
      const wanted = (all.get(name + ".columns") || "").split(",").filter((key) => keys.includes(key));
      const shown = new Set(wanted.length ? wanted : usual);
      keys.forEach((key, i) => {
        boxes[i].checked = shown.has(key);
        for (const row of [table.tHead.rows[0], ...rows]) row.cells[i].hidden = !shown.has(key);
      });
    }

    heads.forEach((head, i) => {
      const button = made("button", { type: "button" }, ...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => { // numbers begin with the largest, ranks and texts with the first
        const now = state().get(name + ".sort"), up = keys[i], down = "-" + keys[i];
        const order = "number" in head.dataset && !/^(rank|tier|p|p Holm)$/.test(head.textContent) ? [down, up] : [up, down];
        keep(name + ".sort", now === order[0] ? order[1] : now === order[1] ? "" : order[0]);
        show();
      });
    });
    find.addEventListener("input", () => { keep(name + ".find", find.value); show(); });
    columns.addEventListener("change", () => {
      const chosen = keys.filter((_, i) => boxes[i].checked);
      keep(name + ".columns", chosen.join() === usual.join() ? "" : chosen.join());
      show();
    });
    window.addEventListener("hashchange", show);
    show();
  }

  function theme(narrow) {
    const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue("--" + name).trim();
    const ink = colour("ink"), soft = colour("soft"), line = colour("line"), text = { labelColor: soft, titleColor: ink };
    return {
      background: "transparent", font: "system-ui, sans-serif", view: { stroke: line }, title: { color: ink },
      axis: { ...text, gridColor: line, domainColor: line, tickColor: line },
      legend: {
        ...text, symbolBaseFillColor: soft, symbolBaseStrokeColor: soft,
        ...(narrow ? { orient: "bottom", columns: 2, layout: { bottom: { direction: "vertical", anchor: "start" } } } : {}),
      },
    };
  }

  function draw(figure) {
    const spec = JSON.parse(figure.querySelector("script").textContent), narrow = figure.clientWidth < 600;
    figure.querySelector("div")?.remove();
    const place = made("div", {});
    figure.append(place);
    if (typeof spec.width === "number") Object.assign(spec, { width: "container", autosize: { type: "fit-x", contains: "padding" } });
    const actions = { export: true, source: false, compiled: false, editor: false };
    vegaEmbed(place, spec, { mode: "vega-lite", renderer: "svg", ast: true, actions, config: theme(narrow) });
  }

  for (const table of document.querySelectorAll("table[data-name]")) enliven(table);
  const seen = new IntersectionObserver((entries) => {
    for (const entry of entries) if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
  }, { rootMargin: "400px" });
  const all = () => document.querySelectorAll("figure").forEach((figure) => seen.observe(figure));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", all);
  all();
})();
