// The API's own description, with a form to try each request. Text only ever goes in
// as text: nothing that an answer holds becomes markup.
"use strict";

const byId = (id) => document.getElementById(id);

function element(name, text = "", className = "") {
  const made = document.createElement(name);
  made.textContent = text;
  if (className) made.className = className;
  return made;
}

async function show() {
  const api = await (await fetch("openapi.json")).json();
  byId("title").textContent = api.info.title;
  for (const part of api.info.description.trim().split(/\n\n+/)) {
    byId("description").append(element("p", part.replace(/\s+/g, " ").replaceAll("`", "")));
  }
  byId("protocol").textContent = api["x-live-protocol"] ?? "";
  const groups = new Map();
  for (const [path, methods] of Object.entries(api.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] ?? "other";
      if (!groups.has(tag)) groups.set(tag, []);
      groups.get(tag).push(form(api, method, path, operation));
    }
  }
  byId("operations").replaceChildren();
  for (const [tag, forms] of groups) byId("operations").append(element("h2", tag), ...forms);
}

function form(api, method, path, operation) {
  const box = element("details");
  const head = element("summary");
  head.append(element("span", method.toUpperCase(), "method"), element("code", path), " ",
    element("span", operation.description ?? "", "what"));
  const body = element("div");
  const fields = (operation.parameters ?? []).filter((each) => each.in !== "header");
  const wanted = schemaOf(api, operation) ? fields.filter((each) => each.in === "path") : fields;
  const values = wanted.map((parameter) => parameterField(body, parameter));
  const schema = schemaOf(api, operation);
  let input = null;
  if (schema) {
    body.append(fieldTable(api, schema));
    const label = element("label", "Request body");
    input = element("textarea");
    input.spellcheck = false;
    input.value = JSON.stringify(schema.examples?.[0] ?? {}, null, 2);
    label.append(input);
    body.append(label);
    if (schema.properties?.audio_base64) body.append(filePicker(input));
  }
  const send = element("button", "Send");
  const answer = element("div", "", "answer");
  answer.setAttribute("role", "status");
  send.addEventListener("click", () => request(method, filled(path, values), input, send, answer));
  body.append(send, answer, responses(operation));
  box.append(head, body);
  return box;
}

// Of a path or a query; a body's own query fields are those of its table.
function parameterField(body, parameter) {
  const label = element("label", `${parameter.name}${parameter.required ? ", required" : ""}`);
  const input = element("input");
  input.type = "text";
  input.autocomplete = "off";
  input.placeholder = parameter.description ?? String(parameter.schema?.default ?? "");
  label.append(input);
  body.append(label);
  return { name: parameter.name, in: parameter.in, input };
}

function filled(path, values) {
  const query = new URLSearchParams();
  let address = path;
  for (const { name, in: place, input } of values) {
    if (place === "path") address = address.replace(`{${name}}`, encodeURIComponent(input.value));
    else if (input.value) query.set(name, input.value);
  }
  return query.size ? `${address}?${query}` : address;
}

function responses(operation) {
  const box = element("details");
  box.append(element("summary", "Answers by status"));
  const list = element("dl");
  for (const [status, meaning] of Object.entries(operation.responses ?? {})) {
    list.append(element("dt", status), element("dd", meaning.description ?? ""));
  }
  box.append(list);
  return box;
}

function schemaOf(api, operation) {
  const content = operation.requestBody?.content?.["application/json"];
  return content ? resolve(api, content.schema) : null;
}

function resolve(api, schema) {
  const name = schema.$ref?.split("/").pop();
  return name ? api.components.schemas[name] : schema;
}

function fieldTable(api, schema) {
  const table = element("table");
  const head = element("tr");
  for (const title of ["field", "type", "default", "meaning"]) {
    const cell = element("th", title);
    cell.scope = "col";
    head.append(cell);
  }
  table.append(head);
  for (const [name, field] of Object.entries(schema.properties ?? {})) {
    const row = element("tr");
    const needed = schema.required?.includes(name);
    const standard = field.default === undefined ? (needed ? "required" : "") : JSON.stringify(field.default);
    row.append(element("td", name), element("td", typeOf(api, field)), element("td", standard),
      element("td", field.description ?? ""));
    table.append(row);
  }
  return table;
}

function typeOf(api, field) {
  const options = (field.anyOf ?? [field]).filter((option) => option.type !== "null");
  return options.map((option) => {
    if (option.type !== "array") return option.type ?? "object";
    const item = resolve(api, option.items);
    return `list of {${Object.keys(item.properties ?? {}).join(", ")}}`;
  }).join(" or ");
}

function filePicker(input) {
  const label = element("label", "Audio file (fills audio_base64)");
  const picker = element("input");
  picker.type = "file";
  picker.accept = "audio/*";
  picker.addEventListener("change", async () => {
    picker.setCustomValidity("");
    if (!picker.files.length) return;
    const bytes = new Uint8Array(await picker.files[0].arrayBuffer());
    let binary = "";
    for (const byte of bytes) binary += String.fromCharCode(byte);
    try {
      const body = JSON.parse(input.value);
      body.audio_base64 = btoa(binary);
      input.value = JSON.stringify(body, null, 2);
    } catch {
      picker.setCustomValidity("The request body above is not JSON");
      picker.reportValidity();
    }
  });
  label.append(picker);
  return label;
}

async function request(method, path, input, send, answer) {
  const headers = {};
  if (byId("key").value) headers["X-API-Key"] = byId("key").value;
  if (input) headers["Content-Type"] = "application/json";
  send.disabled = true;
  answer.replaceChildren(element("p", "Waiting…"));
  const began = performance.now();
  try {
    const response = await fetch(path.slice(1), { method: method.toUpperCase(), headers, body: input?.value });
    const text = await response.text();
    const took = Math.round(performance.now() - began);
    answer.replaceChildren(
      element("p", `${response.status} ${response.statusText}, ${took} ms`, response.ok ? "good" : "bad"),
      element("pre", pretty(text)));
  } catch (problem) {
    answer.replaceChildren(element("p", String(problem), "bad"));
  } finally {
    send.disabled = false;
  }
}

function pretty(text) {
  try {
    return JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    return text;
  }
}

show().catch((problem) => {
  byId("operations").replaceChildren(element("p", `The description cannot be loaded: ${problem}`, "bad"));
});
