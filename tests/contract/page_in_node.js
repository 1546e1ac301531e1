// Runs page.js with the few parts of a browser that it uses; prints what it drew as JSON. Arguments: page.js, base URL.
"use strict";
const fs = require("fs");
const [script, base] = process.argv.slice(2);

class Element {
  constructor(tag) { this.tag = tag; this.children = []; this.attributes = {}; this.listeners = {}; this.own = ""; }
  set textContent(text) { this.own = text; this.children = []; }
  get textContent() { return this.own + this.children.map((each) => each.textContent).join(" "); }
  append(...made) { this.children.push(...made); }
  replaceChildren(...made) { this.own = ""; this.children = made; }
  addEventListener(name, action) { this.listeners[name] = action; }
  setAttribute(name, value) { this.attributes[name] = value; }
  find(tag) { return this.children.flatMap((each) => (each.tag === tag ? [each] : each.find(tag))); }
}

const byId = {};
for (const id of ["state", "filters", "servers", "contexts", "jobs", "binaries"]) byId[id] = new Element("tbody");
const window = { confirm: () => true, alert: (text) => { throw new Error(text); } };
const document = {
  hidden: true, // asks once, sets no timer
  getElementById: (id) => byId[id],
  createElement: (tag) => new Element(tag),
  addEventListener: () => {},
};
const asked = [];
const ask = (path, options) => { asked.push((options.method || "GET") + " " + path); return fetch(base + path, options); };
const settled = async () => { for (let before = -1; before !== asked.length; ) { before = asked.length; await new Promise((go) => setTimeout(go, 300)); } };

(async () => {
  const start = new Function("document", "window", "fetch", fs.readFileSync(script, "utf8"));
  start(document, window, ask);
  await settled();
  const drawn = {};
  for (const id in byId) drawn[id] = byId[id].children.length ? byId[id].children.map((row) => row.textContent) : byId[id].textContent;
  const kill = byId.jobs.find("button")[0];
  if (kill) await kill.listeners.click();
  const failed = byId.filters.children.find((each) => each.textContent === "killed");
  failed.listeners.click();
  await settled();
  console.log(JSON.stringify({ drawn, asked, killed: byId.jobs.children.map((row) => row.textContent) }));
})().catch((error) => { console.error(error); process.exit(1); });
