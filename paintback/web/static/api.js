// The HTTP API, as documented in /api/openapi.json.

async function call(path, options = {}) {
  let response;
  try {
    response = await fetch(path, options);
  } catch {
    throw new Error("The server does not answer; is paintback serve still running?");
  }
  if (!response.ok) {
    const problem = await response.json().catch(() => ({}));
    throw Object.assign(new Error(problem.detail || `The server said ${response.status}.`), { status: response.status });
  }
  return response;
}

const json = async (path, options) => (await call(path, options)).json();

export const options = () => json("/api/options");
export const about = (id) => json(`/api/pictures/${id}/about`);
export const pictureUrl = (id) => `/api/pictures/${id}`;

export function upload(blob, name) {
  const type = blob.type.startsWith("image/") ? blob.type : "image/png";
  return json(`/api/pictures?name=${encodeURIComponent(name)}`, { method: "POST", body: blob, headers: { "content-type": type } });
}

export const addJob = (job) => json("/api/jobs", posted(job));

const posted = (body) => ({ method: "POST", body: JSON.stringify(body), headers: { "content-type": "application/json" } });

export const jobs = (before = null, most = 50) => json(`/api/jobs?most=${most}${before ? `&before=${before}` : ""}`);
export const removeJob = (id) => call(`/api/jobs/${id}`, { method: "DELETE" });
export const load = (model) => call(`/api/models/${encodeURIComponent(model)}/load`, { method: "POST" });
export const smallUrl = (id) => `/api/pictures/${id}/small`;
export const archiveUrl = (ids) => `/api/archive?jobs=${ids.join(",")}`;

/** What a job would take: {seconds, evaluations, ahead}. */
export const plan = (job) => json("/api/plans", posted(job));

/** What is found in a picture, as a PNG: white on black. */
export const find = async (id, asked) => (await call(`/api/pictures/${id}/find`, posted(asked))).blob();

export const job = (id) => json(`/api/jobs/${id}`);
export const stop = (id) => json(`/api/jobs/${id}/stop`, { method: "POST" });

/** A picture as a bitmap; `view` is the server's rendition, for files that a browser cannot show. */
export async function bitmap(id, view = false) {
  const blob = await (await call(`/api/pictures/${id}${view ? "/view" : ""}`)).blob();
  return createImageBitmap(blob);
}

/** A mask as white on black, read by the rule of the command line, and what is to be said of how it was read. */
export async function mask(id, kind) {
  const response = await call(`/api/pictures/${id}/mask${kind ? `?mask_is=${encodeURIComponent(kind)}` : ""}`);
  const remark = decodeURIComponent(response.headers.get("x-remark") ?? "");
  return { bitmap: await createImageBitmap(await response.blob()), remark };
}

/** Follows a job until it has ended; a server that comes back is found again by the browser itself. */
export function follow(id, { job, progress, preview }) {
  return new Promise((resolve, reject) => {
    const source = new EventSource(`/api/jobs/${id}/events`);
    const on = (name, run) => source.addEventListener(name, (event) => run(JSON.parse(event.data)));
    on("progress", progress);
    on("preview", preview);
    on("job", (view) => {
      job(view);
      if (["done", "failed", "stopped"].includes(view.state)) {
        source.close();
        resolve(view);
      }
    });
    source.onerror = () => {
      if (source.readyState === EventSource.CLOSED) reject(new Error("The job cannot be followed any more."));
    };
  });
}
