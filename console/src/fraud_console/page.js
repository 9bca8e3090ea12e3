// Shows alerts and one transaction. All foreign text enters the page as text nodes, never as markup.
"use strict";

const at = (id) => document.getElementById(id);
const say = (text) => { at("status").textContent = text; };
let last = null;

function element(name, text, parent) {
  const made = document.createElement(name);
  if (text !== undefined && text !== null) made.textContent = String(text);
  if (parent) parent.append(made);
  return made;
}

const moment = (ms) => new Date(ms).toISOString().replace("T", " ").replace("Z", "");
const verdict = (fraud) => (fraud === null || fraud === undefined ? "none yet" : fraud ? "fraud" : "legitimate");
const reason = (one) => `${one.text} (${one.code})`;

async function ask(path) {
  const answer = await fetch(path, { headers: { "X-API-Key": sessionStorage.getItem("key") || "" } });
  const body = await answer.json();
  if (!answer.ok) throw new Error(body.error.message);
  return body;
}

async function guarded(work) {
  try {
    await work();
  } catch (error) {
    say(`Not shown: ${error.message}`);
  }
}

async function showAlerts(older) {
  say("Loading alerts…");
  const before = older && last ? `&before=${last.decided},${encodeURIComponent(last.id)}` : "";
  const { alerts } = await ask(`api/alerts?limit=50${before}`);
  const body = at("alerts");
  if (!older) body.replaceChildren();
  for (const alert of alerts) {
    const row = element("tr", null, body);
    const id = element("th", null, row);
    id.scope = "row";
    const button = element("button", alert.id, id);
    button.type = "button";
    button.addEventListener("click", () => guarded(() => showTransaction(alert.id)));
    element("td", moment(alert.decided), row);
    element("td", alert.action, row);
    element("td", alert.score ?? "–", row).className = "number";
    element("td", `${alert.amount} ${alert.currency ?? ""}`, row).className = "number";
    element("td", alert.reasons && alert.reasons.length ? reason(alert.reasons[0]) : "–", row);
    element("td", verdict(alert.fraud), row);
    last = alert;
  }
  at("more").hidden = alerts.length < 50;
  say(alerts.length ? `${body.rows.length} alerts shown.` : "No more alerts.");
}

async function showTransaction(id) {
  say("Loading the transaction…");
  const found = await ask(`api/transactions/${encodeURIComponent(id)}`);
  const decision = found.decision;
  at("detail-heading").textContent = `Transaction ${id}`;
  const facts = at("facts");
  facts.replaceChildren();
  const fact = (name, value) => {
    element("dt", name, facts);
    element("dd", value ?? "–", facts);
  };
  if (decision) {
    fact("Action", decision.action);
    fact("Score", decision.score);
    fact("Probability", decision.probability);
    fact("Decided", moment(decision.decided));
    fact("Time of the transaction", moment(decision.event.time));
    fact("Amount (minor units)", `${decision.event.amount} ${decision.event.currency ?? ""}`);
    for (const [name, token] of Object.entries(decision.event.entities)) fact(name, token);
    fact("Door", decision.door);
    fact("Release", decision.release);
    fact("Model version", decision.model_version);
    fact("Arm", decision.arm);
    fact("Degraded", (decision.degraded || []).join(", ") || "no");
  } else {
    fact("Decision", "none in the ledger yet");
  }
  fact("Label", found.label ? `${verdict(found.label.fraud)} (${found.label.source})` : "none yet");
  if (found.conflicts.length) fact("Conflicting decisions", found.conflicts.length);
  const fill = (list, texts, none) => {
    list.replaceChildren();
    for (const text of texts.length ? texts : [none]) element("li", text, list);
  };
  fill(at("reasons"), ((decision && decision.reasons) || []).map(reason), "None were recorded.");
  fill(at("reports"), found.reports.map((one) => `${moment(one.known)}: ${verdict(one.fraud)}, ${one.source}`), "None.");
  at("record").textContent = JSON.stringify(found, null, 2);
  at("detail").hidden = false;
  at("detail-heading").focus();
  say("Transaction shown.");
}

at("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("key", at("key").value);
  at("key").value = "";
  guarded(() => showAlerts(false));
});
at("find-form").addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(() => showTransaction(at("find").value));
});
at("refresh").addEventListener("click", () => guarded(() => showAlerts(false)));
at("more").addEventListener("click", () => guarded(() => showAlerts(true)));
if (sessionStorage.getItem("key")) guarded(() => showAlerts(false));
