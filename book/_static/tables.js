// Tables that readers can sort by a click on a heading, and the board of claims that they can filter.
// Without scripts the tables are there as they are.
"use strict";

(() => {
  const NUMBER = /^[<>≈]?\s*[-+−]?(\d[\d,]*)?\.?\d+(e[-+]?\d+)?/i;

  function text(cell) {
    return cell.textContent.trim();
  }

  function numeric(value) {
    const found = value.match(NUMBER);
    return found ? parseFloat(found[0].replace(/[<>≈\s,]/g, "").replace("−", "-")) : NaN;
  }

  // Ids such as R10 sort by letter, then number.
  function key(value, numbers) {
    if (numbers) return numeric(value);
    return value.replace(/\d+/g, (digits) => digits.padStart(9, "0")).toLowerCase();
  }

  function compare(one, other) {
    if (one === other) return 0;
    return one < other ? -1 : 1;
  }

  function sort(table, column, direction) {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    const values = rows.map((row) => text(row.cells[column]));
    const filled = values.filter(Boolean);
    const numbers = filled.length > 0 && filled.every((value) => !Number.isNaN(numeric(value)));
    const last = (value) => value === "" || (numbers && Number.isNaN(numeric(value)));
    const order = rows.map((row, i) => [values[i], row]);
    order.sort(([one], [other]) => {
      if (last(one) || last(other)) return Number(last(one)) - Number(last(other));
      return direction * compare(key(one, numbers), key(other, numbers));
    });
    body.append(...order.map(([, row]) => row));
  }

  function sortable(table) {
    const head = table.tHead;
    if (!head || head.rows.length !== 1 || table.tBodies.length !== 1) return false;
    const width = head.rows[0].cells.length;
    const plain = [...table.querySelectorAll("th, td")].every((cell) => cell.colSpan === 1 && cell.rowSpan === 1);
    const rows = [...table.tBodies[0].rows];
    return plain && rows.length > 5 && rows.every((row) => row.cells.length === width);
  }

  function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!text(head)) return;
      const button = document.createElement("button");
      button.type = "button";
      button.className = "sort";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        sort(table, column, direction);
      });
    });
  }

  function choice(label, options, changed) {
    const holder = document.createElement("label");
    const select = document.createElement("select");
    select.append(new Option("all", ""), ...options.map((option) => new Option(option, option)));
    select.addEventListener("change", changed);
    holder.append(label, select);
    return [holder, select];
  }

  function search(label, changed) {
    const holder = document.createElement("label");
    const input = document.createElement("input");
    input.type = "search";
    input.addEventListener("input", changed);
    holder.append(label, input);
    return [holder, input];
  }

  function makeBoard(board) {
    const table = board.querySelector("table");
    if (!table) return;
    const heads = [...table.tHead.rows[0].cells].map(text);
    const rows = [...table.tBodies[0].rows];
    rows.forEach((row) => [...row.cells].forEach((cell, i) => {
      cell.dataset.label = heads[i];
      cell.classList.toggle("none", !text(cell));
    }));
    const verdict = (row) => text(row.querySelector(".verdict")).replace(" at small scale", "");
    const source = (row) => text(row.cells[0]).charAt(0);
    const unique = (read) => [...new Set(rows.map(read))];
    const count = document.createElement("output");
    const show = () => {
      const words = find.value.toLowerCase();
      rows.forEach((row) => {
        row.hidden = (by.value && source(row) !== by.value) || (what.value && verdict(row) !== what.value)
          || (words && !row.textContent.toLowerCase().includes(words));
      });
      count.value = `${rows.filter((row) => !row.hidden).length} of ${rows.length} claims`;
    };
    const [byHolder, by] = choice("Source ", unique(source), show);
    const [whatHolder, what] = choice("Verdict ", unique(verdict), show);
    const [findHolder, find] = search("Words ", show);
    const bar = document.createElement("form");
    bar.className = "filter";
    bar.setAttribute("aria-label", "Filter the claims");
    bar.addEventListener("submit", (event) => event.preventDefault());
    bar.append(byHolder, whatHolder, findHolder, count);
    board.prepend(bar);
    board.classList.add("filterable");
    show();
  }

  // One switch for the code of all cells of a page.
  function makeSwitch(cells) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "all-code";
    const show = (open) => {
      cells.forEach((cell) => { cell.open = open; });
      button.textContent = open ? "hide all code" : "show all code";
      button.setAttribute("aria-pressed", String(open));
    };
    button.addEventListener("click", () => show(button.getAttribute("aria-pressed") !== "true"));
    show(false);
    document.querySelector(".bd-article h1").after(button);
  }

  // Definitions of terms: on hover and focus, and on a phone by the first tap; the second follows the link.
  function makeTips(links) {
    const tip = document.createElement("div");
    tip.id = "term-tip";
    tip.setAttribute("role", "tooltip");
    tip.hidden = true;
    document.body.append(tip);
    let shown = null;
    const hide = () => {
      tip.hidden = true;
      shown?.removeAttribute("aria-describedby");
      shown = null;
    };
    const show = (link) => {
      hide();
      shown = link;
      tip.textContent = link.dataset.tip;
      tip.hidden = false;
      link.setAttribute("aria-describedby", tip.id);
      const place = link.getBoundingClientRect();
      const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
      tip.style.left = `${Math.max(8, Math.min(place.left, room)) + window.scrollX}px`;
      const above = place.top > tip.offsetHeight + 12;
      tip.style.top = `${(above ? place.top - tip.offsetHeight - 6 : place.bottom + 6) + window.scrollY}px`;
    };
    links.forEach((link) => {
      link.dataset.tip = link.title;
      link.removeAttribute("title");
      if (link.querySelector(".math")) link.setAttribute("aria-label", link.dataset.tip); // drawn, it has no text
      let touched = false;
      link.addEventListener("pointerdown", (event) => { touched = event.pointerType === "touch" && shown !== link; });
      link.addEventListener("click", (event) => { if (touched) { event.preventDefault(); show(link); } touched = false; });
      link.addEventListener("pointerenter", (event) => { if (event.pointerType !== "touch") show(link); });
      link.addEventListener("pointerleave", (event) => { if (event.pointerType !== "touch") hide(); });
      link.addEventListener("focus", () => { if (!touched) show(link); });
      link.addEventListener("blur", hide);
    });
    document.addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
    document.addEventListener("pointerdown", (event) => { if (shown && !event.target.closest("a.term")) hide(); });
  }

  document.addEventListener("DOMContentLoaded", () => {
    const terms = [...document.querySelectorAll(".bd-article a.term[title]")];
    if (terms.length) makeTips(terms);
    const cells = [...document.querySelectorAll(".bd-article div.cell details.hide")];
    if (cells.length) makeSwitch(cells);
    document.querySelectorAll(".bd-article div.board").forEach(makeBoard);
    [...document.querySelectorAll(".bd-article table")].filter(sortable).forEach(makeSortable);
    markScrolling();
  });
  // Equations have their width once they are set.
  window.addEventListener("load", () => window.MathJax?.startup?.promise?.then(markScrolling));
  window.addEventListener("resize", () => requestAnimationFrame(markScrolling));

  // What scrolls sideways has to be reachable by keyboard, and to show that it goes on.
  function markScrolling() {
    const boxes = ".cell_output, .output, .table-wrapper, .pst-scrollable-table-container, pre, mjx-container[display='true']";
    document.querySelectorAll(`.bd-article :is(${boxes})`).forEach((box) => {
      const wide = box.scrollWidth > box.clientWidth;
      if (wide || box.scrollHeight > box.clientHeight + 1) box.tabIndex = 0;
      box.classList.toggle("scrolls", wide && (box.matches("mjx-container") || box.querySelector("table") !== null));
    });
  }
})();
