"use strict";
// The page of one server: asks it every two seconds while somebody looks, and draws what changed. Texts are set as
// texts only, so no name of a job or context can become markup.

const EVERY = 2000;
const FILTERS = ["all", "running", "queued", "finished", "error", "killed"];
const COLOURS = {
  RUNNING: "busy", QUEUED: "warn", RESTARTING: "warn", STARTED: "warn", STOPPING: "warn", draining: "warn",
  FINISHED: "good", alive: "good", ERROR: "bad", KILLED: "bad",
};
const drawn = new Map();
let filter = "all";
let timer = null;

const byId = (id) => document.getElementById(id);

function element(tag, text, className) {
  const made = document.createElement(tag);
  if (text !== undefined && text !== null) made.textContent = String(text);
  if (className) made.className = className;
  return made;
}

function cell(content, className) {
  if (content !== null && typeof content === "object") {
    const made = element("td", null, className);
    made.append(content);
    return made;
  }
  const empty = content === undefined || content === null || content === "";
  return element("td", empty ? "–" : content, className);
}

const pill = (state) => element("span", state, "pill " + (COLOURS[state] || ""));

function link(text, target) {
  const made = element("a", text);
  made.href = target;
  return made;
}

function button(text, action) {
  const made = element("button", text);
  made.type = "button";
  made.addEventListener("click", action);
  return made;
}

// Draws a table's body only when its data changed: a selection or focus in it then stays.
function draw(id, data, columns, row, nothing) {
  const text = JSON.stringify(data);
  if (drawn.get(id) === text) return;
  drawn.set(id, text);
  const rows = data.map((item) => {
    const made = element("tr");
    made.append(...row(item));
    return made;
  });
  if (rows.length === 0) {
    const made = element("tr");
    const only = cell(nothing, "none");
    only.colSpan = columns;
    made.append(only);
    rows.push(made);
  }
  byId(id).replaceChildren(...rows);
}

async function ask(path) {
  const answer = await fetch(path, { headers: { Accept: "application/json" } });
  if (!answer.ok) throw new Error(path + " answers " + answer.status);
  return answer.json();
}

async function remove(path, question) {
  if (!window.confirm(question)) return;
  const answer = await fetch(path, { method: "DELETE" });
  if (!answer.ok) window.alert(await answer.text());
  await look();
}

function failover(last) {
  if (!last) return null;
  return last.kind + " in " + Number(last.seconds).toFixed(2) + " s, " + last.at.slice(0, 19).replace("T", " ");
}

const standbys = (list) => list.map((each) => each.server + " (" + each.mode + ")").join(", ");

function serverRow(server, leader) {
  return [
    cell(server.id === leader ? server.id + " (leader)" : server.id),
    cell(pill(server.state)),
    cell(link(server.url, server.url)),
    cell(server.warm_drivers),
    cell(server.hot_standbys),
  ];
}

function contextRow(context) {
  const path = "contexts/" + encodeURIComponent(context.name);
  return [
    cell(link(context.name, path)),
    cell(pill(context.state)),
    cell(context.owner),
    cell(context.epoch),
    cell(standbys(context.standbys)),
    cell(failover(context.last_failover)),
    cell(button("stop", () => remove(path, "Stop context " + context.name + " and its jobs?"))),
  ];
}

function jobRow(job) {
  const path = "jobs/" + encodeURIComponent(job.jobId);
  const ended = ["FINISHED", "ERROR", "KILLED"].includes(job.status);
  return [
    cell(link(job.jobId, path), "id"),
    cell(job.classPath),
    cell(job.context),
    cell(pill(job.status)),
    cell(job.startTime.slice(0, 19).replace("T", " ")),
    cell(job.duration),
    ended ? cell("") : cell(button("kill", () => remove(path, "Kill job " + job.jobId + "?"))),
  ];
}

function drawFilters() {
  byId("filters").replaceChildren(
    ...FILTERS.map((name) => {
      const made = button(name, () => {
        filter = name;
        drawFilters();
        look();
      });
      made.setAttribute("role", "tab");
      made.setAttribute("aria-selected", String(name === filter));
      return made;
    }),
  );
}

async function look() {
  clearTimeout(timer);
  try {
    const status = filter === "all" ? "" : "&status=" + filter;
    const [cluster, jobs, binaries] = await Promise.all([ask("cluster"), ask("jobs?limit=25" + status), ask("binaries")]);
    draw("servers", cluster.servers.map((each) => [each, cluster.leader]), 5, (pair) => serverRow(...pair), "none");
    draw("contexts", cluster.contexts, 7, contextRow, "No context runs.");
    draw("jobs", jobs, 7, jobRow, "No such job.");
    const uploads = Object.entries(binaries).map(([name, each]) => [name, each["binary-type"], each["upload-time"]]);
    draw("binaries", uploads, 3, (row) => row.map((value) => cell(value)), "Nothing was uploaded.");
    byId("state").textContent = cluster.servers.length + " servers, " + cluster.contexts.length + " contexts";
    byId("state").className = "";
  } catch (error) {
    byId("state").textContent = "no answer: " + error.message;
    byId("state").className = "lost";
  }
  if (!document.hidden) timer = setTimeout(look, EVERY);
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});
drawFilters();
look();
