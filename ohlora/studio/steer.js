"use strict";
// The tab Steer: an element of its own inside Gradio's page. Frames come over a WebSocket, as bytes for a canvas of
// their size; ohlora/studio/socket.py is the other side.
customElements.define("ohlora-steer", class extends StudioTab {
  static tab = "steer";

  connectedCallback() {
    if (this.childElementCount) return;
    this.innerHTML = `
<div id="steer-empty"></div>
<div class="steer">
<div class="stage" id="steer-stage">
<figure><canvas id="steer-picture" role="img" aria-label="The character"></canvas><figcaption hidden></figcaption></figure>
</div>
<div class="controls">
<label>Character <select id="steer-character"></select></label>
<label>Compare with other directions <select id="steer-directions"></select></label>
<details><summary>Other characters side by side</summary><div id="steer-beside"></div></details>
<div id="steer-sliders"></div>
<div class="row"><label class="inline"><input type="checkbox" id="steer-idle"> Idle motion</label>
<button id="steer-key-0" type="button">Back to 0 [0]</button><button id="steer-key-u" type="button">Undo [u]</button></div>
<form class="row" id="steer-speech"><input type="text" aria-label="Text to say" placeholder="Text to say" required>
<button>Say</button></form>
<form class="row" id="steer-keep"><input type="text" aria-label="Name of a preset" placeholder="Name of a preset"
maxlength="40" required><button>Keep</button></form>
<div class="row" id="steer-presets"></div>
<div class="row"><button id="steer-key-p" type="button">Save PNG [p]</button>
<button id="steer-key-g" type="button">Save GIF [g]</button><button id="steer-key-h" type="button">Save sheet [h]</button></div>
<div class="row"><button id="steer-key-v" type="button">Record [v]</button>
<label class="inline">as <select id="steer-form"><option value="mp4">MP4</option><option value="webm">WebM</option>
<option value="webp">WebP</option></select></label>
<label class="inline"><input type="checkbox" id="steer-cut"> Background transparent</label></div>
<p id="steer-uncut" hidden></p>
<p id="steer-status"></p><p id="steer-message" role="status"></p>
<p>A saved PNG that is dropped here brings its settings back; the address of this page holds them too.</p>
</div></div>`;
    Object.assign(this, {sliders: [], rows: [], set: [], kept: [], past: [], beside: [], moments: null, wanted: null, sent: 0, shown: 0, held: -1});
    this.at("character").addEventListener("change", () => this.open(this.at("character").value, {}));
    this.at("directions").addEventListener("change", () => this.tell("compare", {name: this.at("directions").value}));
    this.at("key-0").addEventListener("click", () => this.move(this.rest()));
    this.at("key-u").addEventListener("click", () => this.undo());
    for (const [key, kind] of [["p", "png"], ["g", "gif"], ["h", "sheet"]])
      this.at(`key-${key}`).addEventListener("click", () => this.tell("save", {kind, at: this.set}));
    this.at("key-v").addEventListener("click", () => this.record());
    this.at("idle").addEventListener("change", () => this.draw());
    this.at("cut").addEventListener("change", () => this.tell("cut", {on: this.at("cut").checked}));
    this.form("speech", (text) => this.tell("say", {text}));
    this.form("keep", (name) => this.tell("keep", {name, at: this.set}));
    this.addEventListener("dragover", (event) => event.preventDefault());
    this.addEventListener("drop", async (event) => {
      event.preventDefault();
      const [file] = event.dataTransfer.files;
      if (file) this.socket.send(await file.arrayBuffer());
    });
    new ResizeObserver(() => this.fit()).observe(this);
    window.addEventListener("resize", () => this.fit());
    const tick = () => {
      if (this.moving()) this.draw();
      requestAnimationFrame(tick);
    };
    requestAnimationFrame(tick);
    const asked = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
    if (asked.character) this.wanted = asked;
    this.connect();
  }

  form(name, submitted) {
    this.at(name).addEventListener("submit", (event) => {
      event.preventDefault();
      submitted(this.at(name).querySelector("input").value);
    });
  }

  moving() { return this.sliders.length > 0 && (this.speaking || this.at("idle").checked); }
  rest() { return this.sliders.map(({low, high}) => Math.min(Math.max(0, low), high)); }

  open(name, settings) {
    this.wanted = {...settings, character: name};
    this.tell("open", {name});
  }

  // --- what the server says

  on_listed({characters, directions, note, empty}) {
    this.at("empty").innerHTML = empty;
    this.querySelector(".steer").hidden = Boolean(empty);
    const compared = this.at("directions").value;
    this.at("character").replaceChildren(...characters.map((name) => new Option(name)));
    this.at("directions").replaceChildren(...["", ...directions].map((name) => new Option(name || "–", name)));
    this.at("directions").value = directions.includes(compared) ? compared : "";
    if (characters.includes(this.name)) {
      this.at("character").value = this.name;
      this.others();
    }
    if (note) this.say(note);
    if (!this.sliders.length && !this.wanted && characters.length) this.open(characters[0], {});
  }

  on_files(said) {
    const before = this.sliders.length ? {...this.named(), character: this.name} : this.wanted;
    const there = before && said.characters.includes(before.character);
    this.say("");
    if (there) this.open(before.character, before);
    this.on_listed(said);
  }

  on_opened({name, sliders, presets, note, captions, uncut}) {
    Object.assign(this, {name, sliders, past: [], speaking: false});
    this.at("character").value = name;
    this.at("directions").value = "";
    this.say(note);
    this.set = this.rest();
    this.rows = sliders.map((slider, k) => this.row(slider, k));
    this.at("sliders").replaceChildren(...this.rows.map(({row}) => row));
    this.on_presets({presets});
    this.at("cut").parentElement.hidden = Boolean(uncut);
    Object.assign(this.at("uncut"), {hidden: !uncut, textContent: `A transparent background is not offered: ${uncut}`});
    if (this.at("cut").checked && !uncut) this.tell("cut", {on: true}); // the server may be a new one
    this.stage(captions);
    this.others();
    if (this.beside.length) this.tell("beside", {names: this.beside});
    const settings = this.wanted && this.wanted.character === name ? this.wanted : {};
    this.wanted = null;
    this.kept = [...this.set];
    this.move(this.set.map((value, k) => sliders[k].name in settings ? Number(settings[sliders[k].name]) : value));
    this.past = [];
  }

  on_presets({presets}) {
    this.at("presets").replaceChildren(...Object.entries(presets).flatMap(([name, settings]) => {
      const use = document.createElement("button"), forget = document.createElement("button");
      Object.assign(use, {type: "button", textContent: name});
      Object.assign(forget, {type: "button", textContent: "×", ariaLabel: `Forget ${name}`, className: "forget"});
      use.addEventListener("click", () => this.move(this.sliders.map((slider, k) => settings[slider.name] ?? this.set[k])));
      forget.addEventListener("click", () => this.tell("forget", {name}));
      return [use, forget];
    }));
  }

  on_compared({other, captions, note}) {
    if (!other) this.at("directions").value = "";
    this.say(note);
    this.stage(captions);
    this.draw();
  }

  on_cut({on, note}) {
    this.at("cut").checked = on;
    this.at("stage").classList.toggle("clear", on);
    const form = this.at("form"), [mp4] = form.options;
    Object.assign(mp4, {disabled: on, textContent: on ? "MP4 (never transparent)" : "MP4"});
    if (note) this.say(note);
    if (on && form.value === "mp4") {
      form.value = "webm";
      this.say("An MP4 cannot be transparent: recordings are WebM now.");
    }
    this.draw();
  }

  /** A canvas for the character and each picture beside it, all named where there are several. */
  stage(captions) {
    const [first] = this.at("stage").children, own = first.querySelector("figcaption");
    Object.assign(own, {textContent: this.short(this.name), hidden: !captions.length});
    this.at("stage").replaceChildren(first, ...captions.map((caption, k) => {
      const figure = document.createElement("figure");
      figure.innerHTML = `<canvas id="steer-picture-${k + 1}" role="img"></canvas><figcaption></figcaption>`;
      figure.firstChild.ariaLabel = figure.lastChild.textContent = caption;
      return figure;
    }));
    this.fit();
  }

  short(name) { return name.split("/").at(-1).replace(/\.safetensors$/, ""); }

  /** The characters that can be shown beside the one that is steered. */
  others() {
    const names = [...this.at("character").options].map(({value}) => value).filter((name) => name !== this.name);
    this.beside = this.beside.filter((name) => names.includes(name));
    this.at("beside").replaceChildren(...names.map((name) => {
      const label = document.createElement("label"), box = document.createElement("input");
      label.className = "inline";
      Object.assign(box, {type: "checkbox", checked: this.beside.includes(name)});
      box.addEventListener("change", () => {
        this.beside = box.checked ? [...this.beside, name] : this.beside.filter((other) => other !== name);
        this.tell("beside", {names: this.beside});
      });
      label.append(box, ` ${name}`);
      return label;
    }));
    if (!names.length) this.at("beside").textContent = "There is no other character; the tab Choose exports some.";
  }

  /** Begins a recording of what is shown, or ends it and has it saved. */
  record() {
    const button = this.at("key-v"), moments = this.moments;
    if (!this.sliders.length) return;
    this.moments = moments ? null : [];
    button.textContent = moments ? "Record [v]" : "Stop [v]";
    if (!moments) {
      this.began = performance.now();
      this.note(this.strengths ?? this.set);
      return this.say("Recording what the sliders show …");
    }
    moments.push([(performance.now() - this.began) / 1000, this.strengths]);
    this.say(`Saving ${moments.at(-1)[0].toFixed(1)} s …`);
    this.tell("record", {form: this.at("form").value, moments});
  }

  /** Keeps what is shown now; what stood still before did so until now. */
  note(strengths) {
    const now = (performance.now() - this.began) / 1000, before = this.moments.at(-1);
    if (before && now - before[0] > .1) this.moments.push([now - .05, before[1]]);
    this.moments.push([now, strengths]);
  }

  on_restored({name, settings}) {
    if (name !== this.name) return this.open(name, settings);
    this.move(this.sliders.map((slider, k) => settings[slider.name] ?? this.set[k]));
    this.say("The settings of the picture are back.");
  }

  on_saved({note, name, data}) {
    this.say(`${note} `);
    const link = Object.assign(document.createElement("a"), {href: data, download: name, textContent: "Download"});
    this.at("message").append(link);
  }

  on_speech({on}) {
    this.speaking = on;
    this.draw();
  }

  on_message({note}) {
    this.say(note);
    if (this.name) this.at("character").value = this.name;
  }

  // --- sliders

  row({name, label, low, high}, k) {
    const row = document.createElement("div");
    row.className = "slider";
    row.innerHTML = `<label for="steer-${k}"></label><input type="number" step="0.01"><input type="range" step="0.01"
      id="steer-${k}">`;
    const [typed, input] = row.querySelectorAll("input");
    row.querySelector("label").textContent = label;
    typed.ariaLabel = `${name}, typed`;
    Object.assign(input, {min: low, max: high});
    input.addEventListener("input", () => { this.set[k] = input.valueAsNumber; this.draw(); });
    input.addEventListener("pointerdown", () => { this.held = k; });
    for (const end of ["pointerup", "pointercancel", "blur"]) input.addEventListener(end, () => { this.held = -1; });
    input.addEventListener("change", () => { this.held = -1; this.commit(); });
    // Motion moves the handle: a key moves on from where the slider was set.
    input.addEventListener("keydown", (event) => {
      const by = {ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1, PageDown: -10, PageUp: 10}[event.key];
      if (!by) return;
      event.preventDefault();
      this.move(this.set.map((value, other) => other === k ? value + by * (high - low) / 100 : value));
    });
    typed.addEventListener("change", () => {
      const asked = typed.valueAsNumber;
      if (Number.isNaN(asked)) return this.label();
      this.move(this.set.map((value, other) => other === k ? asked : value));
      if (asked < low || asked > high) this.say(`${name}: ${asked} is clamped to ${this.set[k]}; tested is ${low} … ${high}`);
    });
    return {row, typed, input};
  }

  move(values) {
    const clamp = (value, {low, high}) => Math.min(Math.max(Number.isFinite(value) ? value : 0, low), high);
    this.set = this.sliders.map((slider, k) => Number(clamp(values[k], slider).toFixed(4)));
    this.commit();
    this.draw();
  }

  commit() {
    if (this.kept.join() !== this.set.join()) this.past.push(this.kept);
    this.kept = [...this.set];
    history.replaceState(null, "", `#${new URLSearchParams({character: this.name, ...this.named()})}`);
  }

  undo() {
    const before = this.past.pop();
    if (!before) return this.say("There is nothing to undo.");
    this.move(before);
    this.past.pop();
  }

  named() { return Object.fromEntries(this.sliders.map(({name}, k) => [name, this.set[k]])); }

  // --- pictures

  /** Asks for a picture of the present settings; at most two are under way, and the server draws the newest. */
  draw() {
    if (!this.sliders.length) return;
    if (this.sent - this.shown >= 2) { this.late = true; return; }
    this.late = false;
    this.tell("draw", {number: ++this.sent, at: this.set, idle: this.at("idle").checked});
  }

  on_bytes(data) {
    const view = new DataView(data);
    const [number, width, height, pictures, count] = [0, 4, 8, 12, 16].map((place) => view.getUint32(place, true));
    const took = view.getFloat32(20, true), strengths = new Float32Array(data, 24, count);
    const start = 24 + 4 * count, size = 4 * width * height;
    for (let k = 0; k < pictures; k++) {
      const canvas = this.at(k ? `picture-${k}` : "picture");
      if (!canvas) break; // it was taken away in the meantime
      if (canvas.width !== width || canvas.height !== height) {
        Object.assign(canvas, {width, height});
        this.fit();
      }
      canvas.getContext("2d").putImageData(
        new ImageData(new Uint8ClampedArray(data, start + k * size, size), width, height), 0, 0);
    }
    this.shown = number;
    this.strengths = [...strengths];
    if (this.moments) this.note(this.strengths);
    this.label(strengths);
    this.at("status").textContent = `${this.sliders.map(({name}, k) => `${name} ${this.signed(strengths[k])}`).join(", ")} · the server took ${took.toFixed(0)} ms`;
    this.dispatchEvent(new CustomEvent("painted", {detail: number}));
    if (this.late) this.draw();
  }

  signed(value) { return `+${value.toFixed(2)}`.replace(/^\+-(?!0\.00)/, "−").replace("+-", "+"); }

  label(strengths = this.set) {
    const moving = this.moving();
    for (const [k, {typed, input}] of this.rows.entries()) {
      const value = moving ? strengths[k] : this.set[k];
      if (k !== this.held) input.value = value;
      if (document.activeElement !== typed) typed.value = Number(value.toFixed(2));
    }
  }

  /** The pictures fill their places by a whole multiple of their pixels. */
  fit() {
    const ratio = window.devicePixelRatio || 1, stage = this.at("stage");
    if (!stage.clientWidth) return;
    const shown = [...stage.querySelectorAll("canvas")], count = shown.length, [first] = shown;
    const top = stage.getBoundingClientRect().top + window.scrollY, beside = stage.clientWidth < this.clientWidth - 100;
    const high = beside ? Math.max(window.innerHeight - top - 24, 200) : window.innerHeight * .6;
    let best = {times: 0};
    for (let columns = 1; columns <= count; columns++) {
      const rows = Math.ceil(count / columns), wide = (stage.clientWidth - 16 * (columns - 1)) / columns;
      const tall = high / rows - (count > 1 ? 40 : 0);
      const times = Math.max(1, Math.floor(Math.min(wide * ratio / first.width, tall * ratio / first.height)));
      if (times > best.times) best = {times, wide, columns};
    }
    stage.style.gridTemplateColumns = `repeat(${best.columns}, auto)`;
    for (const canvas of shown)
      canvas.style.width = `${Math.min(best.wide, best.times * first.width / ratio)}px`;
  }
});

// An address that holds settings leads to this tab, which Gradio makes when it is opened for the first time.
if (new URLSearchParams(location.hash.slice(1)).has("character")) {
  const timer = setInterval(() => {
    const tab = [...document.querySelectorAll("[role=tab]")].find((found) => found.textContent.trim() === "Steer");
    if (tab) { clearInterval(timer); tab.click(); }
  }, 100);
}
