// Search of a site that is read from the disk. Browsers start no worker there, so one is made of a hidden frame, which
// is given the worker's script and the two functions that it calls. Where the site is served, nothing is changed.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      this.room = frame.contentWindow;
      this.room.postMessage = (data) => this.tell(data);
      // A script that is fetched cannot be run before the frame goes on, so a list of scripts is run one by one.
      this.room.importScripts = (...urls) =>
        urls.reduce((before, next) => before.then(() => this.load(next)), Promise.resolve());
      this.ready = this.load(url);
    }
    load(url) {
      return new Promise((done, failed) => {
        const script = this.room.document.createElement("script");
        script.src = new URL(url, location.href);
        script.onload = done;
        script.onerror = failed;
        this.room.document.body.appendChild(script);
      });
    }
    tell(data) {
      const event = new MessageEvent("message", { data });
      this.dispatchEvent(event);
      if (this.onmessage) this.onmessage(event);
    }
    postMessage(data) {
      this.ready.then(() => this.room.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {}
  };
}
