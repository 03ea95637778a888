"""The supervisor's own metrics for Prometheus: what it runs, and how often it had to start it."""

import http.server
import os
import threading
import time


def _lines(name, kind, help_text, samples):
    yield f"# HELP {name} {help_text}"
    yield f"# TYPE {name} {kind}"
    for labels, value in samples:
        inside = ",".join(f'{key}="{text}"' for key, text in labels.items())
        yield f"{name}{{{inside}}} {value}" if inside else f"{name} {value}"


class Metrics:
    """Serves /metrics on a free port of this machine, from a thread of its own.

    `children` is a function that returns the children; only plain attributes of them are read.
    """

    def __init__(self, children):
        self._children = children
        self._started = time.time()
        metrics = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                text = metrics.text().encode()
                self.send_response(200 if self.path == "/metrics" else 404)
                self.send_header("Content-Type", "text/plain; version=0.0.4")
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_):
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self):
        self._server.shutdown()
        self._server.server_close()

    def text(self):
        children = self._children()
        of_each = [({"child": child.name}, child) for child in children]
        lines = [
            *_lines("troupe_build_info", "gauge", "Constant 1; the labels say what runs.",
                    [({"program": "deploy/up"}, 1)]),
            *_lines("process_start_time_seconds", "gauge",
                    "Start of the process, seconds since the Unix epoch.",
                    [({}, f"{self._started:.3f}")]),
            *_lines("process_cpu_seconds_total", "counter",
                    "CPU time of the process, user and system.", [({}, sum(os.times()[:2]))]),
            *_lines("troupe_supervisor_child_running", "gauge", "1 while the process runs.",
                    [(labels, int(child.running)) for labels, child in of_each]),
            *_lines("troupe_supervisor_child_restarts_total", "counter",
                    "Times that the process was started again because it ended.",
                    [(labels, child.restarts) for labels, child in of_each])]
        return "\n".join(lines) + "\n"
