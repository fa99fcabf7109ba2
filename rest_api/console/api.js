// Requests to the service. Where a key is needed it is asked for once and becomes a
// cookie that no script can read; the session's token goes with whatever changes something.

let session = { name: "", token: "", may_see: true, may_act: false };
let asking = null;
const watchers = new Set();

export class ApiError extends Error {}

export function whoAmI() {
  return session;
}

// Calls back now and whenever somebody logs in or out.
export function onSession(callback, signal) {
  watchers.add(callback);
  signal?.addEventListener("abort", () => watchers.delete(callback));
  callback(session);
}

export async function refreshSession() {
  became(await answerOf(await send("GET", "console/session")));
}

export async function logOut() {
  became({ name: "", token: "", may_see: false, may_act: false });
  await send("DELETE", "console/session");
  await refreshSession();
}

export async function data(path, query = {}) {
  const wanted = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const search = new URLSearchParams(wanted).toString();
  for (;;) {
    const answer = await send("GET", search ? `${path}?${search}` : path);
    if (answer.status !== 401) return answerOf(answer);
    await logIn();
  }
}

export async function act(path, body = {}) {
  for (;;) {
    const answer = await send("POST", path, body);
    if (answer.status !== 401) return answerOf(answer);
    await logIn();
  }
}

async function send(method, path, body, headers = {}) {
  if (session.token && method !== "GET") headers = { "X-CSRF-Token": session.token, ...headers };
  if (body !== undefined) headers = { "Content-Type": "application/json", ...headers };
  try {
    return await fetch(path, { method, headers, body: body === undefined ? undefined : JSON.stringify(body), cache: "no-store", credentials: "same-origin" });
  } catch {
    throw new ApiError("The service does not answer.");
  }
}

async function answerOf(answer) {
  let body;
  try {
    body = await answer.json();
  } catch {
    throw new ApiError(`The service answered ${answer.status} and no JSON.`);
  }
  if (body.success === false) throw new ApiError(body.error?.message ?? `HTTP ${answer.status}`);
  return body.data ?? body;
}

function became(found) {
  session = found;
  for (const watcher of watchers) watcher(session);
}

// Resolves once somebody is logged in; rejects when the dialog is dismissed.
export function logIn() {
  asking ??= new Promise((resolve, reject) => {
    const dialog = document.getElementById("key-dialog");
    const form = document.getElementById("key-form");
    const input = document.getElementById("key");
    const why = document.getElementById("key-problem");
    const done = new AbortController();
    why.textContent = input.value = "";
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const key = input.value.trim();
      input.value = "";
      try {
        const answer = await send("POST", "console/session", undefined, { "X-API-Key": key });
        if (answer.status === 401) throw new ApiError("This key was not accepted.");
        became(await answerOf(answer));
        dialog.close("in");
      } catch (error) {
        why.textContent = error.message;
        input.focus();
      }
    }, { signal: done.signal });
    document.getElementById("key-cancel").addEventListener("click", () => dialog.close(), { signal: done.signal });
    dialog.addEventListener("close", () => {
      done.abort();
      asking = null;
      if (dialog.returnValue === "in") resolve();
      else reject(new ApiError("Not logged in."));
    }, { once: true });
    dialog.returnValue = "";
    dialog.showModal();
  });
  return asking;
}
