// One chain of what was done: strokes, frames, results, and going on with one of them.

const MOST = 256 * 2 ** 20; // bytes that are remembered

export class History {
  constructor() {
    this.changed = () => {};
    this.forget();
  }

  forget() {
    this.done = [];
    this.undone = [];
    this.moving = false;
    this.changed();
  }

  /** Remembers something that has been done: {kind, bytes, back(), forth()}. */
  push(entry) {
    this.done.push(entry);
    this.undone = [];
    let bytes = 0;
    for (let k = this.done.length - 1; k >= 0; k--) {
      bytes += this.done[k].bytes;
      if (bytes > MOST && k < this.done.length - 1) {
        this.done.splice(0, k + 1);
        break;
      }
    }
    this.changed();
  }

  back() { return this.move("done", "undone", "back"); }
  forth() { return this.move("undone", "done", "forth"); }

  async move(from, to, way) {
    const entry = this[from].at(-1);
    if (!entry || this.moving) return;
    this.moving = true;
    try {
      await entry[way]();
      this[from].pop();
      this[to].push(entry);
    } finally {
      this.moving = false;
      this.changed();
    }
  }
}
