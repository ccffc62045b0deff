"""A judge for the scorer `http`: python docs/examples/score_server.py [--port 8123]. Standard library only.

Its score is the plainness of the picture, minus the kilobytes of its PNG. Put your own into `score`.
"""

import argparse
import base64
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def score(png: bytes, prompt: str) -> float:
    """Score one image; higher is better. Raise ValueError(reason) where there is no score."""
    if not png.startswith(b"\x89PNG"):
        raise ValueError("not a PNG")
    return -len(png) / 1000


class Judge(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        try:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            pairs = list(zip(body["images"], body["prompts"], strict=True))
        except (TypeError, ValueError, KeyError) as error:
            return self.answer(400, {"error": f"expected images and prompts: {error}"})
        scores: list[float | None] = []
        reasons: list[str | None] = []
        for image, prompt in pairs:
            try:
                scores.append(score(base64.b64decode(image), prompt))
                reasons.append(None)
            except ValueError as error:
                scores.append(None)
                reasons.append(str(error))
        self.answer(200, {"scores": scores, "reasons": reasons})

    def answer(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        """Not a line per request."""


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=8123)
    server = ThreadingHTTPServer(("127.0.0.1", parser.parse_args().port), Judge)
    print(f"http://127.0.0.1:{server.server_port}/", flush=True)
    server.serve_forever()
