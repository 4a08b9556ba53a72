"use strict";
// The tab Steer: an element of its own inside Gradio's page. Frames come over a WebSocket, as bytes for a canvas of
// their size; ohlora/studio/socket.py is the other side.
customElements.define("ohlora-steer", class extends HTMLElement {
  connectedCallback() {
    if (this.childElementCount) return;
    this.innerHTML = `
<div class="steer">
<div class="stage" id="steer-stage">
<figure><canvas id="steer-picture" role="img" aria-label="The character"></canvas></figure>
<figure hidden><canvas id="steer-other" role="img" aria-label="The same with other directions"></canvas>
<figcaption>other directions</figcaption></figure>
</div>
<div class="controls">
<label>Character <select id="steer-character"></select></label>
<label>Compare with other directions <select id="steer-directions"></select></label>
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
<p id="steer-status"></p><p id="steer-message" role="status"></p>
<p>A saved PNG that is dropped here brings its settings back; the address of this page holds them too.</p>
</div></div>`;
    this.at = (name) => this.querySelector(`#steer-${name}`);
    Object.assign(this, {sliders: [], rows: [], set: [], kept: [], past: [], wanted: null, sent: 0, shown: 0, held: -1});
    this.at("character").addEventListener("change", () => this.open(this.at("character").value, {}));
    this.at("directions").addEventListener("change", () => this.tell("compare", {name: this.at("directions").value}));
    this.at("key-0").addEventListener("click", () => this.move(this.rest()));
    this.at("key-u").addEventListener("click", () => this.undo());
    for (const [key, kind] of [["p", "png"], ["g", "gif"], ["h", "sheet"]])
      this.at(`key-${key}`).addEventListener("click", () => this.tell("save", {kind, at: this.set}));
    this.at("idle").addEventListener("change", () => this.draw());
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

  connect() {
    this.socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/steer/socket`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = ({data}) => {
      if (data instanceof ArrayBuffer) return this.paint(data);
      const said = JSON.parse(data);
      this[`on_${said.what}`](said);
    };
    this.socket.onclose = () => {
      this.say("⚠️ the studio does not answer; the page goes on when it does");
      setTimeout(() => this.connect(), 1000);
    };
  }

  say(text) { this.at("message").textContent = text; }
  tell(what, more) {
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(JSON.stringify({do: what, ...more}));
  }
  moving() { return this.sliders.length > 0 && (this.speaking || this.at("idle").checked); }
  rest() { return this.sliders.map(({low, high}) => Math.min(Math.max(0, low), high)); }

  open(name, settings) {
    this.wanted = {...settings, character: name};
    this.tell("open", {name});
  }

  // --- what the server says

  on_files({characters, directions, note}) {
    this.at("character").replaceChildren(...characters.map((name) => new Option(name)));
    this.at("directions").replaceChildren(...["", ...directions].map((name) => new Option(name || "–", name)));
    this.say(note);
    const before = this.sliders.length ? {...this.named(), character: this.name} : this.wanted;
    const first = before && characters.includes(before.character) ? before : {character: characters[0]};
    if (first.character) this.open(first.character, first);
  }

  on_opened({name, sliders, presets, note}) {
    Object.assign(this, {name, sliders, past: [], speaking: false});
    this.at("character").value = name;
    this.at("directions").value = "";
    this.say(note);
    this.set = this.rest();
    this.rows = sliders.map((slider, k) => this.row(slider, k));
    this.at("sliders").replaceChildren(...this.rows.map(({row}) => row));
    this.on_presets({presets});
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

  on_compared({other, note}) {
    this.at("other").parentElement.hidden = !other;
    if (!other) this.at("directions").value = "";
    this.say(note);
    this.fit();
    this.draw();
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

  paint(data) {
    const view = new DataView(data);
    const [number, width, height, pictures, count] = [0, 4, 8, 12, 16].map((place) => view.getUint32(place, true));
    const took = view.getFloat32(20, true), strengths = new Float32Array(data, 24, count);
    const start = 24 + 4 * count, size = 4 * width * height;
    for (let k = 0; k < pictures; k++) {
      const canvas = this.at(k ? "other" : "picture");
      if (canvas.width !== width || canvas.height !== height) {
        Object.assign(canvas, {width, height});
        this.fit();
      }
      canvas.getContext("2d").putImageData(
        new ImageData(new Uint8ClampedArray(data, start + k * size, size), width, height), 0, 0);
    }
    this.shown = number;
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
    const shown = [...stage.querySelectorAll("figure:not([hidden]) canvas")];
    const top = stage.getBoundingClientRect().top + window.scrollY, beside = stage.clientWidth < this.clientWidth - 100;
    const wide = (stage.clientWidth - 16 * (shown.length - 1)) / shown.length;
    const high = beside ? Math.max(window.innerHeight - top - 24, 200) : window.innerHeight * .6;
    for (const canvas of shown) {
      const times = Math.max(1, Math.floor(Math.min(wide * ratio / canvas.width, high * ratio / canvas.height)));
      canvas.style.width = `${Math.min(wide, times * canvas.width / ratio)}px`;
    }
  }
});

// An address that holds settings leads to this tab, which Gradio makes when it is opened for the first time.
if (new URLSearchParams(location.hash.slice(1)).has("character")) {
  const timer = setInterval(() => {
    const tab = [...document.querySelectorAll("[role=tab]")].find((found) => found.textContent.trim() === "Steer");
    if (tab) { clearInterval(timer); tab.click(); }
  }, 100);
}
