// Requests to the service, with the key of this tab where one is needed.

const STORE = "ultravox-api-key";
let asking = null;

export class ApiError extends Error {}

export async function request(path, query = {}) {
  const wanted = Object.entries(query).filter(([, value]) => value !== "" && value !== null && value !== undefined);
  const search = new URLSearchParams(wanted).toString();
  for (;;) {
    const key = sessionStorage.getItem(STORE);
    let answer;
    try {
      answer = await fetch(search ? `${path}?${search}` : path, { headers: key ? { "X-API-Key": key } : {}, cache: "no-store", credentials: "omit" });
    } catch {
      throw new ApiError("The service does not answer.");
    }
    if (answer.status !== 401) return answer;
    await askForKey(key ? "This key was not accepted." : "");
  }
}

export async function data(path, query) {
  const answer = await request(path, query);
  let body;
  try {
    body = await answer.json();
  } catch {
    throw new ApiError(`The service answered ${answer.status} and no JSON.`);
  }
  if (body.success === false) throw new ApiError(body.error?.message ?? `HTTP ${answer.status}`);
  return body.data ?? body;
}

function askForKey(why) {
  asking ??= new Promise((resolve) => {
    const dialog = document.getElementById("key-dialog");
    document.getElementById("key-problem").textContent = why;
    const input = document.getElementById("key");
    input.value = "";
    dialog.addEventListener("close", () => {
      if (input.value) sessionStorage.setItem(STORE, input.value.trim());
      input.value = "";
      asking = null;
      resolve();
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}
