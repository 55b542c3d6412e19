"""A client of `paintback serve` for an editor: the picture and the selection in, a layer with the painted part out.

python examples/editor_client.py photo.png selection.png layer.png [http://127.0.0.1:8040 [TOKEN]]
"""

import io
import json
import sys
import urllib.request

from PIL import Image


def ask(at: str, path: str, body: bytes | None = None, kind: str = "application/json", token: str = "") -> bytes:
    heads = {"Content-Type": kind} | ({"Authorization": f"Bearer {token}"} if token else {})
    with urllib.request.urlopen(urllib.request.Request(f"{at}/api{path}", body, heads)) as answer:
        return answer.read()


def paint(photo: Image.Image, selection: Image.Image, at: str, token: str = "", **wishes: object) -> Image.Image:
    """The new layer: what was painted where the selection is white, and transparent elsewhere."""

    def upload(picture: Image.Image) -> str:
        file = io.BytesIO()
        picture.save(file, "PNG")
        return json.loads(ask(at, "/pictures?name=layer.png", file.getvalue(), "image/png", token))["id"]

    job = {"photo": upload(photo), "mask": upload(selection), **wishes}
    number = json.loads(ask(at, "/jobs", json.dumps(job).encode(), token=token))["id"]
    ask(at, f"/jobs/{number}/events", token=token)  # server-sent events, which end when the job does
    done = json.loads(ask(at, f"/jobs/{number}", token=token))
    if done["state"] != "done":
        raise RuntimeError(done["error"] or done["state"])
    layer = Image.open(io.BytesIO(ask(at, f"/pictures/{done['outputs'][0]['picture']}", token=token))).convert("RGBA")
    layer.putalpha(selection.convert("L").point(lambda value: 255 * (value > 127)))
    return layer


if __name__ == "__main__":
    photo, selection, out, at, *token = [*sys.argv[1:], "http://127.0.0.1:8040"][:4] + sys.argv[5:]
    paint(Image.open(photo), Image.open(selection), at, *token).save(out)
