// What the page knows of itself after a reload: the picture, the mask, the settings and the jobs, all kept by the server.

const KEY = "paintback";
const JOBS = 30; // of the strip
const state = { picture: null, mask: null, frame: null, form: null, previous: null, tab: "paint", jobs: [], batch: null };

export function keep(changes) {
  Object.assign(state, changes);
  state.jobs = state.jobs.slice(-JOBS);
  try {
    for (const storage of [sessionStorage, localStorage]) storage.setItem(KEY, JSON.stringify(state));
  } catch { /* a browser that stores nothing forgets */ }
}

export const recalled = () => state;
export const keepJob = (job) => keep({ jobs: [...state.jobs.filter(({ id }) => id !== job.id), job] });
export const forgetJob = (gone) => keep({ jobs: state.jobs.filter(({ id }) => id !== gone) });

/** This tab's own, or what the last one left. */
export function recall() {
  try {
    return Object.assign(state, JSON.parse(sessionStorage.getItem(KEY) ?? localStorage.getItem(KEY)));
  } catch {
    return null;
  }
}
