"use strict";
// What the tabs Choose and Steer have in common: each is an element of its own inside Gradio's page, and speaks with the
// server over a WebSocket; ohlora/studio/connection.py is the other side. Loaded before them.
class StudioTab extends HTMLElement {
  /** The tab's name, in the addresses of its WebSocket and in the ids of its parts; each class has its own. */
  static tab = "";

  at(name) { return this.querySelector(`#${this.constructor.tab}-${name}`); }

  connect() {
    this.socket = new WebSocket(`${location.origin.replace(/^http/, "ws")}/${this.constructor.tab}/socket`);
    this.socket.binaryType = "arraybuffer";
    this.socket.onmessage = ({data}) => {
      if (data instanceof ArrayBuffer) return this.on_bytes(data);
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
}
