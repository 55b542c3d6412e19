// What would hold the page up: growing a mask, and making a PNG of it.

const TASKS = {
  /** What lies within so many pixels of the mask: every run of a row is drawn wider in the rows around it. */
  grow({ plane, width, height, pixels }) {
    const out = plane.slice();
    const half = (down) => Math.floor(Math.sqrt((pixels + 0.5) ** 2 - down * down));
    for (let y = 0; y < height; y++) {
      const row = plane.subarray(y * width, (y + 1) * width);
      for (let start = row.indexOf(1); start >= 0;) {
        let end = row.indexOf(0, start);
        if (end < 0) end = width;
        for (let down = -pixels; down <= pixels; down++) {
          if (y + down < 0 || y + down >= height) continue;
          const at = (y + down) * width;
          out.fill(1, at + Math.max(0, start - half(down)), at + Math.min(width, end + half(down)));
        }
        start = end < width ? row.indexOf(1, end) : -1;
      }
    }
    return out;
  },

  /** A PNG, white where the mask is. */
  png({ plane, width, height }) {
    const canvas = new OffscreenCanvas(width, height), context = canvas.getContext("2d", { alpha: false });
    const image = new ImageData(width, height), pixels = new Uint32Array(image.data.buffer);
    for (let k = 0; k < plane.length; k++) pixels[k] = plane[k] ? 0xffffffff : 0xff000000;
    context.putImageData(image, 0, 0);
    return canvas.convertToBlob({ type: "image/png" });
  },
};

addEventListener("message", async ({ data: { id, task, ...values } }) => {
  try {
    postMessage({ id, result: await TASKS[task](values) });
  } catch (error) {
    postMessage({ id, error: error.message });
  }
});
