"""The same student behind LitServe, whose workers import this module: ``... _litserve ARTIFACT PORT WORKERS``."""

import os
import sys
from pathlib import Path

import litserve


class Api(litserve.LitAPI):
    def setup(self, device):
        from components.student.runtime import Student

        self.student = Student.load(Path(os.environ["BENCH_ARTIFACT"]))

    def decode_request(self, request):
        return request

    def predict(self, columns):
        return self.student.predict_decoded([columns])[0]

    def encode_response(self, output):
        return {"label": output.label, "confidence": output.confidence}


if __name__ == "__main__":
    artifact, port, workers = sys.argv[1:]
    os.environ["BENCH_ARTIFACT"] = artifact
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=int(workers))
    server.run(port=int(port), host="127.0.0.1", generate_client_file=False, log_level="error", num_api_servers=1)
