// Browsers start no worker from a page on a disk. There, the search runs in a hidden frame instead.
if (location.protocol === "file:") {
  window.Worker = class {
    constructor(url) {
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      document.body.append(this.frame);
      const inside = this.frame.contentWindow;
      inside.postMessage = (data) => {
        const copy = structuredClone(data);
        setTimeout(() => this.onmessage?.({ data: copy }));
      };
      const script = inside.document.createElement("script");
      script.src = new URL(url, location.href).href;
      this.loaded = new Promise((done) => { script.onload = done; });
      inside.document.head.append(script);
    }

    async postMessage(data) {
      const copy = structuredClone(data);
      await this.loaded;
      this.frame.contentWindow?.onmessage?.({ data: copy });
    }

    terminate() {
      this.frame.remove();
    }
  };
}
