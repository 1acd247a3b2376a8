// The token explorer: two sentences side by side, and for each of their tokens the experts of every layer.
// Its data stand in a file beside the page that assigns MECHANISM_EXPLORER; `token_routes` says what is in them.
"use strict";

(() => {
  const STRONG = { light: 0.8, dark: 0.65 }; // weight from which the colour of a chip asks for the other colour of text
  const percent = (value) => `${(100 * value).toFixed(value < 0.0995 ? 1 : 0)} %`;

  function make(tag, given = {}, ...children) {
    const node = document.createElement(tag);
    for (const [name, value] of Object.entries(given)) {
      if (typeof value === "function") node.addEventListener(name, value);
      else if (value !== null && value !== undefined && value !== false) node.setAttribute(name, value);
    }
    node.append(...children.filter((child) => child !== null && child !== undefined));
    return node;
  }

  class Explorer {
    constructor(root, data) {
      Object.assign(this, { root, data, cell: null });
      this.codes = Object.keys(data.texts);
      const far = this.codes.filter((code) => code !== data.pivot);
      this.state = { lang: far[0] ?? data.pivot, with: data.pivot, text: 0, layer: null, expert: null };
      this.controls = make("form", { class: "controls", submit: (event) => event.preventDefault() });
      this.followed = make("div", { class: "followed" });
      this.overlap = make("div", { class: "overlap" });
      this.grids = make("div", { class: "grids" });
      this.detail = make("div", { class: "detail" });
      this.legend = make("p", { class: "legend hint" }, make("span", {}, "colour: gate weight 0 ", make("span", { class: "scale" }), ` ${Number(data.scale.toPrecision(3))}`), "; numbers: experts; ",
        ...["·", " space, ", "↵", " line break, ", "�", " part of a character."].map((part, i) => (i % 2 ? part : make("span", { class: "token" }, part))));
      const rows = Object.entries(data.provenance ?? {}).flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
      this.source = make("details", { class: "source" }, make("summary", {}, "Where these data come from"), make("dl", {}, ...rows));
      this.spoken = make("p", { class: "unseen", "aria-live": "polite" });
      root.replaceChildren(this.controls, this.followed, this.grids, this.detail, this.legend, this.overlap, this.source, this.spoken);
      this.readHash();
      this.build();
      window.addEventListener("hashchange", () => { this.readHash(); this.build(); });
      this.grids.addEventListener("pointerover", (event) => this.show(event.target.closest("td")));
      this.grids.addEventListener("focusin", (event) => this.show(event.target.closest("td"), true));
      this.grids.addEventListener("keydown", (event) => this.move(event));
    }

    // State: what is chosen, which the address keeps.
    readHash() {
      const given = new URLSearchParams(location.hash.slice(1));
      const { state, data } = this;
      for (const name of ["lang", "with"]) if (this.codes.includes(given.get(name))) state[name] = given.get(name);
      if (given.has("lang") && !given.has("with")) state.with = [data.pivot, ...this.codes].find((code) => code !== state.lang) ?? state.lang;
      if (Number(given.get("text")) in data.titles) state.text = Number(given.get("text"));
      if (!given.has("layer")) return;
      const layer = data.layers.indexOf(Number(given.get("layer"))), expert = Number(given.get("expert") ?? NaN);
      state.layer = layer < 0 ? null : layer;
      state.expert = state.layer !== null && Number.isInteger(expert) && expert >= 0 && expert < data.experts ? expert : null;
      if (state.expert !== null) this.root.scrollIntoView();
    }

    set(changes) {
      Object.assign(this.state, changes);
      const { lang, text, layer, expert } = this.state;
      const kept = { lang, with: this.state.with, text };
      if (layer !== null) kept.layer = this.data.layers[layer];
      if (layer !== null && expert !== null) kept.expert = expert;
      history.replaceState(null, "", `#${new URLSearchParams(kept)}`);
      const place = document.activeElement?.closest(".explorer [data-keep]")?.dataset.keep;
      const at = this.cell && { ...this.cell.dataset, code: this.cell.closest("table").dataset.code };
      const inside = this.cell && this.cell === document.activeElement;
      this.build();
      const cell = at && this.grids.querySelector(`[data-code="${at.code}"] [data-token="${at.token}"][data-layer="${at.layer}"]`);
      if (cell) this.show(cell, true);
      if (inside) cell?.focus();
      else if (place) this.root.querySelector(`[data-keep="${place}"]`)?.focus();
    }

    name(code) { return this.data.names?.[code] ?? code; }
    sides() { return this.state.lang === this.state.with ? [this.state.lang] : [this.state.lang, this.state.with]; }
    text(code, number = this.state.text) { return this.data.texts[code][number]; }
    slots(one, token, layer) {
      const { layers, slots, scale } = this.data, start = (token * layers.length + layer) * slots;
      const found = [...Array(slots).keys()].map((i) => ({ expert: one.e[start + i], weight: (one.w[start + i] * scale) / 255 }));
      return found.filter((slot) => slot.expert >= 0).sort((a, b) => b.weight - a.weight);
    }
    words(code, layer, expert) {
      return (this.data.words[code]?.[layer * this.data.experts + expert] ?? []).map((i) => this.data.tokens[i]);
    }
    rate(code, layer, expert) { return (this.data.rates[code]?.[layer * this.data.experts + expert] ?? 0) / 1000; }

    build() {
      this.cell = null;
      this.buildControls();
      this.grids.replaceChildren(...this.sides().map((code) => this.grid(code)));
      for (const head of this.grids.querySelectorAll("thead th.on")) head.closest(".box").scrollLeft = head.offsetLeft - 140;
      this.buildFollowed();
      this.buildOverlap();
      this.detail.replaceChildren(make("p", { class: "hint" }, "Point at a cell, tap it, or move with the arrow keys: its experts, their weights and their other tokens."));
    }

    select(label, name, options, value, change) {
      const list = make("select", { "data-keep": name, change: () => change(list.value) });
      list.append(...options.map(([key, text]) => new Option(text, key)));
      list.value = value;
      return make("label", { class: name }, make("span", {}, label), list);
    }

    buildControls() {
      const { state, data } = this, number = (text) => (text === "" ? null : Number(text));
      const languages = this.codes.map((code) => [code, this.name(code)]);
      const experts = [...Array(data.experts).keys()].map((i) => [i, i]);
      this.controls.replaceChildren(
        this.select("Language", "lang", languages, state.lang, (lang) => this.set({ lang })),
        this.select("Beside", "with", languages, state.with, (other) => this.set({ with: other })),
        this.select(data.routed > data.titles.length ? `Sentence (${data.titles.length} of ${data.routed}, to keep the data small)` : "Sentence", "text", data.titles.map((title, i) => [i, title]), state.text, (text) => this.set({ text: Number(text) })),
        this.select("Follow layer", "layer", [["", "none"], ...data.layers.map((layer, i) => [i, layer])], state.layer ?? "",
          (layer) => this.set(layer === "" ? { layer: null, expert: null } : { layer: Number(layer) })),
        this.select("expert", "expert", [["", "none"], ...experts], state.expert ?? "",
          (expert) => this.set({ expert: number(expert), layer: state.layer ?? 0 })),
      );
    }

    grid(code) {
      const one = this.text(code), name = this.name(code), { layers, decoded } = this.data;
      if (!one) return make("p", { class: "hint" }, `This sentence is not there in ${name}.`);
      const heads = layers.map((layer, at) => make("th", { scope: "col", class: at === this.state.layer ? "on" : null },
        make("span", { class: "unseen" }, "layer "), String(layer)));
      const parts = [["read", "read together (prefill)", 0, one.n],
        ["made", decoded ? "generated one by one (decode)" : "generated", one.n, one.t.length]];
      const bodies = parts.filter(([, , from, to]) => to > from).map(([kind, title, from, to]) => make("tbody", { class: kind },
        make("tr", { class: "phase" }, make("th", { scope: "rowgroup", colspan: layers.length + 1 }, make("span", {}, title))),
        ...[...Array(to - from).keys()].map((i) => this.row(code, one, from + i))));
      const table = make("table", { role: "grid", "aria-label": `Experts of each token by layer, ${name}`, "data-code": code },
        make("caption", {}, make("span", {}, make("b", {}, name), ` ${one.n} tokens read, ${one.t.length - one.n} generated`)),
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, make("span", { class: "unseen" }, "token, by "), "layer"), ...heads)), ...bodies);
      table.querySelector("td")?.setAttribute("tabindex", "0");
      return make("div", { class: "box" }, table);
    }

    row(code, one, token) {
      const language = token < one.n && /^[a-z]{2}$/.test(code) ? code : null;
      const head = make("th", { scope: "row" }, make("bdi", { lang: language }, this.data.tokens[one.t[token]]));
      return make("tr", {}, head, ...this.data.layers.map((_, layer) => make("td",
        { tabindex: "-1", "data-token": token, "data-layer": layer, class: layer === this.state.layer ? "on" : null },
        make("div", { class: "slots", style: `--columns:${this.data.slots > 3 ? 2 : 1}` }, ...this.slots(one, token, layer).map((slot) => this.chip(layer, slot.expert, slot.weight / this.data.scale))))));
    }

    chip(layer, expert, weight, text = String(expert)) {
      const on = layer === this.state.layer && expert === this.state.expert;
      const kinds = ["x", weight >= STRONG.light && "strong", weight >= STRONG.dark && "strong-dark", on && "pin"];
      return make("span", { class: kinds.filter(Boolean).join(" "), style: `--w:${weight.toFixed(3)}`, "data-x": `${layer}/${expert}` }, text);
    }

    // What stands at a cell: in the panel, and in one sentence for screen readers.
    show(cell, focused = false) {
      if (!cell || (cell === this.cell && !focused)) return;
      this.cell?.classList.remove("here");
      this.cell = cell;
      cell.classList.add("here");
      const table = cell.closest("table"), code = table.dataset.code, one = this.text(code);
      const token = Number(cell.dataset.token), layer = Number(cell.dataset.layer), found = this.slots(one, token, layer);
      if (focused) {
        table.querySelector('td[tabindex="0"]')?.setAttribute("tabindex", "-1");
        cell.setAttribute("tabindex", "0");
      }
      this.root.querySelectorAll(".hot").forEach((chip) => chip.classList.remove("hot"));
      for (const { expert } of found) {
        this.grids.querySelectorAll(`[data-x="${layer}/${expert}"]`).forEach((chip) => chip.classList.add("hot"));
      }
      const text = this.data.tokens[one.t[token]], phase = token < one.n ? "read" : "generated";
      const where = `${this.name(code)}, token ${token + 1}, ${phase}; layer ${this.data.layers[layer]}`;
      const others = (expert) => this.sides().map((side) => [side, this.words(side, layer, expert).filter((word) => word !== text)])
        .filter(([, words]) => words.length);
      this.detail.replaceChildren(make("p", {}, make("bdi", { class: "token" }, text), ` ${where}`), make("ul", {}, ...found.map(({ expert, weight }) =>
        make("li", {}, make("button", { type: "button", click: () => this.set({ layer, expert }), title: "follow this expert", "data-keep": `follow-${expert}` }, `expert ${expert}`),
          make("span", { class: "bar", style: `--w:${Math.min(1, weight / this.data.scale)}` }), make("span", { class: "weight" }, weight.toFixed(2)),
          make("span", { class: "others" }, others(expert).length ? make("span", { class: "hint" }, "also gets ") : null, ...others(expert).flatMap(([side, words]) => [make("b", {}, side), " ", ...this.list(words)])))) ));
      this.spoken.textContent = `${text}, ${where}: ${found.map(({ expert, weight }) => `expert ${expert}, weight ${weight.toFixed(2)}`
        + others(expert).map(([side, words]) => `, in ${side} also ${words.join(" ")}`).join("")).join("; ")}`;
    }

    list(words) { return words.flatMap((word) => [make("bdi", { class: "token" }, word), " "]); }

    move(event) {
      const cell = event.target.closest("td"), row = cell?.parentElement;
      if (!cell || event.altKey || event.metaKey) return;
      const rows = [...cell.closest("table").rows].filter((one) => one.querySelector("td")), at = rows.indexOf(row), layer = Number(cell.dataset.layer);
      const last = this.data.layers.length - 1, far = event.ctrlKey;
      const to = { ArrowLeft: [at, layer - 1], ArrowRight: [at, layer + 1], ArrowUp: [at - 1, layer], ArrowDown: [at + 1, layer],
        Home: [far ? 0 : at, 0], End: [far ? rows.length - 1 : at, last], PageUp: [at - 10, layer], PageDown: [at + 10, layer] }[event.key];
      const top = this.slots(this.text(cell.closest("table").dataset.code), Number(cell.dataset.token), layer)[0];
      if (to) {
        const next = rows[Math.max(0, Math.min(rows.length - 1, to[0]))];
        next.children[1 + Math.max(0, Math.min(last, to[1]))].focus();
      } else if (event.key === "Enter" && top) {
        this.set({ layer, expert: top.expert });
      } else return;
      event.preventDefault();
    }

    // The expert that is followed: how much each language uses it, and its tokens.
    buildFollowed() {
      const { layer, expert } = this.state, { data } = this;
      this.followed.hidden = layer === null || expert === null;
      if (this.followed.hidden) return this.followed.replaceChildren();
      const rates = this.codes.map((code) => [code, this.rate(code, layer, expert)]);
      const most = Math.max(...rates.map(([, rate]) => rate), 1e-9);
      const chips = rates.map(([code, rate]) => {
        const chip = this.chip(null, -1, rate / most, `${code} ${percent(rate)}`);
        return make("button", { type: "button", title: this.name(code), "aria-label": `${this.name(code)}: ${percent(rate)}`,
          "aria-pressed": String(code === this.state.lang), click: () => this.set({ lang: code }), "data-keep": `rate-${code}` }, chip);
      });
      const tokens = this.sides().map((code) => make("p", {}, make("b", {}, this.name(code)), " ", ...(this.list(this.words(code, layer, expert)))));
      return this.followed.replaceChildren(
        make("p", { class: "head" }, make("span", { class: "x pin" }, String(expert)), make("b", {}, ` Expert ${expert} of layer ${data.layers[layer]}`),
          make("button", { type: "button", click: () => this.set({ layer: null, expert: null }), "data-keep": "layer" }, "stop following")),
        make("p", {}, `Share of each language's tokens that select it (${percent(data.slots / data.experts)} if all experts were used alike):`),
        make("div", { class: "rates" }, ...chips), make("p", {}, "Tokens that it receives beyond its share:"), ...tokens);
    }

    // How alike the two sentences use the experts, beside what unrelated sentences do.
    usage(one, layer) {
      const used = new Float64Array(this.data.experts);
      for (let token = 0; token < one.n; token += 1) for (const slot of this.slots(one, token, layer)) used[slot.expert] += slot.weight;
      const all = used.reduce((sum, value) => sum + value, 0) || 1;
      return used.map((value) => value / all);
    }

    buildOverlap() {
      const [code, side] = this.sides(), own = this.text(code), twin = side && this.text(side);
      this.overlap.hidden = !own || !twin;
      if (this.overlap.hidden) return this.overlap.replaceChildren();
      const others = this.data.texts[side].filter((one, i) => one && i !== this.state.text);
      const shared = (a, b) => a.reduce((sum, value, i) => sum + Math.min(value, b[i]), 0);
      const rows = [["this pair", [twin]], [`${others.length} other sentences, mean`, others]].filter(([, each]) => each.length);
      const value = (each, layer) => each.reduce((sum, one) => sum + shared(this.usage(own, layer), this.usage(one, layer)), 0) / each.length;
      const cells = ([label, each]) => make("tr", {}, make("th", { scope: "row" }, label), ...this.data.layers.map((_, layer) => {
        const part = value(each, layer);
        return make("td", {}, make("span", { class: "bar", style: `--w:${part}` }), percent(part).replace(" %", ""));
      }));
      return this.overlap.replaceChildren(make("div", { class: "box", tabindex: "0", role: "region", "aria-label": "Weight in common by layer" }, make("table", {},
        make("caption", {}, make("b", {}, "In common"), ` % of gate weight that falls on the same experts in ${this.name(code)} and in ${this.name(side)}, tokens read`),
        make("thead", {}, make("tr", {}, make("th", { scope: "col" }, "layer"), ...this.data.layers.map((layer) => make("th", { scope: "col" }, String(layer))))),
        make("tbody", {}, ...rows.map(cells)))));
    }
  }

  for (const root of document.querySelectorAll("section.explorer")) {
    const script = make("script", { src: root.dataset.src });
    script.onload = () => new Explorer(root, globalThis.MECHANISM_EXPLORER);
    script.onerror = () => root.append(make("p", { role: "alert" }, `The data could not be loaded: they stand beside this page, in ${root.dataset.src}. `
      + "The folder of a run has the explorer as explorer.html."));
    document.head.append(script);
  }
})();
