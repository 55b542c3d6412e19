// The page is painted first, then the rest is loaded.

requestAnimationFrame(() => setTimeout(() => import("./app.js")));
