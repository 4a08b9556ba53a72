"use strict";
// The tab Choose: a gallery of candidates, as an element of its own inside Gradio's page. What is shown, and in which
// order, is decided here; ohlora/studio/gallery.py keeps the choices and makes the pictures.
customElements.define("ohlora-choose", class extends StudioTab {
  static tab = "choose";

  connectedCallback() {
    if (this.childElementCount) return;
    this.innerHTML = `
<div id="choose-empty"></div>
<div class="choose" hidden>
<p id="choose-status" role="status"></p>
<div class="row">
<label class="inline">Sort by <select id="choose-sort"></select></label>
<button type="button" id="choose-direction">Highest first</button>
<label class="inline">Show <select id="choose-show"><option value="">all</option><option value="open">not chosen yet</option>
<option value="keep">kept</option><option value="star">starred</option><option value="reject">rejected</option></select></label>
<button type="button" id="choose-filter">Add a filter</button>
<label class="inline">Wanted <input type="number" min="1" value="19" id="choose-count"></label>
</div>
<div id="choose-filters"></div>
<div class="row actions">
<button type="button" class="main" data-choice="keep">Keep [k]</button>
<button type="button" data-choice="star">Star [s]</button>
<button type="button" data-choice="reject">Reject [r]</button>
<button type="button" data-choice="">No choice [n]</button>
<button type="button" id="choose-undo">Undo [u]</button>
<button type="button" id="choose-back">Previous [←]</button>
<button type="button" id="choose-ahead">Next [→]</button>
<button type="button" id="choose-all">Select all shown [a]</button>
<button type="button" id="choose-export">Export</button>
<button type="button" id="choose-reload">Reload the list</button>
</div>
<p id="choose-message" role="status"></p>
<div class="sides">
<div class="gallery" id="choose-gallery"></div>
<figure class="sheet"><img id="choose-sheet" alt="" hidden><figcaption id="choose-caption"></figcaption></figure>
</div>
<div class="figures" tabindex="0" role="region" aria-label="Figures of the candidates"><table><thead><tr id="choose-head"></tr></thead>
<tbody id="choose-body"></tbody></table></div>
</div>`;
    Object.assign(this, {rows: [], choices: {}, filters: [], selected: new Set(), films: {}, faces: {}, cards: {}, playing: null});
    Object.assign(this, {sort: "rank", rising: true, shown: [], columns: [], drawn: ""});
    for (const button of this.querySelectorAll("[data-choice]"))
      button.addEventListener("click", () => this.choose(button.dataset.choice || null));
    this.at("sort").addEventListener("change", () => this.order(this.at("sort").value, this.at("sort").value === "rank"));
    this.at("direction").addEventListener("click", () => this.order(this.sort, !this.rising));
    this.at("show").addEventListener("change", () => this.arrange());
    this.at("count").addEventListener("input", () => this.status());
    this.at("filter").addEventListener("click", () => {
      this.filters.push({by: this.columns[0], least: true, than: ""});
      this.conditions();
      this.at("filters").lastElementChild.querySelector("select").focus();
    });
    this.at("undo").addEventListener("click", () => this.tell("undo"));
    this.at("back").addEventListener("click", () => this.step(-1));
    this.at("ahead").addEventListener("click", () => this.step(1));
    this.at("all").addEventListener("click", () => {
      const every = this.shown.every((row) => this.selected.has(row.case));
      for (const row of this.shown) every ? this.selected.delete(row.case) : this.selected.add(row.case);
      this.mark();
    });
    this.at("export").addEventListener("click", () => { this.say("Exporting …"); this.tell("export"); });
    this.at("reload").addEventListener("click", () => this.tell("reload"));
    this.seen = new IntersectionObserver((entries) => {
      for (const {isIntersecting, target} of entries) {
        if (!isIntersecting || target.dataset.asked) continue;
        target.dataset.asked = "yes";
        this.tell("still", {case: Number(target.dataset.case)});
      }
    });
    // The sheet of a candidate is asked for when the tab is looked at.
    new IntersectionObserver(() => this.look()).observe(this);
    this.connect();
  }

  // --- what the server says

  on_empty({html}) {
    this.at("empty").innerHTML = html;
    this.querySelector(".choose").hidden = true;
  }

  on_rows({rows, columns, told, kind, stills, sliders, choices}) {
    this.at("empty").replaceChildren();
    this.querySelector(".choose").hidden = false;
    Object.assign(this, {columns, told, kind, stills, sliders, choices, films: {}, faces: {}, drawn: "", waiting: false});
    this.rows = rows.map((row, k) => ({rank: k + 1, ...row}));
    this.selected = new Set([...this.selected].filter((number) => rows.some((row) => row.case === number)));
    const names = ["rank", "case", "choice", ...columns];
    this.at("sort").replaceChildren(...names.map((name) => new Option(this.title(name), name)));
    if (!names.includes(this.sort)) this.sort = "rank";
    this.cards = Object.fromEntries(this.rows.map((row) => [row.case, this.card(row)]));
    if (!rows.some((row) => row.case === this.case)) this.case = rows[0].case;
    this.say("");
    this.conditions();
    this.arrange();
  }

  on_chosen({choices, note}) {
    this.choices = choices;
    this.say(note);
    this.arrange();
  }

  on_still({case: number, data}) {
    const picture = new Image();
    picture.onload = () => {
      this.faces[number] = picture;
      this.paint(this.cards[number], picture, 0, picture.width);
    };
    picture.src = data;
  }

  on_film({case: number, data}) {
    const picture = new Image();
    picture.onload = () => { this.films[number] = picture; };
    picture.src = data;
  }

  on_sheet({case: number, data}) {
    this.waiting = false;
    if (number !== this.case) return this.look();
    const sheet = this.at("sheet");
    Object.assign(sheet, {src: data, hidden: false, alt: `Case ${number} as it is, and along each slider`});
    this.at("caption").textContent = `Case ${number}`;
  }

  on_message({note}) {
    this.waiting = false;
    this.say(note);
  }

  // --- cards

  title(name) { return name === "rank" ? "best first" : name.replaceAll("_", " "); }

  card(row) {
    const card = document.createElement("div");
    card.className = "card";
    card.dataset.case = row.case;
    card.innerHTML = `<button type="button" class="face"><canvas width="64" height="64"></canvas></button>
      <label class="inline"><input type="checkbox"> <span class="name"></span></label><span class="figure"></span>`;
    const [face, box] = [card.querySelector(".face"), card.querySelector("input")];
    card.querySelector(".name").textContent = `case ${row.case}`;
    face.addEventListener("click", () => this.show(row.case));
    box.addEventListener("change", () => {
      box.checked ? this.selected.add(row.case) : this.selected.delete(row.case);
      this.mark();
    });
    for (const start of ["pointerenter", "focus"]) face.addEventListener(start, () => this.play(row.case));
    for (const end of ["pointerleave", "blur"]) face.addEventListener(end, () => this.rest(row.case));
    this.seen.observe(card);
    return card;
  }

  paint(card, picture, frame, width) {
    const canvas = card.querySelector("canvas");
    if (canvas.width !== width || canvas.height !== picture.height) Object.assign(canvas, {width, height: picture.height});
    canvas.getContext("2d").drawImage(picture, -frame * width, 0);
  }

  /** Each slider from its lowest to its highest strength and back, one after the other. */
  play(number) {
    this.rest(this.playing?.number);
    if (!this.films[number]) this.tell("film", {case: number});
    let moment = 0;
    const there = this.stills, round = 2 * there - 2;
    const timer = setInterval(() => {
      const film = this.films[number];
      if (!film) return;
      const slider = Math.floor(moment / round) % this.sliders.length, place = moment % round;
      const frame = slider * there + (place < there ? place : round - place);
      this.paint(this.cards[number], film, frame, film.width / (there * this.sliders.length));
      this.cards[number].dataset.frame = frame;
      moment += 1;
    }, 120);
    this.playing = {number, timer};
  }

  rest(number) {
    if (!this.playing || this.playing.number !== number) return;
    clearInterval(this.playing.timer);
    this.playing = null;
    const face = this.faces[number];
    if (face) this.paint(this.cards[number], face, 0, face.width);
  }

  // --- order

  order(by, rising) {
    Object.assign(this, {sort: by, rising});
    this.arrange();
  }

  conditions() {
    this.at("filters").replaceChildren(...this.filters.map((filter) => {
      const row = document.createElement("div");
      row.className = "row";
      row.innerHTML = `<select aria-label="Figure to filter by"></select><select aria-label="Comparison">
        <option value="1">at least</option><option value="">at most</option></select>
        <input type="number" step="any" aria-label="Limit"><button type="button">Remove</button>`;
      const [by, least] = row.querySelectorAll("select"), than = row.querySelector("input");
      by.replaceChildren(...this.columns.map((name) => new Option(this.title(name), name)));
      Object.assign(by, {value: filter.by}); least.value = filter.least ? "1" : ""; than.value = filter.than;
      const changed = () => {
        Object.assign(filter, {by: by.value, least: Boolean(least.value), than: than.value});
        this.arrange();
      };
      for (const part of [by, least, than]) part.addEventListener("input", changed);
      row.querySelector("button").addEventListener("click", () => {
        this.filters.splice(this.filters.indexOf(filter), 1);
        this.conditions();
        this.arrange();
      });
      return row;
    }));
  }

  passes(row) {
    const choice = this.choices[row.case] ?? "open", show = this.at("show").value;
    if (show && show !== choice) return false;
    return this.filters.every(({by, least, than}) => than === "" ||
      (row[by] !== null && (least ? row[by] >= Number(than) : row[by] <= Number(than))));
  }

  value(row, name) { return name === "choice" ? this.choices[row.case] ?? "" : row[name]; }

  /** Filters and sorts; what was not measured comes last. */
  arrange() {
    const sign = this.rising ? 1 : -1;
    this.shown = this.rows.filter((row) => this.passes(row)).sort((a, b) => {
      const [x, y] = [this.value(a, this.sort), this.value(b, this.sort)];
      if (x === null || y === null) return (x === null) - (y === null);
      return x === y ? a.rank - b.rank : sign * (x < y ? -1 : 1);
    });
    this.at("sort").value = this.sort;
    this.at("direction").textContent = this.sort === "rank" ? (this.rising ? "Best first" : "Worst first")
      : this.rising ? "Lowest first" : "Highest first";
    this.at("gallery").replaceChildren(...this.shown.map((row) => this.cards[row.case]));
    this.table();
    this.mark();
    this.look();
  }

  table() {
    const more = [this.sort, ...this.filters.map(({by}) => by)];
    const names = ["case", "choice", ...new Set([...this.told, ...more.filter((name) => this.columns.includes(name))])];
    this.at("head").replaceChildren(...names.map((name) => {
      const cell = document.createElement("th"), button = document.createElement("button");
      cell.scope = "col";
      if (name === this.sort) cell.ariaSort = this.rising ? "ascending" : "descending";
      Object.assign(button, {type: "button", textContent: this.title(name)});
      if (name === this.sort) button.append(this.rising ? " ↑" : " ↓");
      // The first click brings the highest to the top, and of names the first.
      button.addEventListener("click", () => {
        this.order(name, name === this.sort ? !this.rising : ["case", "choice"].includes(name));
        this.at("head").children[names.indexOf(name)].querySelector("button").focus();
      });
      cell.append(button);
      return cell;
    }));
    this.at("body").replaceChildren(...this.shown.map((row) => {
      const line = document.createElement("tr");
      line.dataset.case = row.case;
      for (const name of names) {
        const value = this.value(row, name);
        const text = value === null ? "–" : typeof value === "number" && name !== "case" ? value.toFixed(3) : `${value}`;
        line.insertCell().textContent = text;
      }
      line.addEventListener("click", () => this.show(row.case));
      return line;
    }));
  }

  /** Shows what is chosen, selected and looked at. */
  mark() {
    for (const row of this.rows) {
      const card = this.cards[row.case], choice = this.choices[row.case] ?? "";
      card.dataset.choice = choice;
      card.classList.toggle("current", row.case === this.case);
      card.querySelector("input").checked = this.selected.has(row.case);
      const face = card.querySelector(".face");
      face.ariaLabel = `Show case ${row.case}`;
      face.ariaCurrent = row.case === this.case ? "true" : "false";
      const sign = {keep: "✓ kept", star: "★ starred", reject: "✗ rejected"}[choice] ?? "";
      const by = this.columns.includes(this.sort) ? `${this.title(this.sort)} ${row[this.sort]?.toFixed(3) ?? "–"}` : "";
      card.querySelector(".figure").textContent = [sign, by].filter(Boolean).join(" · ");
    }
    for (const line of this.at("body").children)
      line.classList.toggle("current", Number(line.dataset.case) === this.case);
    this.status();
  }

  status() {
    const kept = Object.values(this.choices).filter((choice) => choice !== "reject").length;
    const place = this.shown.findIndex((row) => row.case === this.case);
    const hidden = this.rows.length - this.shown.length;
    const parts = [`case ${this.case}`, this.choices[this.case] ?? "not chosen yet",
      `${place < 0 ? "not" : place + 1} of ${this.shown.length} shown` + (hidden ? ` (${hidden} filtered out)` : ""),
      `${this.rows.length} ${this.kind}`, `${kept} of ${this.at("count").value || 0} wanted characters are kept`];
    if (this.selected.size) parts.push(`${this.selected.size} selected`);
    this.at("status").textContent = parts.join(" · ");
  }

  show(number) {
    this.case = number;
    this.mark();
    this.look();
  }

  /** Asks for the sheet of what is looked at, once; those of what was passed by in the meantime are not drawn. */
  look() {
    if (this.case === undefined || this.drawn === this.case || this.offsetParent === null) return;
    this.at("sheet").hidden = true;
    this.at("caption").textContent = `Case ${this.case} is being drawn …`;
    if (this.waiting) return;
    this.waiting = true;
    this.drawn = this.case;
    this.tell("sheet", {case: this.case});
  }

  step(by) {
    if (!this.shown.length) return;
    const place = this.shown.findIndex((row) => row.case === this.case);
    const next = Math.min(Math.max(place + by, 0), this.shown.length - 1);
    this.show(this.shown[next].case);
    this.cards[this.case].scrollIntoView({block: "nearest"});
  }

  choose(choice) {
    if (this.selected.size) {
      const cases = [...this.selected];
      this.selected.clear();
      return this.tell("choose", {cases, choice});
    }
    const number = this.case;
    if (choice) this.step(1);
    this.tell("choose", {cases: [number], choice});
  }
});
